//! The f32 tile of a convolution of each channel by itself, a channel a lane: `c[p, i] (+)= sum over k of a[p, i, k] * b[k]`, where
//! all elements are vectors, and terms beyond an edge are left out.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

use super::{Activate, Depth, Finish};
use crate::isa::Isa;
use crate::simd::Vector;
use crate::simd::dots::Limits;

/// A tile kernel over lanes and the tile it keeps in registers.
#[derive(Clone, Copy, Debug)]
pub struct LaneKernel {
    /// The name in text forms, such as `fma_lanes_14_f32_avx512`.
    pub name: &'static str,
    /// The instruction set it is compiled for.
    pub isa: Isa,
    /// The number of rows that are done at once.
    pub rows: usize,
    /// Runs the kernel. Unsafe: the CPU has `isa`, and the arguments keep the contract of [`LaneArgs`].
    pub run: unsafe fn(&LaneArgs),
}

/// Levels of the sum of a tile over lanes.
pub const LANE_DEPTHS: usize = 2;

/// The terms `k` of a level of the sum that count for row `i` of line `p`: those with `0 <= start + line * p + row * i + step * k <
/// limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The form at zero.
    pub start: i64,
    /// The factor of the line.
    pub line: i64,
    /// The factor of the row, at least 0; 0 but for the innermost level.
    pub row: i64,
    /// The factor of the term.
    pub step: i64,
    /// The first value above.
    pub limit: i64,
}

impl Edge {
    /// All terms count.
    pub const NONE: Edge = Edge { start: 0, line: 0, row: 0, step: 0, limit: 1 };

    /// The rows below `rows` to which all `terms` count, from and up to; the form is `start` for the first row and term.
    #[inline(always)]
    pub(crate) fn whole(&self, start: i64, terms: usize, rows: usize) -> (usize, usize) {
        let last = self.step * (terms as i64 - 1).max(0);
        let (low, high) = (start + last.min(0), start + last.max(0));
        let rows = rows as i64;
        // The first row where a form that is `value` for the first is no longer negative.
        let from = |value: i64| match self.row {
            _ if value >= 0 => 0,
            0 => rows,
            1 => (-value).min(rows),
            row => ((-value + row - 1) / row).min(rows),
        };
        let begin = from(low);
        (begin as usize, from(high - self.limit).max(begin) as usize)
    }

    /// The form for the first row and term of a line.
    #[inline(always)]
    pub(crate) fn at_line(&self, line: usize) -> i64 {
        self.start + self.line * line as i64
    }

    /// The terms below `count` that count, from and up to; the form is `start` for the first.
    #[inline(always)]
    pub(crate) fn terms(&self, start: i64, count: usize) -> (usize, usize) {
        let below = self.limit - start;
        let steps = |distance: i64| match self.step.abs() {
            1 => distance.clamp(0, count as i64),
            step => ((distance.max(0) + step - 1) / step).min(count as i64),
        };
        let (from, to) = match self.step.signum() {
            0 if self.includes(start) => (0, count as i64),
            0 => (0, 0),
            1 => (steps(-start), steps(below)),
            _falling => (steps(1 - below), steps(start + 1)),
        };
        (from as usize, to.max(from) as usize)
    }

    #[inline(always)]
    pub(crate) fn includes(&self, value: i64) -> bool {
        value.cast_unsigned() < self.limit.cast_unsigned()
    }
}

/// Results in lines of rows and the terms of each: `c[p, i]` for `p < lines`, `i < rows`, of `a[p, i, k]`, where `k` runs over all
/// levels of `depths` but the terms that `edges` leave out.
///
/// Every element is a vector of the kernel's instruction set; strides count f32 and may have any sign. Nothing outside the named
/// elements is read or written: `a[p, i, k]` of the terms that count, `start` and `addend[p, i]` must be valid for reads, `c[p, i]`
/// for reads and writes (of what they held before, only with `accumulate`), the elements of `c` must not overlap one another, and
/// `c` must not overlap what is read.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Lines of rows.
    pub lines: usize,
    /// Rows of a line, at least 1.
    pub rows: usize,
    /// The levels of terms, outermost first; of a count of 0 there are none.
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
    /// What becomes of what the terms are combined to.
    pub finish: Finish,
    /// Stride of `p` in `addend`.
    pub addend_line: isize,
}

