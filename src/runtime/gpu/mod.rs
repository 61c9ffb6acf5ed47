//! Graphics adapters through wgpu: which there are, device memory, pipelines, and programs of dispatches and copies.
//!
//! The only module that names wgpu. It takes WGSL text, whoever wrote it, and promises:
//! - every failure is a [`GpuError`]: a wrong shader, a failed allocation, a lost device or an exceeded time limit
//!   neither panics nor ends the process, and a new device can be opened afterwards;
//! - every wait is bounded by [`GpuOptions::timeout`];
//! - what does not fit the device's limits is refused before anything is submitted.
//!
//! # Binding convention
//! A kernel's storage buffers are `@group(0) @binding(0)`, `@binding(1)` and so on, in the order of
//! [`GpuKernel::bindings`].
//!
//! # Memory
//! A [`Memory`] is one buffer, and a [`BufferRange`] a piece of it. In one dispatch all bindings of one memory must be
//! of the same [`BindingKind`], as the driver tracks whole buffers. So intermediates share a memory that kernels bind
//! `ReadWrite` throughout, also where they only read, and constants have memories of their own, bound `Read`.

mod adapter;
mod device;
mod error;
mod executor;
mod measure;
mod memory;
mod pipeline;
mod program;
mod storage;

pub use adapter::adapters;
pub use device::{Gpu, GpuOptions};
pub use error::GpuError;
pub use executor::GpuExecutor;
pub use measure::measure_rates;
pub use memory::{BufferRange, Memory};
pub use pipeline::{BindingKind, GpuKernel};
pub use program::{Dispatch, GpuProgram, RunReport, Step, Timing};

#[cfg(test)]
mod tests;
