//! Layer 7: ONNX files in and out. Nothing else in Paisley knows a name of an ONNX operator.
//!
//! [`Model::from_bytes`] decodes a file, [`Model::graph`] turns it into a [`Graph`](crate::graph::Graph) for concrete shapes:
//! symbolic dimensions are bound, shapes are inferred by the rules of [`crate::ops`] and whatever is known is computed, so
//! that shape arithmetic leaves no trace. The importer is a table of rows (`rows/`), one an ONNX operator and range of
//! versions, each composing operators of the graph; every problem of the file is collected before any is reported.

mod call;
mod import;
mod integer_operators;
mod model;
mod problem;
mod proto;
mod rows;
mod weights;

pub use model::{Bindings, Dim, InputDecl, Model};
pub use problem::{ImportError, Problem, ProblemKind};
pub use weights::{DataFolder, NoFolder};

/// The oldest version of the standard operators that is read.
pub const OLDEST_OPSET: i64 = 7;
/// The newest version of the standard operators that is read.
pub const NEWEST_OPSET: i64 = 28;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
