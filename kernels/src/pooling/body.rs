//! The loops behind the pooling of lanes, written once for every instruction set.
//!
//! The unsafe functions share one contract: the CPU has the instruction set of `V`, and the arguments keep the contract of
//! [`Windows`].

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

use super::PoolArgs;
use crate::activation::body::activate;
use crate::simd::Vector;
use crate::simd::bytes::Bytes;
use crate::tile::Finish;
use crate::tile::lanes::Windows;
use crate::window::Pool;
use crate::window::body::{Largest, Sum, Tap};

/// Rows computed together where every window is its own.
const GROUP: usize = 4;

/// Partial results of one row, so that enough terms are in flight to hide the latency of combining them.
const PARTS: usize = 8;

/// Terms next to one another in one row that keep its partial results busy.
const MANY: usize = 2 * PARTS;

/// One line: the windows begin at `a` with the first row of terms that counts.
struct Line {
    a: *const f32,
    c: *mut f32,
    /// The first row of what is added, or null.
    addend: *const f32,
    /// Rows of terms that count.
    taps: usize,
    /// The form of the inner edge for the first row and the first term.
    form: i64,
}

/// What becomes of each result.
struct Ending<V> {
    /// Nothing.
    plain: bool,
    divisor: V,
    start: V,
    low: V,
    high: V,
}

/// [`KernelTable::pool_lanes`](crate::KernelTable::pool_lanes).
#[inline(always)]
pub(crate) unsafe fn pool_lanes<V: Vector>(args: &PoolArgs) {
    // SAFETY: the caller grants the contract.
    unsafe {
        match args.pool {
            Pool::Max => lines::<V, Largest>(args),
            Pool::Sum => lines::<V, Sum>(args),
        }
    }
}

/// [`KernelTable::pool_bytes`](crate::KernelTable::pool_bytes).
#[inline(always)]
pub(crate) unsafe fn pool_bytes<V: Vector>(signed: bool, windows: &Windows) {
    // A signed byte with this bit changed is one more than -128 as an unsigned one.
    let sign = Bytes::splat(if signed { 0x80 } else { 0 });
    // SAFETY: the caller grants the contract.
    unsafe {
        match V::LANES {
            4 => byte_lines::<4>(windows, sign),
            8 => byte_lines::<8>(windows, sign),
            _sixteen => byte_lines::<16>(windows, sign),
        }
    }
}

/// Lines of elements of `LANES` bytes, which are unsigned once `sign` is changed in them.
#[inline(always)]
unsafe fn byte_lines<const LANES: usize>(windows: &Windows, sign: Bytes) {
    let Windows { lines, rows, depths: [outer, inner], edges: [down, across], .. } = windows;
    for p in 0..*lines {
        let (first, end) = down.terms(down.at_line(p), outer.count);
        let form = across.at_line(p);
        let (from, to) = across.whole(form, inner.count, *rows);
        let a = windows.a.cast::<u8>().wrapping_offset(p as isize * windows.a_line);
        let c = windows.c.cast::<u8>().wrapping_offset(p as isize * windows.c_line);
        for i in 0..*rows {
            let (begin, behind) = if from <= i && i < to {
                (0, inner.count)
            } else {
                across.terms(form + across.row * i as i64, inner.count)
            };
            let a = a.wrapping_offset(i as isize * windows.a_row);
            let c = c.wrapping_offset(i as isize * windows.c_row);
            // SAFETY: the caller grants the row of `c`, and of `a` the terms that count.
            unsafe {
                let mut largest = Bytes::splat(0);
                if windows.accumulate {
                    largest = Bytes::load::<LANES>(c).xor(sign);
                }
                for r in first..end {
                    let mut term = a.wrapping_offset(r as isize * outer.a + begin as isize * inner.a);
                    for _ in begin..behind {
                        largest = largest.max(Bytes::load::<LANES>(term).xor(sign));
                        term = term.wrapping_offset(inner.a);
                    }
                }
                largest.xor(sign).store::<LANES>(c);
            }
        }
    }
}

