//! Matrix products and convolutions.

use super::window::Window;
use super::{Call, Refusal, Row, Values, row};
use crate::graph::ValueId;
use crate::ops::{Conv, MatMul, Scalar};

pub(super) const ROWS: &[Row] = &[
    row("MatMul", &[], |call| {
        let (a, b) = (call.input(0)?, call.input(1)?);
        Ok(vec![matmul(call, a, b)?])
    }),
    row("Gemm", &["alpha", "beta", "transA", "transB", "broadcast"], gemm),
    row("Conv", &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"], conv),
];

/// The product of NumPy: a vector is a row on the left and a column on the right, and its axis is dropped again.
pub(super) fn matmul(call: &mut Call<'_>, a: ValueId, b: ValueId) -> Result<ValueId, Refusal> {
    let (mut left, mut right) = (call.shape(a), call.shape(b));
    let (vector_a, vector_b) = (left.len() == 1, right.len() == 1);
    if vector_a {
        left.insert(0, 1);
    }
    if vector_b {
        right.push(1);
    }
    let (a, b) = (call.view(a, left)?, call.view(b, right)?);
    let product = call.add(MatMul::default(), &[a, b])?;
    let mut shape = call.shape(product);
    if vector_b {
        shape.pop();
    }
    if vector_a {
        shape.remove(shape.len() - if vector_b { 1 } else { 2 });
    }
    call.view(product, shape)
}

/// `alpha * a * b + beta * c`.
fn gemm(call: &mut Call<'_>) -> Values {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
    let op = MatMul { transpose_a: call.flag("transA", false)?, transpose_b: call.flag("transB", false)? };
    if call.rank(a) != 2 || call.rank(b) != 2 {
        return Err(Refusal::invalid(format!("{} and {} are not matrices", call.fact(a), call.fact(b))));
    }
    let product = call.add(op, &[a, b])?;
    let dtype = call.dtype(product);
    let scaled = |x: Scalar, by: f32| {
        if by == 1.0 { x } else { Scalar::constant(f64::from(by), dtype).times(x) }
    };
    let result = match call.optional(2).filter(|_| beta != 0.0) {
        Some(c) => {
            let sum =
                call.map(&[product, c], |x| scaled(x[0].clone(), alpha).plus(scaled(x[1].clone(), beta)))?;
            if call.shape(sum) != call.shape(product) {
                return Err(Refusal::invalid(format!("{} does not broadcast to the product", call.fact(c))));
            }
            sum
        }
        None if alpha == 1.0 => product,
        None => call.map(&[product], |x| scaled(x[0].clone(), alpha))?,
    };
    Ok(vec![result])
}

fn conv(call: &mut Call<'_>) -> Values {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let kernel = call.shape(w).get(2..).unwrap_or(&[]).to_vec();
    if let Some(stated) = call.ints("kernel_shape")?
        && call.extents(&stated, "kernel extents")? != kernel
    {
        return Err(Refusal::invalid(format!(
            "kernel_shape is {stated:?}, but the weights are {}",
            call.fact(w)
        )));
    }
    let Window { strides, dilations, pads, .. } = Window::read(call, x, kernel)?;
    let groups = call.int("group", 1)?;
    let groups = usize::try_from(groups).map_err(|_| call.bad_attribute("group", groups))?;
    let inputs: Vec<ValueId> = [x, w].into_iter().chain(call.optional(2)).collect();
    Ok(vec![call.add(Conv { strides, dilations, pads, groups }, &inputs)?])
}
