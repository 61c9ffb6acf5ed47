//! Ranges of index expressions.

use super::{BinaryOp, Expr, ExprId, ExprPool, UnaryOp, VarId};
use std::collections::HashMap;

/// All integers from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The smallest.
    pub low: i64,
    /// The largest; at least `low`.
    pub high: i64,
}

impl Interval {
    /// Every i64.
    const ALL: Interval = Interval { low: i64::MIN, high: i64::MAX };

    /// The interval of one number.
    pub fn point(value: i64) -> Interval {
        Interval { low: value, high: value }
    }

    /// Whether `value` lies in it.
    pub fn contains(self, value: i64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Whether all of it lies in `0..extent`.
    pub fn within(self, extent: usize) -> bool {
        self.low >= 0 && (self.high as i128) < extent as i128
    }

    /// Sums of both; `None` on overflow.
    pub fn plus(self, other: Interval) -> Option<Interval> {
        Some(Interval { low: self.low.checked_add(other.low)?, high: self.high.checked_add(other.high)? })
    }

    /// Multiples by a constant; `None` on overflow.
    pub fn scale(self, factor: i64) -> Option<Interval> {
        let (a, b) = (self.low.checked_mul(factor)?, self.high.checked_mul(factor)?);
        Some(Interval { low: a.min(b), high: a.max(b) })
    }
}

impl ExprPool {
    /// The values an index expression can take when each variable counts `0..extent`; `None` where that is unknown, as for
    /// loads. Comparisons give 0 to 1.
    pub fn interval(&self, id: ExprId) -> Option<Interval> {
        self.interval_with(id, &HashMap::new())
    }

    /// As [`interval`](Self::interval), with other ranges for some variables.
    pub fn interval_with(&self, id: ExprId, ranges: &HashMap<VarId, Interval>) -> Option<Interval> {
        match *self.get(id) {
            Expr::Int(value, _) => Some(Interval::point(value)),
            Expr::Var(var) => Some(
                ranges
                    .get(&var)
                    .copied()
                    .unwrap_or_else(|| Interval { low: 0, high: (self.vars[var].extent as i64 - 1).max(0) }),
            ),
            Expr::Unary(UnaryOp::Neg, a) => self.interval_with(a, ranges)?.scale(-1),
            Expr::Binary(op, a, b) => self.binary_interval(op, a, b, ranges),
            Expr::Select(_, a, b) => {
                let (a, b) = (self.interval_with(a, ranges)?, self.interval_with(b, ranges)?);
                Some(Interval { low: a.low.min(b.low), high: a.high.max(b.high) })
            }
            Expr::Guard(_, a) => {
                let a = self.interval_with(a, ranges)?;
                Some(Interval { low: a.low.min(0), high: a.high.max(0) })
            }
            Expr::Float(..) | Expr::Load(..) | Expr::Unary(..) | Expr::Cast(..) => None,
        }
    }

    fn binary_interval(
        &self,
        op: BinaryOp,
        a: ExprId,
        b: ExprId,
        ranges: &HashMap<VarId, Interval>,
    ) -> Option<Interval> {
        if let BinaryOp::Min | BinaryOp::Max = op {
            // One known operand bounds the result whatever the other is.
            let (x, y) = (self.interval_with(a, ranges), self.interval_with(b, ranges));
            let (x, y) = (x.unwrap_or(Interval::ALL), y.unwrap_or(Interval::ALL));
            let pick = |s: i64, t: i64| if op == BinaryOp::Min { s.min(t) } else { s.max(t) };
            let result = Interval { low: pick(x.low, y.low), high: pick(x.high, y.high) };
            return (result != Interval::ALL).then_some(result);
        }
        let (x, y) = (self.interval_with(a, ranges)?, self.interval_with(b, ranges)?);
        match op {
            BinaryOp::Add => x.plus(y),
            BinaryOp::Sub => x.plus(y.scale(-1)?),
            BinaryOp::Mul => {
                let (s, t) = (x.scale(y.low)?, x.scale(y.high)?);
                Some(Interval { low: s.low.min(t.low), high: s.high.max(t.high) })
            }
            BinaryOp::FloorDiv if y.low == y.high && y.low > 0 => {
                Some(Interval { low: x.low.div_euclid(y.low), high: x.high.div_euclid(y.low) })
            }
            BinaryOp::Mod if y.low == y.high && y.low > 0 => {
                let same_period = x.low.div_euclid(y.low) == x.high.div_euclid(y.low);
                Some(if same_period {
                    Interval { low: x.low.rem_euclid(y.low), high: x.high.rem_euclid(y.low) }
                } else {
                    Interval { low: 0, high: y.low - 1 }
                })
            }
            BinaryOp::Lt => truth(x.high < y.low, x.low >= y.high),
            BinaryOp::Le => truth(x.high <= y.low, x.low > y.high),
            BinaryOp::Gt => truth(x.low > y.high, x.high <= y.low),
            BinaryOp::Ge => truth(x.low >= y.high, x.high < y.low),
            BinaryOp::Eq => truth(x == y && x.low == x.high, x.high < y.low || x.low > y.high),
            BinaryOp::Ne => truth(x.high < y.low || x.low > y.high, x == y && x.low == x.high),
            BinaryOp::And => truth(x.low == 1 && y.low == 1, x.high == 0 || y.high == 0),
            BinaryOp::Or => truth(x.low == 1 || y.low == 1, x.high == 0 && y.high == 0),
            BinaryOp::Xor => truth(false, false),
            BinaryOp::Div
            | BinaryOp::FloorDiv
            | BinaryOp::Mod
            | BinaryOp::Rem
            | BinaryOp::Min
            | BinaryOp::Max
            | BinaryOp::Pow
            | BinaryOp::Shl
            | BinaryOp::Shr => None,
        }
        .filter(|i| !op.is_comparison() || (i.low >= 0 && i.high <= 1))
    }
}

fn truth(always: bool, never: bool) -> Option<Interval> {
    Some(Interval { low: i64::from(always), high: i64::from(!never) })
}
