//! Quantised operators of ONNX Runtime, which its quantisation of whole models makes.

use super::quantize::{integer_matmul, ratio_of, requantized, saturated, signed_sum};
use super::{Call, Refusal, Row, Values, row};
use crate::expr::BinaryOp;
use crate::graph::ValueId;
use crate::ops::{Concat, Scalar};
use crate::tensor::DType;

const DOMAIN: &str = "com.microsoft";

pub(super) const ROWS: &[Row] = &[
    row("QLinearAdd", &[], add).domain(DOMAIN),
    row("QLinearMul", &[], multiply).domain(DOMAIN),
    row("QLinearGlobalAveragePool", &["channels_last"], mean_over_places).domain(DOMAIN),
    row("QGemm", &["alpha", "transA", "transB"], gemm).domain(DOMAIN),
    row("QLinearConcat", &["axis"], concat).domain(DOMAIN),
];

/// The input `i` of an expression less its zero point, as f32: exact.
fn centered(i: usize, zero: usize) -> Scalar {
    let float = |i: usize| Scalar::Input(i).cast(DType::F32);
    float(i).binary(BinaryOp::Sub, float(zero))
}

/// `value`, an expression of `inputs`, rounded and saturated to the type of `zero`, which it is moved by.
fn rounded(
    call: &mut Call<'_>,
    inputs: &[ValueId],
    value: Scalar,
    zero: ValueId,
) -> Result<ValueId, Refusal> {
    let dtype = call.dtype(zero);
    let scalar = saturated(value, Some(Scalar::Input(inputs.len())), dtype, DType::F32)?;
    call.map_scalar(&[inputs, &[zero]].concat(), &scalar)
}

/// The zero point that input `i` is, or 0 of the type of `like`.
fn zero_point(call: &mut Call<'_>, i: usize, like: ValueId) -> ValueId {
    let dtype = call.dtype(like);
    call.optional(i).unwrap_or_else(|| call.constant(crate::tensor::Tensor::from_fn(dtype, &[], |_| 0.0)))
}

/// `a * sa / sy + (b * sb / sy + constant)`, where the constant is what the zero points add up to, that of the result among them: the order
/// in which ONNX Runtime computes it, so that sums between two bytes become the same ones.
fn add(call: &mut Call<'_>) -> Values {
    let (a, b) = (call.input(0)?, call.input(3)?);
    let (a_zero, b_zero, zero) = (zero_point(call, 2, a), zero_point(call, 5, b), zero_point(call, 7, a));
    let (a_scale, b_scale, scale) = (call.input(1)?, call.input(4)?, call.input(6)?);
    let of_a = ratio_of(call, &[a_scale], scale)?;
    let of_b = ratio_of(call, &[b_scale], scale)?;
    let float = |i: usize| Scalar::Input(i).cast(DType::F32);
    // Each operation is rounded.
    let product = float(0).times(Scalar::Input(1));
    let zeros =
        [(a_zero, of_a), (b_zero, of_b)].map(|(zero, ratio)| call.map_scalar(&[zero, ratio], &product));
    let [of_a_zero, of_b_zero] = zeros;
    let zeros = call.binary(BinaryOp::Add, of_a_zero?, of_b_zero?)?;
    let constant = call.map_scalar(&[zero, zeros], &float(0).binary(BinaryOp::Sub, Scalar::Input(1)))?;
    let value = float(1).times(Scalar::Input(3)).plus(Scalar::Input(4));
    let value = float(0).times(Scalar::Input(2)).plus(value);
    let dtype = call.dtype(zero);
    let scalar = saturated(value, None, dtype, DType::F32)?;
    Ok(vec![call.map_scalar(&[a, b, of_a, of_b, constant], &scalar)?])
}

