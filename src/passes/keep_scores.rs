//! Attention without its matrix of scores.

use super::group::Group;
use crate::graph::{Graph, Node, NodeId, Op, ValueId};
use crate::ops::Fact;
use crate::target::CpuTarget;
use crate::tensor::DType;

/// Merges the three groups of an attention into that of its last product: the scores, a product of two factors and maps of that; the
/// softmax of their rows; the product of that with a third factor. Scores and softmax are kept in the nest, by loops of their own, so
/// that a schedule can compute a band of their rows where it is read, and never writes them to memory. That pays where
/// such a band fits `target`'s second-level cache.
///
/// Afterwards nothing else reads the scores and their softmax: where something does, the groups stay as they are.
pub fn keep_scores(graph: &Graph, groups: Vec<Group>, target: &CpuTarget) -> Vec<Group> {
    let uses = graph.uses();
    let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    for at in 0..groups.len() {
        let made_before = |value: ValueId, by: Option<NodeId>| {
            let makes = |other: &Option<Group>| other.as_ref().is_some_and(|other| other.outputs == [value]);
            let from = groups[..at].iter().position(makes)?;
            (uses.only(value) == by).then_some((from, groups[from].as_ref()?))
        };
        let merged = (|| {
            let product = groups[at].as_ref()?;
            let (probabilities, _) = factors(graph, product)?;
            let (softmax_at, softmax) = made_before(probabilities, product.anchor)?;
            let scores = softmax_of(graph, softmax)?;
            let (scores_at, makes_scores) = made_before(scores, softmax.anchor)?;
            if !pays(graph, [makes_scores, product], graph.fact(scores), target) {
                return None;
            }
            let kept = [scores, probabilities].iter().filter_map(|&value| graph.producer(value)).collect();
            let nodes = [makes_scores.nodes(), softmax.nodes()].into_iter().flatten();
            let prologue = nodes.chain(product.prologue.iter().copied()).collect();
            let mut merged = Group { prologue, kept, ..product.clone() };
            merged.inputs = merged.values_read(graph);
            Some(([scores_at, softmax_at], merged))
        })();
        if let Some((before, merged)) = merged {
            before.into_iter().for_each(|from| groups[from] = None);
            groups[at] = Some(merged);
        }
    }
    groups.into_iter().flatten().collect()
}

/// The factors of the product of floats that is the group's anchor, the first with its rows as they are.
fn factors(graph: &Graph, group: &Group) -> Option<(ValueId, ValueId)> {
    let Node { op: Op::MatMul(product), inputs, outputs, .. } = &graph.nodes()[group.anchor?] else {
        return None;
    };
    let &[a, b] = inputs.as_slice() else { return None };
    (!product.transpose_a && graph.fact(outputs[0]).dtype == DType::F32 && group.kept.is_empty())
        .then_some((a, b))
}

/// What the group gives the softmax of, along the last axis, if it does that and nothing else.
fn softmax_of(graph: &Graph, group: &Group) -> Option<ValueId> {
    let Node { op: Op::Softmax(softmax), inputs, .. } = &graph.nodes()[group.anchor?] else { return None };
    let &[scores] = inputs.as_slice() else { return None };
    let alone = group.prologue.is_empty() && group.epilogue.is_empty();
    (alone && !softmax.log && softmax.axis + 1 == graph.fact(scores).rank()).then_some(scores)
}

/// Whether the groups of the products of an attention have the form that a schedule knows, and sizes for which it is better than
/// three kernels.
fn pays(graph: &Graph, [makes_scores, product]: [&Group; 2], scores: &Fact, target: &CpuTarget) -> bool {
    let (Some((q, k)), Some((_, v))) = (factors(graph, makes_scores), factors(graph, product)) else {
        return false;
    };
    let [.., rows, keys] = scores.shape[..] else { return false };
    let heads = &scores.shape[..scores.rank() - 2];
    let of_heads = |&value: &ValueId| graph.fact(value).shape[..graph.fact(value).rank() - 2] == *heads;
    let moves = |group: &Group| {
        let op = |&node: &NodeId| &graph.nodes()[node].op;
        group.prologue.iter().map(op).all(|op| matches!(op, Op::View(_) | Op::Transpose(_) | Op::Slice(_)))
    };
    let maps = |&node: &NodeId| {
        let Node { op, outputs, .. } = &graph.nodes()[node];
        matches!(op, Op::Map(_)) && graph.fact(outputs[0]) == scores
    };
    let factors_known = [q, k, v].iter().all(|&value| graph.constant(value).is_none());
    [q, k, v].iter().all(of_heads)
        && factors_known
        && moves(makes_scores)
        && moves(product)
        && makes_scores.epilogue.iter().all(maps)
        && rows.min(keys) >= 2 * BAND_ROWS
        && 8 * keys * BAND_ROWS <= target.l2_bytes / 2
}

/// Rows of a band, at least: the highest tile of a micro-kernel.
const BAND_ROWS: usize = 12;
