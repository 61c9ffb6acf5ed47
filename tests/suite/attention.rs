//! Attention without its matrix of scores: on every instruction set against the reference, and what of it may not be kept.

use super::support::compare_with_reference;
use expect_test::expect;
use paisley::base::Random;
use paisley::compiler::{Device, Timings, compile};
use paisley::graph::{Graph, Op, ValueId};
use paisley::ops::{Fact, Map, MatMul, Scalar, Softmax, Transpose, View};
use paisley::plan::Plan;
use paisley::target::{CpuIsa, CpuTarget};
use paisley::tensor::{DType, Tensor};

/// What happens to the scores before their softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mask {
    Nothing,
    /// A factor, then numbers for each key.
    Added,
    /// Only keys up to the row.
    Causal,
    /// As causal, by a choice; the factor comes first.
    Chosen,
}

/// What keeps scores or their softmax from being kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Obstacle {
    Nothing,
    ScoresAreOutput,
    SoftmaxIsOutput,
    ScoresAreReadAgain,
    SoftmaxIsReadAgain,
    LogSoftmax,
    OtherAxis,
}

struct Attention {
    graph: Graph,
    rng: Random,
}

impl Attention {
    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        let name = format!("v{}", self.graph.values().len());
        self.graph.add_node(&name, op, inputs, &[&name]).expect("the shapes should fit")[0]
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let name = format!("v{}", self.graph.values().len());
        let scale = 4.0 / (shape[0] as f64).sqrt();
        let rng = &mut self.rng;
        self.graph.add_constant(&name, Tensor::from_fn(DType::F32, shape, |_| scale * (rng.unit() - 0.5)))
    }

    /// A projection of `x` to `[batch, heads, rows, depth]`, its axes permuted.
    fn heads(&mut self, x: ValueId, [heads, depth]: [usize; 2], perm: [usize; 4]) -> ValueId {
        let [batch, rows, width] = self.graph.fact(x).shape[..] else { panic!("x should have rank 3") };
        let w = self.constant(&[width, heads * depth]);
        let projected = self.add(MatMul::default(), &[x, w]);
        let parted = self.add(View { shape: vec![batch, rows, heads, depth] }, &[projected]);
        self.add(Transpose { perm: perm.to_vec() }, &[parted])
    }

    fn masked(&mut self, scores: ValueId, mask: Mask) -> ValueId {
        let [.., rows, keys] = self.graph.fact(scores).shape[..] else { panic!("scores should have rows") };
        let scale = Scalar::constant(0.3, DType::F32);
        match mask {
            Mask::Nothing => scores,
            Mask::Added => {
                let of_keys = self.constant(&[1, 1, 1, keys]);
                let scalar = Scalar::Input(0).times(scale).plus(Scalar::Input(1));
                self.add(Map { scalar }, &[scores, of_keys])
            }
            Mask::Causal => {
                let later = |at: usize| if at % keys > at / keys { -1e9 } else { 0.0 };
                let mask = Tensor::from_fn(DType::F32, &[1, 1, rows, keys], later);
                let mask = self.graph.add_constant("mask", mask);
                self.add(Map { scalar: Scalar::Input(0).plus(Scalar::Input(1)) }, &[scores, mask])
            }
            Mask::Chosen => {
                let scaled = self.add(Map { scalar: Scalar::Input(0).times(scale) }, &[scores]);
                let seen = |at: usize| if at % keys > at / keys { 0.0 } else { 1.0 };
                let mask = Tensor::from_fn(DType::Bool, &[1, 1, rows, keys], seen);
                let mask = self.graph.add_constant("mask", mask);
                let scalar = Scalar::Input(0).select(Scalar::Input(1), Scalar::constant(-1e9, DType::F32));
                self.add(Map { scalar }, &[mask, scaled])
            }
        }
    }
}

/// Attention of `heads` heads over `rows` rows, `depth` elements each. Batch and heads are one dimension where there is no mask.
fn attention(batch: usize, [heads, rows, depth]: [usize; 3], mask: Mask, other: Obstacle) -> Graph {
    let mut at = Attention { graph: Graph::new("attention"), rng: Random::new(3) };
    let x = at.graph.add_input("x", Fact::new(DType::F32, &[batch, rows, 32]));
    let [q, k, v] = [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]].map(|perm| {
        let of_heads = at.heads(x, [heads, depth], perm);
        let [.., rows, columns] = at.graph.fact(of_heads).shape[..] else { panic!("heads should have rows") };
        let joined = View { shape: vec![batch * heads, rows, columns] };
        if mask == Mask::Nothing { at.add(joined, &[of_heads]) } else { of_heads }
    });
    let scores = at.add(MatMul::default(), &[q, k]);
    let scores = at.masked(scores, mask);
    let last = at.graph.fact(scores).rank() - 1;
    let axis = if other == Obstacle::OtherAxis { last - 1 } else { last };
    let softmax = at.add(Softmax { axis, log: other == Obstacle::LogSoftmax }, &[scores]);
    let y = at.add(MatMul::default(), &[softmax, v]);
    at.graph.add_output("y", y);
    let again = |at: &mut Attention, value: ValueId| {
        let twice = at.add(Map { scalar: Scalar::Input(0).plus(Scalar::Input(0)) }, &[value]);
        at.graph.add_output("again", twice);
    };
    match other {
        Obstacle::ScoresAreOutput => at.graph.add_output("scores", scores),
        Obstacle::SoftmaxIsOutput => at.graph.add_output("softmax", softmax),
        Obstacle::ScoresAreReadAgain => again(&mut at, scores),
        Obstacle::SoftmaxIsReadAgain => again(&mut at, softmax),
        Obstacle::Nothing | Obstacle::LogSoftmax | Obstacle::OtherAxis => {}
    }
    at.graph
}

