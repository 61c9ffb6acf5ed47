//! Softmax: outer loops `i0` .., the row `r` three times: its largest element, the sum, the results.

use super::reduce::open_kept;
use crate::expr::{BinaryOp, ExprId, UnaryOp};
use crate::loopir::Combiner;
use crate::ops::define::{AnchorForm, DefineError, accumulator};
use crate::ops::{Definer, Softmax};

impl AnchorForm for Softmax {
    fn operand_names(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn can_be_followed(&self) -> bool {
        true
    }

    fn may_collapse(&self) -> bool {
        true
    }

    fn define(&self, at: &mut Definer<'_>) -> Result<(), DefineError> {
        let x = at.input(0);
        let dtype = accumulator(x.dtype);
        let row = [("r", x.shape[self.axis])];
        let kept = open_kept(at, &[self.axis]);
        let read = |at: &mut Definer<'_>, r: ExprId| {
            let mut source = kept.index.clone();
            source[self.axis] = r;
            at.read_as(0, &source, dtype)
        };
        let peak = at.accumulate("peak", dtype, Combiner::Max, &row, |at, r| read(at, r[0]))?;
        let shifted = |at: &mut Definer<'_>, r: ExprId| {
            let value = read(at, r)?;
            Ok::<ExprId, DefineError>(at.pool().binary(BinaryOp::Sub, value, peak))
        };
        let mut sum = at.accumulate("sum", dtype, Combiner::Add, &row, |at, r| {
            let value = shifted(at, r[0])?;
            Ok(at.pool().unary(UnaryOp::Exp, value))
        })?;
        if self.log {
            let log = at.pool().unary(UnaryOp::Log, sum);
            sum = at.keep("log_sum", log);
        }
        let (r, opened) = at.open(&row);
        let value = shifted(at, r[0])?;
        let value = if self.log {
            at.pool().binary(BinaryOp::Sub, value, sum)
        } else {
            let exponential = at.pool().unary(UnaryOp::Exp, value);
            at.pool().binary(BinaryOp::Div, exponential, sum)
        };
        let mut index = kept.index.clone();
        index[self.axis] = r[0];
        at.emit(0, &index, value)?;
        at.close(opened + kept.opened);
        Ok(())
    }
}
