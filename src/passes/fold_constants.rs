//! Computes what is known.

use crate::graph::{self, Graph, Op};
use crate::ops::Fact;
use crate::tensor::Tensor;

/// Results of at most this many elements are always computed.
const SMALL: usize = 1 << 16;

/// Replaces nodes whose inputs are constants by their results, as far as [`graph::fold`] evaluates them, the results are
/// small or no larger than the largest input, and all of them together take no more memory than the constants that are
/// there plus 64 MiB. A node whose results have no elements is known whatever its inputs are.
pub fn fold_constants(graph: &Graph) -> Graph {
    let given: usize =
        graph.values().iter().filter(|value| is_constant(value)).map(|v| v.fact.size_bytes()).sum();
    let mut budget_bytes = given.saturating_add(64 << 20);
    graph.rewrite(|step| {
        let facts: Vec<Fact> = step.node.outputs.iter().map(|&v| step.old.fact(v).clone()).collect();
        if facts.iter().all(|fact| fact.is_empty()) {
            let empty = |fact: &Fact| Tensor::from_fn(fact.dtype, &fact.shape, |_| 0.0);
            let names = step.node.outputs.iter().map(|&value| &step.old.values()[value].name);
            return Some(
                names.zip(&facts).map(|(name, fact)| step.new.add_constant(name, empty(fact))).collect(),
            );
        }
        let tensors: Vec<&Tensor> =
            step.inputs.iter().map(|&input| step.new.constant(input)).collect::<Option<_>>()?;
        let cost_bytes: usize = match &step.node.op {
            Op::View(_) => 0,
            _ => facts.iter().map(Fact::size_bytes).sum(),
        };
        let largest = tensors.iter().map(|tensor| tensor.len()).max().unwrap_or(0).max(SMALL);
        if cost_bytes > budget_bytes || facts.iter().any(|fact| fact.len() > largest) {
            return None;
        }
        let results = graph::fold(&step.node.op, &tensors, &facts)?;
        budget_bytes -= cost_bytes;
        let names = step.node.outputs.iter().map(|&value| &step.old.values()[value].name);
        Some(names.zip(results).map(|(name, tensor)| step.new.add_constant(name, tensor)).collect())
    })
}

fn is_constant(value: &graph::Value) -> bool {
    matches!(value.source, graph::Source::Constant(_))
}
