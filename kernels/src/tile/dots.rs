//! The tile of products of bytes: `c[i, j] (+)= sum over k, q < 4 of a[k, i, q] * b[k, j, q]` in i32, accumulated in registers.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

#[cfg(all(test, unix))]
mod tests;

use super::{DEPTHS, Depth, Tail};
use crate::isa::Isa;
use crate::simd::dots::DotVector;
pub use crate::simd::dots::Limits;

/// Neighbours of which the products are added at once.
pub const DOT_TERMS: usize = 4;

/// A tile kernel of products of bytes and the tile it keeps in registers.
#[derive(Clone, Copy, Debug)]
pub struct DotKernel {
    /// The name in text forms, such as `dots_12x32_vnni`.
    pub name: &'static str,
    /// The instruction set it is compiled for, beside `has`.
    pub isa: Isa,
    /// Whether this machine has what it needs beside the instruction set.
    pub has: fn() -> bool,
    /// The number of rows that are done at once at most: a taller tile is done in pieces of nearly one height.
    pub rows: usize,
    /// Largest number of columns.
    pub cols: usize,
    /// Runs the kernel. Unsafe: the CPU has `isa` and `has` holds, and the arguments keep the contract of [`DotArgs`].
    pub run: unsafe fn(&DotArgs),
}

/// What becomes of the sums of a tile: bytes, `limits` of `round((start[j] + sum) * scale[j])`, where ties go to even and 0 is for NaN.
/// Strides count elements; columns are next to one another within a vector.
#[derive(Clone, Copy, Debug)]
pub struct Scaled {
    /// Address of `start[0]`, or null where sums start from 0.
    pub start: *const i32,
    /// Stride from a vector of columns to the next in `start`.
    pub start_vector: isize,
    /// Address of `scale[0]`.
    pub scale: *const f32,
    /// Stride from a vector of columns to the next in `scale`, or `None` where it is one for all columns.
    pub scale_vector: Option<isize>,
    /// What becomes of what is rounded.
    pub limits: Limits,
}

/// The operands of a tile: `c[i, j] (+)= sum over k, q of a[k, i, q] * b[k, j, q]` for `i < rows`, `j < cols`, where `k` runs over all
/// levels of `depths` but the terms that `tail` leaves out, and `q` over [`DOT_TERMS`] neighbours; sums wrap.
///
/// Strides count elements and may have any sign. Columns are next to one another within a vector, in `b` those of four elements
/// each; from the first column of a vector to that of the next it is `b_vector` and `c_vector`. Nothing outside the named elements
/// is read or written. `a[k, i, q]` and `b[k, j, q]` must be valid for reads, `c[i, j]` for reads and writes (of what they held
/// before, only with `accumulate`), the elements of `c` must not overlap one another, and `c` must not overlap what is read. Sums that
/// are `scaled` are bytes in `c`, and not added to what it holds; `start[j]` and `scale[j]` must be valid for reads then.
#[derive(Clone, Copy, Debug)]
pub struct DotArgs {
    /// Rows, at least 1; those beyond what the kernel's registers hold are done after the first.
    pub rows: usize,
    /// Columns of the tile, from 1 to the kernel's `cols`.
    pub cols: usize,
    /// The levels of each sum, outermost first; a count of 0 gives sums of 0.
    pub depths: [Depth; DEPTHS],
    /// The terms that are left out.
    pub tail: Option<Tail>,
    /// Address of `a[0, 0, 0]`.
    pub a: *const u8,
    /// Whether the bytes of `a` are signed; those of `b` are.
    pub a_signed: bool,
    /// Stride of `i` in `a`.
    pub a_row: isize,
    /// Address of `b[0, 0, 0]`.
    pub b: *const i8,
    /// Stride from a vector of columns to the next in `b`.
    pub b_vector: isize,
    /// Address of `c[0, 0]`: of i32, or of bytes where sums are `scaled`.
    pub c: *mut u8,
    /// Stride of `i` in `c`.
    pub c_row: isize,
    /// Stride from a vector of columns to the next in `c`.
    pub c_vector: isize,
    /// Whether what `c` holds is added to the sums.
    pub accumulate: bool,
    /// What becomes of the sums.
    pub scaled: Option<Scaled>,
}

impl DotArgs {
    /// Leaves out the first rows.
    #[inline(always)]
    fn go_down(&mut self, rows: usize) {
        self.rows -= rows;
        self.a = self.a.wrapping_offset(rows as isize * self.a_row);
        let size = if self.scaled.is_some() { 1 } else { size_of::<i32>() as isize };
        self.c = self.c.wrapping_offset(rows as isize * self.c_row * size);
    }
}

/// How many independent partial sums over the depth a tile of `vectors` vectors keeps, so that small tiles have enough
/// additions in flight to hide their latency: a power of two up to 4.
pub(crate) const fn partial_sums<V: DotVector>(vectors: usize) -> usize {
    let mut sums = 1;
    while sums < 4 && 2 * sums * vectors <= V::ACCUMULATORS {
        sums *= 2;
    }
    sums
}

