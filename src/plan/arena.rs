//! Offsets in an arena for values with lifetimes.

use super::ValueId;
use crate::base::round_up;
use std::collections::HashMap;

/// From which step to which, both included, a value is needed, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The step that makes it.
    pub first: usize,
    /// The last step that needs it.
    pub last: usize,
    /// Its size.
    pub size_bytes: usize,
}

impl Lifetime {
    /// Whether some step needs both.
    pub fn meets(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Offsets are multiples of this: the strictest alignment that adapters ask of a storage binding.
const ALIGNMENT_BYTES: usize = 256;

/// An offset for each value, such that values needed at one step do not overlap, and the size of the arena. The largest values
/// are placed first, each at the lowest gap it fits (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
/// Inference", 2020, greedy by size).
pub fn allocate(lifetimes: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].size_bytes), i));
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<usize> = vec![];
    let mut total = 0;
    for i in order {
        let size = round_up(lifetimes[i].size_bytes, ALIGNMENT_BYTES);
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&other| lifetimes[i].meets(&lifetimes[other]))
            .map(|&other| {
                (offsets[other], offsets[other] + round_up(lifetimes[other].size_bytes, ALIGNMENT_BYTES))
            })
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + size <= start {
                break;
            }
            offset = offset.max(end);
        }
        offsets[i] = offset;
        total = total.max(offset + size);
        placed.push(i);
    }
    (offsets, total)
}

/// An arena in which no value lies where another does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpreadArena {
    /// Where each value begins.
    pub offsets: HashMap<ValueId, usize>,
    /// Its size.
    pub bytes: usize,
}

/// What a spread arena takes at most.
const MOST_SPREAD_BYTES: usize = 64 << 20;

impl SpreadArena {
    /// One for values of such lifetimes, if it does not take too much.
    pub fn new(values: Vec<(ValueId, Lifetime)>) -> Option<SpreadArena> {
        let mut bytes = 0_usize;
        let offsets = values
            .into_iter()
            .map(|(value, lifetime)| {
                let offset = bytes;
                bytes = bytes.saturating_add(round_up(lifetime.size_bytes, ALIGNMENT_BYTES));
                (value, offset)
            })
            .collect();
        (bytes <= MOST_SPREAD_BYTES).then_some(SpreadArena { offsets, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<Lifetime> =
            (0..10).map(|i| Lifetime { first: i, last: i + 1, size_bytes: 1000 }).collect();
        assert_eq!(allocate(&chain).1, 2048);
    }

    #[test]
    fn a_spread_arena_has_each_value_by_itself_and_an_end() {
        let values = |count: usize| {
            let lifetime = |i| Lifetime { first: i, last: i + 1, size_bytes: 1000 };
            (0..count).map(|i| (ValueId::new(i), lifetime(i))).collect::<Vec<_>>()
        };
        let spread = SpreadArena::new(values(3)).unwrap();
        assert_eq!(spread.bytes, 3072);
        let mut offsets: Vec<usize> = spread.offsets.into_values().collect();
        offsets.sort_unstable();
        assert_eq!(offsets, [0, 1024, 2048]);
        assert!(SpreadArena::new(values(1 << 16)).is_some());
        assert_eq!(SpreadArena::new(values((1 << 16) + 1)), None);
    }

    #[test]
    fn values_that_meet_do_not_overlap() {
        let mut rng = Random::new(3);
        for _ in 0..200 {
            let lifetimes: Vec<Lifetime> = (0..30)
                .map(|_| {
                    let first = rng.below(20);
                    Lifetime { first, last: first + rng.below(6), size_bytes: rng.below(5000) }
                })
                .collect();
            let (offsets, total) = allocate(&lifetimes);
            for i in 0..lifetimes.len() {
                assert!(offsets[i] + lifetimes[i].size_bytes <= total && offsets[i] % ALIGNMENT_BYTES == 0);
                for j in 0..i {
                    let apart = offsets[i] + lifetimes[i].size_bytes <= offsets[j]
                        || offsets[j] + lifetimes[j].size_bytes <= offsets[i];
                    assert!(apart || !lifetimes[i].meets(&lifetimes[j]));
                }
            }
        }
    }
}
