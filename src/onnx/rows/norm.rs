//! Normalisations and softmax.

use super::{Call, Refusal, Row, Values, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::ValueId;
use crate::ops::{ArgReduce, Extreme, Normalize, Reduce, ReduceKind, Scalar, Softmax};
use crate::tensor::DType;

pub(super) const ROWS: &[Row] = &[
    row("BatchNormalization", &["epsilon", "momentum", "spatial", "training_mode"], batch_norm),
    row("LayerNormalization", &["axis", "epsilon", "stash_type"], layer_norm),
    row("InstanceNormalization", &["epsilon"], instance_norm),
    row("GroupNormalization", &["epsilon", "num_groups", "stash_type"], group_norm),
    row("RMSNormalization", &["axis", "epsilon", "stash_type"], rms_norm),
    row("LpNormalization", &["axis", "p"], lp_norm),
    row("MeanVarianceNormalization", &["axes"], mean_variance_norm),
    row("Hardmax", &["axis"], hardmax),
    row("Softmax", &["axis"], |call| softmax(call, false)),
    row("LogSoftmax", &["axis"], |call| softmax(call, true)),
];

/// `scale * (x - mean) / sqrt(variance + epsilon) + bias`, as one multiplication and addition a channel. In training, mean and
/// variance are those of the batch, and the running ones are further results.
fn batch_norm(call: &mut Call<'_>) -> Values {
    let training = call.flag("training_mode", false)?;
    if training && call.opset >= 14 {
        return batch_norm_of_batch(call);
    }
    if training || call.output_count() > 1 {
        return Err(Refusal::unsupported("training as before opset 14"));
    }
    if !call.flag("spatial", true)? {
        return Err(Refusal::unsupported("statistics of single activations (spatial = 0)"));
    }
    let (mean, variance) = (call.input(3)?, call.input(4)?);
    Ok(vec![normalized(call, mean, variance)?])
}

/// Input 0 of a batch normalisation less `mean` over the root of `variance`, scaled by input 1 and shifted by input 2.
fn normalized(call: &mut Call<'_>, mean: ValueId, variance: ValueId) -> Result<ValueId, Refusal> {
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (rank, dtype) = (call.rank(x), call.dtype(x));
    let gain = |scale: &Scalar, variance: &Scalar| {
        let variance = variance.clone().cast(DType::F32).plus(Scalar::constant(epsilon, DType::F32));
        scale.clone().cast(DType::F32).over(variance.unary(UnaryOp::Sqrt))
    };
    // Narrower floats round once, at the end.
    let computed = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let factor = call.map(&[scale, variance], |v| gain(&v[0], &v[1]).cast(computed))?;
    let offset = call.map(&[bias, mean, scale, variance], |v| {
        let shift = v[1].clone().cast(DType::F32).times(gain(&v[2], &v[3]));
        v[0].clone().cast(DType::F32).binary(BinaryOp::Sub, shift).cast(computed)
    })?;
    let (factor, offset) = (call.per_channel(factor, rank)?, call.per_channel(offset, rank)?);
    let converted = |value: Scalar, to: DType| if dtype == computed { value } else { value.cast(to) };
    call.map(&[x, factor, offset], |v| {
        let value = converted(v[0].clone(), computed).times(v[1].clone()).plus(v[2].clone());
        converted(value, dtype)
    })
}

/// Statistics over all axes but the channels', the variance by the number of elements; a running value is
/// `momentum * input + (1 - momentum) * statistic`.
fn batch_norm_of_batch(call: &mut Call<'_>) -> Values {
    let momentum = f64::from(call.float("momentum", 0.9)?);
    let (x, running_mean, running_variance) = (call.input(0)?, call.input(3)?, call.input(4)?);
    let rank = call.rank(x);
    if rank < 2 {
        return Err(Refusal::invalid(format!("{} has no channels", call.fact(x))));
    }
    let axes: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
    let average = |call: &mut Call<'_>, of: ValueId| {
        call.add(Reduce { kind: ReduceKind::Mean, axes: axes.clone(), keep: false }, &[of])
    };
    let wide = call.cast(x, DType::F32)?;
    let mean = average(call, wide)?;
    let mean_of_channel = call.per_channel(mean, rank)?;
    let square = call.map(&[wide, mean_of_channel], |v| {
        let centered = v[0].clone().binary(BinaryOp::Sub, v[1].clone());
        centered.clone().times(centered)
    })?;
    let variance = average(call, square)?;
    let mut results = vec![normalized(call, mean, variance)?];
    for (running, statistic) in [(running_mean, mean), (running_variance, variance)] {
        let dtype = call.dtype(running);
        results.push(call.map(&[running, statistic], |v| {
            let share = |value: &Scalar, of: f64| {
                value.clone().cast(DType::F32).times(Scalar::constant(of, DType::F32))
            };
            share(&v[0], momentum).plus(share(&v[1], 1.0 - momentum)).cast(dtype)
        })?);
    }
    results.truncate(call.output_count().max(1));
    Ok(results)
}

