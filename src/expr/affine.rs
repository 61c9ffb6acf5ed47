//! Affine forms of index expressions.

use super::{BinaryOp, Expr, ExprId, ExprPool, Interval, UnaryOp, VarId};
use std::collections::BTreeMap;

/// `constant + sum(coefficient * atom)`. An atom is a variable, or an index expression that is not affine itself (a floor
/// division, a modulus, a load ...). No coefficient is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affine {
    /// The part without atoms.
    pub constant: i64,
    /// Atoms and their coefficients.
    pub terms: BTreeMap<ExprId, i64>,
}

impl Affine {
    /// The form of a constant.
    pub fn constant(constant: i64) -> Affine {
        Affine { constant, terms: BTreeMap::new() }
    }

    /// Adds `factor * other`.
    pub fn add_scaled(&mut self, other: &Affine, factor: i64) {
        self.constant = self.constant.wrapping_add(other.constant.wrapping_mul(factor));
        for (&atom, &coefficient) in &other.terms {
            self.add_term(atom, coefficient.wrapping_mul(factor));
        }
    }

    /// Adds `coefficient * atom`.
    pub fn add_term(&mut self, atom: ExprId, coefficient: i64) {
        let sum = self.terms.entry(atom).or_insert(0);
        *sum = sum.wrapping_add(coefficient);
        if *sum == 0 {
            self.terms.remove(&atom);
        }
    }

    /// The coefficient of a variable, when every atom is a variable or does not contain it; `None` otherwise.
    pub fn coefficient(&self, pool: &ExprPool, var: VarId) -> Option<i64> {
        let mut result = 0;
        for (&atom, &coefficient) in &self.terms {
            if *pool.get(atom) == Expr::Var(var) {
                result = coefficient;
            } else if pool.uses_var(atom, var) {
                return None;
            }
        }
        Some(result)
    }

    /// Variables and coefficients when every atom is a variable; `None` otherwise.
    pub fn variables(&self, pool: &ExprPool) -> Option<Vec<(VarId, i64)>> {
        self.terms.iter().map(|(&atom, &coefficient)| Some((pool.as_var(atom)?, coefficient))).collect()
    }

    /// The values it can take; `None` where an atom's are unknown.
    pub fn interval(&self, pool: &ExprPool) -> Option<Interval> {
        let mut sum = Interval::point(self.constant);
        for (&atom, &coefficient) in &self.terms {
            sum = sum.plus(pool.interval(atom)?.scale(coefficient)?)?;
        }
        Some(sum)
    }
}

impl ExprPool {
    /// The affine form of an index expression, its atoms simplified and recombined: `c * (x / c) + x % c` is `x`.
    pub fn affine(&mut self, id: ExprId) -> Affine {
        if let Some(known) = self.forms.0.get(&id) {
            return known.clone();
        }
        let mut form = self.affine_parts(id);
        self.recombine(&mut form);
        self.forms.0.insert(id, form.clone());
        form
    }

