//! Matrix products: batch loops `b0` .., rows `i`, columns `j`, the sum over `k`.

use super::map::broadcast_index;
use crate::expr::ExprId;
use crate::loopir::Combiner;
use crate::ops::MatMul;
use crate::ops::define::{AnchorForm, DefineError, Definer, accumulator};

impl AnchorForm for MatMul {
    fn operand_names(&self) -> &'static [&'static str] {
        &["a", "b"]
    }

    fn can_be_followed(&self) -> bool {
        true
    }

    fn may_collapse(&self) -> bool {
        false
    }

    fn define(&self, at: &mut Definer<'_>) -> Result<(), DefineError> {
        let output = at.output(0);
        let rank = output.rank();
        let (a, b) = (at.input(0), at.input(1));
        let depth = a.shape[a.rank() - if self.transpose_a { 2 } else { 1 }];
        let dtype = accumulator(output.dtype);
        let (mut index, batch_loops) = at.open_numbered("b", &output.shape[..rank - 2]);
        let (rows_and_columns, loops) =
            at.open(&[("i", output.shape[rank - 2]), ("j", output.shape[rank - 1])]);
        let [i, j] = [rows_and_columns[0], rows_and_columns[1]];
        let batch_a = broadcast_index(at.pool(), &index, &a.shape[..a.rank() - 2]);
        let batch_b = broadcast_index(at.pool(), &index, &b.shape[..b.rank() - 2]);
        let sum = at.accumulate("acc", dtype, Combiner::Add, &[("k", depth)], |at, k| {
            let of = |batch: Vec<ExprId>, transposed: bool, row: ExprId, column: ExprId| {
                let last = if transposed { [column, row] } else { [row, column] };
                [&batch[..], &last].concat()
            };
            let left = at.read_as(0, &of(batch_a, self.transpose_a, i, k[0]), dtype)?;
            let right = at.read_as(1, &of(batch_b, self.transpose_b, k[0], j), dtype)?;
            Ok(at.pool().mul(left, right))
        })?;
        index.extend([i, j]);
        at.emit(0, &index, sum)?;
        at.close(batch_loops + loops);
        Ok(())
    }
}
