//! Layer 8: what turns scheduled nests into code: WGSL compute shaders for adapters, programs over micro-kernels for CPUs.

pub mod cpu;
pub mod wgsl;