/// The operands of a tile over lanes: `c[p, i]` is the sum over `k` of `a[p, i, k] * b[k]`, finished. The vectors `b[k]` must be
/// valid for reads, and outside of `c`.
#[derive(Clone, Copy, Debug)]
pub struct LaneArgs {
    /// The results and their terms.
    pub windows: Windows,
    /// Address of `b[0]`.
    pub b: *const f32,
    /// What becomes of the sums instead of what `finish` says.
    pub scaled: Option<ScaledLanes>,
}

/// What becomes of the sums of a tile over lanes: bytes, of `c` and counted by its strides, as [`Scaled`](super::dots::Scaled) says.
#[derive(Clone, Copy, Debug)]
pub struct ScaledLanes {
    /// Address of the vector that sums start from, or null where that is 0.
    pub start: *const f32,
    /// Address of the vector that they are scaled by, or of what it has in all lanes.
    pub scale: *const f32,
    /// Whether it has one value in all lanes.
    pub single: bool,
    /// What becomes of what is rounded.
    pub limits: Limits,
}

/// Rows at either end of a piece at most that may miss terms.
pub(crate) const EDGES: usize = 3;

/// The same rows of all lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// The first line.
    line: usize,
    /// How many lines follow, with it.
    lines: usize,
    /// The first row.
    row: usize,
}

/// `ROWS` rows of lines, which are `STEP` vectors apart in `a`, or anything where that is 0. To all but the first and the last `ENDS`
/// rows of the piece all terms of the innermost level count.
///
/// # Safety
/// The CPU has the instruction set of `V`, the arguments keep the contract of [`LaneArgs`], and the piece has rows of them.
#[inline(always)]
pub(crate) unsafe fn body<V: Vector, const ROWS: usize, const STEP: usize, const ENDS: usize>(
    args: &LaneArgs,
    piece: &Piece,
) {
    let LaneArgs { windows, b: factors, scaled } = args;
    let Windows { depths: [outer, inner], edges: [down, across], a_row, c_row, finish, .. } = windows;
    debug_assert!(STEP == 0 || *a_row == (STEP * V::LANES) as isize);
    let a_row = if STEP == 0 { *a_row } else { (STEP * V::LANES) as isize };
    // SAFETY: the caller grants the instruction set.
    let (low, high) = unsafe { (V::splat(finish.low), V::splat(finish.high)) };
    for line in piece.line..piece.line + piece.lines {
        let (down_form, form) = (down.at_line(line), across.at_line(line) + across.row * piece.row as i64);
        let (line, row) = (line as isize, piece.row as isize);
        let x = windows.a.wrapping_offset(line * windows.a_line + row * a_row);
        let first = line * windows.c_line + row * c_row;
        // SAFETY: the caller grants the instruction set, the elements of `a` for the terms that count, which are those read, all
        // of `b`, the rows of `c`, and what `finish` names.
        unsafe {
            let start = scaled.map_or(finish.start, |scaled| scaled.start);
            let mut sums = [if start.is_null() { V::splat(0.0) } else { V::load(start) }; ROWS];
            for o in 0..outer.count as isize {
                if !down.includes(down_form + down.step * o as i64) {
                    continue;
                }
                let mut a = x.wrapping_offset(o * outer.a);
                let mut b = factors.offset(o * outer.b);
                let mut form = form;
                for _ in 0..inner.count {
                    let factor = V::load(b);
                    for i in 0..ROWS {
                        let whole = i >= ENDS && i + ENDS < ROWS;
                        if whole || across.includes(form + across.row * i as i64) {
                            sums[i] = V::load(a.wrapping_offset(i as isize * a_row)).mul_add(factor, sums[i]);
                        }
                    }
                    a = a.wrapping_offset(inner.a);
                    b = b.wrapping_offset(inner.b);
                    form += across.step;
                }
            }
            if let Some(scaled) = scaled {
                let c = windows.c.cast::<u8>().wrapping_offset(first);
                store_scaled(&sums, scaled, (c, *c_row));
                continue;
            }
            let c = windows.c.wrapping_offset(first);
            if windows.accumulate {
                for i in 0..ROWS {
                    sums[i] = sums[i].add(V::load(c.offset(i as isize * c_row)));
                }
            }
            if !finish.addend.is_null() {
                let addend = finish.addend.offset(line * windows.addend_line + row * finish.addend_row);
                for i in 0..ROWS {
                    sums[i] = sums[i].add(V::load(addend.offset(i as isize * finish.addend_row)));
                }
            }
            for i in 0..ROWS {
                high.lesser_or(low.greater_or(sums[i])).store(c.offset(i as isize * c_row));
            }
        }
    }
}

