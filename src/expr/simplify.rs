//! The simplifier: index arithmetic to its affine normal form, conditions decided by intervals.
//!
//! Rules never make an expression larger and keep the value for all values of the variables in range. Data arithmetic
//! (floats above all) is left as it is: only its index operands change.

use super::{BinaryOp, Comparison, Expr, ExprId, ExprPool};
use crate::tensor::DType;

impl ExprPool {
    /// An equal, simpler expression.
    pub fn simplify(&mut self, id: ExprId) -> ExprId {
        if let Some(&known) = self.simpler.0.get(&id) {
            return known;
        }
        let simple = self.simplify_node(id);
        self.simpler.0.insert(id, simple);
        simple
    }

    fn simplify_node(&mut self, id: ExprId) -> ExprId {
        // Loads of i64 data and other i64 operations are atoms there.
        let is_number = matches!(self.get(id), Expr::Int(_, DType::I64) | Expr::Var(_));
        if is_number || self.is_index_operation(id) {
            let form = self.affine(id);
            return self.from_affine(&form);
        }
        let id = self.simplify_operands(id);
        match *self.get(id) {
            Expr::Binary(op, a, _) if self.dtype(a) == DType::I64 => {
                op.comparison().map_or(id, |comparison| self.simplify_comparison(id, comparison))
            }
            Expr::Guard(condition, value) => self.guard(condition, value),
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Cast(..) => id,
        }
    }

    /// The node over simplified operands.
    pub(super) fn simplify_operands(&mut self, id: ExprId) -> ExprId {
        self.map_operands(id, &mut ExprPool::simplify)
    }

    /// Constant where the intervals decide; otherwise all atoms on the left, the constant on the right, so that equal
    /// conditions are equal expressions. A comparison of data stays as it is: its difference may wrap.
    fn simplify_comparison(&mut self, id: ExprId, comparison: Comparison) -> ExprId {
        let Expr::Binary(op, a, b) = *self.get(id) else { return id };
        let mut form = self.affine(a);
        let right = self.affine(b);
        form.add_scaled(&right, -1);
        let bound = form.constant.checked_neg();
        form.constant = 0;
        let bounded = self.interval(a).is_some() && self.interval(b).is_some();
        let (true, Some(range), Some(bound)) = (bounded, form.interval(self), bound) else {
            return id;
        };
        let decided = [range.low, range.high].map(|value| op.eval_i64(value, bound));
        let constant = match comparison {
            Comparison::Lt | Comparison::Le | Comparison::Gt | Comparison::Ge => decided[0] == decided[1],
            Comparison::Eq | Comparison::Ne => !range.contains(bound) || range.low == range.high,
        };
        if constant {
            return self.intern(Expr::Int(decided[0], DType::Bool));
        }
        // Lt and Ge are the only orders: x <= b is x < b + 1, x > b is x >= b + 1.
        // An undecided bound is within the range, so that the next one exists.
        let (op, bound) = match comparison {
            Comparison::Le => (BinaryOp::Lt, bound + 1),
            Comparison::Gt => (BinaryOp::Ge, bound + 1),
            Comparison::Lt | Comparison::Ge | Comparison::Eq | Comparison::Ne => (op, bound),
        };
        let left = self.from_affine(&form);
        let right = self.int(bound);
        self.intern(Expr::Binary(op, left, right))
    }

    /// The conditions joined by `and`, in order; empty for the constant true.
    pub fn conjuncts(&self, condition: ExprId) -> Vec<ExprId> {
        match *self.get(condition) {
            Expr::Binary(BinaryOp::And, a, b) => [self.conjuncts(a), self.conjuncts(b)].concat(),
            Expr::Int(1, DType::Bool) => vec![],
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => vec![condition],
        }
    }

