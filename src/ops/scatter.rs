//! Writes at positions that are data. An index `i < 0` means `i + extent`; a write outside the tensor does not happen.

use super::gather::along_axis;
use super::{Attributes, Fact, OpDef, OpError, checked_axis, exactly, index, product, same_dtype};

/// What becomes of an element that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterReduction {
    /// It is replaced; of several writes to one place any may win.
    Replace,
    /// It is added to.
    Add,
    /// It is multiplied.
    Multiply,
    /// The larger stays.
    Max,
    /// The smaller stays.
    Min,
}

/// `y = x`, then `y[i.., indices[i.., j, k..], k..]` takes `updates[i.., j, k..]`, the index at `axis`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScatterElements {
    /// The axis of `x` the indices select from.
    pub axis: usize,
    /// How a write joins what is there.
    pub reduction: ScatterReduction,
}

impl OpDef for ScatterElements {
    fn name(&self) -> &'static str {
        "scatter_elements"
    }

    fn attributes(&self) -> String {
        let attributes = Attributes::default().always("axis", self.axis);
        attributes.unless(ScatterReduction::Replace, "reduction", self.reduction).finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices, updates] = exactly(inputs, "3")?;
        index(1, indices)?;
        same_dtype(2, updates, x.dtype)?;
        checked_axis(self.axis, x)?;
        along_axis(x, indices, self.axis)?;
        if updates.shape != indices.shape {
            return Err(OpError::shape(format!("updates {updates} have not the shape of indices {indices}")));
        }
        Ok(vec![x.clone()])
    }

    fn flop(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        if self.reduction == ScatterReduction::Replace { 0 } else { product(&inputs[2].shape) }
    }
}

/// `y = x`, then `y[indices[i.., 0], indices[i.., 1], .., s..]` takes `updates[i.., s..]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScatterNd {
    /// How a write joins what is there.
    pub reduction: ScatterReduction,
}

impl OpDef for ScatterNd {
    fn name(&self) -> &'static str {
        "scatter_nd"
    }

    fn attributes(&self) -> String {
        Attributes::default().unless(ScatterReduction::Replace, "reduction", self.reduction).finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices, updates] = exactly(inputs, "3")?;
        index(1, indices)?;
        same_dtype(2, updates, x.dtype)?;
        let misfit =
            || OpError::shape(format!("{indices} and {updates} are no positions in and parts of {x}"));
        let (&depth, outer) = indices.shape.split_last().ok_or_else(misfit)?;
        if depth > x.rank() || updates.shape != [outer, &x.shape[depth..]].concat() {
            return Err(misfit());
        }
        Ok(vec![x.clone()])
    }

    fn flop(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        if self.reduction == ScatterReduction::Replace { 0 } else { product(&inputs[2].shape) }
    }
}
