//! The f32 tile of matrix multiplication: `c[i, j] (+)= sum over k of a[k, i] * b[k, j]`, accumulated in registers.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

pub mod dots;
mod factor;
pub mod lanes;
#[cfg(all(test, unix))]
mod tests;

pub use factor::Factor;
pub(crate) use factor::Stored;

use crate::activation::Activation;
use crate::isa::Isa;
use crate::simd::Vector;

/// A tile kernel and the tile it keeps in registers.
#[derive(Clone, Copy, Debug)]
pub struct TileKernel {
    /// The name in text forms, such as `fma_12x32_f32_avx512`.
    pub name: &'static str,
    /// The instruction set it is compiled for.
    pub isa: Isa,
    /// The number of rows that are done at once at most: a taller tile is done in pieces of nearly one height.
    pub rows: usize,
    /// Largest number of columns, and the panel width `b` is best packed in.
    pub cols: usize,
    /// Runs the kernel. Unsafe: the CPU has `isa`, and the arguments keep the contract of [`TileArgs`].
    pub run: unsafe fn(&TileArgs),
}

/// Levels of the sum of a tile at most.
pub const DEPTHS: usize = 4;

/// One level of the sum of a tile: how many terms, and the strides from one to the next, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Terms.
    pub count: usize,
    /// Stride in `a`.
    pub a: isize,
    /// Stride in `b`.
    pub b: isize,
}

impl Depth {
    /// A level of one term.
    pub const ONE: Depth = Depth { count: 1, a: 0, b: 0 };

    /// A sum of one level.
    pub const fn single(count: usize, a: isize, b: isize) -> [Depth; DEPTHS] {
        [Depth::ONE, Depth::ONE, Depth::ONE, Depth { count, a, b }]
    }
}

/// The last level of a sum has fewer terms in the last iteration of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The place of the other in the levels.
    pub level: usize,
    /// The terms of the last level then.
    pub terms: usize,
}

/// What becomes of the sums of a tile: `activation(clamp(start[j] + sum + addend[i, j], low, high))`.
///
/// Strides count elements; columns are next to one another within a vector.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    /// Address of `start[0]`, or null where sums start from 0.
    pub start: *const f32,
    /// Stride from a vector of columns to the next in `start`.
    pub start_vector: isize,
    /// Address of `addend[0, 0]`, or null where nothing is added.
    pub addend: *const f32,
    /// Stride of `i` in `addend`.
    pub addend_row: isize,
    /// Stride from a vector of columns to the next in `addend`.
    pub addend_vector: isize,
    /// The least result; NaN stays.
    pub low: f32,
    /// The largest result, at least `low`; NaN stays.
    pub high: f32,
    /// What is computed of that in the end.
    pub activation: Option<Activation>,
}

impl Finish {
    /// The sums as they are.
    pub const NONE: Finish = Finish {
        start: std::ptr::null(),
        start_vector: 0,
        addend: std::ptr::null(),
        addend_row: 0,
        addend_vector: 0,
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
        activation: None,
    };

    /// Whether the sums stay as they are.
    pub(crate) fn is_none(&self) -> bool {
        let free = self.low == f32::NEG_INFINITY && self.high == f32::INFINITY;
        self.start.is_null() && self.addend.is_null() && free && self.activation.is_none()
    }
}

/// The operands of a tile: `c[i, j] (+)= sum over k of a[k, i] * b[k, j]` for `i < rows`, `j < cols`, where `k` runs over all levels
/// of `depths` but the terms that `tail` leaves out, and the sum is finished as `finish` says.
///
/// Strides count elements and may have any sign. Columns are next to one another within a vector; from the first column of a
/// vector to that of the next it is `b_vector` and `c_vector`. Nothing outside the named elements is read or written. `a[k, i]`,
/// `b[k, j]`, `start[j]` and `addend[i, j]` must be valid for reads, `c[i, j]` for reads and writes (of what
/// they held before, only with `accumulate`), the elements of `c` must not overlap one another, and `c` must not overlap what is read. Packed panels
/// (`a_row == 1`) run fastest.
#[derive(Clone, Copy, Debug)]
pub struct TileArgs {
    /// Rows, at least 1; those beyond what the kernel's registers hold are done after the first.
    pub rows: usize,
    /// Columns of the tile, from 1 to the kernel's `cols`.
    pub cols: usize,
    /// The levels of each sum, outermost first; a count of 0 gives sums of 0.
    pub depths: [Depth; DEPTHS],
    /// The terms that are left out.
    pub tail: Option<Tail>,
    /// Address of `a[0, 0]`.
    pub a: *const f32,
    /// Stride of `i` in `a`.
    pub a_row: isize,
    /// Address of `b[0, 0]`.
    pub b: Factor,
    /// Stride from a vector of columns to the next in `b`.
    pub b_vector: isize,
    /// Address of `c[0, 0]`.
    pub c: *mut f32,
    /// Stride of `i` in `c`.
    pub c_row: isize,
    /// Stride from a vector of columns to the next in `c`.
    pub c_vector: isize,
    /// Whether what `c` holds is added to the sums before they are finished.
    pub accumulate: bool,
    /// What becomes of the sums.
    pub finish: Finish,
    /// Rows from which on the panel behind a packed `b` is asked for meanwhile; nothing is read there.
    pub ahead_rows: usize,
}

