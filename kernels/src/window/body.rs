//! The loops behind the window operations, written once for every instruction set.
//!
//! The unsafe functions share one contract: the CPU has the instruction set of `V`, and the arguments keep the contracts
//! of [`WindowArgs`] and [`DepthwiseArgs`].

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

use super::{DepthwiseArgs, Pool, WindowArgs};
use crate::simd::Vector;
use crate::vector::math;

/// What a window does with its elements.
pub(crate) trait Tap {
    /// Whether there are weights.
    const WEIGHTED: bool;
    /// What a result starts from if there are no starts.
    const IDENTITY: f32;
    /// The total with the element `x` of weight `weight` taken in.
    fn take<V: Vector>(total: V, x: V, weight: V) -> V;
}

struct Convolve;
pub(crate) struct Largest;
pub(crate) struct Sum;

impl Tap for Convolve {
    const WEIGHTED: bool = true;
    const IDENTITY: f32 = 0.0;
    #[inline(always)]
    fn take<V: Vector>(total: V, x: V, weight: V) -> V {
        x.mul_add(weight, total)
    }
}

impl Tap for Largest {
    const WEIGHTED: bool = false;
    const IDENTITY: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn take<V: Vector>(total: V, x: V, _: V) -> V {
        math::max(total, x)
    }
}

impl Tap for Sum {
    const WEIGHTED: bool = false;
    const IDENTITY: f32 = 0.0;
    #[inline(always)]
    fn take<V: Vector>(total: V, x: V, _: V) -> V {
        total.add(x)
    }
}

/// [`KernelTable::depthwise_row`](crate::KernelTable::depthwise_row).
#[inline(always)]
pub(crate) unsafe fn depthwise_row<V: Vector>(args: &DepthwiseArgs) {
    let window = &args.window;
    // SAFETY: the caller grants the contract; the constants are those of the arguments.
    unsafe {
        match shape(window) {
            Some((3, 3, 1)) => fixed::<V, Convolve, 3, 3, 1>(args),
            Some((3, 3, 2)) => fixed::<V, Convolve, 3, 3, 2>(args),
            Some((5, 5, 1)) => fixed::<V, Convolve, 5, 5, 1>(args),
            Some((5, 5, 2)) => fixed::<V, Convolve, 5, 5, 2>(args),
            Some((7, 7, 1)) => fixed::<V, Convolve, 7, 7, 1>(args),
            _ => general::<V, Convolve>(args),
        }
    }
}

/// [`KernelTable::pool_row`](crate::KernelTable::pool_row).
#[inline(always)]
pub(crate) unsafe fn pool_row<V: Vector>(pool: Pool, accumulate: bool, window: &WindowArgs) {
    let weights = std::ptr::null();
    let init = if accumulate { window.y.cast_const() } else { std::ptr::null() };
    let args = DepthwiseArgs { window: *window, weights, init, init_step: 1, init_output: window.y_output };
    // SAFETY: the caller grants the contract; the constants are those of the arguments, and null addresses are not
    // read.
    unsafe {
        match (pool, shape(window)) {
            (Pool::Max, Some((2, 2, 2))) => fixed::<V, Largest, 2, 2, 2>(&args),
            (Pool::Max, Some((3, 3, 2))) => fixed::<V, Largest, 3, 3, 2>(&args),
            (Pool::Max, _) => general::<V, Largest>(&args),
            (Pool::Sum, Some((2, 2, 2))) => fixed::<V, Sum, 2, 2, 2>(&args),
            (Pool::Sum, Some((3, 3, 1))) => fixed::<V, Sum, 3, 3, 1>(&args),
            (Pool::Sum, _) => general::<V, Sum>(&args),
        }
    }
}

/// Rows, columns and stride of a window that is not dilated and whose stride is the same in both directions, so that
/// output rows share input rows.
#[inline(always)]
fn shape(window: &WindowArgs) -> Option<(usize, usize, usize)> {
    let even = window.dilation == 1 && window.x_output == window.stride as isize * window.x_row;
    even.then_some((window.window_rows, window.window_cols, window.stride))
}

/// Output rows computed together.
const GROUP: usize = 4;

/// The part of a row of results that one vector holds: results `from..from + lanes` of output rows from `output` on.
#[derive(Clone, Copy)]
struct Place {
    output: usize,
    from: usize,
    lanes: usize,
}

