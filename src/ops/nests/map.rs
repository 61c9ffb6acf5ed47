//! Elementwise operators.

use crate::expr::{BinaryOp, Expr, ExprId, ExprPool};
use crate::ops::define::{Define, DefineError, ElementForm, Follow, Form};
use crate::ops::{Definer, Fact, Literal, Map, Scalar};

impl Define for Map {
    /// The operation where there is one alone, `relu`, or `map`.
    fn label(&self) -> String {
        let is_input = |scalar: &Scalar| matches!(scalar, Scalar::Input(_));
        let is_leaf = |scalar: &Scalar| matches!(scalar, Scalar::Input(_) | Scalar::Constant(_));
        match &self.scalar {
            Scalar::Unary(op, a) if is_input(a) => op.name().to_string(),
            Scalar::Binary(BinaryOp::Max, a, b)
                if is_input(a) && matches!(**b, Scalar::Constant(zero) if zero.as_f64() == 0.0) =>
            {
                "relu".to_string()
            }
            Scalar::Binary(op, a, b) if is_leaf(a) && is_leaf(b) => op.name().to_string(),
            Scalar::Cast(_, a) if is_input(a) => "cast".to_string(),
            Scalar::Select(c, a, b) if is_leaf(c) && is_leaf(a) && is_leaf(b) => "select".to_string(),
            Scalar::Input(_)
            | Scalar::Constant(_)
            | Scalar::Unary(..)
            | Scalar::Binary(..)
            | Scalar::Select(..)
            | Scalar::Cast(..) => "map".to_string(),
        }
    }

    fn form(&self) -> Form<'_> {
        Form::Element(self)
    }
}

impl ElementForm for Map {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        scalar(&self.scalar, at, index)
    }

    fn follow(&self, input: usize, inputs: &[Fact], output: &Fact) -> Follow {
        if grows_by_leading_ones(&inputs[input].shape, &output.shape) { Follow::Maps } else { Follow::Never }
    }

    fn forward(&self, at: &mut Definer<'_>, _input: usize, index: &[ExprId]) -> Vec<ExprId> {
        let rank = at.output(0).rank();
        leading_zeros(at.pool(), index, rank)
    }
}

fn scalar(expr: &Scalar, at: &mut Definer<'_>, index: &[ExprId]) -> Result<ExprId, DefineError> {
    Ok(match expr {
        Scalar::Input(input) => {
            let fact = at.input(*input);
            let index = broadcast_index(at.pool(), index, &fact.shape);
            at.read(*input, &index)?
        }
        Scalar::Constant(Literal::Float(bits, dtype)) => at.pool().constant(f64::from_bits(*bits), *dtype),
        Scalar::Constant(Literal::Int(value, dtype)) => at.pool().intern(Expr::Int(*value, *dtype)),
        Scalar::Unary(op, a) => {
            let a = scalar(a, at, index)?;
            at.pool().unary(*op, a)
        }
        Scalar::Binary(op, a, b) => {
            let (a, b) = (scalar(a, at, index)?, scalar(b, at, index)?);
            at.pool().binary(*op, a, b)
        }
        Scalar::Select(c, a, b) => {
            let c = scalar(c, at, index)?;
            let (a, b) = (scalar(a, at, index)?, scalar(b, at, index)?);
            at.pool().select(c, a, b)
        }
        Scalar::Cast(dtype, a) => {
            let a = scalar(a, at, index)?;
            at.pool().cast(*dtype, a)
        }
    })
}

/// The index in an operand of `shape` that is broadcast to the shape `index` is in.
pub(super) fn broadcast_index(pool: &mut ExprPool, index: &[ExprId], shape: &[usize]) -> Vec<ExprId> {
    let skipped = index.len() - shape.len();
    let own = index[skipped..].iter().zip(shape);
    own.map(|(&i, &extent)| if extent == 1 { pool.int(0) } else { i }).collect()
}

/// Whether `to` is `from` behind any number of extents of 1.
pub(super) fn grows_by_leading_ones(from: &[usize], to: &[usize]) -> bool {
    let added = to.len().saturating_sub(from.len());
    to[added..] == *from && to[..added].iter().all(|&extent| extent == 1)
}

/// `index` behind as many zeros as make it `rank` long.
pub(super) fn leading_zeros(pool: &mut ExprPool, index: &[ExprId], rank: usize) -> Vec<ExprId> {
    let mut result = vec![pool.int(0); rank - index.len()];
    result.extend(index);
    result
}