    fn affine_parts(&mut self, id: ExprId) -> Affine {
        match self.get(id).clone() {
            Expr::Int(value, _) => Affine::constant(value),
            Expr::Unary(UnaryOp::Neg, a) => {
                let mut form = Affine::default();
                form.add_scaled(&self.affine_parts(a), -1);
                form
            }
            Expr::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) => {
                let mut form = self.affine_parts(a);
                let other = self.affine_parts(b);
                form.add_scaled(&other, if op == BinaryOp::Add { 1 } else { -1 });
                form
            }
            Expr::Binary(BinaryOp::Mul, a, b) => {
                let (x, y) = (self.affine(a), self.affine(b));
                let mut form = Affine::default();
                if y.terms.is_empty() {
                    form.add_scaled(&x, y.constant);
                } else if x.terms.is_empty() {
                    form.add_scaled(&y, x.constant);
                } else {
                    let (a, b) = (self.from_affine(&x), self.from_affine(&y));
                    let product = self.intern(Expr::Binary(BinaryOp::Mul, a.min(b), a.max(b)));
                    form.add_term(product, 1);
                }
                form
            }
            Expr::Binary(op @ (BinaryOp::FloorDiv | BinaryOp::Mod), a, b) => {
                let x = self.affine(a);
                match self.as_int(b) {
                    Some(divisor @ 1..) if op == BinaryOp::FloorDiv => self.divide(&x, divisor),
                    Some(divisor @ 1..) => self.modulo(&x, divisor),
                    Some(_) | None => self.atom(id),
                }
            }
            Expr::Var(_) => self.atom(id),
            Expr::Float(..)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => {
                let simple = self.simplify_operands(id);
                self.atom(simple)
            }
        }
    }

    fn atom(&self, id: ExprId) -> Affine {
        match self.as_int(id) {
            Some(value) => Affine::constant(value),
            None => Affine { constant: 0, terms: BTreeMap::from([(id, 1)]) },
        }
    }

    /// The index expression of an affine form: terms in order of their atoms, the constant last.
    pub fn from_affine(&mut self, form: &Affine) -> ExprId {
        let mut sum = self.int(0);
        for (&atom, &coefficient) in &form.terms {
            let term = self.mul_int(atom, coefficient);
            sum = self.add(sum, term);
        }
        self.add_int(sum, form.constant)
    }

    /// Splits `form` into `divisor * quotient + rest`, with all of `form` that divides in `quotient`.
    fn split_multiples(form: &Affine, divisor: i64) -> (Affine, Affine) {
        let (mut quotient, mut rest) = (Affine::default(), Affine::default());
        for (&atom, &coefficient) in &form.terms {
            if coefficient % divisor == 0 {
                quotient.add_term(atom, coefficient / divisor);
            } else {
                rest.add_term(atom, coefficient);
            }
        }
        quotient.constant = form.constant.div_euclid(divisor);
        rest.constant = form.constant.rem_euclid(divisor);
        (quotient, rest)
    }

    /// `floor(form / divisor)`; with `divisor * q + r` split off, only `r` stays under the division.
    fn divide(&mut self, form: &Affine, divisor: i64) -> Affine {
        let (mut quotient, rest) = Self::split_multiples(form, divisor);
        match rest.interval(self) {
            Some(range) if range.low.div_euclid(divisor) == range.high.div_euclid(divisor) => {
                quotient.constant += range.low.div_euclid(divisor);
            }
            Some(_) | None => {
                // floor((g x + c) / (g d)) = floor(x / d) for 0 <= c < g
                let rest = self.split_low(&rest, divisor).map_or(rest, |(high, _)| high);
                let (rest, divisor) = Self::reduce(&rest, divisor);
                // floor(floor(x / a) / b) = floor(x / (a b))
                let inner =
                    Self::single_atom(&rest).and_then(|atom| self.by_constant(atom, BinaryOp::FloorDiv));
                if let Some((x, a)) = inner {
                    let x = self.affine(x);
                    let nested = self.divide(&x, a * divisor);
                    quotient.add_scaled(&nested, 1);
                } else {
                    let rest = self.from_affine(&rest);
                    let divisor = self.int(divisor);
                    let atom = self.intern(Expr::Binary(BinaryOp::FloorDiv, rest, divisor));
                    quotient.add_term(atom, 1);
                }
            }
        }
        quotient
    }

    /// `form mod divisor`.
    fn modulo(&mut self, form: &Affine, divisor: i64) -> Affine {
        let (_, mut rest) = Self::split_multiples(form, divisor);
        match rest.interval(self) {
            Some(range) if range.low.div_euclid(divisor) == range.high.div_euclid(divisor) => {
                rest.constant -= range.low.div_euclid(divisor) * divisor;
                rest
            }
            Some(_) | None => {
                // (g x + c) mod (g d) = g (x mod d) + c for 0 <= c < g
                let mut low = Affine::default();
                if let Some((high, split)) = self.split_low(&rest, divisor) {
                    (rest, low) = (high, split);
                }
                let factor = rest.terms.values().fold(divisor, |g, &c| gcd(g, c));
                let offset = rest.constant % factor;
                rest.constant -= offset;
                let (reduced, divisor) = Self::reduce(&rest, divisor);
                let reduced = self.from_affine(&reduced);
                let divisor = self.int(divisor);
                let atom = self.intern(Expr::Binary(BinaryOp::Mod, reduced, divisor));
                low.constant += offset;
                low.add_term(atom, factor);
                low
            }
        }
    }

    /// Splits `form` into `g x` and `c` with `0 <= c < g` for a factor `g` of `divisor`, where some atoms go to `c`.
    fn split_low(&self, form: &Affine, divisor: i64) -> Option<(Affine, Affine)> {
        let mut factors: Vec<i64> =
            form.terms.values().map(|&c| gcd(divisor, c)).filter(|&g| g > 1).collect();
        factors.sort_unstable_by(|a, b| b.cmp(a));
        factors.into_iter().find_map(|factor| {
            let (mut high, mut low) = (Affine::default(), Affine::default());
            for (&atom, &coefficient) in &form.terms {
                let part = if coefficient % factor == 0 { &mut high } else { &mut low };
                part.add_term(atom, coefficient);
            }
            low.constant = form.constant.rem_euclid(factor);
            high.constant = form.constant - low.constant;
            let small = low.interval(self).is_some_and(|range| range.low >= 0 && range.high < factor);
            (small && !low.terms.is_empty()).then_some((high, low))
        })
    }

    /// `floor(form / divisor)` with the common factor of coefficients and divisor taken out of both.
    fn reduce(form: &Affine, divisor: i64) -> (Affine, i64) {
        let factor = form.terms.values().fold(divisor, |g, &c| gcd(g, c));
        let mut reduced = Affine::constant(form.constant.div_euclid(factor));
        for (&atom, &coefficient) in &form.terms {
            reduced.add_term(atom, coefficient / factor);
        }
        (reduced, divisor / factor)
    }

    fn single_atom(form: &Affine) -> Option<ExprId> {
        match form.terms.iter().next() {
            Some((&atom, 1)) if form.terms.len() == 1 && form.constant == 0 => Some(atom),
            Some(_) | None => None,
        }
    }

    /// Replaces `k c (x / c) + k (x % c)` by `k x` until there is none.
    pub(crate) fn recombine(&mut self, form: &mut Affine) {
        'again: loop {
            for (&atom, &coefficient) in &form.terms {
                let Expr::Binary(BinaryOp::Mod, x, c) = *self.get(atom) else { continue };
                let Expr::Int(c, _) = *self.get(c) else { continue };
                let x = self.affine(x);
                let quotient = self.divide(&x, c);
                let Some(wanted) = coefficient.checked_mul(c) else { continue };
                let found = quotient
                    .terms
                    .iter()
                    .all(|(atom, &k)| k.checked_mul(wanted) == form.terms.get(atom).copied());
                if found && !quotient.terms.is_empty() {
                    form.add_term(atom, -coefficient);
                    form.add_scaled(&quotient, -wanted);
                    form.add_scaled(&x, coefficient);
                    continue 'again;
                }
            }
            return;
        }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}
