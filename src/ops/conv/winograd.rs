//! Winograd's convolution F(m x m, 3 x 3), F(m, 3) along one dimension: fewer products, of transformed tiles.
//!
//! From Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4. The results are computed in tiles
//! of m x m; a tile needs m + 2 rows and columns of the input. With the matrices G, B and A of the form:
//!
//! ```text
//! u[a, b, c, k]  = sum over r, s of G[a, r] * G[b, s] * w[k, c, r, s]              the weights, once
//! v[c, a, b, t]  = sum over r, s of B[a, r] * B[b, s] * x[c, m * t + (r, s)]       the input
//! m[k, a, b, t]  = sum over c of u[a, b, c, k] * v[c, a, b, t]                     (m + 2)^2 products of matrices
//! y[k, m * t + (i, j)] = sum over a, b of A[i, a] * A[j, b] * m[k, a, b, t]        the results
//! ```
//!
//! Along a dimension over which the window has one element, tiles and points are of one element and there is nothing to transform: a window of
//! 1 x 3 has tiles of one row. So has an image of one dimension, which is a row.
//!
//! The transforms are sums over matrices of constants; instructions compute them a dimension at a time. Tiles that reach over the
//! edge of the output compute results that nothing keeps.
//!
//! # Error
//! The transforms magnify rounding, those of F(4 x 4) more than those of F(2 x 2), whose matrices hold small numbers only:
//! [`ConvAlgorithm::error_bound`](crate::ops::ConvAlgorithm::error_bound) says by how much. All constants but those of G are exact in f32.
//! Transforms along one dimension magnify less.

use crate::expr::{ExprId, ExprPool};
use crate::loopir::{Combiner, Scope};
use crate::ops::define::{DefineError, in_range};
use crate::ops::{Conv, Definer};
use crate::tensor::DType;
use paisley_kernels::transform::Matrix;

/// The matrices of a form.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Form {
    /// `G`: from 3 weights to m + 2.
    weights: Matrix,
    /// The transpose of Lavin's `B`: from m + 2 inputs to m + 2.
    input: Matrix,
    /// The transpose of Lavin's `A`: from m + 2 to m results.
    output: Matrix,
}

/// F(2 x 2, 3 x 3), of the points 0, 1, -1 and infinity.
pub(in crate::ops) const F2: Form =
    Form { weights: Matrix::Weights2, input: Matrix::Input2, output: Matrix::Output2 };

/// F(4 x 4, 3 x 3), of the points 0, 1, -1, 2, -2 and infinity.
pub(in crate::ops) const F4: Form =
    Form { weights: Matrix::Weights4, input: Matrix::Input4, output: Matrix::Output4 };

/// Images are computed as ones of two dimensions.
const RANK: usize = 2;

/// One dimension of the images.
#[derive(Clone, Copy)]
struct Side {
    /// The form of its transforms, where there is something to transform.
    form: Option<Form>,
    /// Elements of the input.
    extent: usize,
    /// Padding before them.
    before: usize,
    /// Elements of the output.
    places: usize,
}

impl Side {
    /// One place, where an image has no such dimension.
    const NONE: Side = Side { form: None, extent: 1, before: 0, places: 1 };

    /// Results of a tile.
    fn tile(self) -> usize {
        self.form.map_or(1, |form| form.output.rows().len())
    }

    fn points(self) -> usize {
        self.form.map_or(1, |form| form.input.columns())
    }

    fn taps(self) -> usize {
        self.form.map_or(1, |form| form.weights.columns())
    }

    fn tiles(self) -> usize {
        self.places.div_ceil(self.tile())
    }

    /// Results of a tile that are loops; one of a dimension of one place, whose index is 0 for what follows.
    fn kept(self) -> usize {
        self.tile().min(self.places)
    }
}

