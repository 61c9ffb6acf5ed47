//! Comparison of tensors with stated tolerances.

use super::Tensor;

/// What difference is allowed: `|a - b| <= absolute + relative * |b|` elementwise, or relative to the largest `|b|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// `|a - b| <= absolute + relative * |b|` for every element.
    Elementwise {
        /// The part that does not depend on the value.
        absolute: f64,
        /// The part that grows with the expected value.
        relative: f64,
    },
    /// `max |a - b| <= bound * max |b|`.
    OfLargest(f64),
}

impl Tolerance {
    /// f32 kernels against the reference interpreter (design, section 9).
    pub const KERNEL_F32: Tolerance = Tolerance::Elementwise { absolute: 1e-5, relative: 1e-4 };
}

/// The outcome of [`compare`].
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Whether every element is within the tolerance.
    pub within: bool,
    /// `max |a - b|` over the elements where both are finite; infinite when types, shapes or non-finite values differ.
    pub max_absolute: f64,
    /// `max |a - b| / max |b|`; infinite as above.
    pub max_of_largest: f64,
    /// Row-major index of the worst element, when there is a difference.
    pub worst: Option<usize>,
}

/// Compares `actual` with `expected`. Equal infinities match; NaN matches NaN.
pub fn compare(actual: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Comparison {
    if actual.dtype() != expected.dtype() || actual.shape() != expected.shape() {
        return Comparison {
            within: false,
            max_absolute: f64::INFINITY,
            max_of_largest: f64::INFINITY,
            worst: None,
        };
    }
    let finite = |x: f64| if x.is_finite() { x.abs() } else { 0.0 };
    let largest = (0..expected.len()).map(|i| finite(expected.get_f64(i))).fold(0.0, f64::max);
    let (mut within, mut max_absolute, mut worst) = (true, 0.0, None);
    for i in 0..expected.len() {
        let (a, b) = (actual.get_f64(i), expected.get_f64(i));
        let difference = if a == b || (a.is_nan() && b.is_nan()) {
            0.0
        } else if a.is_finite() && b.is_finite() {
            (a - b).abs()
        } else {
            f64::INFINITY
        };
        let allowed = match tolerance {
            Tolerance::Elementwise { absolute, relative } => absolute + relative * finite(b),
            Tolerance::OfLargest(bound) => bound * largest,
        };
        within &= difference <= allowed;
        if difference > max_absolute {
            (max_absolute, worst) = (difference, Some(i));
        }
    }
    let max_of_largest = if max_absolute == 0.0 { 0.0 } else { max_absolute / largest };
    Comparison { within, max_absolute, max_of_largest, worst }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_values_must_agree() {
        let a = Tensor::from_slice(&[3], &[1.0f32, f32::NAN, f32::INFINITY]);
        assert!(compare(&a, &a, Tolerance::OfLargest(0.0)).within);
        let b = Tensor::from_slice(&[3], &[1.0f32, f32::NAN, f32::NEG_INFINITY]);
        assert_eq!(compare(&a, &b, Tolerance::KERNEL_F32).worst, Some(2));
    }

    #[test]
    fn shapes_must_agree() {
        let a = Tensor::from_slice(&[2], &[1.0f32, 2.0]);
        assert!(!compare(&a, &a.reshaped(&[1, 2]).unwrap(), Tolerance::KERNEL_F32).within);
    }
}
