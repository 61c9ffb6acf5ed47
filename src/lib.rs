//! Paisley compiles ONNX models to scheduled loop nests and emits them as WGSL compute shaders or CPU programs.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod base;
pub mod expr;
pub mod graph;
pub mod onnx;
pub mod ops;
pub mod passes;
pub mod tensor;