/// Adds the loops of `conv`, to which [`ConvAlgorithm::applies`](crate::ops::ConvAlgorithm::applies).
///
/// # Errors
/// As [`Definer::read`], and where it does not apply.
pub(in crate::ops) fn define(conv: &Conv, form: &Form, at: &mut Definer<'_>) -> Result<(), DefineError> {
    let (x, w, y) = (at.input(0), at.input(1), at.output(0));
    let rank = conv.strides.len();
    if !(1..=RANK).contains(&rank) {
        return Err(at.unsupported("Winograd's convolution is for images and rows: use another algorithm"));
    }
    let (batch, channels, filters) = (x.shape[0], x.shape[1], y.shape[1]);
    let mut sides = [Side::NONE; RANK];
    for (axis, side) in sides[RANK - rank..].iter_mut().enumerate() {
        *side = Side {
            form: (w.shape[2 + axis] > 1).then_some(*form),
            extent: x.shape[2 + axis],
            before: conv.pads[axis].0,
            places: y.shape[2 + axis],
        };
    }
    let [down, across] = sides;
    // The index of what lies in the image: only the dimensions that it has.
    let index = |first: [ExprId; 2], place: [ExprId; RANK]| [&first, &place[RANK - rank..]].concat();
    let global = |at: &mut Definer<'_>, name: &str, shape: &[usize]| {
        at.builder().alloc(Scope::Global, name, DType::F32, shape)
    };

    // Filters lie next to one another, as the products read them.
    let u = global(at, "u", &[down.points(), across.points(), channels, filters]);
    let dims = [("uk", filters), ("ua", down.points()), ("ub", across.points()), ("uc", channels)];
    let (outer, opened) = at.open(&dims);
    let &[k, a, b, c] = outer.as_slice() else { return Ok(()) };
    let taps = [("ur", down.taps()), ("us", across.taps())];
    let sum = at.accumulate("u_sum", DType::F32, Combiner::Add, &taps, |at, inner| {
        let value = at.read(1, &index([k, c], [inner[0], inner[1]]))?;
        let matrices = sides.map(|side| side.form.map(|form| form.weights));
        Ok(transformed(at.pool(), matrices, [[a, inner[0]], [b, inner[1]]], value))
    })?;
    at.builder().store("weights", u, &[a, b, c, k], sum);
    at.close(opened);

    let (points, tiles) = (sides.map(Side::points), sides.map(Side::tiles));
    let v = global(at, "v", &[batch, channels, points[0], points[1], tiles[0], tiles[1]]);
    let dims = [
        ("vn", batch),
        ("vc", channels),
        ("va", points[0]),
        ("vb", points[1]),
        ("vh", tiles[0]),
        ("vw", tiles[1]),
    ];
    let (outer, opened) = at.open(&dims);
    let &[n, c, a, b, h, w] = outer.as_slice() else { return Ok(()) };
    let reduced = [("r", points[0]), ("s", points[1])];
    let sum = at.accumulate("v_sum", DType::F32, Combiner::Add, &reduced, |at, inner| {
        let pool = at.pool();
        let row = place(pool, h, down.tile(), inner[0], down.before);
        let column = place(pool, w, across.tile(), inner[1], across.before);
        let (in_rows, in_columns) =
            (in_range(pool, row, 0, down.extent as i64), in_range(pool, column, 0, across.extent as i64));
        let inside = pool.and(in_rows, in_columns);
        let inside = pool.simplify(inside);
        let value = at.read(0, &index([n, c], [row, column]))?;
        let value = at.pool().guard(inside, value);
        let matrices = sides.map(|side| side.form.map(|form| form.input));
        Ok(transformed(at.pool(), matrices, [[a, inner[0]], [b, inner[1]]], value))
    })?;
    at.builder().store("transformed", v, &outer, sum);
    at.close(opened);

    let m = global(at, "m", &[batch, filters, points[0], points[1], tiles[0], tiles[1]]);
    let dims = [
        ("mn", batch),
        ("mk", filters),
        ("ma", points[0]),
        ("mb", points[1]),
        ("mh", tiles[0]),
        ("mw", tiles[1]),
    ];
    let (outer, opened) = at.open(&dims);
    let &[n, k, a, b, h, w] = outer.as_slice() else { return Ok(()) };
    let sum = at.accumulate("m_sum", DType::F32, Combiner::Add, &[("c", channels)], |at, inner| {
        let left = at.pool().load(v, &[n, inner[0], a, b, h, w]);
        let right = at.pool().load(u, &[a, b, inner[0], k]);
        Ok(at.pool().mul(left, right))
    })?;
    at.builder().store("products", m, &outer, sum);
    at.close(opened);

    let dims = [
        ("n", batch),
        ("k", filters),
        ("th", tiles[0]),
        ("i", down.kept()),
        ("tw", tiles[1]),
        ("j", across.kept()),
    ];
    let (outer, opened) = at.open(&dims);
    let &[n, k, h, i, w, j] = outer.as_slice() else { return Ok(()) };
    let reduced = [("a", points[0]), ("b", points[1])];
    let sum = at.accumulate("acc", DType::F32, Combiner::Add, &reduced, |at, inner| {
        let value = at.pool().load(m, &[n, k, inner[0], inner[1], h, w]);
        let matrices = sides.map(|side| side.form.map(|form| form.output));
        Ok(transformed(at.pool(), matrices, [[i, inner[0]], [j, inner[1]]], value))
    })?;
    let value = if at.has_input(2) {
        let bias = at.read(2, &[k])?;
        at.pool().add(sum, bias)
    } else {
        sum
    };
    let pool = at.pool();
    let (row, column) = (place(pool, h, down.tile(), i, 0), place(pool, w, across.tile(), j, 0));
    let (above, before) =
        (pool.less_int(row, down.places as i64), pool.less_int(column, across.places as i64));
    let kept = pool.and(above, before);
    let kept = pool.simplify(kept);
    let condition = (!pool.conjuncts(kept).is_empty()).then_some(kept);
    at.emit_where(0, &index([n, k], [row, column]), value, condition)?;
    at.close(opened);
    Ok(())
}

