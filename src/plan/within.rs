//! Values within others: what is joined end to end is written where it is to lie, and nothing copies it there.

use super::{Place, Plan, ValueId};
use std::ops::Range;

/// A value that is to lie in the memory of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The value.
    pub value: ValueId,
    /// From where in the other it begins.
    pub offset_bytes: usize,
}

impl Plan {
    /// The value in whose memory `value` lies, itself unless it lies [within](Place::Within) another, and from which byte.
    pub fn memory(&self, value: ValueId) -> (ValueId, usize) {
        let (mut owner, mut start) = (value, 0);
        while let Place::Within { whole, offset_bytes } = self.values[owner].place {
            owner = whole;
            start += offset_bytes;
        }
        (owner, start)
    }

    /// Which of `parts`, each whole value once, together all of `whole`, can lie within it. A part cannot
    /// - that has no memory in the arena: what is given, known or given back lies where it must;
    /// - that lies within a value of which another part of `whole` does not lie beside it as it is to lie here, or whose parts are
    ///   there twice. So a value that is the beginning of `whole` lies within it with all its parts.
    pub fn can_lie_within(&self, whole: ValueId, parts: &[Part]) -> Vec<bool> {
        let bytes = |value: ValueId| self.values[value].storage_bytes();
        let moved = |part: &Part| {
            let (owner, start) = self.memory(part.value);
            Some((owner, part.offset_bytes.checked_sub(start)?))
        };
        let fits = |part: &Part| {
            let Some((owner, start)) = moved(part) else { return false };
            let end = start + bytes(owner);
            let meets =
                |other: &&Part| other.offset_bytes < end && start < other.offset_bytes + bytes(other.value);
            matches!(self.values[owner].place, Place::Arena { .. })
                && owner != whole
                && end <= bytes(whole)
                && parts.iter().filter(meets).all(|other| moved(other) == Some((owner, start)))
        };
        // What is there twice lies where it is first.
        let is_first = |at: usize| {
            let owner = |part: &Part| self.memory(part.value).0;
            let mut alike = parts[..at].iter().filter(|other| owner(other) == owner(&parts[at]));
            alike.all(|other| moved(other) == moved(&parts[at]))
        };
        parts.iter().enumerate().map(|(at, part)| is_first(at) && fits(part)).collect()
    }

    /// Places a part, which [can lie](Self::can_lie_within) there, within `whole`, and all that it lies within with it.
    pub fn place_within(&mut self, whole: ValueId, part: Part) {
        let (owner, start) = self.memory(part.value);
        if owner != whole {
            let offset_bytes = part.offset_bytes - start;
            self.values[owner].place = Place::Within { whole, offset_bytes };
        }
    }
}

/// Bytes of a value's memory that steps have written: ranges apart from one another, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Written(Vec<Range<usize>>);

impl Written {
    /// Adds bytes; false where some of them were there before.
    pub(super) fn add(&mut self, bytes: Range<usize>) -> bool {
        let at = self.0.partition_point(|known| known.end <= bytes.start);
        let is_new = bytes.is_empty() || self.0.get(at).is_none_or(|next| bytes.end <= next.start);
        if !bytes.is_empty() && is_new {
            self.0.insert(at, bytes);
        }
        is_new
    }

    /// Whether all of these bytes are there.
    pub(super) fn has(&self, bytes: &Range<usize>) -> bool {
        let mut start = bytes.start;
        for known in self.0.iter().filter(|known| known.end > bytes.start) {
            if known.start > start || start >= bytes.end {
                break;
            }
            start = known.end;
        }
        start >= bytes.end
    }
}
