//! CPU micro-kernels of Paisley, and the scalar operations they and the rest of the compiler share.
#![warn(missing_docs)]

pub mod pool;
pub mod program;
pub mod scalar;

pub use scalar::{BinaryOp, UnaryOp};
