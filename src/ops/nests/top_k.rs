//! The largest elements, by selection: outer loops `i0` .., for each of the `k` results `j` the row `r` twice, for the best
//! element behind the one before and for its position.

use super::reduce::open_kept;
use crate::expr::{BinaryOp, ExprId, Scope};
use crate::loopir::Combiner;
use crate::ops::define::{AnchorForm, DefineError};
use crate::ops::{Definer, TopK};
use crate::tensor::DType;

impl AnchorForm for TopK {
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
        let extent = x.shape[self.axis];
        let row = [("r", extent)];
        let kept = open_kept(at, &[self.axis]);
        let (combiner, behind) =
            if self.largest { (Combiner::Max, BinaryOp::Lt) } else { (Combiner::Min, BinaryOp::Gt) };

        let last_value = at.builder().alloc(Scope::Register, "last", x.dtype, &[]);
        let last_place = at.builder().alloc(Scope::Register, "last_place", DType::I64, &[]);
        let (worst, before_all) = (at.identity(combiner, x.dtype), at.pool().int(-1));
        at.builder().store("init_last", last_value, &[], worst);
        at.builder().store("init_last_place", last_place, &[], before_all);
        let (j, opened) = at.open(&[("j", self.k)]);
        let first = at.pool().less_int(j[0], 1);

        // The element at r, and whether it comes behind the last result.
        let candidate = |at: &mut Definer<'_>, r: ExprId| {
            let mut source = kept.index.clone();
            source[self.axis] = r;
            let value = at.read(0, &source)?;
            let pool = at.pool();
            let (last, place) = (pool.load(last_value, &[]), pool.load(last_place, &[]));
            let lower = pool.binary(behind, value, last);
            let (equal, later) =
                (pool.binary(BinaryOp::Eq, value, last), pool.binary(BinaryOp::Gt, r, place));
            let next = pool.and(equal, later);
            let eligible = pool.binary(BinaryOp::Or, lower, next);
            let eligible = pool.binary(BinaryOp::Or, first, eligible);
            Ok::<(ExprId, ExprId), DefineError>((value, eligible))
        };
        let best = at.accumulate("best", x.dtype, combiner, &row, |at, r| {
            let (value, eligible) = candidate(at, r[0])?;
            Ok(at.pool().select(eligible, value, worst))
        })?;
        let none = at.pool().int(extent as i64 - 1);
        let place = at.accumulate_from(none, "place", Combiner::Min, &row, |at, r| {
            let (value, eligible) = candidate(at, r[0])?;
            let equal = at.pool().binary(BinaryOp::Eq, value, best);
            let found = at.pool().and(eligible, equal);
            Ok(at.pool().select(found, r[0], none))
        })?;
        let mut index = kept.index.clone();
        index[self.axis] = j[0];
        at.emit(0, &index, best)?;
        at.emit(1, &index, place)?;
        at.builder().store("last", last_value, &[], best);
        at.builder().store("last_place", last_place, &[], place);
        at.close(opened + kept.opened);
        Ok(())
    }
}