fn layer_norm(call: &mut Call<'_>) -> Values {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let rank = call.rank(x);
    let axis = call.int("axis", -1)?;
    let axis = call.axis(axis, rank)?;
    let epsilon = call.float("epsilon", 1e-5)?;
    let normal = call.add(Normalize { axis, epsilon, center: true }, &[x])?;
    let mut results = vec![scale_and_shift(call, normal, scale, call.optional(2))?];
    if call.output_count() > 1 {
        let axes: Vec<usize> = (axis..rank).collect();
        let wide = call.cast(x, DType::F32)?;
        let mean = call.add(Reduce { kind: ReduceKind::Mean, axes: axes.clone(), keep: true }, &[wide])?;
        let centered = call.binary(BinaryOp::Sub, wide, mean)?;
        let square = call.map(&[centered], |v| v[0].clone().times(v[0].clone()))?;
        let variance = call.add(Reduce { kind: ReduceKind::Mean, axes, keep: true }, &[square])?;
        let deviation = call.map(&[variance], |v| {
            let sum = v[0].clone().plus(Scalar::constant(f64::from(epsilon), DType::F32));
            Scalar::constant(1.0, DType::F32).over(sum.unary(UnaryOp::Sqrt))
        })?;
        results.extend([mean, deviation]);
    }
    Ok(results)
}

/// `x * scale + bias`.
pub(super) fn scale_and_shift(
    call: &mut Call<'_>,
    x: ValueId,
    scale: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId, Refusal> {
    let result = match bias {
        Some(bias) => call.map(&[x, scale, bias], |v| v[0].clone().times(v[1].clone()).plus(v[2].clone()))?,
        None => call.binary(BinaryOp::Mul, x, scale)?,
    };
    if call.shape(result) == call.shape(x) {
        Ok(result)
    } else {
        Err(Refusal::invalid(format!("scale or bias do not broadcast to {}", call.fact(x))))
    }
}

/// Before version 13 the sum runs over all axes from `axis` on.
fn softmax(call: &mut Call<'_>, log: bool) -> Values {
    let x = call.input(0)?;
    let shape = call.shape(x);
    if call.opset >= 13 {
        let axis = call.int("axis", -1)?;
        let axis = call.axis(axis, shape.len())?;
        return Ok(vec![call.add(Softmax { axis, log }, &[x])?]);
    }
    let axis = call.int("axis", 1)?;
    let axis = call.axis(axis, shape.len())?;
    let (outer, inner) = shape.split_at(axis);
    let flat = call.view(x, vec![outer.iter().product(), inner.iter().product()])?;
    let result = call.add(Softmax { axis: 1, log }, &[flat])?;
    Ok(vec![call.view(result, shape)?])
}

fn instance_norm(call: &mut Call<'_>) -> Values {
    let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (rank, epsilon) = (call.rank(x), call.float("epsilon", 1e-5)?);
    let normal = call.add(Normalize { axis: 2, epsilon, center: true }, &[x])?;
    let (scale, bias) = (call.per_channel(scale, rank)?, call.per_channel(bias, rank)?);
    Ok(vec![scale_and_shift(call, normal, scale, Some(bias))?])
}

/// Before version 21 scale and bias are one value a group, since then one a channel.
fn group_norm(call: &mut Call<'_>) -> Values {
    let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (fact, epsilon) = (call.fact(x), call.float("epsilon", 1e-5)?);
    let groups = call.int("num_groups", 0)?;
    let [batch, channels, ref spatial @ ..] = fact.shape[..] else {
        return Err(Refusal::invalid(format!("{fact} has no channels")));
    };
    let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0 && channels.is_multiple_of(groups));
    let groups =
        groups.ok_or_else(|| Refusal::invalid(format!("the groups do not divide {channels} channels")))?;
    let flat = channels / groups * spatial.iter().product::<usize>();
    let grouped = call.view(x, vec![batch, groups, flat])?;
    let normal = call.add(Normalize { axis: 2, epsilon, center: true }, &[grouped])?;
    if call.opset >= 21 {
        let normal = call.view(normal, fact.shape.clone())?;
        let (scale, bias) = (call.per_channel(scale, fact.rank())?, call.per_channel(bias, fact.rank())?);
        return Ok(vec![scale_and_shift(call, normal, scale, Some(bias))?]);
    }
    let (scale, bias) = (call.per_channel(scale, 3)?, call.per_channel(bias, 3)?);
    let result = scale_and_shift(call, normal, scale, Some(bias))?;
    Ok(vec![call.view(result, fact.shape)?])
}

