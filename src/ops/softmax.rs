//! Softmax.

use super::{Attributes, Fact, OpDef, OpError, checked_axis, exactly, float, product};

/// `y = exp(x - m) / sum of exp(x - m)` along `axis`, `m` the largest of `x` there; or the logarithm of that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Softmax {
    /// The axis along which the sum is 1.
    pub axis: usize,
    /// Whether the result is the logarithm, `x - m - log(sum of exp(x - m))`.
    pub log: bool,
}

impl OpDef for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn attributes(&self) -> String {
        Attributes::default().always("axis", self.axis).finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        float(0, x)?;
        checked_axis(self.axis, x)?;
        Ok(vec![x.clone()])
    }

    fn flop(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        product(&inputs[0].shape).saturating_mul(5)
    }
}
