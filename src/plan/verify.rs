//! What is checked of a plan.

use super::within::Written;
use super::{Lifetime, Place, Plan, Value, ValueId};
use std::ops::Range;

/// A defect of a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two values overlap while both are needed.
    #[error("values '{first}' and '{second}' share memory and are both needed at step {step}")]
    Overlap {
        /// A value.
        first: String,
        /// Another.
        second: String,
        /// The step.
        step: usize,
    },
    /// A value is read before a step has made it.
    #[error("step {step} reads value '{value}' before it is made")]
    Early {
        /// The step.
        step: usize,
        /// The value.
        value: String,
    },
    /// A step writes what is not its to write: what another step has written, or what no step makes.
    #[error("step {step} writes to value '{value}' where it is made already")]
    Twice {
        /// The step.
        step: usize,
        /// The value.
        value: String,
    },
    /// A value does not lie in the memory that it is a part of.
    #[error("value '{part}' lies partly outside of '{whole}'")]
    Outside {
        /// The value.
        part: String,
        /// What it should lie within.
        whole: String,
    },
    /// A step's values are not its kernel's parameters.
    #[error("step {step} gives {given} values to kernel '{kernel}' of {wanted} parameters")]
    Bindings {
        /// The step.
        step: usize,
        /// The kernel.
        kernel: String,
        /// Values given.
        given: usize,
        /// Parameters.
        wanted: usize,
    },
}

impl Plan {
    /// Checks what the module promises.
    ///
    /// # Errors
    /// The first defect.
    pub fn verify(&self) -> Result<(), PlanError> {
        for (id, value) in self.values.iter_with_ids() {
            let Place::Within { whole, offset_bytes } = value.place else { continue };
            let fits = offset_bytes + value.storage_bytes() <= self.values[whole].storage_bytes();
            if !fits || !self.ends(id) {
                let (part, whole) = (value.name.clone(), self.values[whole].name.clone());
                return Err(PlanError::Outside { part, whole });
            }
        }
        let mut made: Vec<Written> = vec![Written::default(); self.values.len()];
        for (id, value) in self.values.iter_with_ids() {
            match value.place {
                Place::Input(_) | Place::Constant(_) | Place::Resident => {
                    made[id.index()].add(0..value.storage_bytes());
                }
                Place::Arena { .. } | Place::Output(_) | Place::Within { .. } => {}
            }
        }
        for (place, step) in self.steps.iter().enumerate() {
            let kernel = self.kernel(step);
            if step.bindings.len() != kernel.nest.params.len() {
                return Err(PlanError::Bindings {
                    step: place,
                    kernel: kernel.name.clone(),
                    given: step.bindings.len(),
                    wanted: kernel.nest.params.len(),
                });
            }
            for value in self.read(step) {
                let (owner, bytes) = self.bytes(value);
                if !made[owner.index()].has(&bytes) {
                    return Err(PlanError::Early { step: place, value: self.values[value].name.clone() });
                }
            }
            for value in self.written(step) {
                let (owner, bytes) = self.bytes(value);
                if !made[owner.index()].add(bytes) {
                    return Err(PlanError::Twice { step: place, value: self.values[value].name.clone() });
                }
            }
        }
        let lifetimes = self.lifetimes();
        for (i, (a, first)) in lifetimes.iter().enumerate() {
            for (b, second) in &lifetimes[..i] {
                let span = |value: &Value, lifetime: &Lifetime| match value.place {
                    Place::Arena { offset_bytes } => offset_bytes..offset_bytes + lifetime.size_bytes,
                    Place::Input(_)
                    | Place::Constant(_)
                    | Place::Resident
                    | Place::Output(_)
                    | Place::Within { .. } => 0..0,
                };
                let (x, y) = (span(&self.values[*a], first), span(&self.values[*b], second));
                if first.meets(second) && x.start < y.end && y.start < x.end {
                    return Err(PlanError::Overlap {
                        first: self.values[*a].name.clone(),
                        second: self.values[*b].name.clone(),
                        step: first.first.max(second.first),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether the chain of values that a value lies within ends, as it does unless it closes a circle.
    fn ends(&self, value: ValueId) -> bool {
        let whole = |id: &ValueId| match self.values[*id].place {
            Place::Within { whole, .. } => Some(whole),
            Place::Input(_)
            | Place::Constant(_)
            | Place::Resident
            | Place::Output(_)
            | Place::Arena { .. } => None,
        };
        std::iter::successors(Some(value), whole).nth(self.values.len()).is_none()
    }

    /// The value in whose memory a value lies, and the bytes of it.
    fn bytes(&self, value: ValueId) -> (ValueId, Range<usize>) {
        let (owner, start) = self.memory(value);
        (owner, start..start + self.values[value].storage_bytes())
    }
}
