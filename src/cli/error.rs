//! Why a command ends without an answer, and its exit code.

use crate::compiler::{CompileError, Error, ErrorKind};
use crate::onnx::ImportError;
use crate::runtime::RuntimeError;
use std::io;

/// What a command that ran through says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Exit code 0.
    Yes,
    /// Exit code 1.
    No,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Answer {
        if yes { Answer::Yes } else { Answer::No }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Flags or files are wrong.
    #[error("{0}")]
    Input(String),
    /// The library says no.
    #[error("{context}{error}")]
    Library {
        /// What it is about, with a colon behind it, or nothing.
        context: String,
        /// What it says.
        error: Error,
    },
    /// The answer cannot be written.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    pub(super) fn input(text: impl Into<String>) -> CliError {
        CliError::Input(text.into())
    }

    /// Whether the reader of the answer went away, which is its right.
    pub(super) fn is_closed_pipe(&self) -> bool {
        match self {
            CliError::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            CliError::Input(_) | CliError::Library { .. } => false,
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            CliError::Input(_) | CliError::Output(_) => 2,
            CliError::Library { error, .. } => match error.kind() {
                ErrorKind::InvalidInput => 2,
                ErrorKind::Unsupported | ErrorKind::Limit => 3,
                ErrorKind::Device => 4,
                ErrorKind::Bug => 1,
            },
        }
    }

    /// Adds what the error is about.
    pub(super) fn about(self, what: impl std::fmt::Display) -> CliError {
        match self {
            CliError::Input(text) => CliError::Input(format!("{what}: {text}")),
            CliError::Library { context, error } => {
                CliError::Library { context: format!("{what}: {context}"), error }
            }
            CliError::Output(error) => CliError::Output(error),
        }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> CliError {
        CliError::Library { context: String::new(), error }
    }
}

impl From<RuntimeError> for CliError {
    fn from(error: RuntimeError) -> CliError {
        Error::from(error).into()
    }
}

impl From<CompileError> for CliError {
    fn from(error: CompileError) -> CliError {
        Error::from(error).into()
    }
}

impl From<ImportError> for CliError {
    fn from(error: ImportError) -> CliError {
        Error::from(error).into()
    }
}