/// How many kernels of a plan compute scores where they are read.
fn kept(plan: &Plan) -> usize {
    let kernels = plan.kernels.iter().map(|kernel| kernel.trace.to_string());
    kernels
        .filter(|steps| steps.contains("compute_at make_t1") && steps.contains("compute_at make_t "))
        .count()
}

#[test]
fn attention_gives_what_the_reference_gives() {
    let sizes = [(1, [3, 37, 19]), (2, [2, 33, 8]), (1, [1, 64, 16]), (1, [5, 101, 24]), (2, [1, 30, 33])];
    let masks = [Mask::Nothing, Mask::Added, Mask::Causal, Mask::Chosen];
    for (place, (batch, size)) in sizes.into_iter().enumerate() {
        for (seed, mask) in masks.into_iter().enumerate() {
            let graph = attention(batch, size, mask, Obstacle::Nothing);
            // Also with a second-level cache that holds small bands only.
            for plan in compare_with_reference(&graph, (place + seed) as u64) {
                let small = (place + seed) % 2 == 1 && size[1] > 90;
                assert_eq!(kept(&plan), usize::from(!small), "{batch} {size:?} {mask:?}");
            }
        }
    }
}

#[test]
fn scores_that_something_else_reads_are_not_kept() {
    for other in [
        Obstacle::ScoresAreOutput,
        Obstacle::SoftmaxIsOutput,
        Obstacle::ScoresAreReadAgain,
        Obstacle::SoftmaxIsReadAgain,
        Obstacle::LogSoftmax,
        Obstacle::OtherAxis,
    ] {
        let graph = attention(1, [2, 37, 16], Mask::Added, other);
        for plan in compare_with_reference(&graph, 0) {
            assert_eq!(kept(&plan), 0, "{other:?}");
        }
    }
}

#[test]
fn bands_fit_the_cache_and_are_enough_for_the_threads() {
    for [heads, rows, depth] in [[1, 24, 8], [3, 197, 64], [12, 384, 64], [4, 1024, 64], [2, 4500, 40]] {
        for isa in CpuIsa::ALL {
            for (threads, l2_bytes) in [(1, 1 << 20), (2, 1 << 18), (16, 1 << 20)] {
                let graph = attention(1, [heads, rows, depth], Mask::Added, Obstacle::Nothing);
                let target = CpuTarget { l2_bytes, ..CpuTarget::preset(isa, threads) };
                let plan = compile(&graph, &Device::Cpu(target), &mut Timings::default()).unwrap();
                let case = format!("{heads} {rows} {depth} {isa:?} {threads} {l2_bytes}");
                let fits = 8 * 12 * rows <= l2_bytes / 2;
                assert_eq!(kept(&plan), usize::from(fits), "{case}");
                for kernel in plan.kernels.iter().filter(|kernel| kernel.nest.block("make_t1").is_some()) {
                    assert_eq!(kernel.trace.to_string().matches("replace ").count(), 2, "{case}");
                    let mut nest = kernel.nest.clone();
                    kernel.trace.apply(&mut nest).expect("the trace should be that of the nest");
                    let bytes = |name: &str| {
                        let id = nest.buffer_named(name).expect("it should be kept");
                        4 * nest.pool.buffers[id].storage_len()
                    };
                    assert!(2 * (bytes("t") + bytes("t1")) <= l2_bytes, "{case}");
                }
            }
        }
    }
}

#[test]
fn the_schedule_of_an_attention() {
    let graph = attention(1, [12, 197, 64], Mask::Chosen, Obstacle::Nothing);
    let device = Device::Cpu(CpuTarget::preset(CpuIsa::Avx512, 2));
    let plan = compile(&graph, &device, &mut Timings::default()).unwrap();
    let steps: Vec<String> = plan
        .kernels
        .iter()
        .filter(|kernel| kernel.nest.block("make_t1").is_some())
        .map(|kernel| kernel.trace.to_string())
        .collect();
    expect![[r#"
        keep update_t1.sum
        split i = [_, 72]
        reorder b0 i.0 i.1 j
        compute_at make_t1 in i.0
        compute_at make_t in i.0
        split t.3 = [_, 32]
        reorder t.3.0 t.2 t.3.1
        stage_in x0 in global by b0 t.3.0 t.k t.3.1
        parallel x0_s.b0
        stage_out t.acc at t.3.0 in register
        reorder t.k t.2 t.3.1
        replace t.k by fma_12x32
        split t1.2 = [_, 72]
        stage_out t1.peak at t1.2.0 in register
        split j = [_, 32]
        reorder j.0 i.1 j.1
        stage_out acc at j.0 in register
        reorder k i.1 j.1
        replace k by fma_12x32
        parallel b0
    "#]]
    .assert_eq(&steps.concat());
}

#[test]
fn only_processors_keep_scores() {
    let graph = attention(1, [2, 37, 16], Mask::Added, Obstacle::Nothing);
    let plan = compile(&graph, &Device::Reference, &mut Timings::default()).unwrap();
    assert_eq!(plan.kernels.iter().filter(|kernel| kernel.nest.block("make_t").is_some()).count(), 0);
}
