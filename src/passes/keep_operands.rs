//! Operands that a convolution computes for itself.

use super::group::Group;
use super::lay_out::{fills_blocks, nearly_fills};
use crate::graph::{Graph, Node, NodeId, Op, ValueId};
use crate::ops::{ConvAlgorithm, Fact};
use crate::target::CpuTarget;
use crate::tensor::DType;

/// Merges a group that makes the image of a 1x1 convolution, and nothing else, into the group of that: what makes it is element by
/// element, or a convolution of each channel by itself. The image is kept in the nest, by loops of its own, so that a schedule can
/// compute a band of its rows where it is read, and never writes it to memory. That pays where the image is larger than a
/// cache, `target`'s, and not much smaller than the weights, which are read for each band.
///
/// So does a group that widens bytes for a convolution of each channel by itself.
pub fn keep_operands(graph: &Graph, groups: Vec<Group>, target: &CpuTarget) -> Vec<Group> {
    let uses = graph.uses();
    let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    for at in 0..groups.len() {
        let Some(group) = &groups[at] else { continue };
        let dense = kept_operand(graph, group, target);
        let Some(x) = dense.or_else(|| widened_operand(graph, group, target)) else { continue };
        let makes = |other: &Option<Group>| other.as_ref().is_some_and(|other| other.outputs == [x]);
        let Some(from) = groups[..at].iter().position(makes) else { continue };
        let (Some(makes), Some(group)) = (&groups[from], &groups[at]) else { continue };
        let fits = if dense.is_some() { can_be_kept(graph, makes) } else { widens_bytes(graph, makes) };
        if uses.only(x) != group.anchor || !fits {
            continue;
        }
        let (prologue, kept) = (makes.nodes().collect(), graph.producer(x).into_iter().collect());
        let mut merged = Group { prologue, kept, ..group.clone() };
        merged.inputs = merged.values_read(graph);
        (groups[from], groups[at]) = (None, Some(merged));
    }
    groups.into_iter().flatten().collect()
}

/// The image that the group's anchor would keep.
fn kept_operand(graph: &Graph, group: &Group, target: &CpuTarget) -> Option<ValueId> {
    let Node { op: Op::Conv(conv), inputs, outputs, .. } = &graph.nodes()[group.anchor?] else { return None };
    let (&x, &w) = (inputs.first()?, inputs.get(1)?);
    let (image, weights, result) = (graph.fact(x), graph.fact(w), graph.fact(outputs[0]));
    let dense = matches!(conv.algorithm, None | Some(ConvAlgorithm::Direct))
        && weights.shape[2..] == [1, 1]
        && conv.strides == [1, 1]
        && conv.pads == [(0, 0); 2]
        && conv.groups == 1
        && graph.constant(w).is_some();
    let block = target.isa.vector_lanes_f32();
    let in_blocks = image.dtype == DType::F32
        && fills_blocks(image, block)
        && nearly_fills(result.shape[1], block)
        && group.epilogue.iter().all(|&node| maps_all_of(graph, node, result));
    let pays = image.size_bytes() >= target.l2_bytes / 4
        && image.len() > weights.len()
        && image.shape[2] >= 2 * target.threads
        && image.shape[3] > 1;
    (dense && in_blocks && pays && group.prologue.is_empty()).then_some(x)
}

/// The image that the group's anchor would keep if it is made of bytes: that of a convolution of each channel by itself.
fn widened_operand(graph: &Graph, group: &Group, target: &CpuTarget) -> Option<ValueId> {
    let anchor = group.anchor?;
    let x = *graph.nodes()[anchor].inputs.first()?;
    let image = graph.fact(x);
    let in_blocks = image.dtype == DType::F32 && fills_blocks(image, target.isa.vector_lanes_f32());
    (in_blocks && image.shape.len() == 4 && group.prologue.is_empty() && by_itself(graph, anchor))
        .then_some(x)
}

/// Whether a group makes f32 of the bytes of one image, element by element.
fn widens_bytes(graph: &Graph, group: &Group) -> bool {
    let image = graph.fact(group.outputs[0]);
    let of_image = |fact: &Fact| fact.shape == image.shape;
    let read: Vec<&Fact> =
        group.inputs.iter().map(|&input| graph.fact(input)).filter(|fact| of_image(fact)).collect();
    let of_bytes = matches!(read.as_slice(), [Fact { dtype: DType::U8 | DType::I8, .. }]);
    let maps = |&node: &NodeId| {
        let Node { op, outputs, .. } = &graph.nodes()[node];
        matches!(op, Op::Map(_)) && of_image(graph.fact(outputs[0]))
    };
    of_bytes && group.anchor.is_none() && group.prologue.is_empty() && group.epilogue.iter().all(maps)
}

/// Whether an anchor is a convolution of each channel by itself.
fn by_itself(graph: &Graph, anchor: NodeId) -> bool {
    let Node { op, inputs, outputs, .. } = &graph.nodes()[anchor];
    let Op::Conv(conv) = op else { return false };
    let channels = |value: ValueId| graph.fact(value).shape[1];
    conv.groups == channels(inputs[0]) && conv.groups == channels(outputs[0])
}

/// Whether an anchor can keep what the group makes: maps, or maps of what a convolution of each channel by itself gives.
fn can_be_kept(graph: &Graph, group: &Group) -> bool {
    let image = graph.fact(group.outputs[0]);
    group.prologue.is_empty()
        && group.anchor.is_none_or(|anchor| by_itself(graph, anchor))
        && group.epilogue.iter().all(|&node| maps_all_of(graph, node, image))
}

fn maps_all_of(graph: &Graph, node: NodeId, image: &Fact) -> bool {
    let Node { op, outputs, .. } = &graph.nodes()[node];
    matches!(op, Op::Map(_)) && graph.fact(outputs[0]) == image
}
