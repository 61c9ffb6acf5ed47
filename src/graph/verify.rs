//! What holds for every graph between two passes.

use super::{Graph, NodeId, Source, ValueId};
use crate::ops::{Fact, OpError};
use std::collections::HashSet;

/// A graph that no pass may leave behind.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// A node does not take its inputs.
    #[error("node {node:?} ({origin}): {error}")]
    Node {
        /// The node.
        node: NodeId,
        /// Where it stems from.
        origin: String,
        /// Why not.
        error: OpError,
    },
    /// A node's outputs are not what its operator gives.
    #[error("node {node:?} ({origin}) gives {inferred}, but value {value} is {stated}")]
    Fact {
        /// The node.
        node: NodeId,
        /// Where it stems from.
        origin: String,
        /// The value's name.
        value: String,
        /// What the operator gives.
        inferred: String,
        /// What the graph says.
        stated: String,
    },
    /// A node reads what is not there yet.
    #[error("node {node:?} ({origin}) reads {value:?} before it is there")]
    Order {
        /// The node.
        node: NodeId,
        /// Where it stems from.
        origin: String,
        /// What it reads.
        value: ValueId,
    },
    /// Two values or two outputs have one name, or a table contradicts another.
    #[error("value or output `{name}`: {what}")]
    Value {
        /// The name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl Graph {
    /// Checks that nodes read what is there, that facts are what the operators infer, that names are unique and that the
    /// tables agree.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(&self) -> Result<(), VerifyError> {
        let value_error = |name: &str, what| Err(VerifyError::Value { name: name.to_owned(), what });
        let inputs: HashSet<ValueId> = self.inputs().iter().copied().collect();
        let mut ready = vec![false; self.values().len()];
        for (id, value) in self.values().iter_with_ids() {
            if self.value_named(&value.name) != Some(id) {
                return value_error(&value.name, "its name is not its own");
            }
            match &value.source {
                Source::Input if !inputs.contains(&id) => {
                    return value_error(&value.name, "it is an input that the graph does not list");
                }
                Source::Constant(tensor) if Fact::of(tensor) != value.fact => {
                    return value_error(&value.name, "the constant has another type or shape");
                }
                Source::Input | Source::Constant(_) => ready[id.index()] = true,
                Source::Node(node, i) => {
                    if self.nodes().get(*node).and_then(|node| node.outputs.get(*i)) != Some(&id) {
                        return value_error(&value.name, "its node does not give it");
                    }
                }
            }
        }
        for (id, node) in self.nodes().iter_with_ids() {
            let origin = || node.origin.clone();
            for &value in &node.inputs {
                if !ready.get(value.index()).copied().unwrap_or(false) {
                    return Err(VerifyError::Order { node: id, origin: origin(), value });
                }
            }
            let inferred = node
                .op
                .def()
                .infer(&self.facts(&node.inputs))
                .map_err(|error| VerifyError::Node { node: id, origin: origin(), error })?;
            if inferred.len() != node.outputs.len() {
                return value_error(&node.origin, "the operator gives another number of outputs");
            }
            for (&output, fact) in node.outputs.iter().zip(inferred) {
                if self.fact(output) != &fact {
                    return Err(VerifyError::Fact {
                        node: id,
                        origin: origin(),
                        value: self.values()[output].name.clone(),
                        inferred: fact.to_string(),
                        stated: self.fact(output).to_string(),
                    });
                }
                ready[output.index()] = true;
            }
        }
        let mut names = HashSet::new();
        for output in self.outputs() {
            if !names.insert(&output.name) {
                return value_error(&output.name, "two outputs have this name");
            }
            if !ready.get(output.value.index()).copied().unwrap_or(false) {
                return value_error(&output.name, "nothing gives this output");
            }
        }
        Ok(())
    }
}
