//! Expressions made safe and flat: one linear index a load, in range wherever it is evaluated; guards as selects.
//!
//! A shader evaluates both sides of a `select`, so a load below a guard is evaluated where the guard does not hold too. There
//! it reads element 0; where neither ranges nor guards prove an index, it is clamped.

use crate::expr::{BinaryOp, BufferId, Expr, ExprId, ExprPool, UnaryOp, VarId};
use crate::loopir::Facts;
use crate::tensor::DType;
use std::collections::HashMap;

/// A condition that holds where an expression matters.
#[derive(Clone, Copy)]
struct Active {
    /// As the nest states it: what indices are proved with.
    facts: ExprId,
    /// As the kernel evaluates it.
    test: ExprId,
}

/// Lowers the expressions of one statement.
pub(super) struct Lowering<'p> {
    pub(super) pool: &'p mut ExprPool,
    /// Counts the lanes of wide statements.
    lane: VarId,
    /// Conditions the statement tests before it evaluates anything.
    assumed: Vec<ExprId>,
    /// What follows from these.
    known: Facts,
    /// What follows from these and others.
    known_under: HashMap<ExprId, Facts>,
    memo: HashMap<(ExprId, ExprId), ExprId>,
    /// Whether no index had to be clamped.
    pub(super) proved: bool,
}

impl<'p> Lowering<'p> {
    pub(super) fn new(pool: &'p mut ExprPool, lane: VarId, assumed: Vec<ExprId>) -> Self {
        let mut known = Facts::default();
        for &condition in &assumed {
            known.assume(pool, condition);
        }
        let (known_under, memo) = (HashMap::new(), HashMap::new());
        Lowering { pool, lane, assumed, known, known_under, memo, proved: true }
    }

    /// The expression in its flat form.
    pub(super) fn lower(&mut self, id: ExprId) -> ExprId {
        self.lower_where(id, &[])
    }

    /// The expression in its flat form; its value does not matter where a condition does not hold.
    pub(super) fn lower_where(&mut self, id: ExprId, conditions: &[ExprId]) -> ExprId {
        let facts = self.pool.conjunction(conditions);
        let test = self.lower_conjunction(conditions);
        self.lower_under(id, Active { facts, test })
    }

    fn lower_conjunction(&mut self, conditions: &[ExprId]) -> ExprId {
        let truth = self.pool.truth();
        let lowered: Vec<ExprId> =
            conditions.iter().map(|&c| self.lower_under(c, Active { facts: truth, test: truth })).collect();
        self.pool.conjunction(&lowered)
    }

    /// The flat index of a store, and the conditions under which it may be used: none where it is proved.
    pub(super) fn lower_store(&mut self, buffer: BufferId, index: &[ExprId]) -> (ExprId, Vec<ExprId>) {
        let flat: Vec<ExprId> = index.iter().map(|&i| self.lower(i)).collect();
        let linear = self.pool.linear_index(buffer, &flat);
        if in_range(self.pool, &self.known, buffer, index, linear) {
            return (linear, vec![]);
        }
        self.proved = false;
        let len = self.pool.buffers[buffer].storage_len() as i64;
        (linear, vec![self.pool.at_least_int(linear, 0), self.pool.less_int(linear, len)])
    }

    fn lower_under(&mut self, id: ExprId, active: Active) -> ExprId {
        if let Some(&done) = self.memo.get(&(id, active.test)) {
            return done;
        }
        let lowered = self.lower_node(id, active);
        self.memo.insert((id, active.test), lowered);
        lowered
    }

