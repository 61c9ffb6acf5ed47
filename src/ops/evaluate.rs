//! The meaning of an operator on given tensors: its nest, interpreted. For folding constants and for tests.

use super::define::{DefineError, External, Group, GroupNode, Source, define_group};
use super::{Fact, OpDef, OpError};
use crate::interp::{self, InterpError, Options};
use crate::tensor::Tensor;

/// Why an operator or a group was not evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluateError {
    /// The operator does not take these tensors.
    #[error("{0}")]
    Op(#[from] OpError),
    /// There is no nest.
    #[error("{0}")]
    Define(#[from] DefineError),
    /// The nest does not run.
    #[error("the nest does not run: {0}")]
    Run(#[from] InterpError),
}

/// The outputs of `op` for `inputs`.
///
/// # Errors
/// When the operator refuses the inputs, has no nest, or its nest does not run.
pub fn evaluate(op: &dyn OpDef, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvaluateError> {
    let facts: Vec<Fact> = inputs.iter().map(Fact::of).collect();
    let outputs = op.infer(&facts.iter().collect::<Vec<_>>())?;
    evaluate_group(&Group::single(op, &facts, outputs), inputs, Options::FAST)
}

/// The outputs of a group for its externals, with the checks of `options`.
///
/// # Errors
/// When the group has no nest, or its nest does not run.
pub fn evaluate_group(
    group: &Group<'_>,
    externals: &[Tensor],
    options: Options,
) -> Result<Vec<Tensor>, EvaluateError> {
    let nest = define_group(group, &[])?;
    let params: Vec<Tensor> = nest
        .params
        .iter()
        .zip(externals)
        .map(|(&param, tensor)| {
            tensor.reshaped(&nest.pool.buffers[param].shape).unwrap_or_else(|| tensor.clone())
        })
        .collect();
    let results = interp::run_with(&nest, &params, options)?;
    Ok(results
        .into_iter()
        .zip(&group.outputs)
        .map(|(result, &source)| {
            let shape = &group.fact(source).shape;
            result.reshaped(shape).expect("the parameter should have as many elements as the output")
        })
        .collect())
}

impl<'a> Group<'a> {
    /// The group of one operator, its operands inputs, its outputs all stored.
    pub fn single(op: &'a dyn OpDef, inputs: &[Fact], outputs: Vec<Fact>) -> Group<'a> {
        Group {
            externals: inputs.iter().map(|fact| External { fact: fact.clone(), constant: false }).collect(),
            kept: vec![],
            anchor: op.form().anchor().map(|_| 0),
            outputs: (0..outputs.len()).map(|output| Source::Node(0, output)).collect(),
            nodes: vec![GroupNode { op, inputs: (0..inputs.len()).map(Source::External).collect(), outputs }],
        }
    }
}
