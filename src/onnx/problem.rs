//! What can be wrong with a model file, collected rather than thrown.

use crate::ops::OpError;
use std::fmt;

/// Whose fault a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The file contradicts the ONNX standard or itself.
    Invalid,
    /// The file is right, but Paisley does not do what it asks for.
    Unsupported,
    /// A dimension or value that must be known when the model is compiled is not given, or given wrongly.
    Binding,
}

/// One thing that keeps a model from being imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whose fault it is.
    pub kind: ProblemKind,
    /// Where: a node with its operator, an input, an initializer, the file.
    pub place: String,
    /// What is wrong.
    pub reason: String,
    /// What to do; empty when there is nothing to say.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// Every problem found in a model, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ImportError {}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [problem] => write!(f, "{problem}"),
            problems => {
                write!(f, "{} problems:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl ImportError {
    pub(super) fn one(problem: Problem) -> ImportError {
        ImportError { problems: vec![problem] }
    }
}

/// Why a node, a tensor or an attribute is refused; becomes a [`Problem`] where the place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub kind: ProblemKind,
    pub reason: String,
    pub remedy: String,
}

impl Refusal {
    pub(crate) fn invalid(reason: impl Into<String>) -> Refusal {
        Refusal { kind: ProblemKind::Invalid, reason: reason.into(), remedy: String::new() }
    }

    pub(crate) fn unsupported(reason: impl Into<String>) -> Refusal {
        Refusal { kind: ProblemKind::Unsupported, reason: reason.into(), remedy: String::new() }
    }

    pub(crate) fn binding(reason: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { kind: ProblemKind::Binding, reason: reason.into(), remedy: remedy.into() }
    }

    pub(crate) fn at(self, place: impl Into<String>) -> Problem {
        Problem { kind: self.kind, place: place.into(), reason: self.reason, remedy: self.remedy }
    }
}

/// An operator that does not take what the file gives it makes the file invalid.
impl From<OpError> for Refusal {
    fn from(error: OpError) -> Refusal {
        Refusal::invalid(error.to_string())
    }
}