/// Whole pieces of `ROWS` rows, one after the other, of a tile of `VECTORS` vectors of columns, the last of them partial if `PARTIAL`;
/// `a` is signed if `SIGNED`. `SUMS` is [`partial_sums`] of a piece.
///
/// # Safety
/// The CPU has the instruction set of `V`, the arguments keep the contract of [`DotArgs`], and the constants fit them.
#[inline(always)]
pub(crate) unsafe fn body<
    V: DotVector,
    const ROWS: usize,
    const VECTORS: usize,
    const SUMS: usize,
    const PARTIAL: bool,
    const SIGNED: bool,
>(
    args: &DotArgs,
) {
    debug_assert!(args.rows.is_multiple_of(ROWS) && args.a_signed == SIGNED);
    debug_assert_eq!(args.cols.div_ceil(V::LANES), VECTORS);
    debug_assert_eq!(!args.cols.is_multiple_of(V::LANES), PARTIAL);
    let mut rest = *args;
    for _ in 0..args.rows / ROWS {
        // SAFETY: the caller grants the contract, and the rows of the pieces are those of the tile.
        unsafe { piece::<V, ROWS, VECTORS, SUMS, PARTIAL, SIGNED>(&rest) }
        rest.go_down(ROWS);
    }
}

/// The first `ROWS` rows of a tile.
///
/// # Safety
/// As for [`body`].
#[inline(always)]
unsafe fn piece<
    V: DotVector,
    const ROWS: usize,
    const VECTORS: usize,
    const SUMS: usize,
    const PARTIAL: bool,
    const SIGNED: bool,
>(
    args: &DotArgs,
) {
    let DotArgs { cols, depths, tail, a, a_row, b, b_vector, .. } = *args;
    let last_lanes = cols - (VECTORS - 1) * V::LANES;
    let tail = tail.unwrap_or(Tail { level: DEPTHS, terms: 0 });
    let [outer, middle, inner, terms] = depths;
    // SAFETY: the caller grants the instruction set, and `a[k, i, q]`, `b[k, j, q]`, `c[i, j]` of the tile for the terms that are not
    // left out; `step` is called once for each of them. The last vector of columns is cut at `cols` if it is partial.
    unsafe {
        let mut sums = Sums { of: [[[V::zero(); VECTORS]; ROWS]; SUMS], excess: [V::zero(); VECTORS] };
        for o in 0..outer.count {
            for m in 0..middle.count {
                let mut a = a.wrapping_offset(o as isize * outer.a + m as isize * middle.a);
                let mut b = b.wrapping_offset(o as isize * outer.b + m as isize * middle.b);
                let shorter_from = match tail {
                    Tail { level: 0, .. } if o + 1 == outer.count => 0,
                    Tail { level: 1, .. } if m + 1 == middle.count => 0,
                    Tail { level: 2, .. } => inner.count.saturating_sub(1),
                    Tail { .. } => inner.count,
                };
                for i in 0..inner.count {
                    let count = if i < shorter_from { terms.count } else { tail.terms };
                    let (mut a_term, mut b_term) = (a, b);
                    for _ in 0..count / SUMS {
                        for sum in 0..SUMS {
                            sums.step::<PARTIAL, SIGNED>(sum, a_term, a_row, b_term, b_vector, last_lanes);
                            a_term = a_term.wrapping_offset(terms.a);
                            b_term = b_term.wrapping_offset(terms.b);
                        }
                    }
                    for _ in 0..count % SUMS {
                        sums.step::<PARTIAL, SIGNED>(0, a_term, a_row, b_term, b_vector, last_lanes);
                        a_term = a_term.wrapping_offset(terms.a);
                        b_term = b_term.wrapping_offset(terms.b);
                    }
                    a = a.wrapping_offset(inner.a);
                    b = b.wrapping_offset(inner.b);
                }
            }
        }
        for i in 0..ROWS {
            for v in 0..VECTORS {
                for sum in 1..SUMS {
                    sums.of[0][i][v] = sums.of[0][i][v].add(sums.of[sum][i][v]);
                }
                if SIGNED && V::EXCESS != 0 {
                    sums.of[0][i][v] = sums.of[0][i][v].sub(sums.excess[v]);
                }
            }
        }
        // What loops go through is in memory: a copy, so that the sums may be in registers until here.
        let totals = sums.of[0];
        match &args.scaled {
            Some(scaled) => store_scaled::<V, ROWS, VECTORS, PARTIAL>(&totals, args, scaled),
            None => store::<V, ROWS, VECTORS, PARTIAL>(&totals, args),
        }
    }
}

/// Writes the sums.
///
/// # Safety
/// As for [`body`].
#[inline(always)]
unsafe fn store<V: DotVector, const ROWS: usize, const VECTORS: usize, const PARTIAL: bool>(
    totals: &[[V; VECTORS]; ROWS],
    args: &DotArgs,
) {
    let last_lanes = args.cols - (VECTORS - 1) * V::LANES;
    for i in 0..ROWS {
        for v in 0..VECTORS {
            let cut = PARTIAL && v == VECTORS - 1;
            let target = args.c.cast::<i32>();
            let target = target.wrapping_offset(i as isize * args.c_row + v as isize * args.c_vector);
            // SAFETY: the caller grants the instruction set and the elements of `c`, cut in the last vector if it is partial.
            unsafe {
                let mut total = totals[i][v];
                if args.accumulate {
                    let held = if cut { V::load_first(target, last_lanes) } else { V::load(target) };
                    total = total.add(held);
                }
                if cut {
                    total.store_first(target, last_lanes);
                } else {
                    total.store(target);
                }
            }
        }
    }
}

