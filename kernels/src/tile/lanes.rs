//! The f32 tile of a convolution of each channel by itself, a channel a lane: `c[p, i] (+)= sum over k of a[p, i, k] * b[k]`, where
//! all elements are vectors, and terms beyond an edge are left out.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

use super::{DEPTHS, Depth, Finish};
use crate::isa::Isa;
use crate::simd::Vector;

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

/// The terms `k` of a level of the sum that count for row `i` of line `p`: those with `0 <= start + line * p + row * i + step * k <
/// limit`.
#[derive(Clone, Copy, Debug)]
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

    #[inline(always)]
    fn includes(&self, value: i64) -> bool {
        value.cast_unsigned() < self.limit.cast_unsigned()
    }
}

/// The operands of a tile over lanes: `c[p, i] (+)= sum over k of a[p, i, k] * b[k]` for `p < lines`, `i < rows`, where `k` runs over
/// all levels of `depths` but the terms that `edges` leave out, and the sum is finished as `finish` says.
///
/// Every element is a vector of the kernel's instruction set; strides count f32 and may have any sign. Nothing outside the named
/// elements is read or written: `a[p, i, k]` of the terms that count, `b[k]`, `start` and `addend[p, i]` must be valid for
/// reads, `c[p, i]` for reads and writes (writes alone without `accumulate`), the elements of `c` must not overlap one
/// another, and `c` must not overlap what is read.
#[derive(Clone, Copy, Debug)]
pub struct LaneArgs {
    /// Lines of rows.
    pub lines: usize,
    /// Rows of a line; those beyond what the kernel's registers hold are done after the first.
    pub rows: usize,
    /// The levels of each sum, outermost first; a count of 0 gives sums of 0.
    pub depths: [Depth; DEPTHS],
    /// The terms of each level that count.
    pub edges: [Edge; DEPTHS],
    /// Address of `a[0, 0]` for the first term, whether it counts or not.
    pub a: *const f32,
    /// Stride of `p` in `a`.
    pub a_line: isize,
    /// Stride of `i` in `a`.
    pub a_row: isize,
    /// Address of `b[0]`.
    pub b: *const f32,
    /// Address of `c[0, 0]`.
    pub c: *mut f32,
    /// Stride of `p` in `c`.
    pub c_line: isize,
    /// Stride of `i` in `c`.
    pub c_row: isize,
    /// Whether what `c` holds is added to the sums before they are finished.
    pub accumulate: bool,
    /// What becomes of the sums.
    pub finish: Finish,
    /// Stride of `p` in `addend`.
    pub addend_line: isize,
}

/// The rows of one piece: `count` of them from `first` on, of one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    line: usize,
    first: usize,
}

/// What is read in place of what does not count: zeros, as many as the widest vector has.
static ZEROS: [f32; 16] = [0.0; 16];

/// `ROWS` rows of one line.
///
/// # Safety
/// The CPU has the instruction set of `V`, the arguments keep the contract of [`LaneArgs`], and the piece has rows of them.
#[inline(always)]
pub(crate) unsafe fn body<V: Vector, const ROWS: usize>(args: &LaneArgs, piece: Piece) {
    let LaneArgs { depths, edges, a_row, accumulate, finish, .. } = args;
    let (line, first) = (piece.line as isize, piece.first as isize);
    let a = args.a.wrapping_offset(line * args.a_line + first * a_row);
    let [outer, middle, inner, terms] = depths;
    // The forms of the edges for the first term of each level and the first row.
    let start = |level: usize| {
        let edge = &edges[level];
        edge.start + edge.line * line as i64 + edge.row * first as i64
    };
    // SAFETY: the caller grants the instruction set, the elements of `a` for the terms that count, which are those read, all
    // of `b`, the rows of `c`, and what `finish` names.
    unsafe {
        let zero = V::splat(0.0);
        let mut sums = [if finish.start.is_null() { zero } else { V::load(finish.start) }; ROWS];
        for o in 0..outer.count as isize {
            if !edges[0].includes(start(0) + edges[0].step * o as i64) {
                continue;
            }
            for m in 0..middle.count as isize {
                if !edges[1].includes(start(1) + edges[1].step * m as i64) {
                    continue;
                }
                for n in 0..inner.count as isize {
                    if !edges[2].includes(start(2) + edges[2].step * n as i64) {
                        continue;
                    }
                    let mut a = a.wrapping_offset(o * outer.a + m * middle.a + n * inner.a);
                    let mut b = args.b.wrapping_offset(o * outer.b + m * middle.b + n * inner.b);
                    let edge = &edges[3];
                    let mut value = start(3);
                    for _ in 0..terms.count {
                        let factor = V::load(b);
                        if edge.includes(value) && edge.includes(value + edge.row * (ROWS as i64 - 1)) {
                            for i in 0..ROWS {
                                let x = V::load(a.offset(i as isize * a_row));
                                sums[i] = x.mul_add(factor, sums[i]);
                            }
                        } else {
                            for i in 0..ROWS {
                                let counts = edge.includes(value + edge.row * i as i64);
                                let inside = a.wrapping_offset(i as isize * a_row);
                                let x = V::load(if counts { inside } else { ZEROS.as_ptr() });
                                sums[i] = x.mul_add(factor, sums[i]);
                            }
                        }
                        a = a.wrapping_offset(terms.a);
                        b = b.wrapping_offset(terms.b);
                        value += edge.step;
                    }
                }
            }
        }
        let c = args.c.offset(line * args.c_line + first * args.c_row);
        if *accumulate {
            for i in 0..ROWS {
                sums[i] = sums[i].add(V::load(c.offset(i as isize * args.c_row)));
            }
        }
        if !finish.addend.is_null() {
            let addend = finish.addend.offset(line * args.addend_line + first * finish.addend_row);
            for i in 0..ROWS {
                sums[i] = sums[i].add(V::load(addend.offset(i as isize * finish.addend_row)));
            }
        }
        let (low, high) = (V::splat(finish.low), V::splat(finish.high));
        for i in 0..ROWS {
            high.lesser_or(low.greater_or(sums[i])).store(c.offset(i as isize * args.c_row));
        }
    }
}

/// The compiled variants: `[rows - 1]`.
pub(crate) type Variants<const ROWS: usize> = [unsafe fn(&LaneArgs, Piece); ROWS];

/// Does line by line as many rows at once as registers hold, in pieces of nearly one height.
///
/// # Safety
/// As for the variants.
#[inline(always)]
pub(crate) unsafe fn dispatch<const ROWS: usize>(variants: &Variants<ROWS>, args: &LaneArgs) {
    for line in 0..args.lines {
        let mut first = 0;
        for pieces in (1..=args.rows.div_ceil(ROWS)).rev() {
            let rows = (args.rows - first).div_ceil(pieces);
            // SAFETY: the variant is that for so many rows, and they are rows of the tile.
            unsafe { variants[rows - 1](args, Piece { line, first }) }
            first += rows;
        }
    }
}
