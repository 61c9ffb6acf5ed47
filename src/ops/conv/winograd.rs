//! Winograd's convolution F(m x m, 3 x 3): fewer products, of transformed tiles.
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
//! The transforms are sums over matrices of constants; instructions compute them a dimension at a time. Tiles that reach over the
//! edge of the output compute results that nothing keeps.
//!
//! # Error
//! The transforms magnify rounding, those of F(4 x 4) more than those of F(2 x 2), whose matrices hold small numbers only:
//! [`ConvAlgorithm::error_bound`](crate::ops::ConvAlgorithm::error_bound) says by how much. All constants but those of G are exact in f32.

use crate::expr::{ExprId, ExprPool};
use crate::loopir::{Combiner, Scope};
use crate::ops::define::{DefineError, in_range};
use crate::ops::{Conv, Definer};
use crate::tensor::DType;
use paisley_kernels::transform::Matrix;

/// The matrices of a form.
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

/// Adds the loops of `conv`, to which [`ConvAlgorithm::applies`](crate::ops::ConvAlgorithm::applies).
///
/// # Errors
/// As [`Definer::read`], and where it does not apply.
pub(in crate::ops) fn define(conv: &Conv, form: &Form, at: &mut Definer<'_>) -> Result<(), DefineError> {
    let (x, y) = (at.input(0), at.output(0));
    let (&[batch, channels, height, width], &[_, filters, rows, columns]) = (&x.shape[..], &y.shape[..])
    else {
        return Err(at.unsupported("Winograd's convolution is for images: use another algorithm"));
    };
    let (tile, points) = (form.output.rows().len(), form.input.columns());
    let (tile_rows, tile_columns) = (rows.div_ceil(tile), columns.div_ceil(tile));

    // Filters lie next to one another, as the products read them.
    let global = |at: &mut Definer<'_>, name: &str, shape: &[usize]| {
        at.builder().alloc(Scope::Global, name, DType::F32, shape)
    };
    let u = global(at, "u", &[points, points, channels, filters]);
    let (index, opened) = at.open(&[("uk", filters), ("ua", points), ("ub", points), ("uc", channels)]);
    let &[k, a, b, c] = index.as_slice() else { return Ok(()) };
    let taps = [("ur", 3), ("us", 3)];
    let sum = at.accumulate("u_sum", DType::F32, Combiner::Add, &taps, |at, inner| {
        let factor = factor(at.pool(), form.weights, [a, inner[0]], [b, inner[1]]);
        let value = at.read(1, &[k, c, inner[0], inner[1]])?;
        Ok(at.pool().mul(factor, value))
    })?;
    at.builder().store("weights", u, &[a, b, c, k], sum);
    at.close(opened);

    let v = global(at, "v", &[batch, channels, points, points, tile_rows, tile_columns]);
    let dims = [
        ("vn", batch),
        ("vc", channels),
        ("va", points),
        ("vb", points),
        ("vh", tile_rows),
        ("vw", tile_columns),
    ];
    let (index, opened) = at.open(&dims);
    let &[n, c, a, b, h, w] = index.as_slice() else { return Ok(()) };
    let reduced = [("r", points), ("s", points)];
    let sum = at.accumulate("v_sum", DType::F32, Combiner::Add, &reduced, |at, inner| {
        let pool = at.pool();
        let row = place(pool, h, tile, inner[0], conv.pads[0].0);
        let column = place(pool, w, tile, inner[1], conv.pads[1].0);
        let (in_rows, in_columns) =
            (in_range(pool, row, 0, height as i64), in_range(pool, column, 0, width as i64));
        let inside = pool.and(in_rows, in_columns);
        let inside = pool.simplify(inside);
        let factor = factor(pool, form.input, [a, inner[0]], [b, inner[1]]);
        let value = at.read(0, &[n, c, row, column])?;
        let value = at.pool().guard(inside, value);
        Ok(at.pool().mul(factor, value))
    })?;
    at.builder().store("transformed", v, &index, sum);
    at.close(opened);

    let m = global(at, "m", &[batch, filters, points, points, tile_rows, tile_columns]);
    let dims = [
        ("mn", batch),
        ("mk", filters),
        ("ma", points),
        ("mb", points),
        ("mh", tile_rows),
        ("mw", tile_columns),
    ];
    let (index, opened) = at.open(&dims);
    let &[n, k, a, b, h, w] = index.as_slice() else { return Ok(()) };
    let sum = at.accumulate("m_sum", DType::F32, Combiner::Add, &[("c", channels)], |at, inner| {
        let left = at.pool().load(v, &[n, inner[0], a, b, h, w]);
        let right = at.pool().load(u, &[a, b, inner[0], k]);
        Ok(at.pool().mul(left, right))
    })?;
    at.builder().store("products", m, &index, sum);
    at.close(opened);

    // A dimension of one place has the index 0 for what follows.
    let (across, along) = (tile.min(rows), tile.min(columns));
    let dims =
        [("n", batch), ("k", filters), ("th", tile_rows), ("i", across), ("tw", tile_columns), ("j", along)];
    let (index, opened) = at.open(&dims);
    let &[n, k, h, i, w, j] = index.as_slice() else { return Ok(()) };
    let sum =
        at.accumulate("acc", DType::F32, Combiner::Add, &[("a", points), ("b", points)], |at, inner| {
            let factor = factor(at.pool(), form.output, [i, inner[0]], [j, inner[1]]);
            let value = at.pool().load(m, &[n, k, inner[0], inner[1], h, w]);
            Ok(at.pool().mul(factor, value))
        })?;
    let value = if at.has_input(2) {
        let bias = at.read(2, &[k])?;
        at.pool().add(sum, bias)
    } else {
        sum
    };
    let pool = at.pool();
    let (row, column) = (place(pool, h, tile, i, 0), place(pool, w, tile, j, 0));
    let (above, before) = (pool.less_int(row, rows as i64), pool.less_int(column, columns as i64));
    let kept = pool.and(above, before);
    let kept = pool.simplify(kept);
    let condition = (!pool.conjuncts(kept).is_empty()).then_some(kept);
    at.emit_where(0, &[n, k, row, column], value, condition)?;
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

/// `matrix[a, r] * matrix[b, s]` for the pairs `[a, r]` and `[b, s]`.
fn factor(pool: &mut ExprPool, matrix: Matrix, vertical: [ExprId; 2], horizontal: [ExprId; 2]) -> ExprId {
    let (vertical, horizontal) = (element(pool, matrix, vertical), element(pool, matrix, horizontal));
    pool.mul(vertical, horizontal)
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
