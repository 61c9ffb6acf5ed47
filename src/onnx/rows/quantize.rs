//! Quantised arithmetic, written out: exact integers between maps that scale, round and saturate.

use super::linear::{self, matmul};
use super::{Call, Refusal, Row, Values, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::ValueId;
use crate::ops::{Literal, Pad, PadMode, Reduce, ReduceKind, Scalar};
use crate::tensor::{DType, Tensor};

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
        let (sums, of_filters) = integer_conv(call, (x, x_zero), (w, w_zero))?;
        let sums = call.cast(sums, DType::I32)?;
        Ok(vec![match of_filters {
            Some(more) => call.binary(BinaryOp::Add, sums, more)?,
            None => sums,
        }])
    }),
    row("QLinearMatMul", &[], |call| {
        let (a, b) = (call.input(0)?, call.input(3)?);
        let (a_zero, b_zero) = (call.optional(2), call.optional(5));
        let product = integer_matmul(call, (a, a_zero), (b, b_zero))?;
        let (a_scale, b_scale) = (call.input(1)?, call.input(4)?);
        let a_scale = by_row(call, a_scale)?;
        let columns = call.shape(product).last().copied().into_iter().collect();
        Ok(vec![requantized(call, product, [a_scale, b_scale], columns, 6)?])
    }),
    row("QLinearConv", linear::CONV, |call| {
        let (x, w) = (call.input(0)?, call.input(3)?);
        let (x_zero, w_zero) = (call.optional(2), call.optional(5));
        let (mut product, mut more) = integer_conv(call, (x, x_zero), (w, w_zero))?;
        let rank = call.rank(product);
        if let Some(bias) = call.optional(8) {
            let terms: usize = call.shape(w).iter().skip(1).product();
            let largest = (1 << f32::MANTISSA_DIGITS) - (255 * 255 * terms) as i64;
            let exact = call.dtype(product) == DType::F32 && within(call, bias, largest);
            let dtype = if exact { DType::F32 } else { DType::I32 };
            product = call.cast(product, dtype)?;
            let bias = call.cast(bias, dtype)?;
            let bias = call.per_channel(bias, rank)?;
            more = Some(match more {
                Some(more) => call.binary(BinaryOp::Add, more, bias)?,
                None => bias,
            });
        }
        if let Some(more) = more {
            product = call.binary(BinaryOp::Add, product, more)?;
        }
        let mut filters = vec![1; rank - 1];
        filters[0] = call.shape(product)[1];
        let (x_scale, w_scale) = (call.input(1)?, call.input(4)?);
        let w_scale = if call.rank(w_scale) == 1 { call.per_channel(w_scale, rank)? } else { w_scale };
        Ok(vec![requantized(call, product, [x_scale, w_scale], filters, 6)?])
    }),
];

