//! Expressions made safe and flat: one linear index a load, in range wherever it is evaluated; guards as selects.
//!
//! A shader evaluates both sides of a `select`, so a load below a guard is evaluated where the guard does not hold too. There
//! it reads element 0; where neither ranges nor guards prove an index, it is clamped.

use crate::expr::{Affine, BinaryOp, BufferId, Expr, ExprId, ExprPool, UnaryOp, VarId};
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

/// What is known of an affine form without a constant.
struct Fact {
    form: Affine,
    low: Option<i64>,
    high: Option<i64>,
}

/// Lowers the expressions of one statement.
pub(super) struct Lowering<'p> {
    pub(super) pool: &'p mut ExprPool,
    /// Conditions the statement tests before it evaluates anything.
    assumed: Vec<ExprId>,
    memo: HashMap<(ExprId, ExprId), ExprId>,
    /// Whether no index had to be clamped.
    pub(super) proved: bool,
}

impl<'p> Lowering<'p> {
    pub(super) fn new(pool: &'p mut ExprPool, assumed: Vec<ExprId>) -> Self {
        Lowering { pool, assumed, memo: HashMap::new(), proved: true }
    }

    /// The expression in its flat form.
    pub(super) fn lower(&mut self, id: ExprId) -> ExprId {
        let truth = self.pool.truth();
        self.lower_under(id, Active { facts: truth, test: truth })
    }

    /// The flat index of a store, and the conditions under which it may be used: none where it is proved.
    pub(super) fn lower_store(&mut self, buffer: BufferId, index: &[ExprId]) -> (ExprId, Vec<ExprId>) {
        let facts = self.facts(None);
        let proved = self.in_range(buffer, index, &facts);
        let index: Vec<ExprId> = index.iter().map(|&i| self.lower(i)).collect();
        let linear = self.pool.linear_index(buffer, &index);
        if proved || self.linear_in_range(buffer, linear, &facts) {
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
                match *self.pool.get(a) {
                    Expr::Int(value, _) if dtype.is_float() => self.pool.constant(value as f64, dtype),
                    Expr::Int(..)
                    | Expr::Float(..)
                    | Expr::Var(_)
                    | Expr::Load(..)
                    | Expr::Unary(..)
                    | Expr::Binary(..)
                    | Expr::Select(..)
                    | Expr::Guard(..)
                    | Expr::Cast(..) => self.pool.cast(dtype, a),
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
        let assumed = self.facts(None);
        if self.in_range(buffer, index, &assumed) || self.linear_in_range(buffer, linear, &assumed) {
            return self.pool.load(buffer, &[linear]);
        }
        let zero = self.pool.int(0);
        let facts = self.facts(Some(active.facts));
        if self.in_range(buffer, index, &facts) || self.linear_in_range(buffer, linear, &facts) {
            let index = self.pool.select(active.test, linear, zero);
            return self.pool.load(buffer, &[index]);
        }
        self.proved = false;
        let last = self.pool.int((self.pool.buffers[buffer].storage_len() as i64 - 1).max(0));
        let low = self.pool.binary(BinaryOp::Max, linear, zero);
        let clamped = self.pool.binary(BinaryOp::Min, low, last);
        self.pool.load(buffer, &[clamped])
    }

    /// What the statement's conditions say, and `more`.
    fn facts(&mut self, more: Option<ExprId>) -> Vec<Fact> {
        let more = more.map(|more| self.pool.conjuncts(more)).unwrap_or_default();
        let all: Vec<ExprId> = self.assumed.iter().copied().chain(more).collect();
        all.into_iter().filter_map(|condition| self.fact(condition)).collect()
    }

    fn fact(&mut self, condition: ExprId) -> Option<Fact> {
        let condition = self.pool.simplify(condition);
        let Expr::Binary(op, a, b) = *self.pool.get(condition) else { return None };
        let Expr::Int(bound, DType::I64) = *self.pool.get(b) else { return None };
        let (low, high) = if op == BinaryOp::Lt {
            (None, Some(bound - 1))
        } else if op == BinaryOp::Ge {
            (Some(bound), None)
        } else if op == BinaryOp::Eq {
            (Some(bound), Some(bound))
        } else {
            return None;
        };
        let mut form = self.pool.affine(a);
        let constant = std::mem::take(&mut form.constant);
        // The form is a multiple of what divides its coefficients.
        let step = form.terms.values().fold(0, |step, &coefficient| gcd(step, coefficient)).max(1);
        let low = low.map(|low| -(constant - low).div_euclid(step) * step);
        let high = high.map(|high| (high - constant).div_euclid(step) * step);
        Some(Fact { form, low, high })
    }

    fn in_range(&mut self, buffer: BufferId, index: &[ExprId], facts: &[Fact]) -> bool {
        let shape = self.pool.buffers[buffer].shape.clone();
        index.iter().zip(shape).all(|(&i, extent)| {
            let form = self.pool.affine(i);
            self.within(&form, extent, facts)
        })
    }

    fn linear_in_range(&mut self, buffer: BufferId, linear: ExprId, facts: &[Fact]) -> bool {
        let form = self.pool.affine(linear);
        let len = self.pool.buffers[buffer].storage_len();
        self.within(&form, len, facts)
    }

    fn within(&self, form: &Affine, extent: usize, facts: &[Fact]) -> bool {
        const DEPTH: usize = 3;
        self.bound(form, facts, true, DEPTH).is_some_and(|high| i128::from(high) < extent as i128)
            && self.bound(form, facts, false, DEPTH).is_some_and(|low| low >= 0)
    }

    /// A bound of the form from above or below: by ranges, or by taking up to `depth` facts' forms out of it.
    fn bound(&self, form: &Affine, facts: &[Fact], upper: bool, depth: usize) -> Option<i64> {
        let by_ranges = form.interval(self.pool).map(|range| if upper { range.high } else { range.low });
        let better = |a: Option<i64>, b: i64| Some(a.map_or(b, |a| if upper { a.min(b) } else { a.max(b) }));
        let mut best = by_ranges;
        if depth == 0 {
            return best;
        }
        for fact in facts {
            let Some((atom, &step)) = fact.form.terms.iter().next() else { continue };
            let Some(&coefficient) = form.terms.get(atom) else { continue };
            if coefficient % step != 0 {
                continue;
            }
            let factor = coefficient / step;
            let Some(known) = (if upper == (factor > 0) { fact.high } else { fact.low }) else { continue };
            let mut rest = form.clone();
            rest.add_scaled(&fact.form, -factor);
            if let Some(rest) = self.bound(&rest, facts, upper, depth - 1)
                && let Some(sum) = known.checked_mul(factor).and_then(|part| part.checked_add(rest))
            {
                best = better(best, sum);
            }
        }
        best
    }
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

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}
