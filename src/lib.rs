//! Paisley compiles ONNX models to scheduled loop nests and emits them as WGSL compute shaders or CPU programs.
//!
//! A program that runs a model needs five things, all at the crate's root: [`Model`] (a decoded file), [`Bindings`] (extents of its
//! open dimensions), [`OpenDevice`] (where to run), [`load`] (which compiles the one for the other) and the [`Session`] that it gives.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod analysis;
pub mod base;
pub mod cli;
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

pub use compiler::load;
pub use onnx::{Bindings, Model};
pub use runtime::{DeviceChoice, DeviceOptions, OpenDevice, Session};
pub use tensor::{DType, Tensor};

/// The README's program is compiled and run with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