impl TileArgs {
    /// Leaves out the first rows.
    #[inline(always)]
    fn go_down(&mut self, rows: usize) {
        self.rows -= rows;
        self.a = self.a.wrapping_offset(rows as isize * self.a_row);
        self.c = self.c.wrapping_offset(rows as isize * self.c_row);
        let finish = &mut self.finish;
        finish.addend = finish.addend.wrapping_offset(rows as isize * finish.addend_row);
    }
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

/// Whole pieces of `ROWS` rows, one after the other, of a tile of `VECTORS` vectors of columns, the last of them partial if `PARTIAL`;
/// `b` is of `B`, `a_row` is `STEP`, or anything where that is 0. `SUMS` is [`partial_sums`] of a piece.
///
/// # Safety
/// The CPU has the instruction set of `V`, the arguments keep the contract of [`TileArgs`], and the constants fit them.
#[inline(always)]
pub(crate) unsafe fn body<
    V: Vector,
    B: Stored,
    const ROWS: usize,
    const VECTORS: usize,
    const SUMS: usize,
    const PARTIAL: bool,
    const STEP: usize,
>(
    args: &TileArgs,
) {
    debug_assert!(args.rows.is_multiple_of(ROWS));
    let pieces = args.rows / ROWS;
    let mut rest = *args;
    let mut ahead = Ahead::of::<B>(&mut rest, pieces, V::LANES);
    for _ in 0..pieces {
        // SAFETY: the caller grants the contract, and the rows of the pieces are those of the tile.
        unsafe { piece::<V, B, ROWS, VECTORS, SUMS, PARTIAL, STEP>(&rest, &mut ahead) }
        rest.go_down(ROWS);
    }
}

/// Elements of a line of the caches.
const LINE_ELEMENTS: usize = 16;
/// Bytes of a line of the caches.
const LINE_BYTES: usize = 64;
/// Terms of a sum at least between two requests of what is read next.
const TERMS_AT_ONCE: usize = 32;
/// Blocks of `a` ahead of the one in use, whose rows are asked for: so many that they may come from the cache of another core.
const BLOCKS_AHEAD: usize = 3;
/// Bytes of the largest panel that has room in a second-level cache beside what is in use.
const AHEAD_BYTES: usize = 131072;

/// What is likely to be read after a tile whose `b` is a packed panel: the panel behind it, which comes from memory while the pieces
/// of the tile are computed.
struct Ahead {
    /// The next line to ask for.
    line: *const u8,
    /// Lines that are asked for in each step of the last level of the sum but one.
    at_once: usize,
    /// Lines that are left.
    left: usize,
}

impl Ahead {
    /// That of a tile of so many pieces. Cuts a single level of the sum in two.
    #[inline(always)]
    fn of<B: Stored>(args: &mut TileArgs, pieces: usize, lanes: usize) -> Ahead {
        let mut elements = args.cols;
        let mut packed = pieces > 1
            && args.rows >= args.ahead_rows
            && (args.cols <= lanes || args.b_vector == lanes as isize);
        for level in (0..DEPTHS).rev() {
            let Depth { count, b, .. } = args.depths[level];
            packed &= count == 1 || b == elements as isize;
            elements *= count;
        }
        let bytes = elements * size_of::<B>();
        let lines = if packed && bytes <= AHEAD_BYTES { bytes / LINE_BYTES } else { 0 };
        let whole = args.tail.is_none();
        let [.., inner, terms] = &mut args.depths;
        if lines > 0 && whole && inner.count == 1 && terms.count.is_multiple_of(TERMS_AT_ONCE) {
            let (a, b) = (TERMS_AT_ONCE as isize * terms.a, TERMS_AT_ONCE as isize * terms.b);
            *inner = Depth { count: terms.count / TERMS_AT_ONCE, a, b };
            terms.count = TERMS_AT_ONCE;
        }
        let of_terms = terms.count * args.cols * size_of::<B>() / LINE_BYTES;
        let panel = B::address(args.b).cast::<u8>();
        Ahead { line: panel.wrapping_add(bytes), at_once: of_terms.div_ceil(pieces.max(1)), left: lines }
    }

