//! Ranges of index expressions under conditions.

use crate::expr::{Affine, BinaryOp, Comparison, Expr, ExprId, ExprPool, UnaryOp};
use crate::tensor::DType;
use std::collections::BTreeSet;

/// How many facts may be used one inside of another.
const MAX_STEPS: usize = 3;

/// What is known of a value: its least and its largest, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// It is at least this.
    pub low: Option<i64>,
    /// It is at most this.
    pub high: Option<i64>,
}

impl Range {
    fn point(value: i64) -> Range {
        Range { low: Some(value), high: Some(value) }
    }

    /// Whether all of it lies in `0..extent`.
    pub fn within(self, extent: usize) -> bool {
        let below = |high: i64| i128::from(high) < extent as i128;
        self.low.is_some_and(|low| low >= 0) && self.high.is_some_and(below)
    }

    fn add(self, other: Range) -> Range {
        let sum = |a: Option<i64>, b: Option<i64>| a?.checked_add(b?);
        Range { low: sum(self.low, other.low), high: sum(self.high, other.high) }
    }

    fn scale(self, factor: i64) -> Range {
        let times = |a: Option<i64>| a?.checked_mul(factor);
        let (low, high) = (times(self.low), times(self.high));
        match factor {
            0 => Range::point(0),
            1.. => Range { low, high },
            _ => Range { low: high, high: low },
        }
    }

    /// What `x` satisfies where `divisor * x` is in the range; the divisor is positive.
    fn divide(self, divisor: i64) -> Range {
        Range {
            low: self.low.and_then(|low| low.checked_neg()).map(|low| -low.div_euclid(divisor)),
            high: self.high.map(|high| high.div_euclid(divisor)),
        }
    }

    /// What both say.
    fn meet(self, other: Range) -> Range {
        let both = |a: Option<i64>, b: Option<i64>, pick: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(pick(a, b)),
            (a, b) => a.or(b),
        };
        Range { low: both(self.low, other.low, i64::max), high: both(self.high, other.high, i64::min) }
    }

    /// What holds where one of both does.
    fn join(self, other: Range) -> Range {
        let both = |a: Option<i64>, b: Option<i64>, pick: fn(i64, i64) -> i64| Some(pick(a?, b?));
        Range { low: both(self.low, other.low, i64::min), high: both(self.high, other.high, i64::max) }
    }
}

/// Conditions that hold, as ranges of affine forms without constants.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    known: Vec<(Affine, Range)>,
    never: bool,
}

impl Facts {
    /// Whether the conditions cannot hold together, as far as seen.
    pub fn contradict(&self) -> bool {
        self.never
    }

    /// Takes `condition` for true. What is neither a conjunction nor a comparison of index expressions adds nothing.
    pub fn assume(&mut self, pool: &mut ExprPool, condition: ExprId) {
        for conjunct in pool.conjuncts(condition) {
            self.comparison(pool, conjunct, true);
        }
    }

    /// Takes `condition` for false.
    pub fn assume_not(&mut self, pool: &mut ExprPool, condition: ExprId) {
        match *pool.get(condition) {
            Expr::Binary(BinaryOp::Or, a, b) => {
                self.assume_not(pool, a);
                self.assume_not(pool, b);
            }
            Expr::Unary(UnaryOp::Not, a) => self.assume(pool, a),
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => self.comparison(pool, condition, false),
        }
    }

    fn comparison(&mut self, pool: &mut ExprPool, condition: ExprId, holds: bool) {
        let (comparison, a, b) = match *pool.get(condition) {
            Expr::Int(value, DType::Bool) => {
                self.never |= (value != 0) != holds;
                return;
            }
            Expr::Unary(UnaryOp::Not, a) if holds => return self.assume_not(pool, a),
            Expr::Binary(op, a, b) if pool.dtype(a) == DType::I64 => (op.comparison(), a, b),
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => return,
        };
        let Some(comparison) = comparison else { return };
        let mut form = pool.affine(a);
        let right = pool.affine(b);
        form.add_scaled(&right, -1);
        let below = Range { low: None, high: Some(-1) };
        let at_most = Range { low: None, high: Some(0) };
        let at_least = Range { low: Some(0), high: None };
        let above = Range { low: Some(1), high: None };
        let range = match (comparison, holds) {
            (Comparison::Lt, true) | (Comparison::Ge, false) => below,
            (Comparison::Le, true) | (Comparison::Gt, false) => at_most,
            (Comparison::Gt, true) | (Comparison::Le, false) => above,
            (Comparison::Ge, true) | (Comparison::Lt, false) => at_least,
            (Comparison::Eq, true) | (Comparison::Ne, false) => Range::point(0),
            (Comparison::Ne, true) | (Comparison::Eq, false) => return,
        };
        self.add(pool, form, range);
    }