/// Runs `$block::<.., N, PARTIAL>(args, place, ..)` over all results, `N` output rows and a vector at a time.
macro_rules! over_places {
    ($vector:ty, $window:expr, |$place:ident, $rows:ident, $partial:ident| $block:expr) => {{
        let window: &WindowArgs = $window;
        let mut output = 0;
        while output < window.outputs {
            let group = if window.outputs - output >= GROUP { GROUP } else { 1 };
            let mut from = 0;
            while from < window.count {
                let lanes = <$vector>::LANES.min(window.count - from);
                let $place = Place { output, from, lanes };
                match (group == GROUP, lanes == <$vector>::LANES) {
                    (true, true) => over_places!(@call $rows = GROUP, $partial = false, $block),
                    (true, false) => over_places!(@call $rows = GROUP, $partial = true, $block),
                    (false, true) => over_places!(@call $rows = 1, $partial = false, $block),
                    (false, false) => over_places!(@call $rows = 1, $partial = true, $block),
                }
                from += lanes;
            }
            output += group;
        }
    }};
    (@call $rows:ident = $n:expr, $partial:ident = $is_partial:literal, $block:expr) => {{
        const $rows: usize = $n;
        const $partial: bool = $is_partial;
        $block
    }};
}

/// A window of constant size and stride, with its weights in registers.
#[inline(always)]
unsafe fn fixed<V: Vector, T: Tap, const R: usize, const S: usize, const STRIDE: usize>(
    args: &DepthwiseArgs,
) {
    // SAFETY: the caller grants the contract and `R * S` weights if there are weights.
    unsafe {
        let mut weights = [[V::splat(0.0); S]; R];
        if T::WEIGHTED {
            for r in 0..R {
                for s in 0..S {
                    weights[r][s] = V::splat(*args.weights.add(r * S + s));
                }
            }
        }
        over_places!(V, &args.window, |place, ROWS, PARTIAL| {
            fixed_block::<V, T, R, S, STRIDE, ROWS, PARTIAL>(args, place, &weights)
        });
    }
}

/// Repeats a block for constants, so that what it indexes by them stays in registers.
macro_rules! for_constants {
    ($name:ident in [$($value:literal)*] below $end:expr, $block:expr) => {
        $({
            let $name: usize = $value;
            if $name < $end {
                $block
            }
        })*
    };
}

/// `ROWS` output rows of a fixed window at a place: each input row is loaded once and serves all of them.
#[inline(always)]
unsafe fn fixed_block<
    V: Vector,
    T: Tap,
    const R: usize,
    const S: usize,
    const STRIDE: usize,
    const ROWS: usize,
    const PARTIAL: bool,
>(
    args: &DepthwiseArgs,
    place: Place,
    weights: &[[V; S]; R],
) {
    // SAFETY: the caller grants the contract; the place is inside the output, hence its windows inside the input.
    unsafe {
        let window = &args.window;
        let mut totals = starts::<V, T, ROWS, PARTIAL>(args, place);
        let x = window.x.offset(place.output as isize * window.x_output).add(place.from * STRIDE);
        for_constants!(row in [0 1 2 3 4 5 6 7 8 9 10] below (ROWS - 1) * STRIDE + R, {
            let taps = taps::<V, S, STRIDE, PARTIAL>(x.offset(row as isize * window.x_row), place.lanes);
            for o in 0..ROWS {
                if o * STRIDE <= row && row < o * STRIDE + R {
                    for s in 0..S {
                        totals[o] = T::take(totals[o], taps[s], weights[row - o * STRIDE][s]);
                    }
                }
            }
        });
        finish::<V, ROWS, PARTIAL>(window, place, totals);
    }
}

/// For each column `s` of a window, lane `l` from `row[l * STRIDE + s]`; `S` is at least `STRIDE`, which is 1 or 2.
#[inline(always)]
unsafe fn taps<V: Vector, const S: usize, const STRIDE: usize, const PARTIAL: bool>(
    row: *const f32,
    lanes: usize,
) -> [V; S] {
    const { assert!(S >= STRIDE && (STRIDE == 1 || STRIDE == 2)) };
    // SAFETY: the elements of the windows span `(lanes - 1) * STRIDE + S` from `row`. Of stride 1, tap `s` ends at
    // `s + lanes`. Of stride 2, two neighbouring taps `s`, `s + 1` are `2 * lanes` elements from `s`; the last of an odd
    // number of taps is taken out of those from `s - 1`, so that nothing behind the span is read.
    unsafe {
        let mut taps = [V::splat(0.0); S];
        if STRIDE == 1 {
            for s in 0..S {
                taps[s] = if PARTIAL { V::load_first(row.add(s), lanes) } else { V::load(row.add(s)) };
            }
        } else {
            for pair in 0..S.div_ceil(2) {
                let s = 2 * pair;
                let first = row.add(if s + 1 < S { s } else { s - 1 });
                let (low, high) = if PARTIAL {
                    let behind = (2 * lanes).saturating_sub(V::LANES);
                    let low = V::load_first(first, (2 * lanes).min(V::LANES));
                    (low, V::load_first(first.wrapping_add(V::LANES), behind))
                } else {
                    (V::load(first), V::load(first.add(V::LANES)))
                };
                let (even, odd) = low.deinterleave(high);
                if s + 1 < S {
                    taps[s] = even;
                    taps[s + 1] = odd;
                } else {
                    taps[s] = odd;
                }
            }
        }
        taps
    }
}

