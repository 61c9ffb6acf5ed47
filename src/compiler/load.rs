//! From a model to a session in one call, and the one error type that a caller of the whole chain meets.

use super::{CompileError, Device, Timings, compile};
use crate::onnx::{Bindings, ImportError, Model, ProblemKind};
use crate::runtime::{OpenDevice, RuntimeError, Session};

/// Whose turn it is after an error, and the exit code of the command (`docs/adr/0006-error-kinds.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// File, arrays or flags contradict themselves or one another.
    InvalidInput,
    /// Legal, but not known to Paisley.
    Unsupported,
    /// Legal and known, but beyond what the target allows.
    Limit,
    /// The device is missing or failed.
    Device,
    /// A defect of Paisley.
    Bug,
}

/// Why a model does not load or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It does not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl Error {
    /// Whose turn it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Import(error) => {
                let has = |kind| error.problems.iter().any(|problem| problem.kind == kind);
                if !has(ProblemKind::Invalid) && has(ProblemKind::Unsupported) {
                    ErrorKind::Unsupported
                } else {
                    ErrorKind::InvalidInput
                }
            }
            Error::Compile(CompileError::Nest { .. } | CompileError::Schedule(_)) => ErrorKind::InvalidInput,
            Error::Compile(CompileError::Define { .. }) => ErrorKind::Unsupported,
            Error::Compile(CompileError::Emit { .. }) => ErrorKind::Limit,
            Error::Compile(CompileError::Defect(_)) | Error::Runtime(RuntimeError::Defect(_)) => {
                ErrorKind::Bug
            }
            Error::Runtime(RuntimeError::Input { .. } | RuntimeError::Run(_)) => ErrorKind::InvalidInput,
            Error::Runtime(RuntimeError::Memory { .. }) => ErrorKind::Limit,
            Error::Runtime(RuntimeError::Gpu(_)) => ErrorKind::Device,
        }
    }
}

impl From<&OpenDevice> for Device {
    fn from(device: &OpenDevice) -> Device {
        match device {
            OpenDevice::Reference => Device::Reference,
            OpenDevice::Cpu(target) => Device::Cpu(target.clone()),
            OpenDevice::Gpu(gpu, cpu) => Device::Gpu(Box::new(gpu.target().clone()), cpu.clone()),
        }
    }
}

/// Compiles `model`, with what it leaves open given by `bindings`, and makes it resident on `device`.
///
/// # Errors
/// See [`Error`]; problems of the model are reported all at once.
pub fn load(model: &Model, bindings: &Bindings, device: &OpenDevice) -> Result<Session, Error> {
    let graph = model.graph(bindings)?;
    let plan = compile(&graph, &Device::from(device), &mut Timings::default())?;
    Ok(Session::new(plan, device)?)
}
