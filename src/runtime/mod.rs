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
    /// Where the time went, where that was asked for and can be told.
    pub profile: Option<Profile>,
    /// Copies between host and device.
    pub copies: usize,
    /// Their bytes.
    pub copied_bytes: u64,
}

/// Where the time of a run went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The time of each step of the plan.
    pub step_ns: Vec<u64>,
    /// The mean part of it that each thread waited for the others; `None` where no threads share a step.
    pub wait: Option<Vec<f64>>,
    /// Everything that ran, each row's in order of time.
    pub spans: Vec<Span>,
}

/// A piece of a step without a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Who ran it.
    pub row: Row,
    /// Of which step of the plan it is a part.
    pub step: usize,
    /// When it began, in nanoseconds from the run's begin.
    pub begin_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

/// Who runs a piece of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// A thread of the processor, or all of them where they are not told apart.
    Thread(usize),
    /// The adapter, whose clock is set to the host's where a series of its steps begins.
    Adapter,
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
