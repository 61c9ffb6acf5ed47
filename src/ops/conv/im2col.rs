//! Convolution as a product of matrices: the windows become the columns of a matrix, which is multiplied with the weights.
//!
//! From Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006):
//!
//! ```text
//! col[n, g, c, r.., p..] = x[n, g * C + c, p * stride + r * dilation - pad..], 0 in the padding
//! y[n, g * K + k, p..]   = sum over c, r.. of col[n, g, c, r.., p..] * w[g * K + k, c, r..]
//! ```
//!
//! The matrix of a group has a row for each element of a window of all its channels and a column for each place. It is as many times as large
//! as the input as a window has elements in a stride, and written and read once; the product is one of dense matrices, whatever the
//! window. The rounding is that of the definition: the same sums of the same products.

use super::windows::Windows;
use crate::expr::Scope;
use crate::ops::define::DefineError;
use crate::ops::{Conv, Definer};

/// Adds the loops of `conv`.
///
/// # Errors
/// As [`Definer::read`].
pub(in crate::ops) fn define(conv: &Conv, at: &mut Definer<'_>) -> Result<(), DefineError> {
    let windows = Windows::of(conv, at);
    let (taps, places) = (windows.taps(), windows.places());
    let matrix = [("n", windows.batch), ("g", windows.groups), ("c", windows.channels)];
    let matrix = [&matrix, taps.as_slice(), &places].concat();
    let shape: Vec<usize> = matrix.iter().map(|&(_, extent)| extent).collect();
    let names: Vec<String> = matrix.iter().map(|(name, _)| format!("c{name}")).collect();
    let loops: Vec<(&str, usize)> = names.iter().map(String::as_str).zip(shape.iter().copied()).collect();

    let dtype = at.input(0).dtype;
    let columns = at.builder().alloc(Scope::Global, "col", dtype, &shape);
    let (index, opened) = at.open(&loops);
    let (rows, at_places) = index.split_at(3 + taps.len());
    let channel = windows.channel(at.pool(), rows[1], rows[2]);
    let positions = windows.positions(at.pool(), at_places, &rows[3..]);
    let value = windows.input(at, rows[0], channel, &positions, dtype)?;
    at.builder().store("columns", columns, &index, value);
    at.close(opened);

    windows.sum(
        at,
        &places,
        |at, product| {
            let row = [&[product.n, product.g, product.c], product.taps].concat();
            Ok(at.pool().load(columns, &[&row, product.places].concat()))
        },
        |_, places| (places.to_vec(), None),
    )
}
