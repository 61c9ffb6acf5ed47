//! CPU micro-kernels of Paisley, and the scalar operations they and the rest of the compiler share.
#![warn(missing_docs)]

pub mod activation;
mod copy;
#[cfg(all(test, unix))]
mod guard;
mod integer;
pub mod isa;
mod plane;
pub mod pool;
pub mod pooling;
pub mod program;
pub mod rates;
pub mod scalar;
mod simd;
pub mod table;
pub mod tile;
pub mod transform;
pub mod vector;
pub mod window;

pub use activation::Activation;
pub use isa::Isa;
pub use scalar::{BinaryKind, BinaryOp, Comparison, OnIntegers, UnaryOp};
pub use table::{KernelTable, table};
pub use tile::dots::{DotArgs, DotKernel};
pub use tile::{Factor, Finish, TileArgs, TileKernel};
