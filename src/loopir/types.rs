//! Types of expressions and blocks.

use super::{Combiner, Store};
use crate::expr::{BinaryKind, BinaryOp, Expr, ExprId, ExprPool, OnIntegers, UnaryOp};
use crate::tensor::DType;
use std::collections::HashSet;

/// Types that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// A value of another type than its place needs.
    #[error("{place} `{expr}` is {found}, but should be {expected}: cast it")]
    Mismatch {
        /// An index, a condition, the right operand ...
        place: &'static str,
        /// The expression.
        expr: String,
        /// What it should be.
        expected: DType,
        /// What it is.
        found: DType,
    },
    /// An operation on a type it has no meaning for.
    #[error("`{expr}`: the operation `{op}` has no meaning for {dtype}")]
    NoMeaning {
        /// The expression.
        expr: String,
        /// The operation.
        op: &'static str,
        /// The type of its operands.
        dtype: DType,
    },
    /// Too few or too many indices.
    #[error("buffer `{buffer}` has {rank} dimensions, but is accessed with {given} indices")]
    Rank {
        /// The buffer.
        buffer: String,
        /// Its rank.
        rank: usize,
        /// The indices given.
        given: usize,
    },
    /// A constant outside of its type.
    #[error("the constant {value} is not one of {dtype}")]
    Constant {
        /// Its value.
        value: i64,
        /// Its type.
        dtype: DType,
    },
}

/// All that does not fit in a block.
pub(super) fn check_store(pool: &ExprPool, store: &Store) -> Vec<TypeError> {
    let mut checker = Checker { pool, errors: vec![], seen: HashSet::new() };
    checker.access(store.buffer, &store.index);
    checker.needs("the value", store.value, pool.buffers[store.buffer].dtype);
    if let Some(condition) = store.condition {
        checker.needs("the condition", condition, DType::Bool);
    }
    if let Some(combiner) = store.combine {
        let dtype = pool.buffers[store.buffer].dtype;
        if dtype == DType::Bool && matches!(combiner, Combiner::Add | Combiner::Mul) {
            let (expr, op) = (pool.display(store.value).to_string(), combiner.op().name());
            checker.errors.push(TypeError::NoMeaning { expr, op, dtype });
        }
    }
    for root in store.roots() {
        pool.visit(root, &mut |id| checker.node(id));
    }
    checker.errors
}

struct Checker<'a> {
    pool: &'a ExprPool,
    errors: Vec<TypeError>,
    seen: HashSet<ExprId>,
}

impl Checker<'_> {
    fn needs(&mut self, place: &'static str, id: ExprId, expected: DType) {
        let found = self.pool.dtype(id);
        if found != expected {
            let expr = self.pool.display(id).to_string();
            self.errors.push(TypeError::Mismatch { place, expr, expected, found });
        }
    }

    fn access(&mut self, buffer: crate::expr::BufferId, index: &[ExprId]) {
        let pool = self.pool;
        let (rank, given) = (pool.buffers[buffer].shape.len(), index.len());
        if rank != given {
            self.errors.push(TypeError::Rank { buffer: pool.buffers[buffer].name.clone(), rank, given });
        }
        for &i in index {
            self.needs("the index", i, DType::I64);
        }
    }

    fn node(&mut self, id: ExprId) {
        if !self.seen.insert(id) {
            return;
        }
        let pool = self.pool;
        match pool.get(id) {
            Expr::Var(_) | Expr::Cast(..) => {}
            Expr::Float(_, dtype) => {
                if !dtype.is_float() {
                    let expr = pool.display(id).to_string();
                    self.errors.push(TypeError::NoMeaning { expr, op: "float constant", dtype: *dtype });
                }
            }
            Expr::Int(value, dtype) => {
                // The bits of a u64 are kept in an i64.
                let kept_as = if *dtype == DType::U64 { DType::I64 } else { *dtype };
                let range = if *dtype == DType::Bool { Some((0, 1)) } else { kept_as.integer_range() };
                if !range.is_some_and(|(low, high)| low <= i128::from(*value) && i128::from(*value) <= high) {
                    self.errors.push(TypeError::Constant { value: *value, dtype: *dtype });
                }
            }
            Expr::Load(buffer, index) => self.access(*buffer, index),
            Expr::Unary(op, a) => self.meaning(id, op.name(), unary_fits(*op, pool.dtype(*a)), *a),
            Expr::Binary(op, a, b) => {
                self.needs("the right operand", *b, pool.dtype(*a));
                self.meaning(id, op.name(), binary_fits(*op, pool.dtype(*a)), *a);
            }
            Expr::Select(condition, a, b) => {
                self.needs("the condition", *condition, DType::Bool);
                self.needs("the last operand", *b, pool.dtype(*a));
            }
            Expr::Guard(condition, _) => self.needs("the condition", *condition, DType::Bool),
        }
    }

    fn meaning(&mut self, id: ExprId, op: &'static str, fits: bool, operand: ExprId) {
        if !fits {
            let (expr, dtype) = (self.pool.display(id).to_string(), self.pool.dtype(operand));
            self.errors.push(TypeError::NoMeaning { expr, op, dtype });
        }
    }
}

fn unary_fits(op: UnaryOp, dtype: DType) -> bool {
    match op.on_integers() {
        Some(OnIntegers::Not) => !dtype.is_float(),
        Some(_) => dtype != DType::Bool,
        None => dtype.is_float(),
    }
}

fn binary_fits(op: BinaryOp, dtype: DType) -> bool {
    match op.kind() {
        BinaryKind::Arithmetic | BinaryKind::Rounding => dtype != DType::Bool,
        BinaryKind::Logic => !dtype.is_float(),
        BinaryKind::Shift => dtype.is_integer(),
        BinaryKind::Choice | BinaryKind::Comparison(_) => true,
    }
}
