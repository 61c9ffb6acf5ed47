//! The algorithms of convolutions keep the bounds they state.

use paisley::base::Random;
use paisley::compiler::{self, Timings};
use paisley::graph::Graph;
use paisley::ops::{Conv, ConvAlgorithm, Fact};
use paisley::runtime::cpu::CpuExecutor;
use paisley::target::{CpuIsa, CpuTarget};
use paisley::tensor::{DType, Tensor};

use super::support::processor;

const CHANNELS: usize = 64;
const FILTERS: usize = 32;
const IMAGE: [usize; 2] = [13, 18];

fn random(rng: &mut Random, shape: &[usize], low: f64) -> Tensor {
    Tensor::from_fn(DType::F32, shape, |_| low + (1.0 - low) * rng.unit())
}

/// The exact result at a place, and the sum of the magnitudes of its terms.
fn exact(x: &Tensor, w: &Tensor, filter: usize, row: usize, column: usize) -> (f64, f64) {
    let [height, width] = IMAGE;
    let &[.., rows, columns] = w.shape() else { panic!("weights of images") };
    let (mut sum, mut magnitudes) = (0.0, 0.0);
    for channel in 0..CHANNELS {
        for (r, s) in (0..rows).flat_map(|r| (0..columns).map(move |s| (r, s))) {
            // As many rows and columns of zeros around as keep the size.
            let (row, column) = ((row + r).wrapping_sub(rows / 2), (column + s).wrapping_sub(columns / 2));
            if row < height && column < width {
                let at = (channel * height + row) * width + column;
                let term =
                    x.get_f64(at) * w.get_f64(((filter * CHANNELS + channel) * rows + r) * columns + s);
                sum += term;
                magnitudes += f64::abs(term);
            }
        }
    }
    (sum, magnitudes)
}

/// A convolution of images that keeps their size, by an algorithm.
fn convolution(x: Fact, w: Tensor, algorithm: ConvAlgorithm) -> Graph {
    let pads = w.shape()[2..].iter().map(|taps| (taps / 2, taps / 2)).collect();
    let mut graph = Graph::new("convolution");
    let input = graph.add_input("x", x);
    let weights = graph.add_constant("w", w);
    let (strides, dilations) = (vec![1; 2], vec![1; 2]);
    let conv = Conv { strides, dilations, pads, groups: 1, edge: 0, algorithm: Some(algorithm) };
    let y = graph.add_node("conv", conv, &[input, weights], &["y"]).unwrap()[0];
    graph.add_output("y", y);
    graph
}

#[test]
fn convolutions_are_as_exact_as_they_say() {
    let mut rng = Random::new(3);
    // Values of one sign and of both.
    for (low, kernel) in
        [[3, 3], [1, 3], [3, 1]].into_iter().flat_map(|kernel| [(0.0, kernel), (-1.0, kernel)])
    {
        let x = random(&mut rng, &[1, CHANNELS, IMAGE[0], IMAGE[1]], low);
        let w = random(&mut rng, &[FILTERS, CHANNELS, kernel[0], kernel[1]], -1.0);
        for algorithm in ConvAlgorithm::ALL {
            let graph = convolution(Fact::of(&x), w.clone(), algorithm);
            for isa in CpuIsa::ALL.into_iter().filter(|&isa| isa <= processor().isa) {
                let target = CpuTarget::preset(isa, 2);
                let device = compiler::Device::Cpu(target.clone());
                let mut plan = compiler::compile(&graph, &device, &mut Timings::default()).unwrap();
                let by_tiles =
                    plan.kernels.iter().any(|kernel| kernel.trace.to_string().contains(" by fma_"));
                assert!(by_tiles, "{algorithm} of {kernel:?} on {isa:?} has its schedule");
                let mut executor = CpuExecutor::new(&mut plan, &target).unwrap();
                let run = executor.run(&plan, std::slice::from_ref(&x), false).unwrap();
                for place in 0..run.outputs[0].len() {
                    let (filter, pixel) = (place / (IMAGE[0] * IMAGE[1]), place % (IMAGE[0] * IMAGE[1]));
                    let (sum, magnitudes) = exact(&x, &w, filter, pixel / IMAGE[1], pixel % IMAGE[1]);
                    let error = (run.outputs[0].get_f64(place) - sum).abs();
                    assert!(
                        error <= algorithm.error_bound() * magnitudes,
                        "{algorithm} of {kernel:?} on {isa:?} at {place}: {error:e} of {magnitudes}"
                    );
                }
            }
        }
    }
}