fn rms_norm(call: &mut Call<'_>) -> Values {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let axis = call.int("axis", -1)?;
    let axis = call.axis(axis, call.rank(x))?;
    let normal = call.add(Normalize { axis, epsilon: call.float("epsilon", 1e-5)?, center: false }, &[x])?;
    Ok(vec![scale_and_shift(call, normal, scale, None)?])
}

/// Where the norm is 0 so is the result.
fn lp_norm(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let axis = call.int("axis", -1)?;
    let axes = vec![call.axis(axis, call.rank(x))?];
    let kind = match call.int("p", 2)? {
        1 => ReduceKind::L1,
        2 => ReduceKind::L2,
        p => return Err(call.bad_attribute("p", p)),
    };
    let norm = call.add(Reduce { kind, axes, keep: true }, &[x])?;
    let zero = Scalar::constant(0.0, call.dtype(x));
    let result = call.map(&[x, norm], |v| {
        let empty = v[1].clone().binary(BinaryOp::Eq, zero.clone());
        empty.select(zero, v[0].clone().over(v[1].clone()))
    })?;
    Ok(vec![result])
}

/// `(x - mean) / (deviation + 1e-9)`.
fn mean_variance_norm(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let axes = call.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let axes = call.axes(&axes, call.rank(x))?;
    let mean = call.add(Reduce { kind: ReduceKind::Mean, axes: axes.clone(), keep: true }, &[x])?;
    let centered = call.binary(BinaryOp::Sub, x, mean)?;
    let square = call.map(&[centered], |v| v[0].clone().times(v[0].clone()))?;
    let variance = call.add(Reduce { kind: ReduceKind::Mean, axes, keep: true }, &[square])?;
    let epsilon = Scalar::constant(1e-9, call.dtype(x));
    let result = call
        .map(&[centered, variance], |v| v[0].clone().over(v[1].clone().unary(UnaryOp::Sqrt).plus(epsilon)))?;
    Ok(vec![result])
}

/// 1 at the first of the largest elements, else 0; before version 13 among all axes from `axis` on.
fn hardmax(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let fact = call.fact(x);
    let axis = call.int("axis", if call.opset >= 13 { -1 } else { 1 })?;
    let axis = call.axis(axis, fact.rank())?;
    let (flat, axis) = if call.opset >= 13 {
        (x, axis)
    } else {
        let (outer, inner) = fact.shape.split_at(axis);
        (call.view(x, vec![outer.iter().product(), inner.iter().product()])?, 1)
    };
    let op = ArgReduce { extreme: Extreme::Max, axis, keep: true, last: false };
    let largest = call.add(op, &[flat])?;
    let shape = call.shape(flat);
    let positions = call.positions(DType::I64, shape[axis], axis, shape.len())?;
    let result = call
        .map(&[largest, positions], |v| v[0].clone().binary(BinaryOp::Eq, v[1].clone()).cast(fact.dtype))?;
    Ok(vec![call.view(result, fact.shape)?])
}
