//! Computes in f32 what the model computes in float types that a device has no arithmetic for.

use super::narrow_weights::are_weights;
use crate::graph::{Graph, Op, ValueId};
use crate::ops::{Literal, Map, OpError, Pad, PadMode, Scalar};
use crate::tensor::DType;

/// What becomes of weights, the second factors of products and convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// They are of f32 as everything else.
    Widened,
    /// They stay as they are, and what reads them converts.
    Kept,
}

/// Lets every value of the types `narrow` be of f32 instead: constants are converted, unless they are `weights` that are kept, inputs by a
/// node of their own, outputs back to the type they have. What lies between rounds to f32 only, also where the model itself converts
/// to a narrow type, and overflows only as f32 does. A model without such values stays as it is.
pub fn widen_floats(graph: &Graph, narrow: &[DType], weights: Weights) -> Graph {
    let has_narrow = |value: &crate::graph::Value| narrow.contains(&value.fact.dtype);
    if !graph.values().iter().any(has_narrow) {
        return graph.clone();
    }
    // An operator takes f32 wherever it takes another float type.
    widened(graph, narrow, weights).unwrap_or_else(|_refused| graph.clone())
}

fn widened(graph: &Graph, narrow: &[DType], weights: Weights) -> Result<Graph, OpError> {
    let mut wide = Graph::new(&graph.name);
    let mut stands_for: Vec<Option<ValueId>> = vec![None; graph.values().len()];
    if weights == Weights::Kept {
        let uses = graph.uses();
        for (id, value) in graph.values().iter_with_ids() {
            if let Some(tensor) = graph.constant(id)
                && are_weights(graph, &uses, id)
            {
                stands_for[id.index()] = Some(wide.add_constant(&value.name, tensor.clone()));
            }
        }
    }
    for &input in graph.inputs() {
        let value = &graph.values()[input];
        stands_for[input.index()] = Some(wide.add_input(&value.name, value.fact.clone()));
    }
    for &input in graph.inputs() {
        let (name, dtype) = (&graph.values()[input].name, graph.fact(input).dtype);
        if let (Some(narrow_input), true) = (stands_for[input.index()], narrow.contains(&dtype)) {
            stands_for[input.index()] = Some(convert(&mut wide, name, narrow_input, DType::F32)?);
        }
    }
    for node in graph.nodes().iter() {
        let inputs: Vec<ValueId> = node
            .inputs
            .iter()
            .map(|&input| stand_in(graph, &mut wide, &mut stands_for, input, narrow))
            .collect();
        let names: Vec<&str> =
            node.outputs.iter().map(|&value| graph.values()[value].name.as_str()).collect();
        let outputs = wide.add_node(&node.origin, widened_op(&node.op, narrow), &inputs, &names)?;
        for (old, new) in node.outputs.iter().zip(outputs) {
            stands_for[old.index()] = Some(new);
        }
    }
    for output in graph.outputs() {
        let dtype = graph.fact(output.value).dtype;
        let mut value = stand_in(graph, &mut wide, &mut stands_for, output.value, narrow);
        if narrow.contains(&dtype) {
            value = convert(&mut wide, &output.name, value, dtype)?;
        }
        wide.add_output(&output.name, value);
    }
    Ok(wide.pruned())
}

/// The value of `wide` for one of `graph`; a constant is converted when it is first asked for.
fn stand_in(
    graph: &Graph,
    wide: &mut Graph,
    stands_for: &mut [Option<ValueId>],
    value: ValueId,
    narrow: &[DType],
) -> ValueId {
    if let Some(known) = stands_for[value.index()] {
        return known;
    }
    let tensor = graph.constant(value).expect("inputs and outputs of earlier nodes should have stand-ins");
    let tensor = if narrow.contains(&tensor.dtype()) { tensor.cast(DType::F32) } else { tensor.clone() };
    let constant = wide.add_constant(&graph.values()[value].name, tensor);
    stands_for[value.index()] = Some(constant);
    constant
}

/// Adds a conversion, named after what it converts.
fn convert(wide: &mut Graph, of: &str, value: ValueId, dtype: DType) -> Result<ValueId, OpError> {
    let name = format!("{of}.{dtype}");
    let map = Map { scalar: Scalar::Input(0).cast(dtype) };
    Ok(wide.add_node(of, map, &[value], &[&name])?[0])
}

fn widened_op(op: &Op, narrow: &[DType]) -> Op {
    match op {
        Op::Map(Map { scalar }) => Op::Map(Map { scalar: widened_scalar(scalar, narrow) }),
        Op::Pad(Pad { pads, mode: PadMode::Constant(value) }) => {
            Op::Pad(Pad { pads: pads.clone(), mode: PadMode::Constant(widened_literal(*value, narrow)) })
        }
        Op::Pad(_)
        | Op::MatMul(_)
        | Op::Conv(_)
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
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::ScatterNd(_) => op.clone(),
    }
}

fn widened_scalar(scalar: &Scalar, narrow: &[DType]) -> Scalar {
    let widened = |scalar: &Scalar| widened_scalar(scalar, narrow);
    match scalar {
        Scalar::Input(input) => Scalar::Input(*input),
        Scalar::Constant(literal) => Scalar::Constant(widened_literal(*literal, narrow)),
        Scalar::Unary(op, a) => widened(a).unary(*op),
        Scalar::Binary(op, a, b) => widened(a).binary(*op, widened(b)),
        Scalar::Select(c, a, b) => widened(c).select(widened(a), widened(b)),
        Scalar::Cast(dtype, a) if narrow.contains(dtype) => widened(a).cast(DType::F32),
        Scalar::Cast(dtype, a) => widened(a).cast(*dtype),
    }
}

fn widened_literal(literal: Literal, narrow: &[DType]) -> Literal {
    if narrow.contains(&literal.dtype()) { Literal::new(literal.as_f64(), DType::F32) } else { literal }
}