/// `(a - za) * (b - zb) * sa * sb / sy`.
fn multiply(call: &mut Call<'_>) -> Values {
    let (a, b) = (call.input(0)?, call.input(3)?);
    let (a_zero, b_zero, zero) = (zero_point(call, 2, a), zero_point(call, 5, b), zero_point(call, 7, a));
    let (a_scale, b_scale, scale) = (call.input(1)?, call.input(4)?, call.input(6)?);
    let ratio = ratio_of(call, &[a_scale, b_scale], scale)?;
    let value = centered(0, 2).times(centered(1, 3)).times(Scalar::Input(4));
    Ok(vec![rounded(call, &[a, b, a_zero, b_zero, ratio], value, zero)?])
}

fn mean_over_places(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let (x_zero, zero) = (zero_point(call, 2, x), zero_point(call, 4, x));
    let (x_scale, scale) = (call.input(1)?, call.input(3)?);
    let shape = call.shape(x);
    let rank = shape.len();
    let axes: Vec<usize> =
        if call.flag("channels_last", false)? { (1..rank.max(1) - 1).collect() } else { (2..rank).collect() };
    let places: usize = axes.iter().map(|&axis| shape[axis]).product();
    let sum = signed_sum(call, x, axes)?;
    let ratio = ratio_of(call, &[x_scale], scale)?;
    let places = Scalar::constant(places as f64, DType::F32);
    let of_zero = Scalar::Input(1).cast(DType::F32).times(places.clone());
    let value = Scalar::Input(0).cast(DType::F32).binary(BinaryOp::Sub, of_zero);
    let value = value.times(Scalar::Input(2).over(places));
    Ok(vec![rounded(call, &[sum, x_zero, ratio], value, zero)?])
}

/// `alpha * (a - za) * (b - zb)`, with an i32 bias of that scale; f32 where the result has no scale.
fn gemm(call: &mut Call<'_>) -> Values {
    let (mut a, mut b) = (call.input(0)?, call.input(3)?);
    if call.flag("transA", false)? {
        a = call.transpose(a, vec![1, 0])?;
    }
    if call.flag("transB", false)? {
        b = call.transpose(b, vec![1, 0])?;
    }
    let (a_zero, b_zero) = (call.optional(2), call.optional(5));
    let mut product = integer_matmul(call, (a, a_zero), (b, b_zero))?;
    if let Some(bias) = call.optional(6) {
        product = call.binary(BinaryOp::Add, product, bias)?;
    }
    let (a_scale, b_scale) = (call.input(1)?, call.input(4)?);
    let alpha = call.float("alpha", 1.0)?;
    let a_scale = call.map(&[a_scale], |v| {
        if alpha == 1.0 {
            v[0].clone()
        } else {
            v[0].clone().times(Scalar::constant(f64::from(alpha), DType::F32))
        }
    })?;
    if call.optional(7).is_none() {
        let y = call.map(&[product, a_scale, b_scale], |v| {
            v[0].clone().cast(DType::F32).times(v[1].clone().times(v[2].clone()))
        })?;
        return Ok(vec![y]);
    }
    let columns = call.shape(product).last().copied().into_iter().collect();
    Ok(vec![requantized(call, product, [a_scale, b_scale], columns, 7)?])
}

fn concat(call: &mut Call<'_>) -> Values {
    let (scale, zero) = (call.input(0)?, call.input(1)?);
    let count = call.input_count().saturating_sub(2) / 3;
    let mut parts = vec![];
    for part in 0..count {
        let [x, x_scale, x_zero] =
            [0, 1, 2].map(|of| call.input(2 + 3 * part + of)).into_iter().collect::<Result<Vec<_>, _>>()?[..]
        else {
            return Err(Refusal::invalid("a part has no zero point"));
        };
        let ratio = ratio_of(call, &[x_scale], scale)?;
        let value = centered(0, 1).times(Scalar::Input(2));
        parts.push(rounded(call, &[x, x_zero, ratio], value, zero)?);
    }
    let first = *parts.first().ok_or_else(|| Refusal::invalid("it has no parts"))?;
    let axis = call.needed_int("axis")?;
    let axis = call.axis(axis, call.rank(first))?;
    Ok(vec![call.add(Concat { axis }, &parts)?])
}
