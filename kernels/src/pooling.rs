//! Pooling of blocks of channels, a channel a lane: every element is a vector, and windows are shorter at an edge.

pub(crate) mod body;

#[cfg(all(test, unix))]
mod tests;

use crate::table::KernelTable;
use crate::tile::lanes::{Edge, LANE_DEPTHS};
use crate::tile::{Depth, Finish};
use crate::window::Pool;

/// The operands of a pooling of lanes: `c[p, i] = pool over k of a[p, i, k]` for `p < lines`, `i < rows`, where `k` runs over all levels
/// of `depths` but the terms that `edges` leave out; divided by `divisor` and finished as `finish` says. Of no terms the largest
/// is negative infinity, and the sum 0.
///
/// Every element is a vector of the kernel's instruction set; strides count f32 and may have any sign. Nothing outside the named
/// elements is read or written: `a[p, i, k]` of the terms that count, `start` and `addend[p, i]` must be valid for reads, `c[p, i]` for
/// reads and writes (of what they held before, only with `accumulate`), the elements of `c` must not overlap one another, and
/// `c` must not overlap what is read.
#[derive(Clone, Copy, Debug)]
pub struct PoolArgs {
    /// How terms are combined.
    pub pool: Pool,
    /// Lines of rows.
    pub lines: usize,
    /// Rows of a line, at least 1.
    pub rows: usize,
    /// The levels of terms, outermost first; strides in `b` are of no consequence.
    pub depths: [Depth; LANE_DEPTHS],
    /// The terms of each level that count.
    pub edges: [Edge; LANE_DEPTHS],
    /// Address of `a[0, 0]` for the first term, whether it counts or not.
    pub a: *const f32,
    /// Stride of `p` in `a`.
    pub a_line: isize,
    /// Stride of `i` in `a`.
    pub a_row: isize,
    /// Address of `c[0, 0]`.
    pub c: *mut f32,
    /// Stride of `p` in `c`.
    pub c_line: isize,
    /// Stride of `i` in `c`.
    pub c_row: isize,
    /// Whether what `c` holds is one more term.
    pub accumulate: bool,
    /// What the result is divided by.
    pub divisor: f32,
    /// What becomes of the quotient.
    pub finish: Finish,
    /// Stride of `p` in `addend`.
    pub addend_line: isize,
}

/// Pooling.
impl KernelTable {
    /// Pools lanes.
    ///
    /// # Safety
    /// The arguments keep the contract of [`PoolArgs`].
    pub unsafe fn pool_lanes(&self, args: &PoolArgs) {
        // SAFETY: the table's instruction set is present; the caller grants the rest.
        unsafe { (self.raw.pool_lanes)(args) }
    }
}
