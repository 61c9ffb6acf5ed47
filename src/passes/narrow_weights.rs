//! Stores weights in half their bytes where nothing is lost.

use crate::graph::{Graph, NodeId, Op, Uses, ValueId};
use crate::ops::ConvAlgorithm;
use crate::tensor::{DType, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Weights of fewer elements stay as they are: reading them takes no time that counts.
const FEW: usize = 1 << 10;
/// Elements that are converted at once.
const AT_ONCE: usize = 1 << 12;

/// Makes constants of f32 that are weights of products and convolutions, and nothing else, f16 or bf16 if all their elements are values
/// of that type: those of a model of that type that a pass has moved, or of one that was converted to f32. Their reads convert them, so results
/// are the same, bit for bit. Winograd's algorithm, which transforms weights, and convolutions of each channel by itself keep theirs.
///
/// Takes the graph, so that no constant is there in both forms for longer than its conversion.
pub fn narrow_weights(mut graph: Graph) -> Graph {
    let uses = graph.uses();
    let ids: Vec<ValueId> = graph.values().ids().collect();
    for id in ids {
        let fact = graph.fact(id);
        if fact.dtype != DType::F32 || fact.len() < FEW || !are_weights(&graph, &uses, id) {
            continue;
        }
        if let Some(narrow) = graph.constant(id).and_then(narrowed) {
            graph.set_constant(id, narrow);
        }
    }
    graph
}

/// Whether the value is nothing but the weights of products and convolutions that may read them converted.
pub(super) fn are_weights(graph: &Graph, uses: &Uses, value: ValueId) -> bool {
    !uses.is_output(value) && uses.nodes(value).iter().all(|&node| is_weight(graph, node, value))
}

/// Whether the value is the second factor of the node, and not the first, and the node may read it converted.
fn is_weight(graph: &Graph, node: NodeId, value: ValueId) -> bool {
    let node = &graph.nodes()[node];
    let places = node.inputs.iter().enumerate().filter(|(_, input)| **input == value).map(|(at, _)| at);
    if !places.eq([1]) {
        return false;
    }
    match &node.op {
        Op::MatMul(_) => true,
        Op::Conv(conv) => match conv.algorithm {
            None
            | Some(
                ConvAlgorithm::Direct
                | ConvAlgorithm::Im2col
                | ConvAlgorithm::ImplicitGemm
                | ConvAlgorithm::SpatialPack,
            ) => graph.fact(value).shape[1] > 1,
            Some(ConvAlgorithm::Winograd2 | ConvAlgorithm::Winograd4) => false,
        },
        Op::Map(_)
        | Op::Pool(_)
        | Op::Reduce(_)
        | Op::ArgReduce(_)
        | Op::CumSum(_)
        | Op::Softmax(_)
        | Op::Normalize(_)
        | Op::TopK(_)
        | Op::View(_)
        | Op::Transpose(_)
        | Op::Slice(_)
        | Op::Broadcast(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::ScatterNd(_) => false,
    }
}

/// The tensor in a type of half the bytes that has all its values, bit for bit.
fn narrowed(tensor: &Tensor) -> Option<Tensor> {
    let values = tensor.view::<f32>()?;
    let mut halves: Vec<f16> = Vec::with_capacity(values.len());
    let mut widened = [0.0; AT_ONCE];
    let is_f16 = values.chunks(AT_ONCE).all(|chunk| {
        let (start, widened) = (halves.len(), &mut widened[..chunk.len()]);
        halves.resize(start + chunk.len(), f16::ZERO);
        halves[start..].convert_from_f32_slice(chunk);
        halves[start..].convert_to_f32_slice(widened);
        chunk.iter().zip(widened).all(|(value, widened)| value.to_bits() == widened.to_bits())
    });
    if is_f16 {
        return Some(Tensor::from_vec(tensor.shape(), halves));
    }
    let upper = |value: &f32| {
        let bits = value.to_bits();
        (bits & 0xffff == 0).then(|| bf16::from_bits((bits >> 16) as u16))
    };
    let upper: Option<Vec<bf16>> = values.iter().map(upper).collect();
    Some(Tensor::from_vec(tensor.shape(), upper?))
}
