//! Proofs that a linear form over bounded variables is not negative.

/// `constant + sum(coefficient * variable)`; the coefficients are indexed by variable and may be fewer than the variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Linear {
    pub(super) constant: i128,
    pub(super) coefficients: Vec<i128>,
}

impl Linear {
    pub(super) fn add(&mut self, variable: usize, factor: i64) {
        if self.coefficients.len() <= variable {
            self.coefficients.resize(variable + 1, 0);
        }
        self.coefficients[variable] += i128::from(factor);
    }

    /// `limit - self`.
    pub(super) fn subtracted_from(&self, limit: i128) -> Linear {
        Linear {
            constant: limit - self.constant,
            coefficients: self.coefficients.iter().map(|factor| -factor).collect(),
        }
    }

    fn coefficient(&self, variable: usize) -> i128 {
        self.coefficients.get(variable).copied().unwrap_or(0)
    }

    /// `scale * self - factor * other`, unless it overflows.
    fn combine(&self, scale: i128, other: &Linear, factor: i128) -> Option<Linear> {
        let term = |a: i128, b: i128| a.checked_mul(scale)?.checked_sub(b.checked_mul(factor)?);
        let count = self.coefficients.len().max(other.coefficients.len());
        Some(Linear {
            constant: term(self.constant, other.constant)?,
            coefficients: (0..count)
                .map(|v| term(self.coefficient(v), other.coefficient(v)))
                .collect::<Option<_>>()?,
        })
    }
}

/// The points where a statement runs: each variable from 0 to its last value, all of `constraints` at least 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    /// The last value of each variable; below 0 where there is none, so that the statement never runs.
    pub(super) last: Vec<i128>,
    pub(super) constraints: Vec<Linear>,
}

/// How many combinations a proof may try; what code generation writes needs a handful.
const BUDGET: usize = 4000;

impl Space {
    /// Whether `form` is at least 0 on every point: because there is none, on the box, or after taking off multiples of constraints, each chosen
    /// to make one variable vanish. `false` means that no proof was found.
    pub(super) fn proves(&self, form: &Linear) -> bool {
        self.last.iter().any(|last| *last < 0)
            || self.constraints.iter().any(|limit| self.least(&limit.subtracted_from(0)) > 0)
            || self.search(form, &mut vec![false; self.constraints.len()], &mut BUDGET.clone())
    }

    fn least(&self, form: &Linear) -> i128 {
        let terms = form.coefficients.iter().zip(&self.last);
        terms.fold(form.constant, |sum, (factor, last)| {
            sum.saturating_add(factor.min(&0).saturating_mul(*last))
        })
    }

    fn search(&self, form: &Linear, used: &mut [bool], budget: &mut usize) -> bool {
        if self.least(form) >= 0 {
            return true;
        }
        for (at, constraint) in self.constraints.iter().enumerate() {
            for (variable, &factor) in constraint.coefficients.iter().enumerate() {
                let wanted = form.coefficient(variable);
                if used[at] || *budget == 0 || factor == 0 || wanted.signum() != factor.signum() {
                    continue;
                }
                *budget -= 1;
                let Some(rest) = form.combine(factor.abs(), constraint, wanted.abs()) else { continue };
                used[at] = true;
                if self.search(&rest, used, budget) {
                    return true;
                }
                used[at] = false;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(constant: i128, coefficients: &[i128]) -> Linear {
        Linear { constant, coefficients: coefficients.to_vec() }
    }

    #[test]
    fn box_alone() {
        let space = Space { last: vec![3, 9], constraints: vec![] };
        assert!(space.proves(&linear(3, &[-1, 1])));
        assert!(!space.proves(&linear(2, &[-1, 1])));
        assert!(Space { last: vec![-1], constraints: vec![] }.proves(&linear(-5, &[])));
    }

    #[test]
    fn padded_window() {
        // x[(p + r - 1) * 56 + (2 q + s - 1)] under 0 <= p + r - 1 < 56 and 0 <= 2 q + s - 1 < 56.
        let row = linear(-1, &[1, 1, 0, 0]);
        let col = linear(-1, &[0, 0, 2, 1]);
        let offset = linear(-57, &[56, 56, 2, 1]);
        let constraints = vec![row.clone(), row.subtracted_from(55), col.clone(), col.subtracted_from(55)];
        let space = Space { last: vec![55, 2, 27, 2], constraints };
        assert!(space.proves(&offset));
        assert!(space.proves(&offset.subtracted_from(56 * 56 - 1)));
        assert!(!space.proves(&offset.subtracted_from(56 * 56 - 2)));
    }

    #[test]
    fn tail_of_a_split() {
        // 32 j0 + j1 < 390 because j1 < 390 - 32 j0.
        let space = Space { last: vec![12, 31], constraints: vec![linear(389, &[-32, -1])] };
        assert!(space.proves(&linear(389, &[-32, -1])));
        assert!(!space.proves(&linear(388, &[-32, -1])));
    }
}