#[inline(always)]
unsafe fn lines<V: Vector, T: Tap>(args: &PoolArgs) {
    let windows = &args.windows;
    let Windows { rows, depths: [outer, inner], edges: [down, across], c_row, finish, .. } = windows;
    // SAFETY: the caller grants the start of the finish if there is one, and every line.
    unsafe {
        let start = if finish.start.is_null() { V::splat(0.0) } else { V::load(finish.start) };
        let unlimited = finish.low == f32::NEG_INFINITY && finish.high == f32::INFINITY;
        let ending = Ending {
            plain: !windows.accumulate
                && args.divisor == 1.0
                && finish.start.is_null()
                && finish.addend.is_null()
                && unlimited,
            divisor: V::splat(args.divisor),
            start,
            low: V::splat(finish.low),
            high: V::splat(finish.high),
        };
        for p in 0..windows.lines {
            let (first, end) = down.terms(down.at_line(p), outer.count);
            let form = across.at_line(p);
            let p = p as isize;
            let line = Line {
                a: windows.a.wrapping_offset(p * windows.a_line + first as isize * outer.a),
                c: windows.c.wrapping_offset(p * windows.c_line),
                // Null stays null, since it has no strides.
                addend: finish.addend.wrapping_offset(p * windows.addend_line),
                taps: end - first,
                form,
            };
            match (line.taps, inner.count, columns_apart(windows)) {
                (1, 2, Some(2)) => columns::<V, T, 1, 2, 2>(windows, &line, &ending),
                (2, 2, Some(2)) => columns::<V, T, 2, 2, 2>(windows, &line, &ending),
                (1, 3, Some(1)) => columns::<V, T, 1, 3, 1>(windows, &line, &ending),
                (2, 3, Some(1)) => columns::<V, T, 2, 3, 1>(windows, &line, &ending),
                (3, 3, Some(1)) => columns::<V, T, 3, 3, 1>(windows, &line, &ending),
                (1, 3, Some(2)) => columns::<V, T, 1, 3, 2>(windows, &line, &ending),
                (2, 3, Some(2)) => columns::<V, T, 2, 3, 2>(windows, &line, &ending),
                (3, 3, Some(2)) => columns::<V, T, 3, 3, 2>(windows, &line, &ending),
                _any => each::<V, T>(windows, &line, &ending),
            }
            if let Some(activation) = finish.activation {
                let lanes = V::LANES;
                let extents = if *c_row == lanes as isize { (1, rows * lanes) } else { (*rows, lanes) };
                activate::<V>(activation, (line.c, *c_row), (line.c, *c_row), extents);
            }
        }
    }
}

/// How many columns the windows of neighbouring rows are apart, where a row moves as that many terms do.
#[inline(always)]
fn columns_apart(windows: &Windows) -> Option<usize> {
    let ([_, inner], [_, across]) = (&windows.depths, &windows.edges);
    let apart =
        |columns: isize| windows.a_row == columns * inner.a && across.row == columns as i64 * across.step;
    (1..=2).find(|&columns| apart(columns as isize))
}

/// A line of windows of `ROWS` x `COLUMNS` terms, `STEP` columns apart: a column is combined once and serves all of its windows.
#[inline(always)]
unsafe fn columns<V: Vector, T: Tap, const ROWS: usize, const COLUMNS: usize, const STEP: usize>(
    windows: &Windows,
    line: &Line,
    ending: &Ending<V>,
) {
    const { assert!((COLUMNS == 2 || COLUMNS == 3) && (STEP == 1 || STEP == 2)) };
    let ([outer, inner], [_, across]) = (&windows.depths, &windows.edges);
    let all = windows.rows.saturating_sub(1) * STEP + COLUMNS;
    let (from, to) = across.terms(line.form, all);
    let mut at = Columns { a: line.a, row: outer.a, step: inner.a, place: 0, from, to };
    // The rows whose last columns, which are taken for them, all count.
    let begin = from.saturating_sub(COLUMNS - STEP).div_ceil(STEP).min(windows.rows);
    let end = (to.saturating_sub(COLUMNS - STEP) / STEP).clamp(begin, windows.rows);
    // SAFETY: the caller grants the contract; the columns are those of the windows of the line, each taken once, and not looked at
    // where all count.
    unsafe {
        let mut kept = [V::splat(T::IDENTITY); 2];
        if COLUMNS > STEP {
            kept[0] = at.take::<V, T, ROWS, true>();
        }
        if COLUMNS > STEP + 1 {
            kept[1] = at.take::<V, T, ROWS, true>();
        }
        for i in 0..begin {
            kept = row::<V, T, ROWS, COLUMNS, STEP, true>(windows, line, ending, i, &mut at, kept);
        }
        for i in begin..end {
            kept = row::<V, T, ROWS, COLUMNS, STEP, false>(windows, line, ending, i, &mut at, kept);
        }
        for i in end..windows.rows {
            kept = row::<V, T, ROWS, COLUMNS, STEP, true>(windows, line, ending, i, &mut at, kept);
        }
    }
}

/// Row `i` of a line, with the columns it shares with the row before; those it shares with the next.
#[inline(always)]
unsafe fn row<
    V: Vector,
    T: Tap,
    const ROWS: usize,
    const COLUMNS: usize,
    const STEP: usize,
    const EDGE: bool,
