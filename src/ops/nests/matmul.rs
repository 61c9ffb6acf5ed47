//! Matrix products: batch loops `b0` .., rows `i`, columns `j`, the sum over `k`. Where all of a batch is multiplied by one
//! matrix, its dimensions are rows too.

use super::map::broadcast_index;
use crate::expr::ExprId;
use crate::loopir::Combiner;
use crate::ops::define::{AnchorForm, DefineError, accumulator, delinearise};
use crate::ops::{Definer, MatMul};

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
        let (batch, rows, columns) =
            (&output.shape[..rank - 2], output.shape[rank - 2], output.shape[rank - 1]);
        let all_rows = &output.shape[..rank - 1];
        let joined = !self.transpose_a && b.shape[..b.rank() - 2].iter().all(|&extent| extent == 1);
        let (outer, row_extent) = if joined { (&[][..], all_rows.iter().product()) } else { (batch, rows) };
        let (mut index, batch_loops) = at.open_numbered("b", outer);
        let (row_and_column, loops) = at.open(&[("i", row_extent), ("j", columns)]);
        let [row, j] = [row_and_column[0], row_and_column[1]];
        if joined {
            index = delinearise(at.pool(), row, all_rows);
        } else {
            index.push(row);
        }
        let i = index[rank - 2];
        let batch_a = broadcast_index(at.pool(), &index[..rank - 2], &a.shape[..a.rank() - 2]);
        let batch_b = broadcast_index(at.pool(), &index[..rank - 2], &b.shape[..b.rank() - 2]);
        let sum = at.accumulate("acc", dtype, Combiner::Add, &[("k", depth)], |at, k| {
            let of = |batch: Vec<ExprId>, transposed: bool, row: ExprId, column: ExprId| {
                let last = if transposed { [column, row] } else { [row, column] };
                [&batch[..], &last].concat()
            };
            let left = at.read_as(0, &of(batch_a, self.transpose_a, i, k[0]), dtype)?;
            let right = at.read_as(1, &of(batch_b, self.transpose_b, k[0], j), dtype)?;
            Ok(at.pool().mul(left, right))
        })?;
        index.push(j);
        at.emit(0, &index, sum)?;
        at.close(batch_loops + loops);
        Ok(())
    }
}
