//! Pooling over windows of the spatial dimensions.

use super::{Attributes, Fact, OpDef, OpError, exactly, numeric, product, window_extent};
use crate::tensor::DType;

/// What becomes of the elements of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// The largest; padding never wins.
    Max,
    /// The position of the largest in the flattened spatial dimensions, as i64; of equal elements the first. Padding never
    /// wins; where a window has no other element, or NaN makes every comparison fail, it is the last position there is.
    ArgMax,
    /// The sum over the number of elements of the window that are not padding.
    Average,
    /// The sum over the number of elements of the window, padding included and the overhang excluded.
    AverageWithPads,
    /// `(sum of |x|^p)^(1/p)`; padding counts as 0.
    Norm(i64),
}

/// `y[n, c, p..] = kind over r.. of x[n, c, p * stride + r * dilation - pad..]`.
///
/// The output extents follow from the extents padded by `pads` and then, at the end, by `overhang`: the elements that
/// only a rounded-up number of windows reaches and that no kind counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// What becomes of the elements of a window.
    pub kind: PoolKind,
    /// Extents of the window, one a spatial dimension, positive.
    pub kernel: Vec<usize>,
    /// One a spatial dimension, positive.
    pub strides: Vec<usize>,
    /// One a spatial dimension, positive.
    pub dilations: Vec<usize>,
    /// Elements of padding before and after each spatial dimension.
    pub pads: Vec<(usize, usize)>,
    /// Elements behind the padding, one a spatial dimension.
    pub overhang: Vec<usize>,
}

impl OpDef for Pool {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "max_pool",
            PoolKind::ArgMax => "arg_max_pool",
            PoolKind::Average | PoolKind::AverageWithPads => "average_pool",
            PoolKind::Norm(_) => "norm_pool",
        }
    }

    fn attributes(&self) -> String {
        let rank = self.kernel.len();
        let attributes = Attributes::default()
            .always("kernel", &self.kernel)
            .unless(vec![1; rank], "strides", self.strides.clone())
            .unless(vec![1; rank], "dilations", self.dilations.clone())
            .unless(vec![(0, 0); rank], "pads", self.pads.clone())
            .unless(vec![0; rank], "overhang", self.overhang.clone());
        match self.kind {
            PoolKind::Max | PoolKind::ArgMax | PoolKind::Average => attributes,
            PoolKind::AverageWithPads => attributes.flag("counting pads", true),
            PoolKind::Norm(p) => attributes.always("p", p),
        }
        .finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        numeric(0, x)?;
        let rank = self.kernel.len();
        let lengths = [self.strides.len(), self.dilations.len(), self.pads.len(), self.overhang.len()];
        if x.rank() != rank + 2 || lengths != [rank; 4] {
            return Err(OpError::shape(format!("{} does not fit {x}", self.attributes())));
        }
        let mut shape = x.shape[..2].to_vec();
        for axis in 0..rank {
            let (before, after) = self.pads[axis];
            let after = after.saturating_add(self.overhang[axis]);
            shape.push(window_extent(
                x.shape[axis + 2],
                self.kernel[axis],
                self.strides[axis],
                self.dilations[axis],
                (before, after),
            )?);
        }
        let dtype = match self.kind {
            PoolKind::ArgMax => DType::I64,
            PoolKind::Max | PoolKind::Average | PoolKind::AverageWithPads | PoolKind::Norm(_) => x.dtype,
        };
        Ok(vec![Fact { dtype, shape }])
    }

    fn flop(&self, _inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        product(&outputs[0].shape).saturating_mul(product(&self.kernel))
    }
}
