//! Goldens of the nests, and their results against plain computations.

use crate::base::Random;
use crate::expr::{BinaryOp, UnaryOp};
use crate::interp::Options;
use crate::ops::*;
use crate::tensor::{DType, Tensor, Tolerance, compare, row_major_strides};
use expect_test::{Expect, expect};

mod conv;
mod groups;
mod layout;
mod rows;

fn f32s(shape: &[usize]) -> Fact {
    Fact::new(DType::F32, shape)
}

fn random(rng: &mut Random, shape: &[usize]) -> Tensor {
    Tensor::from_fn(DType::F32, shape, |_| rng.unit() * 2.0 - 1.0)
}

fn infer(op: &dyn OpDef, inputs: &[Fact]) -> Vec<Fact> {
    op.infer(&inputs.iter().collect::<Vec<_>>()).unwrap()
}

fn golden(op: &dyn OpDef, inputs: &[Fact], expected: Expect) {
    let group = Group::single(op, inputs, infer(op, inputs));
    expected.assert_eq(&define_group(&group, &[]).unwrap().to_string());
}

/// The outputs of `op`, computed with every check of the interpreter.
fn run(op: &dyn OpDef, inputs: &[Tensor]) -> Vec<Tensor> {
    let facts: Vec<Fact> = inputs.iter().map(Fact::of).collect();
    let group = Group::single(op, &facts, infer(op, &facts));
    match evaluate_group(&group, inputs, Options::ALL) {
        Ok(outputs) => outputs,
        Err(error) => panic!("{error}\n{}", define_group(&group, &[]).unwrap()),
    }
}

fn close(actual: &Tensor, expected: &Tensor) {
    let comparison = compare(actual, expected, Tolerance::KERNEL_F32);
    assert!(comparison.within, "{comparison:?}\n{actual:?}\n{expected:?}");
}

/// The index of element `i` of `shape`, row-major.
fn index_of(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let strides = row_major_strides(shape);
    strides
        .iter()
        .map(|&stride| {
            let digit = i / stride;
            i %= stride;
            digit
        })
        .collect()
}

fn at(tensor: &Tensor, index: &[usize]) -> f64 {
    let strides = row_major_strides(tensor.shape());
    tensor.get_f64(index.iter().zip(strides).map(|(i, stride)| i * stride).sum())
}

/// The tensor whose element at an index is `value` of that index.
fn by_index(dtype: DType, shape: &[usize], mut value: impl FnMut(&[usize]) -> f64) -> Tensor {
    Tensor::from_fn(dtype, shape, |i| value(&index_of(i, shape)))
}

fn add() -> Map {
    Map { scalar: Scalar::Input(0).binary(BinaryOp::Add, Scalar::Input(1)) }
}

fn relu() -> Map {
    Map { scalar: Scalar::Input(0).max(Scalar::constant(0.0, DType::F32)) }
}

/// Builds a group step by step.
struct Builder<'a> {
    group: Group<'a>,
}

impl<'a> Builder<'a> {
    fn new(externals: &[Fact]) -> Builder<'a> {
        let externals =
            externals.iter().map(|fact| External { fact: fact.clone(), constant: false }).collect();
        Builder { group: Group { externals, nodes: vec![], kept: vec![], anchor: None, outputs: vec![] } }
    }

    fn node(&mut self, op: &'a dyn OpDef, inputs: &[Source]) -> Source {
        let facts: Vec<Fact> = inputs.iter().map(|&source| self.group.fact(source).clone()).collect();
        let outputs = infer(op, &facts);
        self.group.nodes.push(GroupNode { op, inputs: inputs.to_vec(), outputs });
        Source::Node(self.group.nodes.len() - 1, 0)
    }

    fn keep(&mut self, node: Source) -> Source {
        let Source::Node(place, _) = node else { panic!("a node should be kept") };
        self.group.kept.push(place);
        node
    }

    fn anchor(&mut self, op: &'a dyn OpDef, inputs: &[Source]) -> Source {
        self.group.anchor = Some(self.group.nodes.len());
        self.node(op, inputs)
    }

    fn finish(mut self, outputs: &[Source]) -> Group<'a> {
        self.group.outputs = outputs.to_vec();
        self.group
    }
}

/// The group's results against evaluating node by node.
fn check_group(group: &Group<'_>, externals: &[Tensor]) {
    let fused = match evaluate_group(group, externals, Options::ALL) {
        Ok(outputs) => outputs,
        Err(error) => panic!("{error}\n{}", define_group(group, &[]).unwrap()),
    };
    let mut values: Vec<Vec<Tensor>> = vec![];
    for node in &group.nodes {
        let inputs: Vec<Tensor> = node
            .inputs
            .iter()
            .map(|source| match *source {
                Source::External(i) => externals[i].clone(),
                Source::Node(j, output) => values[j][output].clone(),
            })
            .collect();
        values.push(run(node.op, &inputs));
    }
    for (result, source) in fused.iter().zip(&group.outputs) {
        let Source::Node(j, output) = *source else { panic!("an output should be computed") };
        close(result, &values[j][output]);
    }
}
