//! Batch normalisation and other scales and shifts disappear in the weights before them.

use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::{self, Graph, Op, Rewrite, ValueId};
use crate::ops::{Conv, Fact, Literal, Map, MatMul, Scalar};
use crate::tensor::{DType, Tensor};

/// Replaces `map(conv(x, w, b))`, where the map is `y * scale + shift` with constants that differ by channel at most, by a
/// convolution with other weights and bias; and `map(matmul(x, w))` by a product with other weights and a map that only
/// adds. The weights must be constants and the map the only use of the product. Weights are computed in f64 and rounded
/// once.
pub fn fold_affine(graph: &Graph) -> Graph {
    let uses = graph.uses();
    graph.rewrite(|step| {
        let Op::Map(map) = &step.node.op else { return None };
        for (place, &input) in step.node.inputs.iter().enumerate() {
            // The product's only use in the old graph, its mapped form in the new one.
            let Some(producer) = step.new.producer(step.inputs[place]) else { continue };
            if uses.only(input) != Some(step.id)
                || step.old.fact(input) != step.old.fact(step.node.outputs[0])
            {
                continue;
            }
            let product = step.new.nodes()[producer].clone();
            let result = match &product.op {
                Op::Conv(op) => into_conv(step, map, place, op, &product.inputs),
                Op::MatMul(op) => into_matmul(step, map, place, *op, &product.inputs),
                _ => None,
            };
            if result.is_some() {
                return result;
            }
        }
        None
    })
}

fn into_conv(
    step: &mut Rewrite<'_>,
    map: &Map,
    place: usize,
    op: &Conv,
    inputs: &[ValueId],
) -> Option<Vec<ValueId>> {
    let weights = step.new.constant(inputs[1])?;
    let weights = like_result(weights, step.old.fact(step.node.outputs[0]));
    let filters = weights.shape()[0];
    let bias = match inputs.get(2) {
        Some(&bias) => step.new.constant(bias)?.to_f64_vec(),
        None => vec![0.0; filters],
    };
    let (scale, shift) = constants(step, map, place, 1, filters)?;
    let scaled = scaled(&weights, &scale, weights.len() / filters);
    let shifted = |k: usize| bias[k] * scale[k] + shift[k];
    let bias = Tensor::from_fn(weights.dtype(), &[filters], shifted);
    let name = step.new.values()[inputs[1]].name.clone();
    let bias = step.new.add_constant(&format!("{name}.bias"), bias);
    let scaled = step.new.add_constant(&format!("{name}.scaled"), scaled);
    step.add(op.clone(), &[inputs[0], scaled, bias]).ok()
}

fn into_matmul(
    step: &mut Rewrite<'_>,
    map: &Map,
    place: usize,
    op: MatMul,
    inputs: &[ValueId],
) -> Option<Vec<ValueId>> {
    let weights = step.new.constant(inputs[1])?.clone();
    let &[rows, columns] = weights.shape() else { return None };
    let (width, inner) = if op.transpose_b { (rows, columns) } else { (columns, 1) };
    let output = step.old.fact(step.node.outputs[0]).clone();
    let (scale, shift) = constants(step, map, place, output.rank() - 1, width)?;
    if scale.iter().all(|&scale| scale == 1.0) {
        return None;
    }
    let name = step.new.values()[inputs[1]].name.clone();
    let scaled = scaled(&like_result(&weights, &output), &scale, inner);
    let scaled = step.new.add_constant(&format!("{name}.scaled"), scaled);
    let product = step.add(op, &[inputs[0], scaled]).ok()?;
    if shift.iter().all(|&shift| shift == 0.0) {
        return Some(product);
    }
    let shift = Tensor::from_fn(output.dtype, &[width], |i| shift[i]);
    let shift = step.new.add_constant(&format!("{name}.shift"), shift);
    step.add(Map { scalar: Scalar::Input(0).plus(Scalar::Input(1)) }, &[product[0], shift]).ok()
}

/// The weights in the type of the result, which they are converted to where they are floats of a narrower type.
fn like_result(weights: &Tensor, result: &Fact) -> Tensor {
    if weights.dtype().is_float() { weights.cast(result.dtype) } else { weights.clone() }
}

/// The weights with element `i` multiplied by `scale[i / inner % scale.len()]`.
fn scaled(weights: &Tensor, scale: &[f64], inner: usize) -> Tensor {
    if weights.dtype() != DType::F32 {
        return Tensor::from_fn(weights.dtype(), weights.shape(), |i| {
            weights.get_f64(i) * scale[i / inner % scale.len()]
        });
    }
    let (values, _) = weights.bytes().as_chunks();
    let product = |value: &[u8; 4], factor: f64| (f64::from(f32::from_le_bytes(*value)) * factor) as f32;
    let mut products = Vec::with_capacity(values.len());
    if inner == 1 {
        for row in values.chunks(scale.len()) {
            products.extend(row.iter().zip(scale).map(|(value, &factor)| product(value, factor)));
        }
    } else {
        for (run, &factor) in values.chunks(inner.max(1)).zip(scale.iter().cycle()) {
            products.extend(run.iter().map(|value| product(value, factor)));
        }
    }
    Tensor::from_vec(weights.shape(), products)
}