    #[inline(always)]
    fn ask<V: Vector>(&mut self) {
        let lines = self.at_once.min(self.left);
        self.left -= lines;
        for _ in 0..lines {
            V::prefetch(self.line.cast());
            self.line = self.line.wrapping_add(LINE_BYTES);
        }
    }
}

/// The first `ROWS` rows of a tile.
///
/// # Safety
/// As for [`body`].
#[inline(always)]
unsafe fn piece<
    V: Vector,
    B: Stored,
    const ROWS: usize,
    const VECTORS: usize,
    const SUMS: usize,
    const PARTIAL: bool,
    const STEP: usize,
>(
    args: &TileArgs,
    ahead: &mut Ahead,
) {
    let TileArgs {
        rows: _,
        cols,
        depths,
        tail,
        a,
        a_row,
        b,
        b_vector,
        c,
        c_row,
        c_vector,
        accumulate,
        finish,
        ahead_rows: _,
    } = *args;
    debug_assert_eq!(cols.div_ceil(V::LANES), VECTORS);
    debug_assert_eq!(!cols.is_multiple_of(V::LANES), PARTIAL);
    debug_assert!(STEP == 0 || a_row == STEP as isize);
    let a_row = if STEP == 0 { a_row } else { STEP as isize };
    let b = B::address(b);
    let last_lanes = cols - (VECTORS - 1) * V::LANES;
    let tail = tail.unwrap_or(Tail { level: DEPTHS, terms: 0 });
    // SAFETY: the caller grants the instruction set, and `a[k, i]`, `b[k, j]`, `c[i, j]` of the tile for `k < depth`, and what
    // `finish` names; `step` is called once for each `k`, and the pointers beyond the last are not read. The last vector
    // of columns is cut at `cols` if it is partial.
    unsafe {
        let mut sums = [[[V::splat(0.0); VECTORS]; ROWS]; SUMS];
        // Results may lie far away: their lines come while the sums are computed.
        for i in 0..ROWS {
            for v in 0..VECTORS {
                V::prefetch_to_write(c.wrapping_offset(i as isize * c_row + v as isize * c_vector));
            }
        }
        if !finish.start.is_null() {
            for v in 0..VECTORS {
                let source = finish.start.offset(v as isize * finish.start_vector);
                let cut = PARTIAL && v == VECTORS - 1;
                let start = if cut { V::load_first(source, last_lanes) } else { V::load(source) };
                for i in 0..ROWS {
                    sums[0][i][v] = start;
                }
            }
        }
        let [outer, middle, inner, terms] = depths;
        // Rows are lines of their own then, and those of other blocks of `a` too far for the processor to ask for by itself; the
        // inner of several levels are windows over lines that are near. Behind the last block come the rows below, of the next piece
        // or, where rows are packed, of the next tile.
        let blocks_inside = outer.count * middle.count == 1;
        let blocks_ahead = inner.count.min(BLOCKS_AHEAD);
        let within = blocks_ahead as isize * inner.a;
        let below = ROWS as isize * a_row - (inner.count - blocks_ahead) as isize * inner.a;
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
                    ahead.ask::<V>();
                    let count = if i < shorter_from { terms.count } else { tail.terms };
                    if STEP >= V::LANES && blocks_inside {
                        let next =
                            a.wrapping_offset(if i + blocks_ahead < inner.count { within } else { below });
                        for i in 0..ROWS {
                            if i.is_multiple_of(LINE_ELEMENTS.div_ceil(STEP)) {
                                V::prefetch(next.wrapping_offset(i as isize * a_row));
                            }
                        }
                    }
                    let (mut a_term, mut b_term) = (a, b);
                    for _ in 0..count / SUMS {
                        for sum in 0..SUMS {
                            step::<V, B, ROWS, VECTORS, PARTIAL>(
                                &mut sums[sum],
                                a_term,
                                a_row,
                                b_term,
                                b_vector,
                                last_lanes,
                            );
                            a_term = a_term.wrapping_offset(terms.a);
                            b_term = b_term.wrapping_offset(terms.b);
                        }
                    }
                    for _ in 0..count % SUMS {
                        step::<V, B, ROWS, VECTORS, PARTIAL>(
                            &mut sums[0],
                            a_term,
                            a_row,
                            b_term,
                            b_vector,
                            last_lanes,
                        );
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
                    sums[0][i][v] = sums[0][i][v].add(sums[sum][i][v]);
                }
            }
        }
        let totals = &mut sums[0];
        if accumulate {
            add::<V, ROWS, VECTORS, PARTIAL>(totals, c, c_row, c_vector, last_lanes);
        }
        if !finish.addend.is_null() {
            let Finish { addend, addend_row, addend_vector, .. } = finish;
            add::<V, ROWS, VECTORS, PARTIAL>(totals, addend, addend_row, addend_vector, last_lanes);
        }
        if finish.low > f32::NEG_INFINITY {
            let low = V::splat(finish.low);
            for i in 0..ROWS {
                for v in 0..VECTORS {
                    totals[i][v] = low.greater_or(totals[i][v]);
                }
            }
        }
        if finish.high < f32::INFINITY {
            let high = V::splat(finish.high);
            for i in 0..ROWS {
                for v in 0..VECTORS {
                    totals[i][v] = high.lesser_or(totals[i][v]);
                }
            }
        }
        for i in 0..ROWS {
            for v in 0..VECTORS {
                let target = c.offset(i as isize * c_row + v as isize * c_vector);
                if PARTIAL && v == VECTORS - 1 {
                    totals[i][v].store_first(target, last_lanes);
                } else {
                    totals[i][v].store(target);
                }
            }
        }
    }
}

