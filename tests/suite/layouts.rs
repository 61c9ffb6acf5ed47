//! Values in blocks of channels: convolutional networks on every instruction set against the reference, which works on rows.

use super::support::{compare_with_reference, note};
use paisley::base::Random;
use paisley::compiler::{Device, Timings, compile};
use paisley::expr::UnaryOp;
use paisley::graph::{Graph, Op, ValueId};
use paisley::ops::{
    Concat, Conv, ConvAlgorithm, Fact, Map, MatMul, Normalize, Pool, PoolKind, Reduce, ReduceKind, Scalar,
    Transpose, View,
};
use paisley::target::{CpuIsa, CpuTarget};
use paisley::tensor::{DType, MemoryLayout, Tensor};

/// Networks on each instruction set.
const CASES: u64 = 24;

/// A random network over images.
struct Network {
    graph: Graph,
    rng: Random,
}

impl Network {
    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Option<ValueId> {
        let name = format!("v{}", self.graph.values().len());
        self.graph.add_node(&name, op, inputs, &[&name]).ok().map(|outputs| outputs[0])
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let name = format!("v{}", self.graph.values().len());
        let rng = &mut self.rng;
        // Sums of so many terms neither grow nor vanish from layer to layer.
        let terms: usize = shape[1..].iter().product();
        let scale = 2.0 / (terms as f64).sqrt();
        // Values of a narrower type are stored in that.
        let dtype = [DType::F32, DType::F16, DType::BF16][self.graph.values().len() % 3];
        let tensor = Tensor::from_fn(dtype, shape, |_| scale * (rng.unit() - 0.5));
        self.graph.add_constant(&name, tensor.cast(DType::F32))
    }

    fn shape(&self, value: ValueId) -> Vec<usize> {
        self.graph.fact(value).shape.clone()
    }

    fn activation(&mut self, x: ValueId) -> Option<ValueId> {
        let scalar = match self.rng.below(3) {
            0 => Scalar::Input(0).max(Scalar::constant(0.0, DType::F32)),
            // What is beyond the last channel would be no zero.
            1 => Scalar::Input(0).unary(UnaryOp::Sigmoid),
            _ => return Some(x),
        };
        self.add(Map { scalar }, &[x])
    }

    fn conv(&mut self, x: ValueId, filters: usize, groups: usize) -> Option<ValueId> {
        let channels = self.shape(x)[1];
        let kernel = *self.rng.pick(&[[1, 1], [1, 1], [3, 3], [3, 3], [5, 5], [1, 3], [3, 1]]);
        let stride = *self.rng.pick(&[1, 1, 2]);
        let mut conv = Conv {
            strides: vec![stride; 2],
            dilations: vec![*self.rng.pick(&[1, 1, 2]); 2],
            pads: vec![
                (self.rng.below(kernel[0]), self.rng.below(kernel[0])),
                (kernel[1] / 2, kernel[1] / 2),
            ],
            groups,
            edge: 0,
            algorithm: None,
        };
        let (w, b) =
            (self.constant(&[filters, channels / groups, kernel[0], kernel[1]]), self.constant(&[filters]));
        // What is not drawn is chosen by the compiler.
        let drawn = *self.rng.pick(&ConvAlgorithm::ALL);
        let applies = drawn.applies(&conv, self.graph.fact(x), self.graph.fact(w));
        conv.algorithm = (applies && self.rng.below(2) == 0).then_some(drawn);
        let y = self.add(conv, &[x, w, b])?;
        self.activation(y)
    }

    /// A convolution, a normalisation over channels and a product with the channels as the last axis, added to what was before.
    fn channels_last(&mut self, x: ValueId) -> Option<ValueId> {
        let channels = self.shape(x)[1];
        let groups = if self.rng.below(2) == 0 { channels } else { 1 };
        let y = self.conv(x, channels, groups)?;
        let mut y = self.add(Transpose { perm: vec![0, 2, 3, 1] }, &[y])?;
        if self.rng.below(2) == 0 {
            y = self.add(Normalize { axis: 3, epsilon: 1e-3, center: true }, &[y])?;
        }
        if self.rng.below(3) > 0 {
            let w = self.constant(&[channels, channels]);
            y = self.add(MatMul::default(), &[y, w])?;
            y = self.activation(y)?;
        }
        let y = self.add(Transpose { perm: vec![0, 3, 1, 2] }, &[y])?;
        if self.shape(x) != self.shape(y) {
            return Some(y);
        }
        let sum = self.add(Map { scalar: Scalar::Input(0).plus(Scalar::Input(1)) }, &[x, y])?;
        if self.rng.below(2) == 0 {
            return Some(sum);
        }
        let turned = self.add(Transpose { perm: vec![0, 2, 3, 1] }, &[sum])?;
        let turned = self.activation(turned)?;
        self.add(Transpose { perm: vec![0, 3, 1, 2] }, &[turned])
    }

