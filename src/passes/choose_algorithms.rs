//! The algorithm of each convolution.

use super::lay_out::fills_blocks;
use crate::graph::{Graph, Op};
use crate::ops::{Conv, ConvAlgorithm, Fact, OpDef};
use crate::target::CpuTarget;

/// Chooses how convolutions are computed on `target`, where that is not chosen yet: what takes the least time by an estimate from
/// their sizes. Winograd's algorithm is for channels that fill blocks of a vector.
pub fn choose_algorithms(graph: &Graph, target: &CpuTarget) -> Graph {
    graph.rewrite(|step| {
        let Op::Conv(conv) = &step.node.op else { return None };
        let facts: Vec<Fact> = step.inputs.iter().map(|&input| step.new.fact(input).clone()).collect();
        let (x, w) = (facts.first()?, facts.get(1)?);
        let y = conv.infer(&[x, w]).ok()?.pop()?;
        let constant = step.new.constant(step.inputs[1]).is_some();
        let block = target.isa.vector_lanes_f32();
        if conv.algorithm.is_some() || !constant || !fills_blocks(x, block) || !fills_blocks(&y, block) {
            return None;
        }
        // Those of a narrower type can be converted.
        let w = &Fact::new(x.dtype, &w.shape);
        let time = |algorithm: &ConvAlgorithm| estimate_ns(*algorithm, x, &y, w, target);
        let fastest = ConvAlgorithm::ALL
            .iter()
            .filter(|algorithm| algorithm.applies(conv, x, w))
            .filter(|algorithm| algorithm.tile().is_none_or(|tile| has_tiles(&y, w, tile)))
            .min_by(|a, b| time(a).total_cmp(&time(b)))?;
        let mut inputs = step.inputs.clone();
        let weights = step.new.constant(inputs[1])?;
        if fastest.tile().is_some() && weights.dtype() != w.dtype {
            let (name, weights) = (step.new.values()[inputs[1]].name.clone(), weights.cast(w.dtype));
            inputs[1] = step.new.add_constant(&name, weights);
        }
        step.add(Conv { algorithm: Some(*fastest), ..conv.clone() }, &inputs).ok()
    })
}

/// Whether results `y` by windows of weights `w` are several tiles along each dimension of the window, and along the last one.
fn has_tiles(y: &Fact, w: &Fact, tile: usize) -> bool {
    let mut sides = tiles(w, tile).zip(&y.shape[2..]);
    let several = sides.all(|(tile, &places)| tile == 1 || places > tile);
    several && y.shape.last().is_some_and(|&places| places > 1)
}

/// The extent of a tile along each dimension of the windows of weights `w`: 1 where the window has that.
fn tiles(w: &Fact, tile: usize) -> impl Iterator<Item = usize> {
    w.shape[2..].iter().map(move |&taps| if taps == 1 { 1 } else { tile })
}

/// How many of the convolutions of a graph an algorithm was chosen for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Those that it applies to.
    pub to: usize,
    /// All of them.
    pub of: usize,
}

/// Lets all convolutions that `algorithm` applies to be computed by it, and says how many those are.
pub fn use_algorithm(graph: &Graph, algorithm: ConvAlgorithm) -> (Graph, Applied) {
    let mut applied = Applied::default();
    let graph = graph.rewrite(|step| {
        let Op::Conv(conv) = &step.node.op else { return None };
        let &[x, w, ..] = step.inputs.as_slice() else { return None };
        applied.of += 1;
        let applies = algorithm.applies(conv, step.new.fact(x), step.new.fact(w));
        let chosen = Conv { algorithm: Some(algorithm), ..conv.clone() };
        let inputs = step.inputs.clone();
        let chosen = if applies { step.add(chosen, &inputs).ok() } else { None };
        applied.to += usize::from(chosen.is_some());
        chosen
    });
    (graph, applied)
}

/// The time to compute `y` of `x` and `w`: arithmetic at the machine's speed, and waiting for the weights, which were last used an
/// inference ago.
fn estimate_ns(algorithm: ConvAlgorithm, x: &Fact, y: &Fact, w: &Fact, target: &CpuTarget) -> f64 {
    let elements = |fact: &Fact| fact.len() as f64;
    let channels = (x.shape[1] * y.shape[1]) as f64;
    let taps = w.shape[2..].iter().product::<usize>() as f64;
    let direct = 2.0 * elements(y) * elements(w) / y.shape[1] as f64;
    let columns = elements(y) / y.shape[1] as f64 * x.shape[1] as f64 * taps;
    let (flop, weights) = match algorithm {
        ConvAlgorithm::Direct => (direct, elements(w)),
        ConvAlgorithm::Im2col | ConvAlgorithm::ImplicitGemm => (direct + columns * COPY_FLOP, elements(w)),
        ConvAlgorithm::SpatialPack => (direct + elements(x) * COPY_FLOP, elements(w)),
        ConvAlgorithm::Winograd2 | ConvAlgorithm::Winograd4 => {
            let sides = || tiles(w, algorithm.tile().unwrap_or(1));
            let points = sides().zip(&w.shape[2..]).map(|(tile, taps)| tile + taps - 1).product::<usize>();
            let tiles = sides().zip(&y.shape[2..]).map(|(tile, &extent)| extent.div_ceil(tile));
            let (points, tiles) = (points as f64, (y.shape[0] * tiles.product::<usize>()) as f64);
            // A transform of a tile reads and writes each element twice, with some operations between them.
            let transforms = (x.shape[1] + y.shape[1]) as f64 * points * TRANSFORM_FLOP;
            (tiles * (2.0 * channels * points + transforms), channels * points)
        }
    };
    let bytes = 4.0 * weights * WAITED_FOR;
    1e9 * (flop / target.rates.flop_per_second + bytes / target.rates.bytes_per_second)
}

/// The part of the time of reading weights from main memory in which nothing is computed.
const WAITED_FOR: f64 = 1.0 / 3.0;

/// Floating-point operations that could be done in the time of copying one element to where it is read.
const COPY_FLOP: f64 = 40.0;

/// Floating-point operations that could be done in the time of transforming one element.
const TRANSFORM_FLOP: f64 = 40.0;
