//! Reductions over axes.

use super::{Call, Refusal, Row, Values, row};
use crate::ops::{ArgReduce, CumSum, Extreme, Reduce, ReduceKind};
use crate::tensor::DType;

const REDUCE: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];
const ARG: &[&str] = &["axis", "keepdims", "select_last_index"];

pub(super) const ROWS: &[Row] = &[
    row("ReduceL1", REDUCE, |call| reduce(call, ReduceKind::L1)),
    row("ReduceL2", REDUCE, |call| reduce(call, ReduceKind::L2)),
    row("ReduceLogSum", REDUCE, |call| reduce(call, ReduceKind::LogSum)),
    row("ReduceLogSumExp", REDUCE, |call| reduce(call, ReduceKind::LogSumExp)),
    row("ReduceMax", REDUCE, |call| reduce(call, ReduceKind::Max)),
    row("ReduceMean", REDUCE, |call| reduce(call, ReduceKind::Mean)),
    row("ReduceMin", REDUCE, |call| reduce(call, ReduceKind::Min)),
    row("ReduceProd", REDUCE, |call| reduce(call, ReduceKind::Product)),
    row("ReduceSum", REDUCE, |call| reduce(call, ReduceKind::Sum)),
    row("ReduceSumSquare", REDUCE, |call| reduce(call, ReduceKind::SumSquare)),
    row("ArgMax", ARG, |call| arg_reduce(call, Extreme::Max)),
    row("ArgMin", ARG, |call| arg_reduce(call, Extreme::Min)),
    row("CumSum", &["exclusive", "reverse"], cum_sum),
];

/// No axes mean all of them, unless the node says that they mean none.
fn reduce(call: &mut Call<'_>, kind: ReduceKind) -> Values {
    let x = call.input(0)?;
    let rank = call.rank(x);
    let keep = call.flag("keepdims", true)?;
    let axes = call.ints_or_input("axes", 1)?.filter(|axes| !axes.is_empty());
    let axes = match axes {
        Some(axes) => call.axes(&axes, rank)?,
        None if call.flag("noop_with_empty_axes", false)? => vec![],
        None => (0..rank).collect(),
    };
    let dtype = call.dtype(x);
    // The extreme of bools is that of 0 and 1.
    let number = if dtype == DType::Bool { call.cast(x, DType::U8)? } else { x };
    let result = call.add(Reduce { kind, axes, keep }, &[number])?;
    Ok(vec![call.cast(result, dtype)?])
}

fn arg_reduce(call: &mut Call<'_>, extreme: Extreme) -> Values {
    let x = call.input(0)?;
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    let (keep, last) = (call.flag("keepdims", true)?, call.flag("select_last_index", false)?);
    Ok(vec![call.add(ArgReduce { extreme, axis, keep, last }, &[x])?])
}

fn cum_sum(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let axis = call.known_int(1, "axis")?.ok_or_else(|| Refusal::invalid("the axis is missing"))?;
    let axis = call.axis(axis, call.rank(x))?;
    let (exclusive, reverse) = (call.flag("exclusive", false)?, call.flag("reverse", false)?);
    Ok(vec![call.add(CumSum { axis, exclusive, reverse }, &[x])?])
}