    /// The conjunction of `conditions`; the constant true for none.
    pub fn conjunction(&mut self, conditions: &[ExprId]) -> ExprId {
        let mut all = self.truth();
        for &condition in conditions {
            all = self.and(all, condition);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use crate::base::Random;

    fn pool(extents: &[usize]) -> (ExprPool, Vec<ExprId>) {
        let mut pool = ExprPool::default();
        let vars = extents
            .iter()
            .zip("ijklmn".chars())
            .map(|(&extent, name)| {
                let var = pool.vars.push(Variable { name: name.to_string(), extent });
                pool.var(var)
            })
            .collect();
        (pool, vars)
    }

    #[test]
    fn split_and_fuse_cancel() {
        let (mut pool, v) = pool(&[6, 32, 5]);
        let (i, j) = (v[0], v[1]);
        let scaled = pool.mul_int(i, 32);
        let sum = pool.add(scaled, j);
        let (quotient, rest) = (pool.div_int(sum, 32), pool.mod_int(sum, 32));
        assert_eq!(pool.simplify(quotient), i);
        assert_eq!(pool.simplify(rest), j);
    }

    #[test]
    fn linear_index_of_fused_loops_is_affine() {
        let (mut pool, v) = pool(&[3 * 4 * 5]);
        let f = v[0];
        let s = pool.mod_int(f, 5);
        let cr = pool.div_int(f, 5);
        let (c, r) = (pool.div_int(cr, 4), pool.mod_int(cr, 4));
        let buffer = pool.buffers.push(Buffer {
            name: "w".into(),
            dtype: DType::F32,
            shape: vec![3, 4, 5],
            scope: Scope::Global,
            role: Role::Input,
            row_padding: 0,
        });
        assert_eq!(pool.linear_index(buffer, &[c, r, s]), f);
    }

    #[test]
    fn low_digits_leave_divisions() {
        let (mut pool, v) = pool(&[6, 4]);
        let scaled = pool.mul_int(v[0], 4);
        let sum = pool.add(scaled, v[1]);
        let (quotient, rest) = (pool.div_int(sum, 12), pool.mod_int(sum, 12));
        let (quotient, rest) = (pool.simplify(quotient), pool.simplify(rest));
        assert_eq!(pool.display(quotient).to_string(), "i // 3");
        assert_eq!(pool.display(rest).to_string(), "j + i % 3 * 4");
    }

    #[test]
    fn conditions_are_decided_by_ranges() {
        let (mut pool, v) = pool(&[8]);
        let always = pool.less_int(v[0], 8);
        let truth = pool.truth();
        assert_eq!(pool.simplify(always), truth);
        let shifted = pool.add_int(v[0], -1);
        let sometimes = pool.at_least_int(shifted, 0);
        let shown = pool.simplify(sometimes);
        assert_eq!(pool.display(shown).to_string(), "i >= 1");
    }

    /// The difference of two integers of data may wrap, and a bound next to the largest has no next one.
    #[test]
    fn comparisons_of_data_stay() {
        let (mut pool, v) = pool(&[8]);
        let data = pool.buffers.push(Buffer {
            name: "d".into(),
            dtype: DType::I64,
            shape: vec![8, 2],
            scope: Scope::Global,
            role: Role::Input,
            row_padding: 0,
        });
        let (zero, one, largest) = (pool.int(0), pool.int(1), pool.int(i64::MAX));
        let (x, y) = (pool.load(data, &[v[0], zero]), pool.load(data, &[v[0], one]));
        for (a, b, text) in [(x, y, "d[i, 0] <= d[i, 1]"), (x, largest, "d[i, 0] <= 9223372036854775807")] {
            let condition = pool.binary(BinaryOp::Le, a, b);
            let simple = pool.simplify(condition);
            assert_eq!(pool.display(simple).to_string(), text);
        }
    }

    /// Random quasi-affine expressions keep their value at every point.
    #[test]
    fn simplification_keeps_values() {
        fn random(pool: &mut ExprPool, vars: &[ExprId], rng: &mut Random, depth: usize) -> ExprId {
            if depth == 0 {
                return if rng.below(4) == 0 { pool.int(rng.below(20) as i64 - 6) } else { *rng.pick(vars) };
            }
            let a = random(pool, vars, rng, depth - 1);
            match rng.below(5) {
                0 => {
                    let b = random(pool, vars, rng, depth - 1);
                    pool.add(a, b)
                }
                1 => pool.mul_int(a, rng.below(9) as i64 - 3),
                2 => pool.div_int(a, rng.below(9) as i64 + 1),
                3 => pool.mod_int(a, rng.below(9) as i64 + 1),
                _ => {
                    let b = random(pool, vars, rng, depth - 1);
                    pool.binary(BinaryOp::Sub, a, b)
                }
            }
        }
        fn eval(pool: &ExprPool, id: ExprId, point: &[i64]) -> i64 {
            match *pool.get(id) {
                Expr::Int(value, _) => value,
                Expr::Var(var) => point[var.index()],
                Expr::Binary(op, a, b) => op.eval_i64(eval(pool, a, point), eval(pool, b, point)),
                _ => unreachable!(),
            }
        }
        let mut rng = Random::new(7);
        for _ in 0..2000 {
            let extents: Vec<usize> = (0..3).map(|_| rng.below(7) + 1).collect();
            let (mut pool, vars) = pool(&extents);
            let expr = random(&mut pool, &vars, &mut rng, 4);
            let simple = pool.simplify(expr);
            let range = pool.interval(simple).unwrap();
            for _ in 0..20 {
                let point: Vec<i64> = extents.iter().map(|&e| rng.below(e) as i64).collect();
                let value = eval(&pool, expr, &point);
                assert_eq!(
                    value,
                    eval(&pool, simple, &point),
                    "{} vs {}",
                    pool.display(expr),
                    pool.display(simple)
                );
                assert!(range.contains(value));
            }
        }
    }
}