    /// A convolution of each channel by itself, perhaps channels scaled by their means, and a 1x1 convolution.
    fn bottleneck(&mut self, x: ValueId, filters: usize) -> Option<ValueId> {
        let channels = self.shape(x)[1];
        let mut y = self.conv(x, channels, channels)?;
        if self.rng.below(2) == 0 {
            let mean = self.add(Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep: true }, &[y])?;
            y = self.add(Map { scalar: Scalar::Input(0).times(Scalar::Input(1)) }, &[y, mean])?;
        }
        let (ones, w, b) = (vec![1; 2], self.constant(&[filters, channels, 1, 1]), self.constant(&[filters]));
        let dense = Conv {
            strides: ones.clone(),
            dilations: ones,
            pads: vec![(0, 0); 2],
            groups: 1,
            edge: 0,
            algorithm: None,
        };
        let y = self.add(dense, &[y, w, b])?;
        self.activation(y)
    }

    /// A value behind `x`; `None` where the network becomes too small for what was drawn.
    fn layer(&mut self, x: ValueId) -> Option<ValueId> {
        let filters = *self.rng.pick(&[3, 12, 16, 24, 32, 40, 48]);
        match self.rng.below(14) {
            0 | 1 => self.conv(x, filters, 1),
            2 => {
                // Groups of as many channels as a block, or as several of them fill.
                let channels = self.shape(x)[1];
                let groups = (2..=12).filter(|count| channels.is_multiple_of(*count));
                let groups: Vec<usize> = groups.collect();
                let groups = if groups.is_empty() { 1 } else { *self.rng.pick(&groups) };
                let multiple = *self.rng.pick(&[1, 4]);
                self.conv(x, (channels / groups).next_multiple_of(multiple) * groups, groups)
            }
            3 | 4 => {
                let channels = self.shape(x)[1];
                self.conv(x, channels, channels)
            }
            5 => {
                let kind = *self.rng.pick(&[PoolKind::Max, PoolKind::Average, PoolKind::AverageWithPads]);
                let (kernel, strides) = (vec![2 + self.rng.below(4); 2], vec![1 + self.rng.below(2); 2]);
                let (dilations, overhang) = (vec![1, 1], vec![0, 0]);
                self.add(Pool { kind, kernel, strides, dilations, pads: vec![(1, 1); 2], overhang }, &[x])
            }
            6 => {
                // A sum with what was before.
                let channels = self.shape(x)[1];
                let y = self.conv(x, channels, 1)?;
                if self.shape(x) != self.shape(y) {
                    return Some(y);
                }
                let sum = Scalar::Input(0).plus(Scalar::Input(1));
                self.add(Map { scalar: sum }, &[x, y])
            }
            7 => {
                let y = self.conv(x, filters, 1)?;
                let z = self.conv(x, filters, 1)?;
                self.add(Concat { axis: 1 }, &[y, z]).or(Some(y))
            }
            8 | 9 => self.channels_last(x),
            12 => self.bottleneck(x, filters),
            10 | 11 => {
                // A shuffle of channels and a convolution, alone or beside another reader of what is shuffled.
                let shape = self.shape(x);
                let groups = if shape[1].is_multiple_of(4) { 4 } else { 1 };
                let divided = vec![shape[0], groups, shape[1] / groups, shape[2], shape[3]];
                let y = self.add(View { shape: divided }, &[x])?;
                let y = self.add(Transpose { perm: vec![0, 2, 1, 3, 4] }, &[y])?;
                let y = self.add(View { shape: shape.clone() }, &[y])?;
                let own = if self.rng.below(2) == 0 { shape[1] } else { 1 };
                let z = self.conv(y, filters.next_multiple_of(own), own)?;
                if self.rng.below(2) == 0 {
                    return Some(z);
                }
                let y = self.conv(y, filters.next_multiple_of(own), 1)?;
                self.add(Concat { axis: 1 }, &[y, z]).or(Some(z))
            }
            _ => {
                // What works on rows only.
                let turned = self.add(Transpose { perm: vec![0, 1, 3, 2] }, &[x])?;
                self.conv(turned, filters, 1)
            }
        }
    }

    fn draw(seed: u64) -> Graph {
        let mut network = Network { graph: Graph::new("network"), rng: Random::new(seed) };
        let (height, width) = (5 + network.rng.below(10), 5 + network.rng.below(20));
        let channels = *network.rng.pick(&[3, 16, 20]);
        let images = 1 + network.rng.below(2);
        let mut x = network.graph.add_input("x", Fact::new(DType::F32, &[images, channels, height, width]));
        for _ in 0..7 {
            x = network.layer(x).unwrap_or(x);
        }
        network.graph.add_output("image", x);
        let mean = Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep: false };
        let mean = network.add(mean, &[x]).expect("an image has a mean");
        network.graph.add_output("mean", mean);
        let shape = network.shape(x);
        let flat = View { shape: vec![shape[0], shape[1..].iter().product()] };
        let flat = network.add(flat, &[x]).expect("an image has a view");
        network.graph.add_output("flat", flat);
        network.graph
    }
}

