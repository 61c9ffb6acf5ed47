//! Quantised arithmetic, written out: exact integers between maps that scale, round and saturate.

use super::linear::{self, matmul};
use super::{Call, Refusal, Row, Values, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::ValueId;
use crate::ops::{Reduce, ReduceKind, Scalar};
use crate::tensor::DType;

pub(super) const ROWS: &[Row] = &[
    row("QuantizeLinear", &["axis", "block_size", "output_dtype", "precision", "saturate"], quantize),
    row("DequantizeLinear", &["axis", "block_size", "output_dtype"], dequantize),
    row("DynamicQuantizeLinear", &[], dynamic_quantize),
    row("MatMulInteger", &[], |call| {
        let (a, b) = (call.input(0)?, call.input(1)?);
        let (a_zero, b_zero) = (call.optional(2), call.optional(3));
        Ok(vec![integer_matmul(call, (a, a_zero), (b, b_zero))?])
    }),
    row("ConvInteger", linear::CONV, |call| {
        let (x, w) = (call.input(0)?, call.input(1)?);
        let (x_zero, w_zero) = (call.optional(2), call.optional(3));
        Ok(vec![integer_conv(call, (x, x_zero), (w, w_zero))?])
    }),
    row("QLinearMatMul", &[], |call| {
        let (a, b) = (call.input(0)?, call.input(3)?);
        let (a_zero, b_zero) = (call.optional(2), call.optional(5));
        let product = integer_matmul(call, (a, a_zero), (b, b_zero))?;
        let (a_scale, b_scale) = (call.input(1)?, call.input(4)?);
        let a_scale = by_row(call, a_scale)?;
        Ok(vec![requantized(call, product, [a_scale, b_scale], 6)?])
    }),
    row("QLinearConv", linear::CONV, |call| {
        let (x, w) = (call.input(0)?, call.input(3)?);
        let (x_zero, w_zero) = (call.optional(2), call.optional(5));
        let mut product = integer_conv(call, (x, x_zero), (w, w_zero))?;
        let rank = call.rank(product);
        if let Some(bias) = call.optional(8) {
            let bias = call.per_channel(bias, rank)?;
            product = call.binary(BinaryOp::Add, product, bias)?;
        }
        let (x_scale, w_scale) = (call.input(1)?, call.input(4)?);
        let w_scale = if call.rank(w_scale) == 1 { call.per_channel(w_scale, rank)? } else { w_scale };
        Ok(vec![requantized(call, product, [x_scale, w_scale], 6)?])
    }),
];

/// `value` rounded to an integer, shifted by the zero point and saturated to its type.
fn saturated(value: Scalar, zero: Option<Scalar>, dtype: DType, float: DType) -> Result<Scalar, Refusal> {
    let (low, high) =
        dtype.integer_range().ok_or_else(|| Refusal::unsupported(format!("quantisation to {dtype}")))?;
    let rounded = value.unary(UnaryOp::Round);
    let shifted = match zero {
        Some(zero) => rounded.plus(zero.cast(float)),
        None => rounded,
    };
    let limit = |limit: i128| Scalar::constant(limit as f64, float);
    Ok(shifted.max(limit(low)).min(limit(high)).cast(dtype))
}

/// Scale or zero point so that it broadcasts with `x`, which is split where values belong to blocks of an axis. Gives the
/// shape `x` is viewed in.
fn beside(
    call: &mut Call<'_>,
    x: ValueId,
    values: &[ValueId],
) -> Result<(Vec<usize>, Vec<ValueId>), Refusal> {
    let shape = call.shape(x);
    let of = call.shape(values[0]);
    let single = of.iter().product::<usize>() == 1 && of.len() <= 1;
    if single {
        let flat = values.iter().map(|&value| call.view(value, vec![])).collect::<Result<_, _>>()?;
        return Ok((shape, flat));
    }
    let axis = call.int("axis", 1)?;
    let axis = call.axis(axis, shape.len())?;
    let block = call.int("block_size", 0)?;
    let (view, aligned) = match usize::try_from(block) {
        Ok(0) if of == [shape[axis]] => {
            let mut aligned = vec![1; shape.len()];
            aligned[axis] = shape[axis];
            (shape, aligned)
        }
        Ok(block)
            if block > 0 && of.len() == shape.len() && shape[axis] == of[axis].saturating_mul(block) =>
        {
            let (mut view, mut aligned) = (shape, of);
            view[axis] = aligned[axis];
            view.insert(axis + 1, block);
            aligned.insert(axis + 1, 1);
            (view, aligned)
        }
        Ok(_) | Err(_) => return Err(Refusal::invalid(format!("the scale {of:?} does not fit {shape:?}"))),
    };
    let values =
        values.iter().map(|&value| call.view(value, aligned.clone())).collect::<Result<Vec<_>, _>>()?;
    Ok((view, values))
}

fn quantize(call: &mut Call<'_>) -> Values {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let zero = call.optional(2);
    let dtype = match (zero, call.dtype_attribute("output_dtype")?) {
        (Some(zero), _) => call.dtype(zero),
        (None, Some(dtype)) => dtype,
        (None, None) => DType::U8,
    };
    let float = call.dtype(scale);
    let shape = call.shape(x);
    let parts: Vec<ValueId> = [scale].into_iter().chain(zero).collect();
    let (split, parts) = beside(call, x, &parts)?;
    let mut inputs = vec![call.view(x, split)?];
    inputs.extend(parts);
    let value = Scalar::Input(0).cast(float).over(Scalar::Input(1));
    let scalar = saturated(value, zero.map(|_| Scalar::Input(2)), dtype, float)?;
    let result = call.map_scalar(&inputs, &scalar)?;
    Ok(vec![call.view(result, shape)?])
}

fn dequantize(call: &mut Call<'_>) -> Values {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let zero = call.optional(2);
    let shape = call.shape(x);
    let float = call.dtype(scale);
    let parts: Vec<ValueId> = [scale].into_iter().chain(zero).collect();
    let (split, parts) = beside(call, x, &parts)?;
    let mut inputs = vec![call.view(x, split)?];
    inputs.extend(parts);
    let value = Scalar::Input(0).cast(DType::F32);
    let centered = match zero {
        Some(_) => value.binary(BinaryOp::Sub, Scalar::Input(2).cast(DType::F32)),
        None => value,
    };
    let scaled = centered.times(Scalar::Input(1).cast(DType::F32));
    let dtype = call.dtype_attribute("output_dtype")?.unwrap_or(float);
    let scalar = if dtype == DType::F32 { scaled } else { scaled.cast(dtype) };
    let result = call.map_scalar(&inputs, &scalar)?;
    Ok(vec![call.view(result, shape)?])
}

/// Scale and zero point from the range of the data, which includes 0.
fn dynamic_quantize(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let axes: Vec<usize> = (0..call.rank(x)).collect();
    let constant = |value: f64| Scalar::constant(value, DType::F32);
    let low = call.add(Reduce { kind: ReduceKind::Min, axes: axes.clone(), keep: false }, &[x])?;
    let high = call.add(Reduce { kind: ReduceKind::Max, axes, keep: false }, &[x])?;
    let scale = call.map(&[low, high], |v| {
        let range = v[1].clone().max(constant(0.0)).binary(BinaryOp::Sub, v[0].clone().min(constant(0.0)));
        range.over(constant(255.0))
    })?;
    let zero = Scalar::Input(0).min(constant(0.0)).unary(UnaryOp::Neg).over(Scalar::Input(1));
    let zero = call.map_scalar(&[low, scale], &saturated(zero, None, DType::U8, DType::F32)?)?;
    let value = Scalar::Input(0).over(Scalar::Input(1));
    let scalar = saturated(value, Some(Scalar::Input(2)), DType::U8, DType::F32)?;
    let y = call.map_scalar(&[x, scale, zero], &scalar)?;
    Ok(vec![y, scale, zero])
}

/// `x - zero` as i32.
fn centered(call: &mut Call<'_>, x: ValueId, zero: Option<ValueId>) -> Result<ValueId, Refusal> {
    match zero {
        None => call.cast(x, DType::I32),
        Some(zero) => call.map(&[x, zero], |v| {
            v[0].clone().cast(DType::I32).binary(BinaryOp::Sub, v[1].clone().cast(DType::I32))
        }),
    }
}

/// A vector of one value a row, so that it broadcasts with the matrix.
fn by_row(call: &mut Call<'_>, values: ValueId) -> Result<ValueId, Refusal> {
    match call.shape(values)[..] {
        [rows] if rows != 1 => call.view(values, vec![rows, 1]),
        _ => Ok(values),
    }
}

type Quantized = (ValueId, Option<ValueId>);

fn integer_matmul(call: &mut Call<'_>, a: Quantized, b: Quantized) -> Result<ValueId, Refusal> {
    let a_zero = a.1.map(|zero| by_row(call, zero)).transpose()?;
    let a = centered(call, a.0, a_zero)?;
    let b = centered(call, b.0, b.1)?;
    matmul(call, a, b)
}

fn integer_conv(call: &mut Call<'_>, x: Quantized, w: Quantized) -> Result<ValueId, Refusal> {
    let x = centered(call, x.0, x.1)?;
    let shape = call.shape(w.0);
    let zero = match w.1 {
        Some(zero) if call.rank(zero) == 1 && call.shape(zero) != [1] => {
            let mut aligned = vec![1; shape.len()];
            aligned[0] = shape[0];
            Some(call.view(zero, aligned)?)
        }
        zero => zero,
    };
    let w = centered(call, w.0, zero)?;
    linear::convolution(call, x, w, None)
}

/// The i32 `product` times both scales over the scale of the result, input `result` of the node, which its zero point
/// follows.
fn requantized(
    call: &mut Call<'_>,
    product: ValueId,
    scales: [ValueId; 2],
    result: usize,
) -> Result<ValueId, Refusal> {
    let (scale, zero) = (call.input(result)?, call.input(result + 1)?);
    let (dtype, shape) = (call.dtype(zero), call.shape(product));
    let float = |i: usize| Scalar::Input(i).cast(DType::F32);
    let value = float(0).times(float(1).times(float(2)).over(float(3)));
    let scalar = saturated(value, Some(Scalar::Input(4)), dtype, DType::F32)?;
    let y = call.map_scalar(&[product, scales[0], scales[1], scale, zero], &scalar)?;
    call.view(y, shape)
}
