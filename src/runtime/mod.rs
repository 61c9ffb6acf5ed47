//! Layer 9: running plans on devices.

pub mod cpu;
mod device;
pub mod gpu;
pub mod reference;
mod session;

pub use device::{DeviceChoice, DeviceChoiceError, DeviceOptions, OpenDevice};
pub use session::{Placement, Session};

use crate::tensor::Tensor;

/// What a run gave and took.
#[derive(Clone, Debug)]
pub struct Run {
    /// The outputs, in the plan's order.
    pub outputs: Vec<Tensor>,
    /// The time without copies from and to the device; `None` where the device cannot tell.
    pub device_ns: Option<u64>,
    /// The time of each step, where it was asked for and can be told.
    pub step_ns: Option<Vec<u64>>,
    /// Copies between host and device.
    pub copies: usize,
    /// Their bytes.
    pub copied_bytes: u64,
}

/// Why a plan does not run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The inputs are not those of the model.
    #[error("input '{name}': {problem}")]
    Input {
        /// The input.
        name: String,
        /// What is wrong, and what the model wants.
        problem: String,
    },
    /// The computation cannot be carried out for these inputs.
    #[error("{0}")]
    Run(String),
    /// Its values do not fit in memory.
    #[error(
        "it needs {bytes} bytes of memory, more than there are; choose smaller shapes or another machine"
    )]
    Memory {
        /// Bytes of all of them together.
        bytes: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Gpu(#[from] gpu::GpuError),
    /// A defect of Paisley.
    #[error("{0} (this is a defect of Paisley; please report it)")]
    Defect(String),
}

impl RuntimeError {
    pub(crate) fn defect(error: impl std::fmt::Display) -> RuntimeError {
        RuntimeError::Defect(error.to_string())
    }

    pub(crate) fn run(error: impl std::fmt::Display) -> RuntimeError {
        RuntimeError::Run(error.to_string())
    }
}
