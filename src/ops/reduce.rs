//! Reductions over axes, extreme positions and running sums.

use super::{Attributes, Fact, OpDef, OpError, checked_axis, exactly, numeric, product};
use crate::tensor::DType;

/// What becomes of the elements that are reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    /// The sum; 0 of nothing.
    Sum,
    /// The sum over the number of elements.
    Mean,
    /// The largest; the type's smallest value of nothing.
    Max,
    /// The smallest; the type's largest value of nothing.
    Min,
    /// The product; 1 of nothing.
    Product,
    /// The sum of magnitudes.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The sum of squares.
    SumSquare,
    /// The logarithm of the sum.
    LogSum,
    /// The logarithm of the sum of exponentials, computed without overflow.
    LogSumExp,
}

/// `y = kind of x over axes`. A reduced axis is kept with extent 1 or dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// What becomes of the elements.
    pub kind: ReduceKind,
    /// Ascending, without repetition.
    pub axes: Vec<usize>,
    /// Whether a reduced axis stays with extent 1.
    pub keep: bool,
}

fn reduced(fact: &Fact, axes: &[usize], keep: bool) -> Vec<usize> {
    let dims = fact.shape.iter().enumerate();
    dims.filter_map(|(axis, &dim)| if !axes.contains(&axis) { Some(dim) } else { keep.then_some(1) })
        .collect()
}

impl OpDef for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "reduce_sum",
            ReduceKind::Mean => "reduce_mean",
            ReduceKind::Max => "reduce_max",
            ReduceKind::Min => "reduce_min",
            ReduceKind::Product => "reduce_product",
            ReduceKind::L1 => "reduce_l1",
            ReduceKind::L2 => "reduce_l2",
            ReduceKind::SumSquare => "reduce_sum_square",
            ReduceKind::LogSum => "reduce_log_sum",
            ReduceKind::LogSumExp => "reduce_log_sum_exp",
        }
    }

    fn attributes(&self) -> String {
        Attributes::default().always("axes", &self.axes).flag("keep", self.keep).finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        for &axis in &self.axes {
            checked_axis(axis, x)?;
        }
        if !self.axes.is_sorted_by(|a, b| a < b) {
            return Err(OpError::shape(format!("the axes {:?} are not ascending", self.axes)));
        }
        match self.kind {
            ReduceKind::Max | ReduceKind::Min => {}
            ReduceKind::Sum
            | ReduceKind::Mean
            | ReduceKind::Product
            | ReduceKind::L1
            | ReduceKind::L2
            | ReduceKind::SumSquare
            | ReduceKind::LogSum
            | ReduceKind::LogSumExp => numeric(0, x)?,
        }
        Ok(vec![Fact { dtype: x.dtype, shape: reduced(x, &self.axes, self.keep) }])
    }

    fn flop(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let (each, last) = match self.kind {
            ReduceKind::Sum | ReduceKind::Max | ReduceKind::Min | ReduceKind::Product => (1, 0),
            ReduceKind::Mean | ReduceKind::LogSum => (1, 1),
            ReduceKind::L1 | ReduceKind::SumSquare => (2, 0),
            ReduceKind::L2 => (2, 1),
            ReduceKind::LogSumExp => (4, 2),
        };
        let (read, written) = (product(&inputs[0].shape), product(&outputs[0].shape));
        read.saturating_mul(each).saturating_add(written.saturating_mul(last))
    }
}

/// Which element an [`ArgReduce`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extreme {
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// `y` = the position along `axis` of the extreme element, an i64.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgReduce {
    /// Which element is looked for.
    pub extreme: Extreme,
    /// The axis that is reduced; its extent must be positive.
    pub axis: usize,
    /// Whether the axis stays with extent 1.
    pub keep: bool,
    /// Of equal elements the last one counts instead of the first.
    pub last: bool,
}

impl OpDef for ArgReduce {
    fn name(&self) -> &'static str {
        match self.extreme {
            Extreme::Max => "arg_max",
            Extreme::Min => "arg_min",
        }
    }

    fn attributes(&self) -> String {
        Attributes::default()
            .always("axis", self.axis)
            .flag("keep", self.keep)
            .flag("last", self.last)
            .finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        numeric(0, x)?;
        if x.shape[checked_axis(self.axis, x)?] == 0 {
            return Err(OpError::shape(format!("axis {} of {x} has no element", self.axis)));
        }
        Ok(vec![Fact { dtype: DType::I64, shape: reduced(x, &[self.axis], self.keep) }])
    }

    fn flop(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        product(&inputs[0].shape)
    }
}

/// `y[.., i, ..] = sum of x[.., j, ..] over j <= i` along `axis`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CumSum {
    /// The axis along which the sum runs.
    pub axis: usize,
    /// `j < i` instead of `j <= i`.
    pub exclusive: bool,
    /// From the end: `j >= i`, or `j > i`.
    pub reverse: bool,
}

impl OpDef for CumSum {
    fn name(&self) -> &'static str {
        "cum_sum"
    }

    fn attributes(&self) -> String {
        Attributes::default()
            .always("axis", self.axis)
            .flag("exclusive", self.exclusive)
            .flag("reverse", self.reverse)
            .finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        numeric(0, x)?;
        checked_axis(self.axis, x)?;
        Ok(vec![x.clone()])
    }

    fn flop(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        product(&inputs[0].shape)
    }
}