>(
    windows: &Windows,
    line: &Line,
    ending: &Ending<V>,
    i: usize,
    at: &mut Columns,
    [mut first, mut second]: [V; 2],
) -> [V; 2] {
    // SAFETY: the caller grants the row and its columns.
    unsafe {
        if COLUMNS <= STEP {
            first = at.take::<V, T, ROWS, EDGE>();
        }
        if COLUMNS <= STEP + 1 {
            second = at.take::<V, T, ROWS, EDGE>();
        }
        let mut last = second;
        let mut total = T::take(first, second, second);
        if COLUMNS > 2 {
            last = at.take::<V, T, ROWS, EDGE>();
            total = T::take(total, last, last);
        }
        finish::<V, T>(windows, line, ending, i, total);
        if STEP == 1 { [second, last] } else { [last, last] }
    }
}

/// The columns of terms of a line, of which those from `from` to `to` count.
struct Columns {
    /// The first term of the next.
    a: *const f32,
    /// Stride from a term to the one below.
    row: isize,
    /// Stride from a column to the next.
    step: isize,
    /// The next.
    place: usize,
    from: usize,
    to: usize,
}

impl Columns {
    /// The terms of the next column, nothing where it does not count, which is only looked at with `EDGE`.
    #[inline(always)]
    unsafe fn take<V: Vector, T: Tap, const ROWS: usize, const EDGE: bool>(&mut self) -> V {
        let a = self.a;
        self.a = a.wrapping_offset(self.step);
        self.place += 1;
        // SAFETY: the caller grants the terms of the column where it counts.
        unsafe {
            if EDGE && !(self.from < self.place && self.place <= self.to) {
                return V::splat(T::IDENTITY);
            }
            let mut total = V::load(a);
            for r in 1..ROWS {
                let x = V::load(a.wrapping_offset(r as isize * self.row));
                total = T::take(total, x, x);
            }
            total
        }
    }
}

/// A line of windows of any size and distance.
#[inline(always)]
unsafe fn each<V: Vector, T: Tap>(windows: &Windows, line: &Line, ending: &Ending<V>) {
    let Windows { rows, depths: [_, inner], edges: [_, across], .. } = windows;
    let (from, to) = across.whole(line.form, inner.count, *rows);
    let mut row = 0;
    while row < *rows {
        // SAFETY: the caller grants the contract; these are rows of the line, with the terms that count for all of them.
        unsafe {
            if from <= row && row + GROUP <= to && inner.count < MANY {
                window::<V, T, GROUP, 1>(windows, line, ending, row, (0, inner.count));
                row += GROUP;
            } else {
                let terms = across.terms(line.form + across.row * row as i64, inner.count);
                window::<V, T, 1, PARTS>(windows, line, ending, row, terms);
                row += 1;
            }
        }
    }
}

/// `ROWS` rows from `row` on, of which the terms `from..to` of the inner level count, in `SUMS` partial results of each.
#[inline(always)]
unsafe fn window<V: Vector, T: Tap, const ROWS: usize, const SUMS: usize>(
    windows: &Windows,
    line: &Line,
    ending: &Ending<V>,
    row: usize,
    (from, to): (usize, usize),
) {
    let [outer, inner] = &windows.depths;
    // SAFETY: the caller grants the contract, with the terms that are read here.
    unsafe {
        let mut totals = [[V::splat(T::IDENTITY); ROWS]; SUMS];
        let first = line.a.wrapping_offset(row as isize * windows.a_row + from as isize * inner.a);
        for r in 0..line.taps {
            let mut a = first.wrapping_offset(r as isize * outer.a);
            let mut left = to - from;
            while left > 0 {
                for sum in 0..SUMS {
                    if sum < left {
                        for i in 0..ROWS {
                            let x = V::load(a.wrapping_offset(i as isize * windows.a_row));
                            totals[sum][i] = T::take(totals[sum][i], x, x);
                        }
                        a = a.wrapping_offset(inner.a);
                    }
                }
                left = left.saturating_sub(SUMS);
            }
        }
        for i in 0..ROWS {
            for sum in 1..SUMS {
                totals[0][i] = T::take(totals[0][i], totals[sum][i], totals[sum][i]);
            }
            finish::<V, T>(windows, line, ending, row + i, totals[0][i]);
        }
    }
}

/// Finishes and writes the result of a row.
#[inline(always)]
unsafe fn finish<V: Vector, T: Tap>(
    windows: &Windows,
    line: &Line,
    ending: &Ending<V>,
    row: usize,
    mut total: V,
) {
    let Finish { addend_row, .. } = windows.finish;
    let row = row as isize;
    // SAFETY: the caller grants the row of `c` and of what is added.
    unsafe {
        let c = line.c.wrapping_offset(row * windows.c_row);
        if !ending.plain {
            if windows.accumulate {
                let held = V::load(c);
                total = T::take(total, held, held);
            }
            total = total.div(ending.divisor).add(ending.start);
            if !line.addend.is_null() {
                total = total.add(V::load(line.addend.wrapping_offset(row * addend_row)));
            }
            total = ending.high.lesser_or(ending.low.greater_or(total));
        }
        total.store(c);
    }
}
