//! Windows sliding over a plane: depthwise convolution and pooling over input that is already padded.

pub(crate) mod body;

#[cfg(all(test, unix))]
mod tests;

use crate::table::KernelTable;

/// Where windows read and results go, common to depthwise convolution and pooling. Strides count elements.
///
/// Output `q` of row `o` sees the elements `x[o * x_output + r * x_row + q * stride + s * dilation]` for `r` below
/// `window_rows` and `s` below `window_cols`, and goes to `y[o * y_output + q]`. Exactly these elements are read and
/// written: those of `x` must be valid for reads, those of `y` for writes, and they must not overlap.
#[derive(Clone, Copy, Debug)]
pub struct WindowArgs {
    /// Address of the first element of the first window.
    pub x: *const f32,
    /// Stride from one row of a window to the next: the row pitch times the dilation.
    pub x_row: isize,
    /// Stride from the windows of one output row to those of the next: the row pitch times the vertical stride.
    pub x_output: isize,
    /// Rows of the window, at least 1.
    pub window_rows: usize,
    /// Columns of the window, at least 1.
    pub window_cols: usize,
    /// Stride from one window of an output row to the next, at least 1.
    pub stride: usize,
    /// Stride from one column of a window to the next, at least 1.
    pub dilation: usize,
    /// Address of the first result.
    pub y: *mut f32,
    /// Stride from one output row to the next.
    pub y_output: isize,
    /// Output rows.
    pub outputs: usize,
    /// Results in an output row.
    pub count: usize,
}

/// A depthwise convolution: `y[o, q] = init[o, q] + sum over r, s of weights[r * window_cols + s] * x[o, q, r, s]`.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseArgs {
    /// The windows and the results.
    pub window: WindowArgs,
    /// Address of the weights, contiguous.
    pub weights: *const f32,
    /// Address of what the sums start from, `init[o * init_output + q * init_step]`; may be `y` itself.
    pub init: *const f32,
    /// 1 if each result of a row has its own start, 0 if they share one (a bias).
    pub init_step: usize,
    /// Stride of `init` from one output row to the next.
    pub init_output: isize,
}

/// How pooling combines a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// The largest element; NaN if one is NaN.
    Max,
    /// The sum of the elements.
    Sum,
}

/// Window operations.
impl KernelTable {
    /// Runs a depthwise convolution of one channel.
    ///
    /// # Safety
    /// The arguments keep the contract of [`WindowArgs`]; every weight and start named by [`DepthwiseArgs`] is valid for
    /// reads, outside `y` unless `init` and its strides are those of `y`.
    pub unsafe fn depthwise_row(&self, args: &DepthwiseArgs) {
        // SAFETY: the table's instruction set is present; the caller grants the rest.
        unsafe { (self.raw.depthwise_row)(args) }
    }

    /// Pools one channel; where it accumulates, what the results hold is pooled with their windows.
    ///
    /// # Safety
    /// The arguments keep the contract of [`WindowArgs`]; the results are valid for reads too where it accumulates.
    pub unsafe fn pool_row(&self, pool: Pool, accumulate: bool, args: &WindowArgs) {
        // SAFETY: the table's instruction set is present; the caller grants the rest.
        unsafe { (self.raw.pool_row)(pool, accumulate, args) }
    }
}
