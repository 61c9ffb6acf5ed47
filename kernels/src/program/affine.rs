//! Affine forms over loop counters, and the inequalities that limit loops and guard loads.

use super::code::CounterId;

/// `constant + sum(coefficient * counter)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affine {
    /// The part without a counter.
    pub constant: i64,
    /// Each counter at most once, with its factor.
    pub terms: Vec<(CounterId, i64)>,
}

impl Affine {
    /// The form that is a constant.
    pub fn constant(constant: i64) -> Affine {
        Affine { constant, terms: Vec::new() }
    }

    /// The form that is one counter.
    pub fn counter(counter: CounterId) -> Affine {
        Affine { constant: 0, terms: vec![(counter, 1)] }
    }

    /// Adds `factor * counter`.
    pub fn add_term(&mut self, counter: CounterId, factor: i64) {
        match self.terms.iter_mut().find(|(known, _)| *known == counter) {
            Some((_, known)) => *known += factor,
            None => self.terms.push((counter, factor)),
        }
        self.terms.retain(|(_, factor)| *factor != 0);
    }

    /// The value for the given counters, by their index; every counter named here should be among them.
    #[inline]
    pub fn evaluate(&self, counters: &[i64]) -> i64 {
        self.terms
            .iter()
            .fold(self.constant, |sum, (counter, factor)| sum + factor * counters[counter.index()])
    }
}

/// A limit on the iterations of a loop or of a dimension: as many as `ceil(value / divisor)`, which is to say the
/// iterations `i` with `i * divisor < value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    /// The form divided, over the counters of the loops around.
    pub value: Affine,
    /// At least 1.
    pub divisor: i64,
}

/// `0 <= value + sum(strides * dimension index) < limit`: a condition on the elements of a block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The part over the counters around the block.
    pub value: Affine,
    /// The factor of each dimension of the block, outermost first.
    pub strides: Vec<i64>,
    /// The first value above.
    pub limit: i64,
}
