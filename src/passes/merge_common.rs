//! Computes once what is computed twice.

use crate::graph::{Graph, Source, ValueId};
use bytes::Bytes;
use std::collections::HashMap;

/// Constants above this size are not compared.
const COMPARED_BYTES: usize = 1 << 12;

/// Replaces a node by an earlier one with the same operator and the same inputs, where small constants with equal elements
/// count as the same.
pub fn merge_common(graph: &Graph) -> Graph {
    let mut nodes: HashMap<(String, Vec<ValueId>), Vec<ValueId>> = HashMap::new();
    let mut constants: HashMap<(String, Bytes), ValueId> = HashMap::new();
    graph.rewrite(|step| {
        for input in &mut step.inputs {
            let value = &step.new.values()[*input];
            if let Source::Constant(tensor) = &value.source
                && tensor.bytes().len() <= COMPARED_BYTES
            {
                let key = (value.fact.to_string(), tensor.bytes().clone());
                *input = *constants.entry(key).or_insert(*input);
            }
        }
        let key = (format!("{:?}", step.node.op), step.inputs.clone());
        let outputs = nodes.entry(key).or_insert_with(|| step.copy());
        Some(outputs.clone())
    })
}
