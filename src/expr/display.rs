//! The text form of expressions; [`crate::loopir`] parses it.

use super::{Expr, ExprId, ExprPool, UnaryOp};
use crate::tensor::DType;
use std::fmt;

/// Shows one expression of a pool.
pub struct ExprDisplay<'a> {
    pool: &'a ExprPool,
    id: ExprId,
}

impl ExprPool {
    /// The text form of an expression.
    pub fn display(&self, id: ExprId) -> ExprDisplay<'_> {
        ExprDisplay { pool: self, id }
    }
}

impl fmt::Display for ExprDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_expr(self.pool, self.id, 0, f)
    }
}

/// `-x` is the negative constant where `x` is one, so that the operation on a constant prints as a call.
fn write_expr(pool: &ExprPool, id: ExprId, outer: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let call = |f: &mut fmt::Formatter<'_>, name: &str, operands: &[ExprId]| {
        write!(f, "{name}(")?;
        for (i, &operand) in operands.iter().enumerate() {
            write!(f, "{}", if i > 0 { ", " } else { "" })?;
            write_expr(pool, operand, 0, f)?;
        }
        write!(f, ")")
    };
    match pool.get(id) {
        Expr::Int(value, DType::I64) => write!(f, "{value}"),
        Expr::Int(value, DType::Bool) => write!(f, "{}", *value != 0),
        Expr::Int(value, dtype) => write!(f, "{value}_{dtype}"),
        Expr::Float(bits, dtype) => {
            let value = f64::from_bits(*bits);
            if *dtype == DType::F32 {
                write!(f, "{:?}", value as f32)
            } else {
                write!(f, "{value:?}_{dtype}")
            }
        }
        Expr::Var(var) => write!(f, "{}", pool.vars[*var].name),
        Expr::Load(buffer, index) => {
            write!(f, "{}", pool.buffers[*buffer].name)?;
            write_index(pool, index, f)
        }
        Expr::Unary(UnaryOp::Neg, a) if !matches!(pool.get(*a), Expr::Int(..) | Expr::Float(..)) => {
            write!(f, "-")?;
            write_expr(pool, *a, 6, f)
        }
        Expr::Unary(op, a) => call(f, op.name(), &[*a]),
        Expr::Binary(op, a, b) => match op.infix() {
            Some((symbol, level)) => {
                write!(f, "{}", if level < outer { "(" } else { "" })?;
                write_expr(pool, *a, level, f)?;
                write!(f, " {symbol} ")?;
                write_expr(pool, *b, level + 1, f)?;
                write!(f, "{}", if level < outer { ")" } else { "" })
            }
            None => call(f, op.name(), &[*a, *b]),
        },
        Expr::Select(c, a, b) => call(f, "select", &[*c, *a, *b]),
        Expr::Guard(c, a) => call(f, "guard", &[*c, *a]),
        Expr::Cast(dtype, a) => call(f, dtype.name(), &[*a]),
    }
}

/// `[i, j]`; nothing for a scalar.
pub(crate) fn write_index(pool: &ExprPool, index: &[ExprId], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (axis, &i) in index.iter().enumerate() {
        write!(f, "{}", if axis == 0 { "[" } else { ", " })?;
        write_expr(pool, i, 0, f)?;
    }
    write!(f, "{}", if index.is_empty() { "" } else { "]" })
}
