//! Normalisations and softmax.

use super::{Call, Refusal, Row, Values, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::ValueId;
use crate::ops::{Normalize, Reduce, ReduceKind, Scalar, Softmax};
use crate::tensor::DType;

pub(super) const ROWS: &[Row] = &[
    row("BatchNormalization", &["epsilon", "momentum", "spatial", "training_mode"], batch_norm),
    row("LayerNormalization", &["axis", "epsilon", "stash_type"], layer_norm),
    row("Softmax", &["axis"], |call| softmax(call, false)),
    row("LogSoftmax", &["axis"], |call| softmax(call, true)),
];

/// `scale * (x - mean) / sqrt(variance + epsilon) + bias`, as one multiplication and addition a channel.
fn batch_norm(call: &mut Call<'_>) -> Values {
    if call.flag("training_mode", false)? || call.output_count() > 1 {
        return Err(Refusal::unsupported("training"));
    }
    if !call.flag("spatial", true)? {
        return Err(Refusal::unsupported("statistics of single activations (spatial = 0)"));
    }
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let x = call.input(0)?;
    let (scale, bias, mean, variance) = (call.input(1)?, call.input(2)?, call.input(3)?, call.input(4)?);
    let (rank, dtype) = (call.rank(x), call.dtype(x));
    let gain = |scale: &Scalar, variance: &Scalar| {
        let variance = variance.clone().cast(DType::F32).plus(Scalar::constant(epsilon, DType::F32));
        scale.clone().cast(DType::F32).over(variance.unary(UnaryOp::Sqrt))
    };
    let factor = call.map(&[scale, variance], |v| gain(&v[0], &v[1]).cast(dtype))?;
    let offset = call.map(&[bias, mean, scale, variance], |v| {
        let shift = v[1].clone().cast(DType::F32).times(gain(&v[2], &v[3]));
        v[0].clone().cast(DType::F32).binary(BinaryOp::Sub, shift).cast(dtype)
    })?;
    let (factor, offset) = (call.per_channel(factor, rank)?, call.per_channel(offset, rank)?);
    Ok(vec![call.map(&[x, factor, offset], |v| v[0].clone().times(v[1].clone()).plus(v[2].clone()))?])
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