/// Adds the rows and columns of a tile in memory to those in registers.
///
/// # Safety
/// As for [`body`]; the elements are valid for reads.
#[inline(always)]
unsafe fn add<V: Vector, const ROWS: usize, const VECTORS: usize, const PARTIAL: bool>(
    totals: &mut [[V; VECTORS]; ROWS],
    source: *const f32,
    row: isize,
    vector: isize,
    last_lanes: usize,
) {
    for i in 0..ROWS {
        for v in 0..VECTORS {
            // SAFETY: the caller grants the instruction set and the elements, cut at `last_lanes` in the last vector if it is
            // partial.
            let addend = unsafe {
                let source = source.offset(i as isize * row + v as isize * vector);
                let cut = PARTIAL && v == VECTORS - 1;
                if cut { V::load_first(source, last_lanes) } else { V::load(source) }
            };
            totals[i][v] = totals[i][v].add(addend);
        }
    }
}

/// Adds one `k`: the outer product of the column `a` and the row `b`.
///
/// # Safety
/// As for [`body`]; `a` and `b` are those of a `k < depth`.
#[inline(always)]
unsafe fn step<V: Vector, B: Stored, const ROWS: usize, const VECTORS: usize, const PARTIAL: bool>(
    sums: &mut [[V; VECTORS]; ROWS],
    a: *const f32,
    a_row: isize,
    b: *const B,
    b_vector: isize,
    last_lanes: usize,
) {
    // SAFETY: the caller grants the instruction set, `ROWS` values of `a` and the columns of `b`, cut at `last_lanes` in
    // the last vector if it is partial.
    unsafe {
        let mut row = [V::splat(0.0); VECTORS];
        for v in 0..VECTORS {
            let source = b.offset(v as isize * b_vector);
            let cut = PARTIAL && v == VECTORS - 1;
            row[v] = if cut { B::load_first::<V>(source, last_lanes) } else { B::load::<V>(source) };
        }
        for i in 0..ROWS {
            let factor = V::splat(*a.offset(i as isize * a_row));
            for v in 0..VECTORS {
                sums[i][v] = factor.mul_add(row[v], sums[i][v]);
            }
        }
    }
}

