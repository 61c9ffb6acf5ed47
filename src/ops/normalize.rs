//! Normalisation to unit variance. Layer, instance, group and root-mean-square normalisation are this operator between
//! views, followed by a map for scale and bias.

use super::{Attributes, Fact, OpDef, OpError, exactly, float, product};

/// `y = (x - mean) / sqrt(variance + epsilon)` with both moments over the axes from `axis` on; or, not centred,
/// `y = x / sqrt(mean of x^2 + epsilon)`. The variance is that of the population. Moments of 16-bit floats are f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    /// The first axis that is normalised over; all after it are too.
    pub axis: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the mean is subtracted.
    pub center: bool,
}

impl OpDef for Normalize {
    fn name(&self) -> &'static str {
        if self.center { "normalize" } else { "rms_normalize" }
    }

    fn attributes(&self) -> String {
        Attributes::default().always("axis", self.axis).always("epsilon", self.epsilon).finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        float(0, x)?;
        if self.axis > x.rank() {
            return Err(OpError::shape(format!("there is no axis {} in {x}", self.axis)));
        }
        Ok(vec![x.clone()])
    }

    fn flop(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        product(&inputs[0].shape).saturating_mul(if self.center { 6 } else { 3 })
    }
}
