//! Direct convolution: the definition, on the layout of the tensors as they come.
//!
//! Loops: `n`, group `g` (where there are several), output channel within the group `k`, output position `p`, `q` (one
//! dimension: `q`; three: `o`, `p`, `q`); the sum over the group's input channels `c` and the window `r`, `s` (one
//! dimension: `s`; three: `t`, `r`, `s`). Where a window can lie outside the input, the read is guarded, or chosen
//! against what the edge is.
//!
//! What is called a blocked direct, a depthwise or a 1x1 convolution elsewhere is this nest, on blocks of channels, without a sum over
//! channels, or without one over windows: schedules, no algorithms of their own.

use super::windows::Windows;
use crate::ops::define::DefineError;
use crate::ops::{Conv, Definer};

/// Adds the loops of `conv`.
///
/// # Errors
/// As [`Definer::read`].
pub(in crate::ops) fn define(conv: &Conv, at: &mut Definer<'_>) -> Result<(), DefineError> {
    let windows = Windows::of(conv, at);
    windows.sum(
        at,
        &windows.places(),
        |at, product| {
            let channel = windows.channel(at.pool(), product.g, product.c);
            let positions = windows.positions(at.pool(), product.places, product.taps);
            windows.input(at, product.n, channel, &positions, product.dtype)
        },
        |_, places| (places.to_vec(), None),
    )
}