/// Scale and shift by channel along `axis` of what the map does to input `place`, when it is that and no more.
fn constants(
    step: &Rewrite<'_>,
    map: &Map,
    place: usize,
    axis: usize,
    channels: usize,
) -> Option<(Vec<f64>, Vec<f64>)> {
    let output = step.new.fact(step.inputs[place]);
    if !output.dtype.is_float() || channels == 0 {
        return None;
    }
    let (scale, shift) = affine(&map.scalar, place, output.dtype)?;
    let mut by_channel = Vec::with_capacity(step.inputs.len());
    for (i, &input) in step.inputs.iter().enumerate() {
        if i == place {
            // Neither scale nor shift reads it.
            by_channel.push(Tensor::zeros(output.dtype, &[1]));
            continue;
        }
        let tensor = step.new.constant(input)?;
        let missing = output.rank() - tensor.shape().len();
        let along = axis.checked_sub(missing).map_or(1, |axis| tensor.shape()[axis]);
        if tensor.len() != along {
            return None;
        }
        by_channel.push(tensor.reshaped(&[along])?);
    }
    let tensors: Vec<&Tensor> = by_channel.iter().collect();
    let values = |scalar: Scalar| -> Option<Vec<f64>> {
        let op = Op::Map(Map { scalar: scalar.cast(DType::F64) });
        let facts: Vec<Fact> = tensors.iter().map(|tensor| Fact::of(tensor)).collect();
        let facts = op.def().infer(&facts.iter().collect::<Vec<_>>()).ok()?;
        let result = graph::fold(&op, &tensors, &facts)?.pop()?.to_f64_vec();
        let widened = if result.len() == 1 { vec![result[0]; channels] } else { result };
        (widened.len() == channels && widened.iter().all(|value| value.is_finite())).then_some(widened)
    };
    Some((values(scale)?, values(shift)?))
}

/// `scalar` as `scale * Input(place) + shift`, where neither reads that input.
fn affine(scalar: &Scalar, place: usize, dtype: DType) -> Option<(Scalar, Scalar)> {
    let constant = |value: f64| Scalar::constant(value, dtype);
    let is = |scalar: &Scalar, value: f64| matches!(scalar, Scalar::Constant(Literal::Float(bits, _)) if f64::from_bits(*bits) == value);
    let sum = |a: Scalar, op: BinaryOp, b: Scalar| {
        if is(&b, 0.0) {
            a
        } else if is(&a, 0.0) && op == BinaryOp::Add {
            b
        } else {
            a.binary(op, b)
        }
    };
    let product = |a: Scalar, op: BinaryOp, b: &Scalar| {
        if is(&a, 0.0) {
            a
        } else if is(&a, 1.0) && op == BinaryOp::Mul {
            b.clone()
        } else {
            a.binary(op, b.clone())
        }
    };
    if !reads(scalar, place) {
        return Some((constant(0.0), scalar.clone()));
    }
    match scalar {
        Scalar::Input(_) => Some((constant(1.0), constant(0.0))),
        Scalar::Unary(UnaryOp::Neg, a) => {
            let (scale, shift) = affine(a, place, dtype)?;
            Some((scale.unary(UnaryOp::Neg), shift.unary(UnaryOp::Neg)))
        }
        Scalar::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) => {
            let (a, b) = (affine(a, place, dtype)?, affine(b, place, dtype)?);
            Some((sum(a.0, *op, b.0), sum(a.1, *op, b.1)))
        }
        Scalar::Binary(op @ (BinaryOp::Mul | BinaryOp::Div), a, b) if !reads(b, place) => {
            let (scale, shift) = affine(a, place, dtype)?;
            Some((product(scale, *op, b), product(shift, *op, b)))
        }
        Scalar::Binary(BinaryOp::Mul, a, b) if !reads(a, place) => {
            let (scale, shift) = affine(b, place, dtype)?;
            Some((product(scale, BinaryOp::Mul, a), product(shift, BinaryOp::Mul, a)))
        }
        Scalar::Unary(..)
        | Scalar::Binary(..)
        | Scalar::Constant(_)
        | Scalar::Select(..)
        | Scalar::Cast(..) => None,
    }
}

fn reads(scalar: &Scalar, place: usize) -> bool {
    match scalar {
        Scalar::Input(i) => *i == place,
        Scalar::Constant(_) => false,
        Scalar::Unary(_, a) | Scalar::Cast(_, a) => reads(a, place),
        Scalar::Binary(_, a, b) => reads(a, place) || reads(b, place),
        Scalar::Select(c, a, b) => reads(c, place) || reads(a, place) || reads(b, place),
    }
}
