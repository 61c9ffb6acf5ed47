//! Removes operators that move nothing and joins those that move twice.

use crate::graph::{Graph, Op, Rewrite, ValueId};
use crate::ops::{Fact, Pool, PoolKind, Reduce, ReduceKind, Scalar, SliceAxis, Transpose, View};

/// Removes identities (views, transposes, slices, pads, broadcasts, maps, concatenations, reductions and poolings that change
/// nothing), turns transposes that only move axes of extent 1 into views, and replaces two views or two transposes in a
/// row by one.
pub fn simplify_layout(graph: &Graph) -> Graph {
    graph.rewrite(simplified)
}

fn simplified(step: &mut Rewrite<'_>) -> Option<Vec<ValueId>> {
    let [output] = step.node.outputs[..] else { return None };
    let fact = step.old.fact(output).clone();
    let input = *step.inputs.first()?;
    let given = step.new.fact(input).clone();
    let nothing_moves = match &step.node.op {
        Op::View(_) | Op::Broadcast(_) => true,
        Op::Map(op) => op.scalar == Scalar::Input(0),
        Op::Transpose(op) => op.perm.is_sorted(),
        Op::Slice(op) => op.axes.iter().zip(&given.shape).all(|(axis, &dim)| *axis == SliceAxis::all(dim)),
        Op::Pad(op) => op.pads.iter().all(|&pads| pads == (0, 0)),
        Op::Concat(_) => step.inputs.len() == 1,
        Op::Reduce(Reduce { kind, axes, .. }) => axes.is_empty() && is_identity_of_one(*kind),
        Op::Pool(op) => is_identity(op),
        Op::MatMul(_)
        | Op::Conv(_)
        | Op::ArgReduce(_)
        | Op::CumSum(_)
        | Op::Softmax(_)
        | Op::Normalize(_)
        | Op::TopK(_)
        | Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::ScatterNd(_) => false,
    };
    if nothing_moves && given == fact {
        return Some(vec![input]);
    }
    let before = step.new.producer(input).map(|node| step.new.nodes()[node].clone());
    let (op, input): (Op, ValueId) = match (&step.node.op, &before) {
        (Op::Transpose(op), _) if keeps_order(&op.perm, &given.shape) => {
            return Some(vec![viewed(step, input, fact)?]);
        }
        (Op::View(_), _) => return Some(vec![viewed(step, input, fact)?]),
        (Op::Transpose(op), Some(before)) if let Op::Transpose(first) = &before.op => {
            let perm: Vec<usize> = op.perm.iter().map(|&axis| first.perm[axis]).collect();
            if perm.is_sorted() {
                return Some(vec![before.inputs[0]]);
            }
            (Transpose { perm }.into(), before.inputs[0])
        }
        _ => return None,
    };
    step.add(op, &[input]).ok()
}

/// A view of `input`, or of what `input` is a view of.
fn viewed(step: &mut Rewrite<'_>, input: ValueId, fact: Fact) -> Option<ValueId> {
    let first = match step.new.producer(input).map(|node| &step.new.nodes()[node]) {
        Some(node) if matches!(node.op, Op::View(_)) => node.inputs[0],
        Some(_) | None => input,
    };
    if step.new.fact(first) == &fact {
        return Some(first);
    }
    step.add(View { shape: fact.shape }, &[first]).ok().map(|outputs| outputs[0])
}

/// Whether a transpose leaves the order of the axes of more than one element alone.
fn keeps_order(perm: &[usize], shape: &[usize]) -> bool {
    perm.iter().filter(|&&axis| shape[axis] != 1).is_sorted()
}

/// Whether each window is one element and its result that element.
fn is_identity(pool: &Pool) -> bool {
    let single =
        pool.kernel.iter().all(|&extent| extent == 1) && pool.pads.iter().all(|&pads| pads == (0, 0));
    match pool.kind {
        PoolKind::Max | PoolKind::Average | PoolKind::AverageWithPads => single,
        PoolKind::ArgMax | PoolKind::Norm(_) => false,
    }
}

fn is_identity_of_one(kind: ReduceKind) -> bool {
    match kind {
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Max | ReduceKind::Min | ReduceKind::Product => true,
        ReduceKind::L1
        | ReduceKind::L2
        | ReduceKind::SumSquare
        | ReduceKind::LogSum
        | ReduceKind::LogSumExp => false,
    }
}