/// Writes the bytes that the sums become.
///
/// # Safety
/// As for [`body`]; `c` has the rows, of bytes.
#[inline(always)]
unsafe fn store_scaled<V: Vector, const ROWS: usize>(
    sums: &[V; ROWS],
    scaled: &ScaledLanes,
    (c, c_row): (*mut u8, isize),
) {
    let Limits { zero, low, high } = scaled.limits;
    // SAFETY: the caller grants the instruction set, the scale and the rows.
    unsafe {
        let scale = if scaled.single { V::splat(*scaled.scale) } else { V::load(scaled.scale) };
        let (zero, low, high) = (V::splat(zero), V::splat(low), V::splat(high));
        for i in 0..ROWS {
            let moved = sums[i].mul(scale).round().add(zero);
            let limited = high.lesser_or(low.greater_or(moved));
            limited.store_bytes(c.wrapping_offset(i as isize * c_row), V::LANES);
        }
    }
}

/// The compiled variants: `[form][rows - 1]`, where the forms are rows anywhere in `a` with [`EDGES`] ends, then rows one vector apart
/// and two, each with no end, one, and [`EDGES`].
pub(crate) type Variants<const ROWS: usize> = [[unsafe fn(&LaneArgs, &Piece); ROWS]; 7];

/// Does as many rows at once as registers hold, in pieces of nearly one height, line by line. Where more rows miss terms
/// than the ends of a piece have, pieces are no more than ends.
///
/// # Safety
/// As for the variants, which were compiled for vectors of `lanes`, as was `activate`.
#[inline(always)]
pub(crate) unsafe fn dispatch<const ROWS: usize>(
    variants: &Variants<ROWS>,
    activate: Activate,
    lanes: usize,
    args: &LaneArgs,
) {
    let LaneArgs { windows, .. } = args;
    let Windows { rows, edges: [_, across], c_row, finish, .. } = windows;
    let steps = match windows.a_row {
        row if row == lanes as isize => 1,
        row if row == 2 * lanes as isize => 4,
        _any => 0,
    };
    // Where the rows that miss terms are the same in each line, a piece has all lines.
    let lines_at_once = if across.line == 0 { windows.lines } else { 1 };
    let mut line = 0;
    while line < windows.lines {
        let (from, to) = across.whole(across.at_line(line), windows.depths[1].count, *rows);
        let height = rows.div_ceil(rows.div_ceil(ROWS));
        let mut row = 0;
        while row < *rows {
            let count = height.min(rows - row);
            let missing = from.saturating_sub(row).max((row + count).saturating_sub(to));
            let (count, form) = match missing {
                0 => (count, 0),
                1 => (count, 1),
                2..=EDGES => (count, 2),
                _more => (count.min(2 * EDGES), 2),
            };
            let form = if steps == 0 { 0 } else { steps + form };
            let piece = Piece { line, lines: lines_at_once, row };
            // SAFETY: the variant is that for so many rows and the ends they have, and they are rows of the tile.
            unsafe { variants[form][count - 1](args, &piece) }
            row += count;
        }
        line += lines_at_once;
    }
    let Some(activation) = finish.activation else { return };
    for line in 0..windows.lines as isize {
        let results = windows.c.wrapping_offset(line * windows.c_line);
        let extents = if *c_row == lanes as isize { (1, rows * lanes) } else { (*rows, lanes) };
        // SAFETY: these are the rows of the line, all of which the caller grants.
        unsafe { activate(activation, (results, *c_row), (results, *c_row), extents) };
    }
}
