//! Elementwise expressions without the operations that do nothing, and with cheap ones for powers.

use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::{Graph, Op};
use crate::ops::{Literal, Map, Scalar};
use crate::tensor::DType;

/// Integers that f32 holds.
const EXACT: std::ops::RangeInclusive<i64> = -(1 << f32::MANTISSA_DIGITS)..=1 << f32::MANTISSA_DIGITS;

/// Removes factors and divisors of 1, a 0 that is subtracted or added to an integer, conversions to the type at hand and
/// what is negated twice, converts constants, and writes powers of -1, 2 and 3 as products. Only the cube may round differently.
pub fn simplify_scalars(graph: &Graph) -> Graph {
    graph.rewrite(|step| {
        let Op::Map(map) = &step.node.op else { return None };
        let dtypes: Vec<DType> = step.inputs.iter().map(|&input| step.new.fact(input).dtype).collect();
        let scalar = simplified(&map.scalar, &dtypes);
        if scalar == map.scalar {
            return None;
        }
        step.add(Map { scalar }, &step.inputs.to_vec()).ok()
    })
}

fn simplified(scalar: &Scalar, inputs: &[DType]) -> Scalar {
    let simplified = |scalar: &Scalar| simplified(scalar, inputs);
    match scalar {
        Scalar::Input(_) | Scalar::Constant(_) => scalar.clone(),
        Scalar::Unary(op, a) => match simplified(a) {
            Scalar::Unary(inner, a) if inner == *op && matches!(op, UnaryOp::Neg | UnaryOp::Not) => *a,
            a => a.unary(*op),
        },
        Scalar::Binary(op, a, b) => binary(*op, simplified(a), simplified(b)),
        Scalar::Select(c, a, b) => simplified(c).select(simplified(a), simplified(b)),
        Scalar::Cast(dtype, a) => match simplified(a) {
            a if a.dtype(inputs) == Ok(*dtype) => a,
            Scalar::Constant(Literal::Int(value, _)) if *dtype == DType::F32 && EXACT.contains(&value) => {
                Scalar::constant(value as f64, DType::F32)
            }
            a => a.cast(*dtype),
        },
    }
}

fn binary(op: BinaryOp, a: Scalar, b: Scalar) -> Scalar {
    let constant = |scalar: &Scalar| match scalar {
        Scalar::Constant(literal) => Some((literal.as_f64(), literal.dtype())),
        Scalar::Input(_) | Scalar::Unary(..) | Scalar::Binary(..) | Scalar::Select(..) | Scalar::Cast(..) => {
            None
        }
    };
    match (op, constant(&a), constant(&b)) {
        (BinaryOp::Mul, Some((1.0, _)), _) => b,
        (BinaryOp::Mul | BinaryOp::Div | BinaryOp::Pow, _, Some((1.0, _)))
        | (BinaryOp::Sub, _, Some((0.0, _))) => a,
        // Of floats, -0 + 0 is 0.
        (BinaryOp::Add, _, Some((0.0, dtype))) if !dtype.is_float() => a,
        (BinaryOp::Add, Some((0.0, dtype)), _) if !dtype.is_float() => b,
        (BinaryOp::Pow, _, Some((-1.0, dtype))) if dtype.is_float() => Scalar::constant(1.0, dtype).over(a),
        (BinaryOp::Pow, _, Some((2.0, _))) => a.clone().times(a),
        (BinaryOp::Pow, _, Some((3.0, _))) => a.clone().times(a.clone()).times(a),
        _ => a.binary(op, b),
    }
}
