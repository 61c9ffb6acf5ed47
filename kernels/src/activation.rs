//! Activations: `x * gate(x)` with a gate between 0 and 1, each computed at once while what it follows is in the first-level cache.

#[cfg(all(test, unix))]
mod tests;

/// A function that follows a sum. Every gate is within 2^-21 of the one in exact arithmetic; infinities and NaN give what the
/// product gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activation {
    /// `x * sigmoid(x)` (Elfwing, Uchibe, Doya, 2018).
    Silu,
    /// `x * clamp(x / 6 + 1 / 2, 0, 1)` (Howard et al., 2019).
    HardSwish,
    /// `x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks, Gimpel, 2016).
    Gelu,
}

impl Activation {
    /// Every activation, in the order of the declaration.
    pub const ALL: [Activation; 3] = [Activation::Silu, Activation::HardSwish, Activation::Gelu];

    /// The name in text forms.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::HardSwish => "hard_swish",
            Activation::Gelu => "gelu",
        }
    }

    /// The value in double precision.
    pub fn eval_f64(self, x: f64) -> f64 {
        use crate::scalar::UnaryOp::{Erf, Sigmoid};
        match self {
            Activation::Silu => x * Sigmoid.eval_f64(x),
            Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Activation::Gelu => x * (0.5 + 0.5 * Erf.eval_f64(x * std::f64::consts::FRAC_1_SQRT_2)),
        }
    }
}

/// The loops.
pub(crate) mod body {
    use super::Activation;
    use crate::simd::Vector;
    use crate::simd::bundle::Bundle;
    use crate::vector::body::IN_FLIGHT;
    use crate::vector::math;

    /// `target[i, j] = activation(source[i, j])` for `i < rows` and `j < cols`, with pitches from row to row.
    ///
    /// # Safety
    /// The CPU has the instruction set of `V`; the elements of the source are valid for reads, those of the target for writes; both
    /// are the same elements or do not overlap.
    #[inline(always)]
    pub(crate) unsafe fn activate<V: Vector>(
        activation: Activation,
        target: (*mut f32, isize),
        source: (*const f32, isize),
        extents: (usize, usize),
    ) {
        /// The loops with `$function` for the activation. A macro, since a closure might stay a call without the instruction
        /// set's features.
        macro_rules! loops {
            ($function:path) => {{
                let ((target, target_pitch), (source, source_pitch), (rows, cols)) =
                    (target, source, extents);
                for row in 0..rows as isize {
                    // SAFETY: the caller grants the rows; `at + LANES <= cols` in the loops and `at + rest == cols` behind them.
                    unsafe {
                        let target = target.offset(row * target_pitch);
                        let source = source.offset(row * source_pitch);
                        let mut at = 0;
                        while at + IN_FLIGHT * V::LANES <= cols {
                            let x = Bundle::<V, IN_FLIGHT>::load(source.add(at));
                            $function(x).store(target.add(at));
                            at += IN_FLIGHT * V::LANES;
                        }
                        while at + V::LANES <= cols {
                            $function(V::load(source.add(at))).store(target.add(at));
                            at += V::LANES;
                        }
                        if at < cols {
                            let rest = cols - at;
                            $function(V::load_first(source.add(at), rest)).store_first(target.add(at), rest);
                        }
                    }
                }
            }};
        }
        match activation {
            Activation::Silu => loops!(math::silu),
            Activation::HardSwish => loops!(math::hard_swish),
            Activation::Gelu => loops!(math::gelu),
        }
    }
}
