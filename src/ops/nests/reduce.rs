//! Reductions along axes: loops `i0` .. over the axes kept, `r0` .. over those reduced. Adjacent axes become one where
//! they can.

use crate::expr::{BinaryOp, ExprId, UnaryOp};
use crate::loopir::Combiner;
use crate::ops::define::{AnchorForm, DefineError, accumulator, numbered};
use crate::ops::{ArgReduce, CumSum, Definer, Extreme, Reduce, ReduceKind};
use crate::tensor::DType;

/// The loops of a reduction over some axes of operand 0.
pub(super) struct Axes {
    /// The index in the operand; at reduced axes 0.
    pub(super) index: Vec<ExprId>,
    /// Loops opened.
    pub(super) opened: usize,
}

/// Opens loops `i0` .. over the axes of operand 0 that are not in `reduced`.
pub(super) fn open_kept(at: &mut Definer<'_>, reduced: &[usize]) -> Axes {
    let shape = &at.input(0).shape;
    let extents: Vec<usize> =
        (0..shape.len()).map(|axis| if reduced.contains(&axis) { 1 } else { shape[axis] }).collect();
    let (index, opened) = at.open_numbered("i", &extents);
    Axes { index, opened }
}

/// `index` of operand 0 without the axes `reduced`, or with 0 there.
fn output_index(at: &mut Definer<'_>, index: &[ExprId], reduced: &[usize], keep: bool) -> Vec<ExprId> {
    let zero = at.pool().int(0);
    let axes = index.iter().enumerate();
    axes.filter_map(|(axis, &i)| if !reduced.contains(&axis) { Some(i) } else { keep.then_some(zero) })
        .collect()
}

impl AnchorForm for Reduce {
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
        let dtype = self.accumulator(x.dtype);
        let extents: Vec<usize> = self.axes.iter().map(|&axis| x.shape[axis]).collect();
        let count: usize = extents.iter().product();
        let names = numbered("r", &extents);
        let dims: Vec<(&str, usize)> = names.iter().map(|(name, extent)| (name.as_str(), *extent)).collect();
        let kept = open_kept(at, &self.axes);
        let read = |at: &mut Definer<'_>, inner: &[ExprId]| {
            let mut source = kept.index.clone();
            for (&axis, &r) in self.axes.iter().zip(inner) {
                source[axis] = r;
            }
            at.read_as(0, &source, dtype)
        };
        let value = match self.kind {
            ReduceKind::LogSumExp => {
                let peak = at.accumulate("peak", dtype, Combiner::Max, &dims, read)?;
                // An infinite peak would make inf - inf.
                let infinite = at.pool().unary(UnaryOp::IsInf, peak);
                let zero = at.pool().constant(0.0, dtype);
                let shift = at.pool().select(infinite, zero, peak);
                let shift = at.keep("shift", shift);
                let sum = at.accumulate("acc", dtype, Combiner::Add, &dims, |at, inner| {
                    let value = read(at, inner)?;
                    let shifted = at.pool().binary(BinaryOp::Sub, value, shift);
                    Ok(at.pool().unary(UnaryOp::Exp, shifted))
                })?;
                let log = at.pool().unary(UnaryOp::Log, sum);
                at.pool().add(log, shift)
            }
            ReduceKind::Sum
            | ReduceKind::Mean
            | ReduceKind::Max
            | ReduceKind::Min
            | ReduceKind::Product
            | ReduceKind::L1
            | ReduceKind::L2
            | ReduceKind::SumSquare
            | ReduceKind::LogSum => {
                let total = at.accumulate("acc", dtype, self.combiner(), &dims, |at, inner| {
                    let value = read(at, inner)?;
                    Ok(match self.kind {
                        ReduceKind::L1 => at.pool().unary(UnaryOp::Abs, value),
                        ReduceKind::L2 | ReduceKind::SumSquare => at.pool().mul(value, value),
                        ReduceKind::Sum
                        | ReduceKind::Mean
                        | ReduceKind::Max
                        | ReduceKind::Min
                        | ReduceKind::Product
                        | ReduceKind::LogSum
                        | ReduceKind::LogSumExp => value,
                    })
                })?;
                match self.kind {
                    ReduceKind::Mean => {
                        let count = at.pool().constant(count as f64, dtype);
                        at.pool().binary(BinaryOp::Div, total, count)
                    }
                    ReduceKind::L2 => at.pool().unary(UnaryOp::Sqrt, total),
                    ReduceKind::LogSum => at.pool().unary(UnaryOp::Log, total),
                    ReduceKind::Sum
                    | ReduceKind::Max
                    | ReduceKind::Min
                    | ReduceKind::Product
                    | ReduceKind::L1
                    | ReduceKind::SumSquare
                    | ReduceKind::LogSumExp => total,
                }
            }
        };
        let index = output_index(at, &kept.index, &self.axes, self.keep);
        at.emit(0, &index, value)?;
        at.close(kept.opened);
        Ok(())
    }
}

