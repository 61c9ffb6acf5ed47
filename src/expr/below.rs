//! Conditions as limits: what a loop's end, a block's guard and a micro-kernel's counts can express.

use super::{Affine, BinaryOp, Expr, ExprId, ExprPool};
use crate::tensor::DType;

/// A condition `sum(terms) < bound`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// The left side; its constant is 0.
    pub terms: Affine,
    /// The first value above.
    pub bound: i64,
}

impl ExprPool {
    /// A comparison of index expressions as a limit, with the floor division of one atom multiplied out; `None` for conditions
    /// of other forms, and where the limit exceeds an i64.
    pub fn below(&mut self, condition: ExprId) -> Option<Below> {
        let Expr::Binary(op, a, b) = *self.get(condition) else { return None };
        if self.dtype(a) != DType::I64
            || !matches!(op, BinaryOp::Lt | BinaryOp::Ge | BinaryOp::Le | BinaryOp::Gt)
        {
            return None;
        }
        // a - b < 0 for Lt, b - a < 0 for Gt; Le and Ge allow 0.
        let (small, large) = if matches!(op, BinaryOp::Lt | BinaryOp::Le) { (a, b) } else { (b, a) };
        let mut terms = self.affine(small);
        let large = self.affine(large);
        let mut bound = large.constant.checked_sub(terms.constant)?;
        if matches!(op, BinaryOp::Le | BinaryOp::Ge) {
            bound = bound.checked_add(1)?;
        }
        terms.add_scaled(&large, -1);
        terms.constant = 0;
        let divided = terms.terms.iter().find_map(|(&atom, &coefficient)| {
            let (x, c) = self.by_constant(atom, BinaryOp::FloorDiv).filter(|_| coefficient == 1)?;
            Some((atom, x, c))
        });
        // floor(x / c) + rest < bound  is  x + c * rest < c * bound
        if let Some((atom, x, c)) = divided {
            terms.add_term(atom, -1);
            let mut scaled = self.affine(x);
            scaled.add_scaled(&terms, c);
            bound = c.checked_mul(bound)?.checked_sub(scaled.constant)?;
            scaled.constant = 0;
            terms = scaled;
        }
        Some(Below { terms, bound })
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;

    #[test]
    fn comparisons_are_limits() {
        let mut pool = ExprPool::default();
        let vars: Vec<ExprId> = ["i", "j"]
            .map(|name| pool.vars.push(Variable { name: name.into(), extent: 8 }))
            .map(|var| pool.var(var))
            .to_vec();
        let (i, j) = (vars[0], vars[1]);
        let shown = |pool: &mut ExprPool, op, a, b| {
            let condition = pool.intern(Expr::Binary(op, a, b));
            let below = pool.below(condition)?;
            let terms = pool.from_affine(&below.terms);
            Some(format!("{} < {}", pool.display(terms), below.bound))
        };
        let five = pool.int(5);
        assert_eq!(shown(&mut pool, BinaryOp::Lt, i, five).unwrap(), "i < 5");
        assert_eq!(shown(&mut pool, BinaryOp::Le, i, five).unwrap(), "i < 6");
        assert_eq!(shown(&mut pool, BinaryOp::Ge, i, five).unwrap(), "i * -1 < -4");
        assert_eq!(shown(&mut pool, BinaryOp::Gt, i, j).unwrap(), "i * -1 + j < 0");
        assert_eq!(shown(&mut pool, BinaryOp::Eq, i, five), None);
        let half = pool.div_int(i, 2);
        let sum = pool.add(half, j);
        assert_eq!(shown(&mut pool, BinaryOp::Lt, sum, five).unwrap(), "i + j * 2 < 10");
        let (least, largest) = (pool.int(i64::MIN), pool.int(i64::MAX));
        assert_eq!(shown(&mut pool, BinaryOp::Le, i, largest), None);
        assert_eq!(shown(&mut pool, BinaryOp::Lt, half, largest), None);
        let (low, high) =
            (shown(&mut pool, BinaryOp::Ge, i, least), shown(&mut pool, BinaryOp::Lt, i, least));
        assert_eq!((low, high.unwrap()), (None, format!("i < {}", i64::MIN)));
    }
}
