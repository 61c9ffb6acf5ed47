//! The tile transforms, written once for every instruction set.
//!
//! The unsafe functions share one contract: the CPU has the instruction set of `V`, and the arguments keep the contract of
//! [`TransformArgs`].

use super::{Matrix, Sides, TransformArgs};
use crate::activation;
use crate::simd::Vector;
use crate::tile::Finish;
use crate::tile::lanes::Edge;

/// A matrix of `P` rows and `I` columns.
trait Apply<const P: usize, const I: usize> {
    /// The matrix times a column.
    fn apply<V: Vector>(x: [V; I]) -> [V; P];
}

struct Weights2;
struct Weights4;
struct Input2;
struct Input4;
struct Output2;
struct Output4;

impl Apply<4, 3> for Weights2 {
    #[inline(always)]
    fn apply<V: Vector>(x: [V; 3]) -> [V; 4] {
        let half = x[0].like(0.5);
        let (ends, middle) = (x[0].add(x[2]).mul(half), x[1].mul(half));
        [x[0], ends.add(middle), ends.sub(middle), x[2]]
    }
}

impl Apply<6, 3> for Weights4 {
    #[inline(always)]
    fn apply<V: Vector>(x: [V; 3]) -> [V; 6] {
        let sixth = x[0].like(1.0 / 6.0);
        let (ends, middle) = (x[0].add(x[2]).mul(x[0].like(-1.0 / 6.0)), x[1].mul(sixth));
        let far_ends = x[0].mul_add(x[0].like(1.0 / 24.0), x[2].mul(sixth));
        let far_middle = x[1].mul(x[0].like(1.0 / 12.0));
        [
            x[0].mul(x[0].like(0.25)),
            ends.sub(middle),
            ends.add(middle),
            far_ends.add(far_middle),
            far_ends.sub(far_middle),
            x[2],
        ]
    }
}

impl Apply<4, 4> for Input2 {
    #[inline(always)]
    fn apply<V: Vector>(x: [V; 4]) -> [V; 4] {
        [x[0].sub(x[2]), x[1].add(x[2]), x[2].sub(x[1]), x[1].sub(x[3])]
    }
}

impl Apply<6, 6> for Input4 {
    #[inline(always)]
    fn apply<V: Vector>(x: [V; 6]) -> [V; 6] {
        let (two, four) = (x[0].like(2.0), x[0].like(4.0));
        let (minus_two, minus_four) = (x[0].like(-2.0), x[0].like(-4.0));
        let (even, odd) = (x[2].mul_add(minus_four, x[4]), x[1].mul_add(minus_four, x[3]));
        let (even_step, odd_step) = (x[4].sub(x[2]), x[3].sub(x[1]));
        [
            x[0].sub(x[2]).mul_add(four, even_step),
            even.add(odd),
            even.sub(odd),
            odd_step.mul_add(two, even_step),
            odd_step.mul_add(minus_two, even_step),
            odd_step.mul_add(minus_four, x[5].sub(x[3])),
        ]
    }
}

impl Apply<2, 4> for Output2 {
    #[inline(always)]
    fn apply<V: Vector>(x: [V; 4]) -> [V; 2] {
        [x[0].add(x[1].add(x[2])), x[1].sub(x[2]).sub(x[3])]
    }
}

impl Apply<4, 6> for Output4 {
    #[inline(always)]
    fn apply<V: Vector>(x: [V; 6]) -> [V; 4] {
        let (near, near_step) = (x[1].add(x[2]), x[1].sub(x[2]));
        let (far, far_step) = (x[3].add(x[4]), x[3].sub(x[4]));
        [
            x[0].add(near).add(far),
            far_step.mul_add(x[0].like(2.0), near_step),
            far.mul_add(x[0].like(4.0), near),
            far_step.mul_add(x[0].like(8.0), near_step.add(x[5])),
        ]
    }
}

/// [`KernelTable::transform`](crate::KernelTable::transform).
#[inline(always)]
pub(crate) unsafe fn transform<V: Vector>(matrix: Matrix, args: &TransformArgs) {
    let mut args = *args;
    args.stream &= aligned::<V>(&args);
    // SAFETY: the caller grants the contract.
    unsafe {
        match (args.accumulate, args.finish.is_none()) {
            (false, true) => by_matrix::<V, false, false>(matrix, args),
            (true, true) => by_matrix::<V, true, false>(matrix, args),
            (false, false) => by_matrix::<V, false, true>(matrix, args),
            (true, false) => by_matrix::<V, true, true>(matrix, args),
        }
        activate::<V>(matrix.rows().len(), &args);
    }
    if args.stream {
        V::settle();
    }
}

