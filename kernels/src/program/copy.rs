//! Guarded copies: blocks that load and store, row by row over the region where their conditions hold.

use std::ops::Range;

use super::block::holding;
use super::code::Combine;
use super::lower::{BlockCode, Guard, LaneOp};
use super::machine::Machine;

impl Machine<'_> {
    /// Runs a block that only copies under conditions of single dimensions: into padded regions and out of them. `false`
    /// where the block is something else and nothing was done.
    ///
    /// # Safety
    /// As for [`Machine::block`](Self::block), with the dimensions' lengths.
    pub(super) unsafe fn guarded_copy(&self, block: &BlockCode, [outers, rows, cols]: [usize; 3]) -> bool {
        let [
            LaneOp::Load { to, view: from, guard: read, .. },
            LaneOp::Store { view: target, value, combine: Combine::Replace, guard: kept, mask: None, .. },
        ] = block.ops.as_slice()
        else {
            return false;
        };
        let buffer = |access: usize| self.program.code().accesses[access].buffer;
        if to.register != *value
            || (read.is_empty() && kept.is_empty())
            || target.strides[2] != 1
            || buffer(from.access) == buffer(target.access)
        {
            return false;
        }
        let size = from.size;
        for outer in 0..outers {
            let (Some(kept), Some(read)) =
                (self.region(kept, outer, rows, cols), self.region(read, outer, rows, cols))
            else {
                return false;
            };
            let Range { start: begin, end } = kept[1];
            let low = read[1].start.clamp(begin, end);
            let high = read[1].end.clamp(low, end);
            for row in kept[0].clone() {
                let (low, high) = if read[0].contains(&row) { (low, high) } else { (end, end) };
                // SAFETY: the verifier proved the elements in range where the conditions of the load and of the store
                // hold, which is in their regions; the buffers are two, and the steps for bytes fit their elements.
                unsafe {
                    let row_of =
                        |strides: [isize; 3]| outer as isize * strides[0] + row as isize * strides[1];
                    let store =
                        self.pointers[target.access].wrapping_offset(row_of(target.strides) * size as isize);
                    if low > begin {
                        std::ptr::write_bytes(store.wrapping_add(begin * size), 0, (low - begin) * size);
                    }
                    if high > low {
                        let first = row_of(from.strides) + low as isize * from.strides[2];
                        let source = self.pointers[from.access].wrapping_offset(first * size as isize);
                        let store = store.wrapping_add(low * size);
                        self.load_row(size, store, source, from.strides[2], high - low);
                    }
                    if end > high {
                        std::ptr::write_bytes(store.wrapping_add(high * size), 0, (end - high) * size);
                    }
                }
            }
        }
        true
    }

    /// The rows and the columns where all conditions hold; `None` where one depends on both.
    fn region(&self, guard: &[Guard], outer: usize, rows: usize, cols: usize) -> Option<[Range<usize>; 2]> {
        let mut region = [0..rows as i64, 0..cols as i64];
        for condition in guard {
            let base = condition.value.evaluate(self.counters) + condition.strides[0] * outer as i64;
            let (dim, stride) = match (condition.strides[1], condition.strides[2]) {
                (0, stride) => (1, stride),
                (stride, 0) => (0, stride),
                (_, _) => return None,
            };
            let (low, high) = holding(base, stride, condition.limit);
            region[dim].start = low.max(region[dim].start);
            region[dim].end = high.min(region[dim].end);
        }
        Some(
            region
                .map(|range| if range.is_empty() { 0..0 } else { range.start as usize..range.end as usize }),
        )
    }
}
