//! What convolution and pooling share: windows over spatial dimensions.

use crate::expr::{ExprId, ExprPool};
use crate::ops::define::in_range;

/// Loop names of the output's spatial dimensions: `q`; `p`, `q`; `o`, `p`, `q`; with more dimensions `o1` .. before them.
pub(in crate::ops) fn output_names(rank: usize) -> Vec<String> {
    names(rank, ["o", "p", "q"])
}

/// Loop names of the window's dimensions: `s`; `r`, `s`; `t`, `r`, `s`; with more dimensions `t1` .. before them.
pub(in crate::ops) fn kernel_names(rank: usize) -> Vec<String> {
    names(rank, ["t", "r", "s"])
}

fn names(rank: usize, last: [&str; 3]) -> Vec<String> {
    let extra = rank.saturating_sub(3);
    let before = (1..=extra).map(|n| format!("{}{n}", last[0]));
    before.chain(last[3 - (rank - extra)..].iter().map(|name| name.to_string())).collect()
}

/// Where the windows of one spatial dimension lie.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Window {
    /// The extent of the input.
    pub(in crate::ops) extent: usize,
    /// Elements of the window.
    pub(in crate::ops) kernel: usize,
    /// Between windows.
    pub(in crate::ops) stride: usize,
    /// Between elements of a window.
    pub(in crate::ops) dilation: usize,
    /// Padding before the input.
    pub(in crate::ops) before: usize,
}

impl Window {
    /// `p * stride - before`: where window `p` starts.
    pub(in crate::ops) fn start(self, pool: &mut ExprPool, p: ExprId) -> ExprId {
        let scaled = pool.mul_int(p, self.stride as i64);
        pool.add_int(scaled, -(self.before as i64))
    }

    /// `p * stride + r * dilation - before`: where element `r` of window `p` lies.
    pub(in crate::ops) fn position(self, pool: &mut ExprPool, p: ExprId, r: ExprId) -> ExprId {
        let (start, inner) = (self.start(pool, p), pool.mul_int(r, self.dilation as i64));
        let position = pool.add(start, inner);
        pool.simplify(position)
    }

    /// Whether `position` lies in the input; the constant true where that is so for all windows.
    pub(in crate::ops) fn inside(self, pool: &mut ExprPool, position: ExprId) -> ExprId {
        let inside = in_range(pool, position, 0, self.extent as i64);
        pool.simplify(inside)
    }
}
