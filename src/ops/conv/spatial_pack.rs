//! Convolution by tiles of places whose input is packed: each tile is a small convolution without padding, all of whose operands are
//! adjacent.
//!
//! From TVM's `conv2d_spatial_pack`; in groups it is GSPC: Gibson, Cano, Turner, Crowley, O'Boyle and Storkey, "Optimizing Grouped
//! Convolutions on Edge Devices" (ASAP 2020). With tiles of `V` places in each spatial dimension, which need
//! `U = (V - 1) * stride + (kernel - 1) * dilation + 1` elements of the input:
//!
//! ```text
//! xs[n, c, t.., u..]         = x[n, c, t * V * stride + u - pad..], 0 in the padding
//! y[n, g * K + k, t * V + p] = sum over c, r.. of xs[n, g * C + c, t.., p * stride + r * dilation..] * w[g * K + k, c, r..]
//! ```
//!
//! The channels of a group follow one another, so that a schedule which packs a tile of a group where it is needed has it in one piece. How
//! many output channels are computed at once, and how the weights are packed for them, is the schedule's choice as well. Results that lie
//! beyond the edge of the output are computed in the last tiles and not kept. The rounding is that of the definition.

use super::windows::Windows;
use crate::expr::{ExprId, Scope};
use crate::ops::define::DefineError;
use crate::ops::nests::window::Window;
use crate::ops::{Conv, Definer};

/// Places of a tile at most along the last dimension, the width: as many as a tile of the largest micro-kernels has.
const WIDTH: usize = 14;
/// Places of a tile at most along the dimension before that.
const HEIGHT: usize = 8;

/// Adds the loops of `conv`.
///
/// # Errors
/// As [`Definer::read`].
pub(in crate::ops) fn define(conv: &Conv, at: &mut Definer<'_>) -> Result<(), DefineError> {
    let windows = Windows::of(conv, at);
    let tile = tile(&windows.places);
    let counts: Vec<usize> = windows.places.iter().zip(&tile).map(|(&all, &of)| all.div_ceil(of)).collect();
    let needed: Vec<usize> =
        windows.windows.iter().zip(&tile).map(|(window, &of)| reach(window, of)).collect();
    let channels = windows.groups * windows.channels;

    let names = |prefix: &str| -> Vec<String> {
        windows.place_names.iter().map(|name| format!("{prefix}{name}")).collect()
    };
    let (tile_names, from, within) = (names("t"), names("xt"), names("x"));
    let named = |names: &'_ [String], extents: &[usize]| -> Vec<(String, usize)> {
        names.iter().cloned().zip(extents.iter().copied()).collect()
    };
    let packing = [named(&from, &counts), named(&within, &needed)].concat();
    let packing: Vec<(&str, usize)> = packing.iter().map(|(name, extent)| (name.as_str(), *extent)).collect();
    let packing = [&[("xn", windows.batch), ("xc", channels)], packing.as_slice()].concat();
    let shape: Vec<usize> = packing.iter().map(|&(_, extent)| extent).collect();

    let dtype = at.input(0).dtype;
    let xs = at.builder().alloc(Scope::Global, "xs", dtype, &shape);
    let (index, opened) = at.open(&packing);
    let (tiles, elements) = index[2..].split_at(tile.len());
    let mut positions = vec![];
    for (axis, window) in windows.windows.iter().enumerate() {
        let pool = at.pool();
        let first = pool.mul_int(tiles[axis], tile[axis] as i64);
        let start = window.start(pool, first);
        let position = pool.add(start, elements[axis]);
        positions.push(pool.simplify(position));
    }
    let value = windows.input(at, index[0], index[1], &positions, dtype)?;
    at.builder().store("packed", xs, &index, value);
    at.close(opened);

    // A dimension of one place has the index 0 for what follows.
    let inside: Vec<usize> = tile.iter().zip(&windows.places).map(|(&of, &all)| of.min(all)).collect();
    let places = [named(&tile_names, &counts), named(&windows.place_names, &inside)].concat();
    let places: Vec<(&str, usize)> = places.iter().map(|(name, extent)| (name.as_str(), *extent)).collect();
    let rank = tile.len();
    windows.sum(
        at,
        &places,
        |at, product| {
            let (tiles, places) = product.places.split_at(rank);
            let pool = at.pool();
            let channel = windows.channel(pool, product.g, product.c);
            let elements = windows.windows.iter().zip(places).zip(product.taps).map(|((window, &p), &r)| {
                let element = Window { before: 0, ..*window }.position(pool, p, r);
                pool.simplify(element)
            });
            let elements: Vec<ExprId> = elements.collect();
            Ok(at.pool().load(xs, &[&[product.n, channel], tiles, elements.as_slice()].concat()))
        },
        |pool, places| {
            let (tiles, places) = places.split_at(rank);
            let mut kept = pool.truth();
            let mut position = vec![];
            for axis in 0..rank {
                let first = pool.mul_int(tiles[axis], tile[axis] as i64);
                let place = pool.add(first, places[axis]);
                let place = pool.simplify(place);
                let inside = pool.less_int(place, windows.places[axis] as i64);
                kept = pool.and(kept, inside);
                position.push(place);
            }
            let kept = pool.simplify(kept);
            (position, (!pool.conjuncts(kept).is_empty()).then_some(kept))
        },
    )
}

/// Places of a tile in each dimension: up to [`HEIGHT`] by [`WIDTH`] in the last two, as many in one where there is no other; of such a size
/// that tiles are whole where one near that is.
fn tile(places: &[usize]) -> Vec<usize> {
    let rank = places.len();
    let limit = |axis: usize| match rank - axis {
        1 if rank == 1 => HEIGHT * WIDTH,
        1 => WIDTH,
        2 => HEIGHT,
        _outer => 1,
    };
    let size = |(axis, &extent): (usize, &usize)| {
        let most = limit(axis).min(extent).max(1);
        let whole = (most.div_ceil(2)..=most).rev().find(|&size| extent.is_multiple_of(size));
        whole.unwrap_or_else(|| extent.div_ceil(extent.div_ceil(most).max(1)).max(1))
    };
    places.iter().enumerate().map(size).collect()
}

/// Elements of the input that as many windows take, from the first to the last.
fn reach(window: &Window, windows: usize) -> usize {
    (windows - 1) * window.stride + (window.kernel - 1) * window.dilation + 1
}
