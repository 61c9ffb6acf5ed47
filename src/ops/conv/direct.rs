//! Direct convolution: the definition, on the layout of the tensors as they come.
//!
//! Loops: `n`, group `g` (where there are several), output channel within the group `k`, output position `p`, `q` (one
//! dimension: `q`; three: `o`, `p`, `q`); the sum over the group's input channels `c` and the window `r`, `s` (one
//! dimension: `s`; three: `t`, `r`, `s`). Where a window can lie outside the input, the read is guarded.

use crate::loopir::Combiner;
use crate::ops::define::{DefineError, accumulator};
use crate::ops::nests::window::{Window, kernel_names, output_names};
use crate::ops::{Conv, Definer};

/// Adds the loops of `conv`.
///
/// # Errors
/// As [`Definer::read`].
pub(in crate::ops) fn define(conv: &Conv, at: &mut Definer<'_>) -> Result<(), DefineError> {
    let (x, w, y) = (at.input(0), at.input(1), at.output(0));
    let rank = y.rank() - 2;
    let windows: Vec<Window> = (0..rank)
        .map(|axis| Window {
            extent: x.shape[2 + axis],
            kernel: w.shape[2 + axis],
            stride: conv.strides[axis],
            dilation: conv.dilations[axis],
            before: conv.pads[axis].0,
        })
        .collect();
    let (channels, filters) = (w.shape[1], y.shape[1] / conv.groups);
    let dtype = accumulator(y.dtype);

    let (output_names, kernel_names) = (output_names(rank), kernel_names(rank));
    let mut outer = vec![("n", y.shape[0]), ("g", conv.groups), ("k", filters)];
    outer.extend(output_names.iter().map(String::as_str).zip(y.shape[2..].iter().copied()));
    let (outer, opened) = at.open(&outer);
    let [n, g, k] = [outer[0], outer[1], outer[2]];
    let pixel = &outer[3..];
    let first_filter = at.pool().mul_int(g, filters as i64);
    let filter = at.pool().add(first_filter, k);
    let first_channel = at.pool().mul_int(g, channels as i64);

    let mut reduced = vec![("c", channels)];
    reduced.extend(kernel_names.iter().map(String::as_str).zip(windows.iter().map(|window| window.kernel)));
    let sum = at.accumulate("acc", dtype, Combiner::Add, &reduced, |at, inner| {
        let channel = at.pool().add(first_channel, inner[0]);
        let (mut at_x, mut at_w) = (vec![n, channel], vec![filter, inner[0]]);
        let mut inside = at.pool().truth();
        for ((window, &p), &r) in windows.iter().zip(pixel).zip(&inner[1..]) {
            let position = window.position(at.pool(), p, r);
            let fits = window.inside(at.pool(), position);
            inside = at.pool().and(inside, fits);
            at_x.push(position);
            at_w.push(r);
        }
        let value = at.read_as(0, &at_x, dtype)?;
        let value = at.pool().guard(inside, value);
        let weight = at.read_as(1, &at_w, dtype)?;
        Ok(at.pool().mul(value, weight))
    })?;
    let value = if at.has_input(2) {
        let bias = at.read_as(2, &[filter], dtype)?;
        at.pool().add(sum, bias)
    } else {
        sum
    };
    let index = [&[n, filter], pixel].concat();
    at.emit(0, &index, value)?;
    at.close(opened);
    Ok(())
}