/// Where element `r` of tile `t` lies: `t * tile + r - before`.
fn place(pool: &mut ExprPool, t: ExprId, tile: usize, r: ExprId, before: usize) -> ExprId {
    let start = pool.mul_int(t, tile as i64);
    let within = pool.add_int(r, -(before as i64));
    let place = pool.add(start, within);
    pool.simplify(place)
}

/// `value` times the element `[row, column]` of the matrix of each side that has one.
fn transformed(
    pool: &mut ExprPool,
    matrices: [Option<Matrix>; RANK],
    places: [[ExprId; 2]; RANK],
    value: ExprId,
) -> ExprId {
    let elements = matrices.into_iter().zip(places);
    let elements: Vec<ExprId> =
        elements.filter_map(|(matrix, at)| Some(element(pool, matrix?, at))).collect();
    let factor = elements.into_iter().reduce(|product, element| pool.mul(product, element));
    factor.map_or(value, |factor| pool.mul(factor, value))
}

/// `matrix[row, column]`, as choices by the row and then by the column.
fn element(pool: &mut ExprPool, matrix: Matrix, [row, column]: [ExprId; 2]) -> ExprId {
    let rows: Vec<ExprId> = matrix
        .rows()
        .iter()
        .map(|weights| {
            let weights: Vec<ExprId> =
                weights.iter().map(|&weight| pool.constant(f64::from(weight), DType::F32)).collect();
            choose(pool, column, &weights)
        })
        .collect();
    choose(pool, row, &rows)
}

/// The value at that place of a list.
fn choose(pool: &mut ExprPool, place: ExprId, values: &[ExprId]) -> ExprId {
    let Some((&last, before)) = values.split_last() else { return pool.constant(0.0, DType::F32) };
    before.iter().enumerate().rev().fold(last, |rest, (at, &value)| {
        if rest == value {
            return rest;
        }
        let here = pool.less_int(place, at as i64 + 1);
        pool.select(here, value, rest)
    })
}