    fn lower_node(&mut self, id: ExprId, active: Active) -> ExprId {
        match self.pool.get(id).clone() {
            Expr::Int(..) | Expr::Float(..) | Expr::Var(_) => id,
            Expr::Load(buffer, index) => self.lower_load(buffer, &index, active),
            Expr::Unary(op, a) => {
                let a = self.lower_under(a, active);
                self.pool.unary(op, a)
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.lower_under(a, active), self.lower_under(b, active));
                self.fold(op, a, b)
            }
            Expr::Select(c, a, b) => {
                let test = self.lower_under(c, active);
                let when = self.both(active, c, test);
                let a = self.lower_under(a, when);
                let (negated, negated_test) = (self.negation(c), self.negation(test));
                let otherwise = self.both(active, negated, negated_test);
                let b = self.lower_under(b, otherwise);
                self.pool.select(test, a, b)
            }
            Expr::Guard(c, value) => {
                let open: Vec<ExprId> = self.pool.conjuncts(c);
                let open: Vec<ExprId> = open.into_iter().filter(|c| !self.assumed.contains(c)).collect();
                let condition = self.pool.conjunction(&open);
                let test = self.lower_under(condition, active);
                let inner = self.both(active, condition, test);
                let value = self.lower_under(value, inner);
                let dtype = self.pool.dtype(value);
                let zero = self.pool.constant(0.0, dtype);
                self.pool.select(test, value, zero)
            }
            Expr::Cast(dtype, a) => {
                let a = self.lower_under(a, active);
                match self.pool.as_int(a) {
                    Some(value) if dtype.is_float() => self.pool.constant(value as f64, dtype),
                    Some(_) | None => self.pool.cast(dtype, a),
                }
            }
        }
    }

    fn both(&mut self, active: Active, facts: ExprId, test: ExprId) -> Active {
        Active { facts: self.pool.and(active.facts, facts), test: self.pool.and(active.test, test) }
    }

    fn negation(&mut self, condition: ExprId) -> ExprId {
        match *self.pool.get(condition) {
            Expr::Binary(BinaryOp::Lt, a, b) if self.pool.dtype(a) == DType::I64 => {
                self.pool.binary(BinaryOp::Ge, a, b)
            }
            Expr::Binary(BinaryOp::Ge, a, b) if self.pool.dtype(a) == DType::I64 => {
                self.pool.binary(BinaryOp::Lt, a, b)
            }
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => self.pool.unary(UnaryOp::Not, condition),
        }
    }

    /// The operation, computed now where both operands are float constants: the text must not contain constant
    /// expressions that overflow.
    fn fold(&mut self, op: BinaryOp, a: ExprId, b: ExprId) -> ExprId {
        if let (&Expr::Float(x, dtype), &Expr::Float(y, _)) = (self.pool.get(a), self.pool.get(b)) {
            let dtype = if op.is_comparison() { DType::Bool } else { dtype };
            return self.pool.constant(op.eval_f64(f64::from_bits(x), f64::from_bits(y)), dtype);
        }
        if let (&Expr::Int(x, dtype), &Expr::Int(y, _)) = (self.pool.get(a), self.pool.get(b)) {
            let value = op.eval_i64(x, y);
            let fits = dtype.integer_range().is_some_and(|(low, high)| (low..=high).contains(&value.into()));
            if op.is_comparison() {
                return self.pool.intern(Expr::Int(value, DType::Bool));
            } else if fits {
                return self.pool.intern(Expr::Int(value, dtype));
            }
        }
        self.pool.binary(op, a, b)
    }

    fn lower_load(&mut self, buffer: BufferId, index: &[ExprId], active: Active) -> ExprId {
        let flat: Vec<ExprId> = index.iter().map(|&i| self.lower_under(i, active)).collect();
        let linear = self.pool.linear_index(buffer, &flat);
        if in_range(self.pool, &self.known, buffer, index, linear) {
            return self.pool.load(buffer, &[linear]);
        }
        let zero = self.pool.int(0);
        if self.in_range_under(active.facts, buffer, index, linear) {
            let test = self.needed(active, buffer, index, linear);
            // Of the same place in a `vec4`, so that the load can be a component of one.
            let component = self.pool.mod_int(linear, 4);
            let component = self.pool.simplify(component);
            let known = self.pool.vars_of(component).iter().all(|&var| var == self.lane)
                && self.pool.loads_of(component).is_empty()
                && self.pool.buffers[buffer].storage_len() >= 4;
            let elsewhere = if known { component } else { zero };
            let index = self.pool.select(test, linear, elsewhere);
            return self.pool.load(buffer, &[index]);
        }
        self.proved = false;
        let last = self.pool.int((self.pool.buffers[buffer].storage_len() as i64 - 1).max(0));
        let low = self.pool.binary(BinaryOp::Max, linear, zero);
        let clamped = self.pool.binary(BinaryOp::Min, low, last);
        self.pool.load(buffer, &[clamped])
    }
}

impl Lowering<'_> {
    fn in_range_under(&mut self, facts: ExprId, buffer: BufferId, index: &[ExprId], linear: ExprId) -> bool {
        let known = self.known_under.entry(facts).or_insert_with(|| {
            let mut known = self.known.clone();
            known.assume(self.pool, facts);
            known
        });
        in_range(self.pool, known, buffer, index, linear)
    }

    /// Of the conditions that prove an index, those it takes, as a test: loads under different conditions are the same load
    /// where the conditions that differ do not matter to it.
    fn needed(&mut self, active: Active, buffer: BufferId, index: &[ExprId], linear: ExprId) -> ExprId {
        let mut needed = self.pool.conjuncts(active.facts);
        if needed.len() < 2 {
            return active.test;
        }
        let mut place = 0;
        while place < needed.len() {
            let mut fewer = needed.clone();
            fewer.remove(place);
            let facts = self.pool.conjunction(&fewer);
            if self.in_range_under(facts, buffer, index, linear) {
                needed = fewer;
            } else {
                place += 1;
            }
        }
        self.lower_conjunction(&needed)
    }
}

/// Whether an access is proved to be in range, in each dimension or in the storage.
fn in_range(pool: &mut ExprPool, known: &Facts, buffer: BufferId, index: &[ExprId], linear: ExprId) -> bool {
    let shape = pool.buffers[buffer].shape.clone();
    let storage = pool.buffers[buffer].storage_len();
    index.iter().zip(shape).all(|(&i, extent)| known.range(pool, i).within(extent))
        || known.range(pool, linear).within(storage)
}

impl Lowering<'_> {
    /// Comparisons that all four values of `lane` decide alike, without `lane`: `4 i + lane < 4 n` is `4 i < 4 n`.
    pub(super) fn without_lane(pool: &mut ExprPool, root: ExprId, lane: VarId) -> ExprId {
        pool.rewrite(root, &mut |pool, id| {
            let Expr::Binary(op @ (BinaryOp::Lt | BinaryOp::Ge), a, b) = *pool.get(id) else { return None };
            let Expr::Int(bound, DType::I64) = *pool.get(b) else { return None };
            let mut form = pool.affine(a);
            if form.coefficient(pool, lane) != Some(1) {
                return None;
            }
            let lane = pool.var(lane);
            form.add_term(lane, -1);
            let aligned = (bound - form.constant) % 4 == 0 && form.terms.values().all(|c| c % 4 == 0);
            aligned.then(|| {
                let a = pool.from_affine(&form);
                pool.binary(op, a, b)
            })
        })
    }
}