/// Compiled variants of a tile: `[rows - 1][vectors - 1]`.
pub(crate) type Variants<const ROWS: usize, const VECTORS: usize> = [[unsafe fn(&TileArgs); VECTORS]; ROWS];

/// The compiled variants of a tile.
pub(crate) struct Forms<const ROWS: usize, const VECTORS: usize> {
    /// For an f32 `b`: rows anywhere in `a`, the same with a partial vector, rows next to one another, the same with a partial vector,
    /// rows one vector apart, and two.
    pub(crate) single: [Variants<ROWS, VECTORS>; 6],
    /// For a `b` of f16: rows anywhere in `a`, the same with a partial vector, and rows one vector apart.
    pub(crate) f16: [Variants<ROWS, VECTORS>; 3],
    /// The same for bf16.
    pub(crate) bf16: [Variants<ROWS, VECTORS>; 3],
}

/// Calls the variants for a tile's columns and strides.
///
/// # Safety
/// As for the variants, which were compiled for vectors of `lanes`.
#[inline(always)]
pub(crate) unsafe fn dispatch<const ROWS: usize, const VECTORS: usize>(
    forms: &Forms<ROWS, VECTORS>,
    lanes: usize,
    args: &TileArgs,
) {
    let partial = usize::from(!args.cols.is_multiple_of(lanes));
    let (step, lane_count) = (args.a_row, lanes as isize);
    let narrow = if partial == 0 && step == lane_count { 2 } else { partial };
    let variants = match (args.b, partial) {
        (Factor::F16(_), _) => &forms.f16[narrow],
        (Factor::Bf16(_), _) => &forms.bf16[narrow],
        (Factor::F32(_), partial) if step == 1 => &forms.single[2 + partial],
        (Factor::F32(_), 0) if step == lane_count => &forms.single[4],
        (Factor::F32(_), 0) if step == 2 * lane_count => &forms.single[5],
        (Factor::F32(_), partial) => &forms.single[partial],
    };
    let vectors = args.cols.div_ceil(lanes) - 1;
    // SAFETY: the variants are those for these columns and strides, and the caller grants the rest.
    unsafe { in_pieces(ROWS, args, |rows| variants[rows - 1][vectors]) }
}

/// Does as many rows at once as registers hold, in pieces of nearly one height: first those of the greater height.
///
/// # Safety
/// `variant` gives for every number of rows up to `most_rows` a function that may be called with `args` of whole pieces of that many.
#[inline(always)]
pub(crate) unsafe fn in_pieces(
    most_rows: usize,
    args: &TileArgs,
    variant: impl Fn(usize) -> unsafe fn(&TileArgs),
) {
    let pieces = args.rows.div_ceil(most_rows);
    let height = args.rows.div_ceil(pieces);
    let lower = pieces * height - args.rows;
    let mut part = *args;
    part.rows = (pieces - lower) * height;
    // SAFETY: the variants are those for so many rows, and the rows of both parts are those of the tile.
    unsafe {
        variant(height)(&part);
        if lower > 0 {
            part.go_down(part.rows);
            part.rows = lower * (height - 1);
            variant(height - 1)(&part);
        }
    }
}

/// The compiled loops of activations, as [`crate::activation::body::activate`].
pub(crate) type Activate = unsafe fn(Activation, (*mut f32, isize), (*const f32, isize), (usize, usize));

/// Computes the activation of the results of a tile, which are in the first-level cache still.
///
/// # Safety
/// As for the kernel that wrote the results; `activate` and `lanes` are of its instruction set.
#[inline(always)]
pub(crate) unsafe fn activate(activate: Activate, lanes: usize, args: &TileArgs) {
    let TileArgs { rows, cols, c, c_row, c_vector, finish, .. } = *args;
    let Some(activation) = finish.activation else { return };
    // The columns of so many vectors are next to one another.
    let together = if c_vector == lanes as isize { cols } else { lanes };
    let mut first = 0;
    while first < cols {
        let width = together.min(cols - first);
        let results = c.wrapping_offset((first / lanes) as isize * c_vector);
        let extents = if c_row == width as isize { (1, rows * width) } else { (rows, width) };
        // SAFETY: these are elements of `c`, all of which the caller grants.
        unsafe { activate(activation, (results, c_row), (results, c_row), extents) };
        first += width;
    }
}
