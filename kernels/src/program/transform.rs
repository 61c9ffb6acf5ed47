//! Transforms of tiles: their form for the executor, and one thread's execution of one.

use super::code::{Accumulate, Code, Place, Transform, Trip};
use super::machine::Machine;
use super::tile::{Clip, FinishOp, clip};
use crate::transform::{Matrix, Sides, TransformArgs};

/// A transform in the executor's form.
#[derive(Debug)]
pub(super) struct TransformOp {
    matrix: Matrix,
    sides: Sides,
    x: usize,
    /// Strides of rows, columns and tiles.
    x_strides: [isize; 3],
    y: usize,
    /// Strides of rows, columns and tiles.
    y_strides: [isize; 3],
    tiles: Trip,
    edges: Box<[Clip]>,
    accumulate: Accumulate,
    finish: FinishOp,
    /// Whether the results are what all threads read.
    shared: bool,
}

impl TransformOp {
    pub(super) fn lower(code: &Code, transform: &Transform) -> TransformOp {
        let Transform {
            matrix,
            sides,
            x,
            x_row_stride,
            x_col_stride,
            x_tile_stride,
            y,
            y_row_stride,
            y_col_stride,
            y_tile_stride,
            tiles,
            lanes: _,
            guard,
            accumulate,
            finish,
        } = transform;
        let strides = |strides: [&i64; 3]| strides.map(|stride| *stride as isize);
        TransformOp {
            matrix: *matrix,
            sides: *sides,
            x: x.index(),
            x_strides: strides([x_row_stride, x_col_stride, x_tile_stride]),
            y: y.index(),
            y_strides: strides([y_row_stride, y_col_stride, y_tile_stride]),
            tiles: tiles.clone(),
            edges: guard.iter().map(|condition| clip(condition, 1)).collect(),
            accumulate: accumulate.clone(),
            finish: FinishOp::lower(finish.as_ref(), |column| column as isize),
            shared: code.buffers[code.accesses[y.index()].buffer.index()].place == Place::Shared,
        }
    }
}

impl Machine<'_> {
    /// # Safety
    /// As for [`Machine::phase`], with the pointers of the transform's accesses at the counters' values.
    pub(super) unsafe fn transform(&mut self, op: &TransformOp) {
        let TransformOp {
            matrix,
            sides,
            x,
            x_strides,
            y,
            y_strides,
            tiles,
            edges,
            accumulate,
            finish,
            shared,
        } = op;
        let ([x_row, x_col, x_tile], [y_row, y_col, y_tile]) = (*x_strides, *y_strides);
        let (finish, addend_tile) = self.finish(finish);
        let args = TransformArgs {
            sides: *sides,
            x: self.pointers[*x].cast_const().cast(),
            x_row,
            x_col,
            x_tile,
            y: self.pointers[*y].cast(),
            y_row,
            y_col,
            y_tile,
            tiles: tiles.evaluate(self.counters),
            edges: self.edges(edges),
            accumulate: accumulate.evaluate(self.counters),
            finish,
            addend_tile,
            stream: *shared && self.apart,
        };
        // SAFETY: the verifier proved the elements of all operands in range, the results in a buffer of their own, and the lanes
        // those of the table.
        unsafe { self.table.transform(*matrix, &args) };
    }
}