/// Writes the bytes that the sums become.
///
/// # Safety
/// As for [`body`].
#[inline(always)]
unsafe fn store_scaled<V: DotVector, const ROWS: usize, const VECTORS: usize, const PARTIAL: bool>(
    totals: &[[V; VECTORS]; ROWS],
    args: &DotArgs,
    scaled: &Scaled,
) {
    let last_lanes = args.cols - (VECTORS - 1) * V::LANES;
    let Scaled { start, start_vector, scale, scale_vector, limits } = *scaled;
    for v in 0..VECTORS {
        let count = if PARTIAL && v == VECTORS - 1 { last_lanes } else { V::LANES };
        // SAFETY: the caller grants the instruction set and the elements of `start`, `scale` and `c`, cut in the last vector if it is
        // partial.
        unsafe {
            let start = if start.is_null() {
                V::zero()
            } else {
                V::load_first(start.offset(v as isize * start_vector), count)
            };
            let scale = scale.offset(v as isize * scale_vector.unwrap_or(0));
            for i in 0..ROWS {
                let target = args.c.offset(i as isize * args.c_row + v as isize * args.c_vector);
                let total = totals[i][v].add(start);
                total.store_bytes(target, count, scale, scale_vector.is_none(), limits);
            }
        }
    }
}

/// The sums of a tile, and what they have too much for each column because the factors have.
struct Sums<V, const ROWS: usize, const VECTORS: usize, const SUMS: usize> {
    of: [[[V; VECTORS]; ROWS]; SUMS],
    excess: [V; VECTORS],
}

impl<V: DotVector, const ROWS: usize, const VECTORS: usize, const SUMS: usize> Sums<V, ROWS, VECTORS, SUMS> {
    /// Adds one `k` to the partial sums `sum`.
    ///
    /// # Safety
    /// As for [`body`]; `a` and `b` are those of a `k` that is not left out.
    #[inline(always)]
    unsafe fn step<const PARTIAL: bool, const SIGNED: bool>(
        &mut self,
        sum: usize,
        a: *const u8,
        a_row: isize,
        b: *const i8,
        b_vector: isize,
        last_lanes: usize,
    ) {
        // SAFETY: the caller grants the instruction set, the elements of `ROWS` rows of `a` and those of the columns of `b`, cut at
        // `last_lanes` in the last vector if it is partial.
        unsafe {
            let mut columns = [V::elements_first(b, 0); VECTORS];
            for v in 0..VECTORS {
                let source = b.offset(v as isize * b_vector);
                let cut = PARTIAL && v == VECTORS - 1;
                columns[v] = if cut { V::elements_first(source, last_lanes) } else { V::elements(source) };
            }
            if SIGNED && V::EXCESS != 0 {
                for v in 0..VECTORS {
                    self.excess[v] = self.excess[v].add_dots(V::excess(), columns[v]);
                }
            }
            for i in 0..ROWS {
                let factors = V::factors::<SIGNED>(a.offset(i as isize * a_row));
                for v in 0..VECTORS {
                    self.of[sum][i][v] = self.of[sum][i][v].add_dots(factors, columns[v]);
                }
            }
        }
    }
}

/// The compiled variants of a tile: `[form][rows - 1][vectors - 1]`, where the forms are unsigned factors, the same with a partial
/// vector, signed factors, the same with a partial vector.
pub(crate) type Variants<const ROWS: usize, const VECTORS: usize> =
    [[[unsafe fn(&DotArgs); VECTORS]; ROWS]; 4];

/// Calls the variants for a tile's columns and signs: as many rows at once as registers hold, in pieces of nearly one height, first
/// those of the greater height.
///
/// # Safety
/// As for the variants, which were compiled for vectors of `lanes`.
#[inline(always)]
pub(crate) unsafe fn dispatch<const ROWS: usize, const VECTORS: usize>(
    variants: &Variants<ROWS, VECTORS>,
    lanes: usize,
    args: &DotArgs,
) {
    let partial = usize::from(!args.cols.is_multiple_of(lanes));
    let variants = &variants[2 * usize::from(args.a_signed) + partial];
    let vectors = args.cols.div_ceil(lanes) - 1;
    let pieces = args.rows.div_ceil(ROWS);
    let height = args.rows.div_ceil(pieces);
    let lower = pieces * height - args.rows;
    let mut part = *args;
    part.rows = (pieces - lower) * height;
    // SAFETY: the variants are those for so many rows and these columns and signs, the rows of both parts are those of the tile, and
    // the caller grants the rest.
    unsafe {
        variants[height - 1][vectors](&part);
        if lower > 0 {
            part.go_down(part.rows);
            part.rows = lower * (height - 1);
            variants[height - 2][vectors](&part);
        }
    }
}