/// Whether all results are aligned to vectors.
#[inline(always)]
fn aligned<V: Vector>(args: &TransformArgs) -> bool {
    let bytes = V::LANES * size_of::<f32>();
    let strides = [args.y_row, args.y_col, args.y_tile];
    args.y.addr().is_multiple_of(bytes)
        && strides.iter().all(|stride| stride.unsigned_abs().is_multiple_of(V::LANES))
}

/// Computes the activation of the results, which are in the first-level cache still; there are `side` columns of them.
#[inline(always)]
unsafe fn activate<V: Vector>(side: usize, args: &TransformArgs) {
    let Some(activation) = args.finish.activation else { return };
    let rows = args.sides.rows(side);
    for (tile, row) in (0..args.tiles).flat_map(|tile| (0..rows).map(move |row| (tile, row))) {
        let results = args.y.wrapping_offset(tile as isize * args.y_tile + row as isize * args.y_row);
        let (target, source) = ((results, args.y_col), (results.cast_const(), args.y_col));
        // SAFETY: these are elements of `y`, all of which the caller grants.
        unsafe { activation::body::activate::<V>(activation, target, source, (side, V::LANES)) };
    }
}

/// A set of rows, a bit each.
const fn rows<const COUNT: usize>(rows: [usize; COUNT]) -> u32 {
    let (mut set, mut at) = (0, 0);
    while at < COUNT {
        set |= 1 << rows[at];
        at += 1;
    }
    set
}

/// Transforms each tile in parts of some rows, so that what lies between the two steps of a part stays in registers: rows that
/// share terms are of one part.
#[inline(always)]
unsafe fn by_matrix<V: Vector, const ACCUMULATE: bool, const FINISH: bool>(
    matrix: Matrix,
    mut args: TransformArgs,
) {
    let edges = args.edges.iter().any(|edge| *edge != Edge::NONE);
    // SAFETY: the caller grants the instruction set.
    let mut inside = [unsafe { V::splat(0.0) }; MOST_ELEMENTS];
    macro_rules! parts {
        ($own:ident, $p:literal x $i:literal: $([$($row:literal)*])*) => {
            match args.sides {
                Sides::Both => parts!(@each of_tile, $i, {
                    $(part::<V, $own, $p, $i, { rows([$($row),*]) }, ACCUMULATE, FINISH>(&of_tile);)*
                }),
                Sides::Row => parts!(@each of_tile, $i, {
                    line::<V, $own, $p, $i, ACCUMULATE, FINISH>(&of_tile);
                }),
            }
        };
        (@each $of_tile:ident, $i:literal, $transform:block) => {
            for tile in 0..args.tiles {
                let $of_tile =
                    if edges { inside_edges::<V>(&args, tile, $i, &mut inside) } else { args };
                $transform
                args.x = args.x.wrapping_offset(args.x_tile);
                args.y = args.y.wrapping_offset(args.y_tile);
                args.finish.addend = args.finish.addend.wrapping_offset(args.addend_tile);
            }
        };
    }
    // SAFETY: the caller grants the contract; each tile is inside what it grants, or is a copy.
    unsafe {
        match matrix {
            Matrix::Weights2 => parts!(Weights2, 4 x 3: [0 1 2 3]),
            Matrix::Weights4 => parts!(Weights4, 6 x 3: [0 1 2] [3 4 5]),
            Matrix::Input2 => parts!(Input2, 4 x 4: [0 1 2 3]),
            Matrix::Input4 => parts!(Input4, 6 x 6: [0 3 4] [1 2 5]),
            Matrix::Output2 => parts!(Output2, 2 x 4: [0 1]),
            Matrix::Output4 => parts!(Output4, 4 x 6: [0 1 2 3]),
        }
    }
}

/// Elements of a tile at most.
const MOST_ELEMENTS: usize = 36;

/// The arguments for a tile of `side` columns, where all before it are done: those given, or such that name a copy of the elements
/// that there are, with zeros for the others.
#[inline(always)]
unsafe fn inside_edges<V: Vector>(
    args: &TransformArgs,
    tile: usize,
    side: usize,
    copy: &mut [V; MOST_ELEMENTS],
) -> TransformArgs {
    let [down, across] = &args.edges;
    let height = args.sides.rows(side);
    let rows = down.terms(down.at_line(tile), height);
    let columns = across.terms(across.at_line(tile), side);
    if rows == (0, height) && columns == (0, side) {
        return *args;
    }
    for i in 0..height {
        let x = args.x.wrapping_offset(i as isize * args.x_row);
        let (from, to) = if rows.0 <= i && i < rows.1 { columns } else { (0, 0) };
        for j in 0..side {
            let x = x.wrapping_offset(j as isize * args.x_col);
            // SAFETY: the caller grants the elements of `x` inside the edges.
            copy[i * side + j] = unsafe { if from <= j && j < to { V::load(x) } else { V::splat(0.0) } };
        }
    }
    let (x_row, x_col) = ((side * V::LANES) as isize, V::LANES as isize);
    TransformArgs { x: copy.as_ptr().cast(), x_row, x_col, ..*args }
}

