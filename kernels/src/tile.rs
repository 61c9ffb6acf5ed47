//! The f32 tile of matrix multiplication: `c[i, j] (+)= sum over k of a[k, i] * b[k, j]`, accumulated in registers.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

#[cfg(all(test, unix))]
mod tests;

use crate::isa::Isa;
use crate::simd::Vector;

/// A tile kernel and the largest tile it takes.
#[derive(Clone, Copy, Debug)]
pub struct TileKernel {
    /// The name in text forms, such as `fma_12x32_f32_avx512`.
    pub name: &'static str,
    /// The instruction set it is compiled for.
    pub isa: Isa,
    /// Largest number of rows, and the panel height `a` is best packed in.
    pub rows: usize,
    /// Largest number of columns, and the panel width `b` is best packed in.
    pub cols: usize,
    /// Runs the kernel. Unsafe: the CPU has `isa`, and the arguments keep the contract of [`TileArgs`].
    pub run: unsafe fn(TileArgs),
}

/// The operands of a tile: `c[i, j] (+)= sum over k < depth of a[k, i] * b[k, j]` for `i < rows`, `j < cols`.
///
/// Strides count elements and may have any sign. Nothing outside the named elements is read or written. `a[k, i]` and
/// `b[k, j]` must be valid for reads, `c[i, j]` for reads and writes (writes alone without `accumulate`), the rows of
/// `c` must not overlap one another, and `c` must not overlap `a` or `b`. Packed panels (`a_row == 1`) run fastest.
#[derive(Clone, Copy, Debug)]
pub struct TileArgs {
    /// Rows of the tile, from 1 to the kernel's `rows`.
    pub rows: usize,
    /// Columns of the tile, from 1 to the kernel's `cols`.
    pub cols: usize,
    /// Terms of each sum; 0 gives sums of 0.
    pub depth: usize,
    /// Address of `a[0, 0]`.
    pub a: *const f32,
    /// Stride of `i` in `a`.
    pub a_row: isize,
    /// Stride of `k` in `a`.
    pub a_depth: isize,
    /// Address of `b[0, 0]`; columns are contiguous.
    pub b: *const f32,
    /// Stride of `k` in `b`.
    pub b_depth: isize,
    /// Address of `c[0, 0]`; columns are contiguous.
    pub c: *mut f32,
    /// Stride of `i` in `c`.
    pub c_row: isize,
    /// Whether the sums are added to `c` rather than written over it.
    pub accumulate: bool,
}

/// How many independent partial sums over the depth a tile of `vectors` vectors keeps, so that small tiles have enough
/// additions in flight to hide their latency: a power of two up to 8.
pub(crate) const fn partial_sums<V: Vector>(vectors: usize) -> usize {
    let mut sums = 1;
    while sums < 8 && 2 * sums * vectors <= V::ACCUMULATORS {
        sums *= 2;
    }
    sums
}

/// A tile of exactly `ROWS` rows and `VECTORS` vectors of columns, the last of them partial if `PARTIAL`; `a_row` is 1
/// if `PACKED`. `SUMS` is [`partial_sums`] of them all.
///
/// # Safety
/// The CPU has the instruction set of `V`, the arguments keep the contract of [`TileArgs`], and the constants fit them.
#[inline(always)]
pub(crate) unsafe fn body<
    V: Vector,
    const ROWS: usize,
    const VECTORS: usize,
    const SUMS: usize,
    const PARTIAL: bool,
    const PACKED: bool,
