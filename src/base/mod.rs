//! Layer 0: what every other module may use and that knows nothing of tensors: typed ids, id-indexed tables, integer
//! helpers, an indenting writer and seeded random numbers.

mod id;
mod random;
mod writer;

pub use id::{Id, IdVec};
pub use random::Random;
pub use writer::IndentWriter;

/// The smallest multiple of `step` that is at least `value`.
pub fn round_up(value: usize, step: usize) -> usize {
    value.div_ceil(step) * step
}

/// All divisors of `value`, ascending. `value` must be positive.
pub fn divisors(value: usize) -> Vec<usize> {
    let mut low: Vec<usize> =
        (1..).take_while(|d| d * d <= value).filter(|d| value.is_multiple_of(*d)).collect();
    let high: Vec<usize> = low.iter().rev().map(|d| value / d).filter(|d| d * d > value).collect();
    low.extend(high);
    low
}

/// The largest divisor of `value` that is at most `limit` (at least 1).
pub fn largest_divisor_up_to(value: usize, limit: usize) -> usize {
    divisors(value).into_iter().rfind(|&d| d <= limit.max(1)).unwrap_or(1)
}

/// Whether the system would grant that many bytes of memory now. Nothing is kept.
pub fn fits_memory(bytes: usize) -> bool {
    Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_are_complete_and_sorted() {
        assert_eq!(divisors(36), [1, 2, 3, 4, 6, 9, 12, 18, 36]);
        assert_eq!(divisors(1), [1]);
        assert_eq!(divisors(13), [1, 13]);
        assert_eq!(largest_divisor_up_to(56, 10), 8);
        assert_eq!(largest_divisor_up_to(7, 0), 1);
    }
}
