//! Layer 4: the reference interpreter. What it computes is what a nest means.
//!
//! # Numbers
//!
//! Floats are computed in f64 whatever their type and rounded to the type of the buffer at each store (an accumulator in an
//! f32 buffer is rounded at each addition); casts round as well, and so do operations that jump (`floor`, comparisons, casts to
//! integers ...) their operands: a tie in f32 is a tie. Integers are exact and wrap at the width of their type after each
//! operation. A bool is 0 or 1.
//!
//! # Order
//!
//! Loops run in order, with two exceptions. The statements of an invocation loop that contains a barrier run in phases: all
//! invocations up to the barrier, then all go on. A vector loop runs all its lanes of one statement before the next one.
//! Guards and selects evaluate no operand that they do not choose; other operations evaluate all.
//!
//! # Errors
//!
//! An access out of range, a read of what was not written, an output that is not written everywhere, and a race: two
//! iterations of a parallel or workgroup loop touching one element, one writing, or two invocations (of one loop, or of loops
//! of one workgroup after one another) doing so without a barrier between. Combining is writing. Races are found as they
//! happen with the data at hand, from the last write and the last reads of each element.

mod code;
mod compile;
mod machine;
mod shadow;
mod steps;
#[cfg(test)]
mod tests;

use crate::loopir::{Nest, Role, VerifyError};
use crate::tensor::{DType, Tensor};

pub use compile::Program;

/// What is checked while a nest runs. Accesses out of range always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Report races; takes 72 bytes for each element that can be written.
    pub check_races: bool,
    /// Report reads of elements that were not written, and output elements that never are.
    pub check_uninitialised: bool,
}

impl Options {
    /// All checks.
    pub const ALL: Options = Options { check_races: true, check_uninitialised: true };
    /// No checks; what was not written reads as something.
    pub const FAST: Options = Options { check_races: false, check_uninitialised: false };
}

/// Why a nest did not run to its end.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InterpError {
    /// The nest is not well-formed.
    #[error("the nest is not valid: {}", .0.iter().map(VerifyError::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<VerifyError>),
    /// Too few or too many tensors.
    #[error("the nest has {expected} inputs and constants, but {given} tensors were given")]
    ParamCount {
        /// The inputs and constants of the nest.
        expected: usize,
        /// The tensors given.
        given: usize,
    },
    /// A tensor that does not fit its parameter.
    #[error("parameter `{buffer}` is {expected:?}, but a tensor of {given:?} was given")]
    Param {
        /// The parameter.
        buffer: String,
        /// Its type and shape.
        expected: (DType, Vec<usize>),
        /// Those of the tensor.
        given: (DType, Vec<usize>),
    },
    /// A buffer is larger than the memory of the machine.
    #[error("no memory for the {bytes} bytes of buffer `{buffer}`")]
    OutOfMemory {
        /// The buffer.
        buffer: String,
        /// What it needs, for all invocations together.
        bytes: usize,
    },
    /// An index outside of its dimension.
    #[error(
        "block `{block}` accesses buffer `{buffer}` at {index} in dimension {axis}, whose extent is {extent}"
    )]
    OutOfBounds {
        /// The block.
        block: String,
        /// The buffer.
        buffer: String,
        /// The dimension.
        axis: usize,
        /// The index there.
        index: i64,
        /// The extent there.
        extent: usize,
    },
    /// A read before any write.
    #[error("block `{block}` reads buffer `{buffer}` at {index:?}, which was not written")]
    Uninitialised {
        /// The block.
        block: String,
        /// The buffer.
        buffer: String,
        /// The element.
        index: Vec<usize>,
    },
    /// Two accesses whose order is not defined.
    #[error(
        "blocks `{first}` and `{second}` both access buffer `{buffer}` at {index:?}, one writing, in {between} whose \
         order is not defined"
    )]
    Race {
        /// The block of the earlier access.
        first: String,
        /// The block of the later one.
        second: String,
        /// The buffer.
        buffer: String,
        /// The element.
        index: Vec<usize>,
        /// Which iterations: those of a loop, or invocations without a barrier between.
        between: String,
    },
    /// An output with a hole.
    #[error("output `{buffer}` is never written at {index:?}")]
    NotWritten {
        /// The output.
        buffer: String,
        /// Its first element that was not written.
        index: Vec<usize>,
    },
}

/// Runs `nest` on its inputs and constants, in the order of its parameters, with all checks; returns its outputs in that
/// order. Row padding has no effect.
///
/// # Errors
/// When the nest is malformed, the tensors do not fit it, or the run fails a check.
pub fn run(nest: &Nest, params: &[Tensor]) -> Result<Vec<Tensor>, InterpError> {
    run_with(nest, params, Options::ALL)
}

/// As [`run`], with the checks of `options`.
///
/// # Errors
/// As [`run`].
pub fn run_with(nest: &Nest, params: &[Tensor], options: Options) -> Result<Vec<Tensor>, InterpError> {
    Program::new(nest)?.run(params, options)
}

/// Whether a parameter of that role is given by the caller.
fn is_given(role: Role) -> bool {
    match role {
        Role::Input | Role::Constant => true,
        Role::Packed | Role::Output | Role::Local => false,
    }
}