    /// Keeps that `form` lies in `range`, and what follows for its atoms and for the operand of a floor division.
    fn add(&mut self, pool: &mut ExprPool, mut form: Affine, range: Range) {
        let range = range.add(Range::point(form.constant.wrapping_neg()));
        form.constant = 0;
        // The form is a multiple of what divides its coefficients.
        let step = form.terms.values().fold(0, |step, &coefficient| gcd(step, coefficient)).max(1);
        let range = range.divide(step).scale(step);
        if form.terms.len() > 1 {
            self.add_parts(pool, &form, range);
        }
        let known = self.affine_range(pool, &form, MAX_STEPS).meet(range);
        self.never |= matches!((known.low, known.high), (Some(low), Some(high)) if low > high);
        // Where floor(x / d) + rest is in a range, so is x + d * rest.
        let atoms: Vec<(ExprId, i64)> = form.terms.iter().map(|(&atom, &factor)| (atom, factor)).collect();
        for (atom, factor) in atoms.into_iter().filter(|(_, factor)| factor.abs() == 1) {
            let Some((operand, divisor)) = pool.by_constant(atom, BinaryOp::FloorDiv) else { continue };
            let quotient = range.scale(factor);
            let mut sum = pool.affine(operand);
            let mut rest = form.clone();
            rest.add_term(atom, -factor);
            sum.add_scaled(&rest, factor * divisor);
            let least = |low: i64| low.checked_mul(divisor);
            let largest = |high: i64| high.checked_mul(divisor)?.checked_add(divisor - 1);
            let range = Range { low: quotient.low.and_then(least), high: quotient.high.and_then(largest) };
            self.add(pool, sum, range);
        }
        for written_out in remainders_written_out(pool, &form) {
            self.known.push((written_out, range));
        }
        self.known.push((form, range));
    }

    /// Keeps what a sum's range says of parts of it, where that is more than their own ranges: of each atom, and of the atoms
    /// whose coefficients have a divisor in common, as they are alone in the quotient of the sum by that divisor.
    fn add_parts(&mut self, pool: &mut ExprPool, form: &Affine, range: Range) {
        let mut parts: Vec<Affine> =
            form.terms.keys().map(|&atom| part(form, |other, _| other == atom)).collect();
        let steps: BTreeSet<i64> =
            form.terms.values().map(|coefficient| coefficient.saturating_abs()).collect();
        for step in steps {
            let divisible = part(form, |_, coefficient| coefficient % step == 0);
            if (2..form.terms.len()).contains(&divisible.terms.len()) {
                parts.push(divisible);
            }
        }
        for mut part in parts {
            let mut rest = form.clone();
            rest.add_scaled(&part, -1);
            let implied = range.add(self.affine_range(pool, &rest, 0).scale(-1));
            let step = part.terms.values().fold(0, |step, &coefficient| gcd(step, coefficient)).max(1);
            part.terms.values_mut().for_each(|coefficient| *coefficient /= step);
            let implied = implied.divide(step);
            let own = self.affine_range(pool, &part, 1);
            if own.meet(implied) != own {
                self.add(pool, part, implied);
            }
        }
    }

    /// What is known of an index expression.
    pub fn range(&self, pool: &mut ExprPool, index: ExprId) -> Range {
        self.index_range(pool, index, MAX_STEPS)
    }

