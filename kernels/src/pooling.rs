//! Pooling of blocks of channels, a channel a lane: every element is a vector, and windows are shorter at an edge.

pub(crate) mod body;

#[cfg(all(test, unix))]
mod tests;

use crate::table::KernelTable;
use crate::tile::lanes::Windows;
use crate::window::Pool;

/// The operands of a pooling of lanes: `c[p, i]` is the pool over `k` of `a[p, i, k]`, divided by `divisor` and finished. Of no terms
/// the largest is negative infinity, and the sum 0.
#[derive(Clone, Copy, Debug)]
pub struct PoolArgs {
    /// How terms are combined.
    pub pool: Pool,
    /// The results and their terms; strides in `b` are of no consequence.
    pub windows: Windows,
    /// What the result is divided by.
    pub divisor: f32,
}

/// Pooling.
impl KernelTable {
    /// Pools lanes.
    ///
    /// # Safety
    /// The arguments keep the contract of [`Windows`].
    pub unsafe fn pool_lanes(&self, args: &PoolArgs) {
        // SAFETY: the table's instruction set is present; the caller grants the rest.
        unsafe { (self.raw.pool_lanes)(args) }
    }

    /// The largest of each lane, of bytes that are signed or not; of no terms the least byte. Nothing finishes it.
    ///
    /// # Safety
    /// The arguments keep the contract of [`Windows`] for elements of as many bytes as a vector has lanes: addresses are those of bytes,
    /// and strides count bytes.
    pub unsafe fn pool_bytes(&self, signed: bool, windows: &Windows) {
        // SAFETY: the table's instruction set is present; the caller grants the rest.
        unsafe { (self.raw.pool_bytes)(signed, windows) }
    }
}