/// Repeats a block for constants, so that what it indexes by them stays in registers.
macro_rules! for_constants {
    ($name:ident below $end:expr, $block:expr) => {
        for_constants!(@each $name, $end, $block, 0 1 2 3 4 5)
    };
    (@each $name:ident, $end:expr, $block:expr, $($value:literal)*) => {
        $({
            let $name: usize = $value;
            if $name < $end {
                $block
            }
        })*
    };
}

/// The rows of the set `ROWS` of one tile: the matrix is applied to each column of `x`, and then to each row of that.
#[inline(always)]
unsafe fn part<
    V: Vector,
    M: Apply<P, I>,
    const P: usize,
    const I: usize,
    const ROWS: u32,
    const ACCUMULATE: bool,
    const FINISH: bool,
>(
    args: &TransformArgs,
) {
    const { assert!(P <= 6 && I <= 6) };
    // SAFETY: the caller grants the contract: `I * I` elements of `x`, `P * P` of `y` by their strides, and what `finish` names.
    unsafe {
        let limits = limits::<V, FINISH>(&args.finish);
        let mut half = [[V::splat(0.0); I]; P];
        for_constants!(j below I, {
            let x = args.x.offset(j as isize * args.x_col);
            let mut column = [V::splat(0.0); I];
            for_constants!(i below I, {
                column[i] = V::load(x.offset(i as isize * args.x_row));
            });
            let column = M::apply(column);
            for_constants!(p below P, {
                half[p][j] = column[p];
            });
        });
        for_constants!(p below P, {
            if ROWS & (1 << p) != 0 {
                write::<V, P, ACCUMULATE, FINISH>(args, p, M::apply(half[p]), limits);
            }
        });
    }
}

/// A tile that is a row: the matrix is applied to it.
#[inline(always)]
unsafe fn line<
    V: Vector,
    M: Apply<P, I>,
    const P: usize,
    const I: usize,
    const ACCUMULATE: bool,
    const FINISH: bool,
>(
    args: &TransformArgs,
) {
    const { assert!(P <= 6 && I <= 6) };
    // SAFETY: the caller grants the contract: `I` elements of `x`, `P` of `y` by their strides, and what `finish` names.
    unsafe {
        let limits = limits::<V, FINISH>(&args.finish);
        let mut row = [V::splat(0.0); I];
        for_constants!(j below I, {
            row[j] = V::load(args.x.offset(j as isize * args.x_col));
        });
        write::<V, P, ACCUMULATE, FINISH>(args, 0, M::apply(row), limits);
    }
}

/// What all results of a channel start from, and the limits that they stay within.
#[inline(always)]
unsafe fn limits<V: Vector, const FINISH: bool>(finish: &Finish) -> [V; 3] {
    // SAFETY: the caller grants what `finish` names.
    unsafe {
        let start = if FINISH && !finish.start.is_null() { V::load(finish.start) } else { V::splat(0.0) };
        [start, V::splat(finish.low), V::splat(finish.high)]
    }
}

/// Writes row `p` of a tile's results, finished.
#[inline(always)]
unsafe fn write<V: Vector, const P: usize, const ACCUMULATE: bool, const FINISH: bool>(
    args: &TransformArgs,
    p: usize,
    row: [V; P],
    [start, low, high]: [V; 3],
) {
    let Finish { addend, addend_row, addend_vector, .. } = args.finish;
    // SAFETY: the caller grants the contract: row `p` of `y` by its strides, and what `finish` names; what is streamed is aligned.
    unsafe {
        let y = args.y.offset(p as isize * args.y_row);
        for_constants!(q below P, {
            let y = y.offset(q as isize * args.y_col);
            let mut value = if ACCUMULATE { V::load(y).add(row[q]) } else { row[q] };
            if FINISH {
                value = start.add(value);
                if !addend.is_null() {
                    let place = p as isize * addend_row + q as isize * addend_vector;
                    value = value.add(V::load(addend.offset(place)));
                }
                value = high.lesser_or(low.greater_or(value));
            }
            if !ACCUMULATE && !FINISH && args.stream {
                value.stream(y);
            } else {
                value.store(y);
            }
        });
    }
}