    /// The sum of its atoms' ranges, met with what each fact gives: where `form = k * fact + rest`, the sum of both ranges.
    fn affine_range(&self, pool: &mut ExprPool, form: &Affine, steps: usize) -> Range {
        let mut result = Range::point(form.constant);
        for (&atom, &coefficient) in &form.terms {
            let own = self.atom_range(pool, atom, steps);
            let range = if steps == 0 { own } else { own.meet(self.solved_range(pool, atom, steps)) };
            result = result.add(range.scale(coefficient));
        }
        if steps == 0 {
            return result;
        }
        for (fact, range) in &self.known {
            let mut tried = vec![];
            for (atom, &of_fact) in &fact.terms {
                let Some(&of_form) = form.terms.get(atom) else { continue };
                let factor = of_form / of_fact;
                if of_form % of_fact != 0 || tried.contains(&factor) {
                    continue;
                }
                tried.push(factor);
                let mut rest = form.clone();
                rest.add_scaled(fact, factor.wrapping_neg());
                let rest = self.affine_range(pool, &rest, steps - 1);
                result = result.meet(range.scale(factor).add(rest));
            }
        }
        let atoms: Vec<ExprId> = form.terms.keys().copied().collect();
        for atom in atoms {
            result = result.meet(self.joined_range(pool, form, atom, steps));
        }
        result
    }

    /// What a form is in that contains the floor division `atom` by `d`, a quotient that was taken apart: with
    /// `d floor(x / d) = x - x mod d`, the form is the quotient by `d` of a sum that facts may know. Terms that are no multiple
    /// of the atom's coefficient may stand outside of that quotient or be part of it.
    fn joined_range(&self, pool: &mut ExprPool, form: &Affine, atom: ExprId, steps: usize) -> Range {
        let coefficient = form.terms[&atom];
        let Some((operand, divisor)) = pool.by_constant(atom, BinaryOp::FloorDiv) else {
            return Range::default();
        };
        let operand = pool.affine(operand);
        // A remainder may meet its quotient in the sum.
        let may_gain = |atom: &ExprId| {
            pool.by_constant(*atom, BinaryOp::Mod).is_some()
                || self.known.iter().any(|(fact, _)| fact.terms.len() > 1 && fact.terms.contains_key(atom))
        };
        if !operand.terms.keys().any(may_gain) {
            return Range::default();
        }
        let mut others = form.clone();
        others.add_term(atom, coefficient.wrapping_neg());
        let mut sum = Affine::default();
        sum.add_scaled(&others, divisor);
        sum.add_scaled(&operand, coefficient);
        pool.recombine(&mut sum);
        let remainder = Range { low: Some(1 - divisor), high: Some(0) }.scale(coefficient);
        let range = self.affine_range(pool, &sum, steps - 1).add(remainder).divide(divisor);
        let multiples = part(&others, |_, other| other.checked_rem(coefficient) == Some(0));
        if multiples.terms.is_empty() || multiples.terms.len() == others.terms.len() {
            return range;
        }
        let mut quotient = operand;
        for (&other, &of_form) in &multiples.terms {
            let factor = of_form.checked_div(coefficient).and_then(|factor| factor.checked_mul(divisor));
            let Some(factor) = factor else { return range };
            quotient.add_term(other, factor);
        }
        pool.recombine(&mut quotient);
        let floor = |bound: i64| bound.div_euclid(divisor);
        let quotient = self.affine_range(pool, &quotient, steps - 1);
        let quotient = Range { low: quotient.low.map(floor), high: quotient.high.map(floor) };
        others.add_scaled(&multiples, -1);
        range.meet(self.affine_range(pool, &others, steps - 1).add(quotient.scale(coefficient)))
    }

    /// What facts in which `atom` has a factor give for it: where `factor * atom + rest` is in a range, so is the quotient of the
    /// difference. A factor of 1 is for [`affine_range`](Self::affine_range).
    fn solved_range(&self, pool: &mut ExprPool, atom: ExprId, steps: usize) -> Range {
        let mut result = Range::default();
        for (fact, range) in &self.known {
            let Some(&factor) = fact.terms.get(&atom).filter(|factor| factor.unsigned_abs() > 1) else {
                continue;
            };
            let mut rest = fact.clone();
            rest.add_term(atom, factor.wrapping_neg());
            let rest = self.affine_range(pool, &rest, steps - 1);
            let multiple = range.add(rest.scale(-1)).scale(factor.signum());
            let divisor = factor.saturating_abs();
            let above = |low: i64| low.div_euclid(divisor) + i64::from(low.rem_euclid(divisor) != 0);
            let below = |high: i64| high.div_euclid(divisor);
            result = result.meet(Range { low: multiple.low.map(above), high: multiple.high.map(below) });
        }
        result
    }

    fn index_range(&self, pool: &mut ExprPool, index: ExprId, steps: usize) -> Range {
        let form = pool.affine(index);
        self.affine_range(pool, &form, steps)
    }