/// A window of any size, stride and dilation.
#[inline(always)]
unsafe fn general<V: Vector, T: Tap>(args: &DepthwiseArgs) {
    // SAFETY: the caller grants the contract.
    unsafe {
        match args.window.stride {
            1 => over_places!(V, &args.window, |place, ROWS, PARTIAL| {
                general_block::<V, T, 1, ROWS, PARTIAL>(args, place)
            }),
            2 => over_places!(V, &args.window, |place, ROWS, PARTIAL| {
                general_block::<V, T, 2, ROWS, PARTIAL>(args, place)
            }),
            _ => over_places!(V, &args.window, |place, ROWS, PARTIAL| {
                general_block::<V, T, 0, ROWS, PARTIAL>(args, place)
            }),
        }
    }
}

/// `ROWS` output rows of any window at a place; `STRIDE` is the stride if that is 1 or 2, else 0.
#[inline(always)]
unsafe fn general_block<V: Vector, T: Tap, const STRIDE: usize, const ROWS: usize, const PARTIAL: bool>(
    args: &DepthwiseArgs,
    place: Place,
) {
    let window = &args.window;
    // SAFETY: the caller grants the contract; the place is inside the output, hence its windows inside the input.
    unsafe {
        let mut totals = starts::<V, T, ROWS, PARTIAL>(args, place);
        let x = window.x.offset(place.output as isize * window.x_output).add(place.from * window.stride);
        let mut weight = V::splat(0.0);
        for r in 0..window.window_rows {
            for s in 0..window.window_cols {
                if T::WEIGHTED {
                    weight = V::splat(*args.weights.add(r * window.window_cols + s));
                }
                let x = x.offset(r as isize * window.x_row).add(s * window.dilation);
                for o in 0..ROWS {
                    let source = x.offset(o as isize * window.x_output);
                    let tap = strided::<V, STRIDE, PARTIAL>(source, window.stride, place.lanes);
                    totals[o] = T::take(totals[o], tap, weight);
                }
            }
        }
        finish::<V, ROWS, PARTIAL>(window, place, totals);
    }
}

/// Lane `l` from `source[l * stride]`; `STRIDE` is the stride if that is 1 or 2, else 0.
#[inline(always)]
unsafe fn strided<V: Vector, const STRIDE: usize, const PARTIAL: bool>(
    source: *const f32,
    stride: usize,
    lanes: usize,
) -> V {
    // SAFETY: the caller grants the lanes; of stride 2 they span `2 * lanes - 1` elements, which the loads are cut to.
    unsafe {
        match STRIDE {
            1 if PARTIAL => V::load_first(source, lanes),
            1 => V::load(source),
            2 => {
                let span = 2 * lanes - 1;
                let low = V::load_first(source, span.min(V::LANES));
                let high = V::load_first(source.wrapping_add(V::LANES), span.saturating_sub(V::LANES));
                low.deinterleave(high).0
            }
            _ => V::gather(source, stride as isize, lanes),
        }
    }
}

/// What the totals of a place start from: their starts, or without an address of these the identity.
#[inline(always)]
unsafe fn starts<V: Vector, T: Tap, const ROWS: usize, const PARTIAL: bool>(
    args: &DepthwiseArgs,
    place: Place,
) -> [V; ROWS] {
    // SAFETY: the caller grants the starts of the place if there are any.
    unsafe {
        let mut totals = [V::splat(T::IDENTITY); ROWS];
        if T::WEIGHTED || !args.init.is_null() {
            for o in 0..ROWS {
                let init = args.init.offset((place.output + o) as isize * args.init_output);
                totals[o] = match args.init_step {
                    0 => V::splat(*init),
                    _ if PARTIAL => V::load_first(init.add(place.from), place.lanes),
                    _ => V::load(init.add(place.from)),
                };
            }
        }
        totals
    }
}

/// Writes the totals of a place.
#[inline(always)]
unsafe fn finish<V: Vector, const ROWS: usize, const PARTIAL: bool>(
    window: &WindowArgs,
    place: Place,
    totals: [V; ROWS],
) {
    for o in 0..ROWS {
        // SAFETY: the caller grants the results of the place.
        unsafe {
            let y = window.y.offset((place.output + o) as isize * window.y_output).add(place.from);
            if PARTIAL { totals[o].store_first(y, place.lanes) } else { totals[o].store(y) }
        }
    }
}