#[test]
fn networks_in_blocks_give_what_the_reference_gives() {
    let (mut in_blocks, mut values, mut kept) = (0, 0, 0);
    for seed in 0..CASES {
        for plan in compare_with_reference(&Network::draw(seed), seed) {
            kept += plan.kernels.iter().filter(|kernel| kernel.nest.block("make_t").is_some()).count();
            in_blocks += plan.values.iter().filter(|value| value.layout != MemoryLayout::Rows).count();
            values += plan.values.len();
        }
    }
    note(format_args!(
        "layouts: {in_blocks} of {values} values in blocks, {kept} kernels that keep an operand"
    ));
    assert!(kept > 0, "no kernel of these networks keeps an operand");
    assert!(10 * in_blocks > values, "hardly any value of these networks lies in blocks");
}

/// A convolution of each channel by itself, or channels scaled, and a 1x1 convolution, of images of `side` squared.
fn pair(channels: usize, side: usize, filters: usize, window: Option<(usize, usize)>) -> Graph {
    let mut network = Network { graph: Graph::new("pair"), rng: Random::new(7) };
    let x = network.graph.add_input("x", Fact::new(DType::F32, &[1, channels, side, side]));
    let conv = |pad: usize, stride: usize, groups: usize| Conv {
        strides: vec![stride; 2],
        dilations: vec![1; 2],
        pads: vec![(pad, pad); 2],
        groups,
        edge: 0,
        algorithm: None,
    };
    let made = match window {
        Some((kernel, stride)) => {
            let w = network.constant(&[channels, 1, kernel, kernel]);
            network.add(conv(kernel / 2, stride, channels), &[x, w])
        }
        None => {
            let factors = network.graph.add_input("factors", Fact::new(DType::F32, &[1, channels, 1, 1]));
            network.add(Map { scalar: Scalar::Input(0).times(Scalar::Input(1)) }, &[x, factors])
        }
    };
    let w = network.constant(&[filters, channels, 1, 1]);
    let y = made.and_then(|made| network.add(conv(0, 1, 1), &[made, w])).expect("the shapes fit");
    network.graph.add_output("y", y);
    network.graph
}

#[test]
fn what_is_kept_is_computed_in_bands() {
    let mut kept = 0;
    for (channels, side, filters) in
        [(16, 16, 16), (16, 17, 24), (48, 14, 16), (96, 28, 24), (192, 95, 32), (672, 14, 112), (32, 112, 64)]
    {
        for window in [None, Some((3, 1)), Some((5, 1)), Some((3, 2))] {
            let graph = pair(channels, side, filters, window);
            for isa in CpuIsa::ALL {
                for (threads, l2_bytes) in [(1, 1 << 14), (2, 1 << 20), (2, 1 << 16), (3, 1 << 14)] {
                    let target = CpuTarget { l2_bytes, ..CpuTarget::preset(isa, threads) };
                    let plan = compile(&graph, &Device::Cpu(target), &mut Timings::default()).unwrap();
                    for kernel in plan.kernels.iter().filter(|kernel| kernel.nest.block("make_t").is_some()) {
                        kept += 1;
                        let steps = kernel.trace.to_string();
                        let tiles = steps.matches("replace ").count();
                        let case = format!(
                            "{channels} {side} {filters} {window:?} {isa:?} {threads} {l2_bytes}\n{steps}"
                        );
                        assert!(steps.contains("compute_at make_t"), "{case}");
                        assert_eq!(tiles, 1 + usize::from(window.is_some()), "{case}");
                    }
                }
            }
        }
    }
    assert!(kept > 100, "only {kept} kernels of these pairs keep an operand");
}