impl Reduce {
    fn combiner(&self) -> Combiner {
        match self.kind {
            ReduceKind::Max => Combiner::Max,
            ReduceKind::Min => Combiner::Min,
            ReduceKind::Product => Combiner::Mul,
            ReduceKind::Sum
            | ReduceKind::Mean
            | ReduceKind::L1
            | ReduceKind::L2
            | ReduceKind::SumSquare
            | ReduceKind::LogSum
            | ReduceKind::LogSumExp => Combiner::Add,
        }
    }

    /// Integers take roots and logarithms as f32.
    fn accumulator(&self, dtype: DType) -> DType {
        match self.kind {
            ReduceKind::L2 | ReduceKind::LogSum | ReduceKind::LogSumExp if !dtype.is_float() => DType::F32,
            ReduceKind::Sum
            | ReduceKind::Mean
            | ReduceKind::Max
            | ReduceKind::Min
            | ReduceKind::Product
            | ReduceKind::L1
            | ReduceKind::L2
            | ReduceKind::SumSquare
            | ReduceKind::LogSum
            | ReduceKind::LogSumExp => accumulator(dtype),
        }
    }
}

/// Two reductions: the extreme value, then the first (last) position that has it. Where NaN makes every comparison
/// fail, the position is the last (first).
impl AnchorForm for ArgReduce {
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
        let kept = open_kept(at, &[self.axis]);
        let read = |at: &mut Definer<'_>, r: ExprId| {
            let mut source = kept.index.clone();
            source[self.axis] = r;
            at.read(0, &source)
        };
        let combiner = match self.extreme {
            Extreme::Max => Combiner::Max,
            Extreme::Min => Combiner::Min,
        };
        let best = at.accumulate("best", x.dtype, combiner, &[("r", extent)], |at, r| read(at, r[0]))?;
        let last = extent as i64 - 1;
        let (earliest, none) = if self.last { (Combiner::Max, 0) } else { (Combiner::Min, last) };
        let none = at.pool().int(none);
        let place = at.accumulate_from(none, "place", earliest, &[("r", extent)], |at, r| {
            let value = read(at, r[0])?;
            let found = at.pool().binary(BinaryOp::Eq, value, best);
            Ok(at.pool().select(found, r[0], none))
        })?;
        let index = output_index(at, &kept.index, &[self.axis], self.keep);
        at.emit(0, &index, place)?;
        at.close(kept.opened);
        Ok(())
    }
}

/// A register carried along the axis, `r`.
impl AnchorForm for CumSum {
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
        let dtype = accumulator(x.dtype);
        let kept = open_kept(at, &[self.axis]);
        let register = at.builder().alloc(crate::expr::Scope::Register, "acc", dtype, &[]);
        let zero = at.pool().constant(0.0, dtype);
        at.builder().store("init", register, &[], zero);
        let (along, opened) = at.open(&[("r", extent)]);
        let mut place = along[0];
        if self.reverse {
            let negated = at.pool().mul_int(place, -1);
            place = at.pool().add_int(negated, extent as i64 - 1);
        }
        let mut index = kept.index.clone();
        index[self.axis] = place;
        let value = at.read_as(0, &index, dtype)?;
        let sum = at.pool().load(register, &[]);
        if self.exclusive {
            at.emit(0, &index, sum)?;
            at.builder().update("update", register, &[], Combiner::Add, value);
        } else {
            at.builder().update("update", register, &[], Combiner::Add, value);
            at.emit(0, &index, sum)?;
        }
        at.close(opened + kept.opened);
        Ok(())
    }
}
