//! Normalisation: outer loops `i0` .., the row `r` (all axes normalised over, as one) for the mean, the variance, the results.

use crate::expr::{BinaryOp, ExprId, UnaryOp};
use crate::loopir::Combiner;
use crate::ops::define::{AnchorForm, DefineError, accumulator, delinearise};
use crate::ops::{Definer, Normalize};

impl AnchorForm for Normalize {
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
        let (outer, inner) = x.shape.split_at(self.axis);
        let length: usize = inner.iter().product();
        let dtype = accumulator(x.dtype);
        let row = [("r", length)];
        let (outer, opened) = at.open_numbered("i", outer);
        let place = |at: &mut Definer<'_>, r: ExprId| {
            let inner = delinearise(at.pool(), r, inner);
            [&outer[..], &inner].concat()
        };
        let read = |at: &mut Definer<'_>, r: ExprId| {
            let index = place(at, r);
            at.read_as(0, &index, dtype)
        };
        let count = at.pool().constant(length as f64, dtype);
        let mean = if self.center {
            let sum = at.accumulate("sum", dtype, Combiner::Add, &row, |at, r| read(at, r[0]))?;
            let mean = at.pool().binary(BinaryOp::Div, sum, count);
            Some(at.keep("mean", mean))
        } else {
            None
        };
        let centered = |at: &mut Definer<'_>, r: ExprId| {
            let value = read(at, r)?;
            Ok::<ExprId, DefineError>(match mean {
                Some(mean) => at.pool().binary(BinaryOp::Sub, value, mean),
                None => value,
            })
        };
        let squares = at.accumulate("squares", dtype, Combiner::Add, &row, |at, r| {
            let value = centered(at, r[0])?;
            Ok(at.pool().mul(value, value))
        })?;
        let variance = at.pool().binary(BinaryOp::Div, squares, count);
        let epsilon = at.pool().constant(f64::from(self.epsilon), dtype);
        let raised = at.pool().add(variance, epsilon);
        let deviation = at.pool().unary(UnaryOp::Sqrt, raised);
        let one = at.pool().constant(1.0, dtype);
        let scale = at.pool().binary(BinaryOp::Div, one, deviation);
        let scale = at.keep("scale", scale);
        let (r, row_opened) = at.open(&row);
        let value = centered(at, r[0])?;
        let value = at.pool().mul(value, scale);
        let index = place(at, r[0]);
        at.emit(0, &index, value)?;
        at.close(row_opened + opened);
        Ok(())
    }
}
