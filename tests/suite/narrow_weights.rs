//! Weights of f16 and bf16 give the results of the same weights in f32, bit for bit, on every instruction set.

use paisley::base::Random;
use paisley::compiler::{self, Timings};
use paisley::graph::{Graph, Op};
use paisley::loopir::Role;
use paisley::ops::{Conv, Fact, MatMul, Transpose};
use paisley::plan::Plan;
use paisley::runtime::cpu::CpuExecutor;
use paisley::target::{CpuIsa, CpuTarget};
use paisley::tensor::{DType, Tensor};

use super::support::processor;

/// `x` and weights of one operator, the weights with values of a narrow type, and whether the result is transposed.
struct Case {
    op: Op,
    x: Vec<usize>,
    weights: Tensor,
    transposed: bool,
}

impl Case {
    /// The operator as a model; where the weights are an output too they stay of f32.
    fn graph(&self, weights_are_read: bool) -> Graph {
        let mut graph = Graph::new("narrow");
        let x = graph.add_input("x", Fact::new(DType::F32, &self.x));
        let w = graph.add_constant("w", self.weights.cast(DType::F32));
        let mut y = graph.add_node("y", self.op.clone(), &[x, w], &["y"]).unwrap()[0];
        if self.transposed {
            y = graph.add_node("t", Transpose { perm: vec![1, 0] }, &[y], &["t"]).unwrap()[0];
        }
        graph.add_output("y", y);
        if weights_are_read {
            graph.add_output("w", w);
        }
        graph
    }
}

/// The plan for a processor, and its first output.
fn run(graph: &Graph, target: &CpuTarget, x: &Tensor) -> (Plan, Tensor) {
    let device = compiler::Device::Cpu(target.clone());
    let plan = compiler::compile(graph, &device, &mut Timings::default()).unwrap();
    let mut executor = CpuExecutor::new(&mut plan.clone(), target).unwrap();
    let output = executor.run(&plan, std::slice::from_ref(x), false).unwrap().outputs.remove(0);
    (plan, output)
}

/// The types of the constants that kernels read.
fn constants(plan: &Plan) -> Vec<DType> {
    let nests = plan.kernels.iter().map(|kernel| &kernel.nest);
    nests.flat_map(|nest| nest.params_of(Role::Constant).map(|id| nest.pool.buffers[id].dtype)).collect()
}

fn cases(dtype: DType) -> Vec<Case> {
    let mut rng = Random::new(3);
    // Those of bf16 are too large for f16.
    let scale = if dtype == DType::BF16 { 1e6 } else { 1.0 };
    let mut weights = |shape: &[usize]| Tensor::from_fn(dtype, shape, |_| scale * (rng.unit() - 0.5));
    let mut cases = vec![];
    for (m, k, n) in [(1, 257, 131), (1, 300, 8), (5, 64, 100), (19, 33, 48), (70, 96, 45)] {
        for transposed in [false, true] {
            for transpose_b in [false, true] {
                let shape = if transpose_b { [n, k] } else { [k, n] };
                let op = Op::MatMul(MatMul { transpose_a: false, transpose_b });
                cases.push(Case { op, x: vec![m, k], weights: weights(&shape), transposed });
            }
        }
    }
    for (channels, filters, side, kernel) in [(32, 48, 9, 1), (16, 64, 7, 5), (24, 20, 8, 2), (3, 400, 6, 1)]
    {
        let conv = Conv {
            strides: vec![1; 2],
            dilations: vec![1; 2],
            pads: vec![(0, kernel / 2); 2],
            groups: 1,
            edge: 0,
            algorithm: None,
        };
        let weights = weights(&[filters, channels, kernel, kernel]);
        cases.push(Case { op: Op::Conv(conv), x: vec![1, channels, side, side], weights, transposed: false });
    }
    cases
}

#[test]
fn narrow_weights_give_the_results_of_wide_ones() {
    for dtype in [DType::F16, DType::BF16] {
        for case in cases(dtype) {
            let mut rng = Random::new(5);
            let x = Tensor::from_fn(DType::F32, &case.x, |_| rng.unit() - 0.5);
            for isa in CpuIsa::ALL.into_iter().filter(|isa| *isa <= processor().isa) {
                for threads in [1, 2] {
                    let target = CpuTarget { isa, threads, ..processor() };
                    let (narrow, found) = run(&case.graph(false), &target, &x);
                    let (wide, wanted) = run(&case.graph(true), &target, &x);
                    let about = format!("{dtype} {} of {:?} {isa:?} {threads}", case.op.def().name(), case.x);
                    assert_eq!(constants(&wide), [DType::F32], "{about}");
                    let stored = if isa == CpuIsa::Generic { DType::F32 } else { dtype };
                    assert_eq!(constants(&narrow), [stored], "{about}");
                    assert_eq!(found.bytes(), wanted.bytes(), "{about}");
                }
            }
        }
    }
}