    fn atom_range(&self, pool: &mut ExprPool, atom: ExprId, steps: usize) -> Range {
        let steps = steps.saturating_sub(1);
        match *pool.get(atom) {
            Expr::Int(value, _) => Range::point(value),
            Expr::Var(var) => {
                let last = (pool.vars[var].extent as i64).saturating_sub(1).max(0);
                Range { low: Some(0), high: Some(last) }
            }
            Expr::Binary(BinaryOp::Min, a, b) => {
                let (x, y) = (self.index_range(pool, a, steps), self.index_range(pool, b, steps));
                Range { low: x.join(y).low, high: x.meet(y).high }
            }
            Expr::Binary(BinaryOp::Max, a, b) => {
                let (x, y) = (self.index_range(pool, a, steps), self.index_range(pool, b, steps));
                Range { low: x.meet(y).low, high: x.join(y).high }
            }
            Expr::Binary(op, a, _) => {
                if let Some((_, divisor)) = pool.by_constant(atom, BinaryOp::FloorDiv) {
                    let x = self.index_range(pool, a, steps);
                    let quotient = |x: i64| x.div_euclid(divisor);
                    Range { low: x.low.map(quotient), high: x.high.map(quotient) }
                } else if let Some((_, divisor)) = pool.by_constant(atom, BinaryOp::Mod) {
                    let x = self.index_range(pool, a, steps);
                    let quotient = |x: Option<i64>| x.map(|x| x.div_euclid(divisor));
                    if x.low.is_some() && quotient(x.low) == quotient(x.high) {
                        let rest = |x: i64| x.rem_euclid(divisor);
                        Range { low: x.low.map(rest), high: x.high.map(rest) }
                    } else {
                        Range { low: Some(0), high: Some(divisor - 1) }
                    }
                } else if op == BinaryOp::Mul {
                    let range = pool.interval(atom);
                    Range { low: range.map(|range| range.low), high: range.map(|range| range.high) }
                } else {
                    Range::default()
                }
            }
            Expr::Select(_, a, b) => self.index_range(pool, a, steps).join(self.index_range(pool, b, steps)),
            Expr::Guard(_, a) => self.index_range(pool, a, steps).join(Range::point(0)),
            Expr::Cast(_, a) => dtype_range(pool.dtype(a)),
            Expr::Load(..) => dtype_range(pool.dtype(atom)),
            Expr::Float(..) | Expr::Unary(..) => Range::default(),
        }
    }
}

/// The form with one of its atoms `x mod d` written as `x - d floor(x / d)`, once for each: facts of a fused loop speak of the
/// remainder, accesses of the loop itself.
fn remainders_written_out(pool: &mut ExprPool, form: &Affine) -> Vec<Affine> {
    let mut result = vec![];
    for (&atom, &coefficient) in &form.terms {
        let Some((operand, divisor)) = pool.by_constant(atom, BinaryOp::Mod) else { continue };
        let Some(multiple) = coefficient.checked_mul(divisor) else { continue };
        let whole = pool.affine(operand);
        let divisor = pool.int(divisor);
        let quotient = pool.intern(Expr::Binary(BinaryOp::FloorDiv, operand, divisor));
        let quotient = pool.affine(quotient);
        let mut written_out = form.clone();
        written_out.add_term(atom, coefficient.wrapping_neg());
        written_out.add_scaled(&whole, coefficient);
        written_out.add_scaled(&quotient, multiple.wrapping_neg());
        result.push(written_out);
    }
    result
}

/// The terms of a form that `keep` chooses.
fn part(form: &Affine, keep: impl Fn(ExprId, i64) -> bool) -> Affine {
    let terms = form.terms.iter().filter(|&(&atom, &coefficient)| keep(atom, coefficient));
    Affine { constant: 0, terms: terms.map(|(&atom, &coefficient)| (atom, coefficient)).collect() }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.saturating_abs() } else { gcd(b, a % b) }
}

/// What any value of a type that fits an i64 satisfies.
fn dtype_range(dtype: DType) -> Range {
    match dtype {
        DType::Bool => Range { low: Some(0), high: Some(1) },
        DType::I8 | DType::I16 | DType::I32 | DType::U8 | DType::U16 | DType::U32 => {
            match dtype.integer_range() {
                Some((low, high)) => Range { low: i64::try_from(low).ok(), high: i64::try_from(high).ok() },
                None => Range::default(),
            }
        }
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 | DType::I64 | DType::U64 => Range::default(),
    }
}
