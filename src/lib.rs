//! Paisley compiles ONNX models to scheduled loop nests and emits them as WGSL compute shaders or CPU programs.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod analysis;
pub mod base;
pub mod codegen;
pub mod compiler;
pub mod expr;
pub mod graph;
pub mod interp;
pub mod loopir;
pub mod onnx;
pub mod ops;
pub mod passes;
pub mod plan;
pub mod runtime;
pub mod schedule;
pub mod target;
pub mod tensor;
