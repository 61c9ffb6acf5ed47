//! The largest or smallest elements.

use super::{Attributes, Fact, OpDef, OpError, checked_axis, exactly, numeric, product};
use crate::tensor::DType;

/// The `k` largest (or smallest) elements along `axis`, in descending (ascending) order, and their positions as i64. Of
/// equal elements the one with the lower position comes first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopK {
    /// How many.
    pub k: usize,
    /// The axis that is searched.
    pub axis: usize,
    /// Whether the largest are meant.
    pub largest: bool,
}

impl OpDef for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn attributes(&self) -> String {
        let attributes = Attributes::default().always("k", self.k).always("axis", self.axis);
        attributes.flag("smallest", !self.largest).finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        numeric(0, x)?;
        if self.k > x.shape[checked_axis(self.axis, x)?] {
            return Err(OpError::shape(format!("axis {} of {x} has not {} elements", self.axis, self.k)));
        }
        let mut shape = x.shape.clone();
        shape[self.axis] = self.k;
        Ok(vec![Fact::new(x.dtype, &shape), Fact::new(DType::I64, &shape)])
    }

    fn flop(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        let rounds = usize::BITS - self.k.leading_zeros();
        product(&inputs[0].shape).saturating_mul(u64::from(rounds))
    }
}