/// `value` rounded to an integer, shifted by the zero point and saturated to its type.
pub(super) fn saturated(
    value: Scalar,
    zero: Option<Scalar>,
    dtype: DType,
    float: DType,
) -> Result<Scalar, Refusal> {
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

/// `x - zero` as elements of `dtype`, which holds all differences of bytes.
fn centered(
    call: &mut Call<'_>,
    x: ValueId,
    zero: Option<ValueId>,
    dtype: DType,
) -> Result<ValueId, Refusal> {
    match zero {
        None => call.cast(x, dtype),
        Some(zero) => {
            call.map(&[x, zero], |v| v[0].clone().cast(dtype).binary(BinaryOp::Sub, v[1].clone().cast(dtype)))
        }
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

/// The sums of products of `a - zero` and `b - zero`, in i32.
pub(super) fn integer_matmul(call: &mut Call<'_>, a: Quantized, b: Quantized) -> Result<ValueId, Refusal> {
    let a_zero = a.1.map(|zero| by_row(call, zero)).transpose()?;
    let (of_a, of_b) = (call.shape(a.0), call.shape(b.0));
    let matrices = of_a.len() >= 2 && of_b.len() >= 2;
    // A zero point a row or a column is one a matrix where there are several of them.
    let plain = |call: &Call<'_>, zero: Option<ValueId>| zero.is_none_or(|zero| call.rank(zero) <= 2);
    let by_fours =
        matrices && plain(call, a_zero) && plain(call, b.1) && of_a[of_a.len() - 1].is_multiple_of(4);
    if !by_fours {
        let a = centered(call, a.0, a_zero, DType::I32)?;
        let b = centered(call, b.0, b.1, DType::I32)?;
        return matmul(call, a, b);
    }
    // sum (a - za) (b - zb)  =  sum a b - za sum b - zb sum a + depth za zb
    let (b, b_zero) = as_signed(call, b)?;
    let depth = of_a[of_a.len() - 1] as f64;
    let (a, a_zero) = (a.0, a_zero.filter(|&zero| !is_zero(call, zero)));
    let product = matmul(call, a, b)?;
    let int = |value: Scalar| value.cast(DType::I32);
    let product = match a_zero {
        None => product,
        Some(zero) => {
            let of_columns = signed_sum(call, b, vec![of_b.len() - 2])?;
            let excess =
                call.map(&[of_columns, zero], |v| v[0].clone().times(int(v[1].clone()).unary(UnaryOp::Neg)))?;
            call.binary(BinaryOp::Add, product, excess)?
        }
    };
    let Some(b_zero) = b_zero.filter(|&zero| !is_zero(call, zero)) else { return Ok(product) };
    let of_rows = signed_sum(call, a, vec![of_a.len() - 1])?;
    let of_rows = match a_zero {
        None => of_rows,
        Some(zero) => call.map(&[of_rows, zero], |v| {
            let all = int(v[1].clone()).times(Scalar::constant(depth, DType::I32));
            v[0].clone().binary(BinaryOp::Sub, all)
        })?,
    };
    call.map(&[product, b_zero, of_rows], |v| {
        v[0].clone().binary(BinaryOp::Sub, v[1].clone().times(v[2].clone()))
    })
}

/// The sums over axes in i32; the axes stay, of extent 1.
pub(super) fn signed_sum(call: &mut Call<'_>, x: ValueId, axes: Vec<usize>) -> Result<ValueId, Refusal> {
    let wide = call.cast(x, DType::I32)?;
    call.add(Reduce { kind: ReduceKind::Sum, axes, keep: true }, &[wide])
}

/// The product of scales over another one, in f32; each operation is rounded.
pub(super) fn ratio_of(call: &mut Call<'_>, scales: &[ValueId], over: ValueId) -> Result<ValueId, Refusal> {
    let float = |scalar: &Scalar| scalar.clone().cast(DType::F32);
    let mut ratio: Option<ValueId> = None;
    for &scale in scales {
        ratio = Some(match ratio {
            Some(product) => call.map(&[product, scale], |v| v[0].clone().times(float(&v[1])))?,
            None => call.cast(scale, DType::F32)?,
        });
    }
    let ratio = ratio.ok_or_else(|| Refusal::invalid("there is no scale"))?;
    call.map(&[ratio, over], |v| v[0].clone().over(float(&v[1])))
}

/// Bytes as signed ones, and their zero point moved likewise, as i32 if there is one.
fn as_signed(call: &mut Call<'_>, (x, zero): Quantized) -> Result<Quantized, Refusal> {
    let wide = |v: &Scalar| v.clone().cast(DType::I32);
    if call.dtype(x) != DType::U8 {
        let zero = zero.map(|zero| call.cast(zero, DType::I32)).transpose()?;
        return Ok((x, zero));
    }
    let half = || Scalar::constant(128.0, DType::I32);
    let moved = call.map(&[x], |v| wide(&v[0]).binary(BinaryOp::Sub, half()).cast(DType::I8))?;
    let zero = match zero {
        Some(zero) => call.map(&[zero], |v| wide(&v[0]).binary(BinaryOp::Sub, half()))?,
        None => call.constant(Tensor::from_fn(DType::I32, &[], |_| -128.0)),
    };
    Ok((moved, Some(zero)))
}

/// Whether a value is known to be 0 everywhere.
fn is_zero(call: &Call<'_>, value: ValueId) -> bool {
    call.tensor_of(value).is_some_and(|tensor| (0..tensor.len()).all(|at| tensor.get_f64(at) == 0.0))
}

/// Whether no element is known to be larger than a limit.
fn within(call: &Call<'_>, value: ValueId, limit: i64) -> bool {
    call.tensor_of(value)
        .is_some_and(|tensor| (0..tensor.len()).all(|at| tensor.get_f64(at).abs() <= limit as f64))
}

/// The value of all elements, where they are known to be one.
fn single(call: &Call<'_>, value: Option<ValueId>) -> Option<i64> {
    let Some(value) = value else { return Some(0) };
    let tensor = call.tensor_of(value)?;
    let first = (!tensor.is_empty()).then(|| tensor.get_f64(0))?;
    (0..tensor.len()).all(|at| tensor.get_f64(at) == first).then_some(first as i64)
}

/// Image and filters with as many more channels, of the zero point and of 0, as fill a micro-kernel for bytes; `None` where that is
/// not worth it.
fn with_more_channels(
    call: &mut Call<'_>,
    x: Quantized,
    w: Quantized,
) -> Result<Option<(ValueId, ValueId)>, Refusal> {
    const LEAST_TERMS: usize = 24;
    let shape = call.shape(w.0);
    let (Some(edge), Some(0), [filters, channels, ..]) = (single(call, x.1), single(call, w.1), &shape[..])
    else {
        return Ok(None);
    };
    let terms: usize = shape[1..].iter().product();
    let whole = call.int("group", 1)? == 1 && *filters >= 16 && terms >= LEAST_TERMS;
    if channels.is_multiple_of(4) || !whole || call.tensor_of(w.0).is_none() || call.dtype(w.0) != DType::I8 {
        return Ok(None);
    }
    let mut pads = vec![(0, 0); shape.len()];
    pads[1] = (0, channels.next_multiple_of(4) - channels);
    let mut padded = |value: ValueId, element: i64| {
        let mode = PadMode::Constant(Literal::new(element as f64, call.dtype(value)));
        call.add(Pad { pads: pads.clone(), mode }, &[value])
    };
    Ok(Some((padded(x.0, edge)?, padded(w.0, 0)?)))
}

/// Sums of so many products of differences of bytes are integers that f32 holds.
const EXACT_TERMS: usize = (1 << f32::MANTISSA_DIGITS) / (255 * 255);

/// The convolution of `x - zero` with `w - zero`, in i32, or in f32 where that is exact: sums, and what is to be added to those of each
/// filter, if anything is.
fn integer_conv(
    call: &mut Call<'_>,
    x: Quantized,
    w: Quantized,
) -> Result<(ValueId, Option<ValueId>), Refusal> {
    let shape = call.shape(w.0);
    let rank = shape.len();
    let zero = match w.1 {
        Some(zero) if call.rank(zero) == 1 && call.shape(zero) != [1] => {
            let mut aligned = vec![1; rank];
            aligned[0] = shape[0];
            Some(call.view(zero, aligned)?)
        }
        zero => zero,
    };
    let terms: usize = shape.iter().skip(1).product();
    if let Some(padded) = with_more_channels(call, x, (w.0, zero))? {
        return integer_conv(call, (padded.0, x.1), (padded.1, w.1));
    }
    // What does not fill a micro-kernel for bytes.
    if terms <= EXACT_TERMS && !shape.get(1).is_some_and(|channels| channels.is_multiple_of(4)) {
        let x = centered(call, x.0, x.1, DType::F32)?;
        let w = centered(call, w.0, zero, DType::F32)?;
        let sums = linear::convolution(call, x, w, None, 0)?;
        return Ok((sums, None));
    }
    let (signed, signed_zero) = as_signed(call, (w.0, zero))?;
    let of_weights = single(call, signed_zero);
    let (Some(edge), Some(0)) = (single(call, x.1), of_weights) else {
        let x = centered(call, x.0, x.1, DType::I32)?;
        let w = centered(call, w.0, zero, DType::I32)?;
        return Ok((linear::convolution(call, x, w, None, 0)?, None));
    };
    // sum (x - zero) w  =  sum x w - zero sum w, where the edge is the zero point as well
    let product = linear::convolution(call, x.0, signed, None, edge)?;
    if edge == 0 {
        return Ok((product, None));
    }
    let of_filters = call.view(signed, vec![shape[0], terms])?;
    let of_filters = signed_sum(call, of_filters, vec![1])?;
    let mut aligned = vec![1; rank];
    aligned[1] = shape[0];
    let of_filters = call.view(of_filters, aligned)?;
    let edge = Scalar::constant(-edge as f64, DType::I32);
    let excess = call.map(&[of_filters], |v| v[0].clone().times(edge))?;
    Ok((product, Some(excess)))
}

/// The i32 `product` times both scales over the scale of the result, input `result` of the node, which its zero point
/// follows. Its filters or columns have the shape `columns`.
pub(super) fn requantized(
    call: &mut Call<'_>,
    product: ValueId,
    scales: [ValueId; 2],
    columns: Vec<usize>,
    result: usize,
) -> Result<ValueId, Refusal> {
    let (scale, zero) = (call.input(result)?, call.input(result + 1)?);
    let (dtype, shape) = (call.dtype(zero), call.shape(product));
    let mut ratio = ratio_of(call, &scales, scale)?;
    // One for each filter or column, as a micro-kernel takes them.
    if call.tensor_of(ratio).is_some_and(|ratio| ratio.len() == 1) {
        ratio = call.view(ratio, vec![])?;
        ratio = call.broadcast(ratio, columns)?;
    }
    let value = Scalar::Input(0).cast(DType::F32).times(Scalar::Input(1));
    let scalar = saturated(value, Some(Scalar::Input(2)), dtype, DType::F32)?;
    let y = call.map_scalar(&[product, ratio, zero], &scalar)?;
    call.view(y, shape)
}