>(
    args: &TileArgs,
) {
    let TileArgs { rows, cols, depth, mut a, a_row, a_depth, mut b, b_depth, c, c_row, accumulate } = *args;
    debug_assert_eq!(rows, ROWS);
    debug_assert_eq!(cols.div_ceil(V::LANES), VECTORS);
    debug_assert_eq!(!cols.is_multiple_of(V::LANES), PARTIAL);
    debug_assert!(!PACKED || a_row == 1);
    let a_row = if PACKED { 1 } else { a_row };
    let last_lanes = cols - (VECTORS - 1) * V::LANES;
    // SAFETY: the caller grants the instruction set, and `a[k, i]`, `b[k, j]`, `c[i, j]` of the tile for `k < depth`;
    // `step` is called once for each of them, and the pointers beyond the last are not read. The last vector of
    // columns is cut at `cols` if it is partial.
    unsafe {
        let mut sums = [[[V::splat(0.0); VECTORS]; ROWS]; SUMS];
        for _ in 0..depth / SUMS {
            for sum in 0..SUMS {
                step::<V, ROWS, VECTORS, PARTIAL>(&mut sums[sum], a, a_row, b, last_lanes);
                a = a.wrapping_offset(a_depth);
                b = b.wrapping_offset(b_depth);
            }
        }
        for _ in 0..depth % SUMS {
            step::<V, ROWS, VECTORS, PARTIAL>(&mut sums[0], a, a_row, b, last_lanes);
            a = a.wrapping_offset(a_depth);
            b = b.wrapping_offset(b_depth);
        }
        for i in 0..ROWS {
            for v in 0..VECTORS {
                let mut total = sums[0][i][v];
                for sum in 1..SUMS {
                    total = total.add(sums[sum][i][v]);
                }
                let target = c.offset(i as isize * c_row).add(v * V::LANES);
                if PARTIAL && v == VECTORS - 1 {
                    if accumulate {
                        total = total.add(V::load_first(target, last_lanes));
                    }
                    total.store_first(target, last_lanes);
                } else {
                    if accumulate {
                        total = total.add(V::load(target));
                    }
                    total.store(target);
                }
            }
        }
    }
}

/// Adds one `k`: the outer product of the column `a` and the row `b`.
///
/// # Safety
/// As for [`body`]; `a` and `b` are those of a `k < depth`.
#[inline(always)]
unsafe fn step<V: Vector, const ROWS: usize, const VECTORS: usize, const PARTIAL: bool>(
    sums: &mut [[V; VECTORS]; ROWS],
    a: *const f32,
    a_row: isize,
    b: *const f32,
    last_lanes: usize,
) {
    // SAFETY: the caller grants the instruction set, `ROWS` values of `a` and the columns of `b`, cut at `last_lanes` in
    // the last vector if it is partial.
    unsafe {
        let mut row = [V::splat(0.0); VECTORS];
        for v in 0..VECTORS {
            let source = b.add(v * V::LANES);
            let cut = PARTIAL && v == VECTORS - 1;
            row[v] = if cut { V::load_first(source, last_lanes) } else { V::load(source) };
        }
        for i in 0..ROWS {
            let factor = V::splat(*a.offset(i as isize * a_row));
            for v in 0..VECTORS {
                sums[i][v] = factor.mul_add(row[v], sums[i][v]);
            }
        }
    }
}

/// The compiled variants of a tile: `[a_row == 1][rows - 1][vectors - 1][partial]`.
pub(crate) type Variants<const ROWS: usize, const VECTORS: usize> =
    [[[[unsafe fn(&TileArgs); 2]; VECTORS]; ROWS]; 2];

/// Calls the variant for a tile's rows, columns and strides.
///
/// # Safety
/// As for the variants, which were compiled for vectors of `lanes`.
#[inline(always)]
pub(crate) unsafe fn dispatch<const ROWS: usize, const VECTORS: usize>(
    variants: &Variants<ROWS, VECTORS>,
    lanes: usize,
    args: &TileArgs,
) {
    let partial = usize::from(!args.cols.is_multiple_of(lanes));
    let packed = usize::from(args.a_row == 1);
    let variant = variants[packed][args.rows - 1][args.cols.div_ceil(lanes) - 1][partial];
    // SAFETY: the variant is the one for these arguments, and the caller grants the rest.
    unsafe { variant(args) }
}
