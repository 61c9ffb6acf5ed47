//! Operators that read or write at positions that are data.

use super::{Call, Refusal, Row, Values, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::ValueId;
use crate::ops::{
    Gather, GatherElements, GatherNd, Literal, Reduce, ReduceKind, Scalar, ScatterElements, ScatterNd,
    ScatterReduction, Slice, SliceAxis, Softmax, TopK,
};
use crate::tensor::{DType, Tensor};

pub(super) const ROWS: &[Row] = &[
    row("Gather", &["axis"], gather),
    row("GatherElements", &["axis"], gather_elements),
    row("GatherND", &["batch_dims"], gather_nd),
    row("Scatter", &["axis"], scatter_elements).until(10),
    row("ScatterElements", &["axis", "reduction"], scatter_elements),
    row("ScatterND", &["reduction"], scatter_nd),
    row("OneHot", &["axis"], one_hot),
    row("Trilu", &["upper"], trilu),
    row("ReverseSequence", &["batch_axis", "time_axis"], reverse_sequence),
    row("NegativeLogLikelihoodLoss", &["ignore_index", "reduction"], |call| {
        let x = call.input(0)?;
        Ok(vec![likelihood_loss(call, x)?])
    }),
    row("SoftmaxCrossEntropyLoss", &["ignore_index", "reduction"], |call| {
        let x = call.input(0)?;
        let likelihood = call.add(Softmax { axis: 1, log: true }, &[x])?;
        Ok(vec![likelihood_loss(call, likelihood)?, likelihood])
    }),
    row("TopK", &["axis", "k", "largest", "sorted"], top_k),
];

/// Known indices at a constant distance from each other select a slice.
fn gather(call: &mut Call<'_>) -> Values {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    let shape = call.shape(x);
    let known = call.known_ints(1, "indices").ok().flatten();
    let Some(part) = known.and_then(|known| progression(&known, shape[axis])) else {
        return Ok(vec![call.add(Gather { axis }, &[x, indices])?]);
    };
    let mut axes: Vec<SliceAxis> = shape.iter().map(|&dim| SliceAxis::all(dim)).collect();
    axes[axis] = part;
    let slice = if part == SliceAxis::all(shape[axis]) { x } else { call.add(Slice { axes }, &[x])? };
    let joined = [&shape[..axis], &call.shape(indices), &shape[axis + 1..]].concat();
    Ok(vec![call.view(slice, joined)?])
}

/// The part of an axis of `extent` elements that `indices` select, when they are evenly spaced and in range.
fn progression(indices: &[i64], extent: usize) -> Option<SliceAxis> {
    let at = |index: i64| {
        let index = if index < 0 { index + extent as i64 } else { index };
        usize::try_from(index).ok().filter(|&index| index < extent)
    };
    let places = indices.iter().map(|&index| at(index)).collect::<Option<Vec<usize>>>()?;
    let start = *places.first()?;
    let step = places.get(1).map_or(1, |&next| next as i64 - start as i64);
    let even = places.windows(2).all(|pair| pair[1] as i64 - pair[0] as i64 == step);
    (even && step != 0).then_some(SliceAxis { start, step, size: places.len() })
}

fn gather_elements(call: &mut Call<'_>) -> Values {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    Ok(vec![call.add(GatherElements { axis }, &[x, indices])?])
}

fn gather_nd(call: &mut Call<'_>) -> Values {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let batch_dims = call.int("batch_dims", 0)?;
    let batch_dims = usize::try_from(batch_dims).map_err(|_| call.bad_attribute("batch_dims", batch_dims))?;
    Ok(vec![call.add(GatherNd { batch_dims }, &[x, indices])?])
}

fn reduction(call: &Call<'_>) -> Result<ScatterReduction, Refusal> {
    Ok(match &*call.string("reduction", "none")? {
        "none" => ScatterReduction::Replace,
        "add" => ScatterReduction::Add,
        "mul" => ScatterReduction::Multiply,
        "max" => ScatterReduction::Max,
        "min" => ScatterReduction::Min,
        other => return Err(call.bad_attribute("reduction", other)),
    })
}

fn scatter_elements(call: &mut Call<'_>) -> Values {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    let reduction = reduction(call)?;
    Ok(vec![call.add(ScatterElements { axis, reduction }, &[x, indices, updates])?])
}

fn scatter_nd(call: &mut Call<'_>) -> Values {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let reduction = reduction(call)?;
    Ok(vec![call.add(ScatterNd { reduction }, &[x, indices, updates])?])
}

/// The order is that of sorted results, which unsorted ones may have too.
fn top_k(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let k = if call.has_attribute("k") { Some(call.int("k", 0)?) } else { call.known_int(1, "k")? };
    let k = k.ok_or_else(|| Refusal::invalid("k is missing"))?;
    let k = usize::try_from(k).map_err(|_| Refusal::invalid(format!("k is {k}")))?;
    let axis = call.int("axis", -1)?;
    let axis = call.axis(axis, call.rank(x))?;
    let largest = call.flag("largest", true)?;
    call.add_all(TopK { k, axis, largest }, &[x])
}

fn one_hot(call: &mut Call<'_>) -> Values {
    let (indices, values) = (call.input(0)?, call.input(2)?);
    let depth = call.known(1, "depth")?.filter(|depth| depth.len() == 1);
    let depth = depth.ok_or_else(|| Refusal::invalid("the depth is missing"))?.get_f64(0);
    let extent = call.extents(&[depth as i64], "depths")?[0];
    let mut shape = call.shape(indices);
    let axis = call.int("axis", -1)?;
    let axis = call.axis(axis, shape.len() + 1)?;
    shape.insert(axis, 1);
    let rank = shape.len();
    let dtype = call.dtype(indices);
    let indices = call.view(indices, shape)?;
    let positions = call.positions(dtype, extent, axis, rank)?;
    if call.shape(values) != [2] {
        return Err(Refusal::invalid(format!("the values are {}", call.fact(values))));
    }
    let off = call.slice(values, 0, 0, 1)?;
    let on = call.slice(values, 0, 1, 1)?;
    // An index may count from the end where its type has a sign.
    let result = call.map(&[indices, positions, on, off], |v| {
        let own = v[0].clone();
        let index = if dtype.is_signed() {
            let negative = own.clone().binary(BinaryOp::Lt, Scalar::constant(0.0, dtype));
            negative.select(own.clone().plus(Scalar::constant(depth, dtype)), own)
        } else {
            own
        };
        index.binary(BinaryOp::Eq, v[1].clone()).select(v[2].clone(), v[3].clone())
    })?;
    Ok(vec![result])
}

/// The upper or lower triangle of matrices; the rest is 0.
fn trilu(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let (upper, k) = (call.flag("upper", true)?, call.known_int(1, "diagonal")?.unwrap_or(0));
    let fact = call.fact(x);
    let [.., rows, columns] = fact.shape[..] else {
        return Err(Refusal::invalid(format!("{fact} is no matrix")));
    };
    let row = call.positions(DType::I64, rows, 0, 2)?;
    let column = call.positions(DType::I64, columns, 1, 2)?;
    let diagonal = Scalar::Constant(Literal::Int(k, DType::I64));
    let result = call.map(&[x, row, column], |v| {
        let distance = v[2].clone().binary(BinaryOp::Sub, v[1].clone());
        let inside = distance.binary(if upper { BinaryOp::Ge } else { BinaryOp::Le }, diagonal);
        inside.select(v[0].clone(), Scalar::Constant(Literal::zero(fact.dtype)))
    })?;
    Ok(vec![call.view(result, fact.shape)?])
}

/// The first elements along the time axis in reverse, as many as the length of each sequence says.
fn reverse_sequence(call: &mut Call<'_>) -> Values {
    let (x, lengths) = (call.input(0)?, call.input(1)?);
    let fact = call.fact(x);
    let (batch, time) = (call.int("batch_axis", 1)?, call.int("time_axis", 0)?);
    let (batch, time) = (call.axis(batch, fact.rank())?, call.axis(time, fact.rank())?);
    let positions = call.positions(DType::I64, fact.shape[time], time, fact.rank())?;
    let mut shape = vec![1; fact.rank()];
    shape[batch] = fact.shape[batch];
    let lengths = call.view(lengths, shape)?;
    let lengths = call.cast(lengths, DType::I64)?;
    let indices = call.map(&[positions, lengths], |v| {
        let (position, length) = (v[0].clone(), v[1].clone());
        let one = Scalar::constant(1.0, DType::I64);
        let mirrored = length.clone().binary(BinaryOp::Sub, one).binary(BinaryOp::Sub, position.clone());
        position.clone().binary(BinaryOp::Lt, length).select(mirrored, position)
    })?;
    let indices = call.broadcast(indices, fact.shape)?;
    Ok(vec![call.add(GatherElements { axis: time }, &[x, indices])?])
}

/// `-x[n, target[n, d..], d..] * weight[target[n, d..]]`, then its sum, or its sum over that of the weights.
fn likelihood_loss(call: &mut Call<'_>, x: ValueId) -> Result<ValueId, Refusal> {
    let (target, fact) = (call.input(1)?, call.fact(x));
    let dtype = fact.dtype;
    let shape = call.shape(target);
    let mut wide = shape.clone();
    if wide.is_empty() || fact.rank() != shape.len() + 1 {
        return Err(Refusal::invalid(format!("the target {shape:?} does not fit {fact}")));
    }
    wide.insert(1, 1);
    let of_target = call.dtype(target);
    let ignored = match call.has_attribute("ignore_index") {
        true => Some(Scalar::Constant(Literal::Int(call.int("ignore_index", 0)?, of_target))),
        false => None,
    };
    // What is ignored may lie outside of the classes.
    let index = match &ignored {
        Some(ignored) => call.map(&[target], |v| {
            let skip = v[0].clone().binary(BinaryOp::Eq, ignored.clone());
            skip.select(Scalar::constant(0.0, of_target), v[0].clone())
        })?,
        None => target,
    };
    let places = call.view(index, wide)?;
    let chosen = call.add(GatherElements { axis: 1 }, &[x, places])?;
    let chosen = call.view(chosen, shape.clone())?;
    let weight = match call.optional(2) {
        Some(weight) => call.add(Gather { axis: 0 }, &[weight, index])?,
        None => {
            let one = call.constant(Tensor::from_fn(dtype, &[], |_| 1.0));
            call.broadcast(one, shape.clone())?
        }
    };
    let weight = match &ignored {
        Some(ignored) => call.map(&[target, weight], |v| {
            let skip = v[0].clone().binary(BinaryOp::Eq, ignored.clone());
            skip.select(Scalar::constant(0.0, dtype), v[1].clone())
        })?,
        None => weight,
    };
    let loss = call.map(&[chosen, weight], |v| v[0].clone().unary(UnaryOp::Neg).times(v[1].clone()))?;
    let axes: Vec<usize> = (0..shape.len()).collect();
    let sum = Reduce { kind: ReduceKind::Sum, axes, keep: false };
    match &*call.string("reduction", "mean")? {
        "none" => Ok(loss),
        "sum" => call.add(sum, &[loss]),
        "mean" => {
            let (total, weights) = (call.add(sum.clone(), &[loss])?, call.add(sum, &[weight])?);
            call.binary(BinaryOp::Div, total, weights)
        }
        other => Err(call.bad_attribute("reduction", other)),
    }
}
