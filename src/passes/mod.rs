//! Layer 7: rewrites of graphs, and their division into the groups that become one kernel each.
//!
//! A pass is a function from a graph to a graph of the same meaning: the same inputs, outputs of the same names, types and
//! shapes, and equal elements up to rounding. What it leaves is verified in debug builds. [`PIPELINE`] is the list that
//! [`simplify`] runs.

mod choose_algorithms;
mod fold_affine;
mod fold_constants;
mod fold_pads;
mod group;
mod keep_operands;
mod keep_scores;
mod lay_out;
mod merge_channel_groups;
mod merge_common;
mod narrow_weights;
mod simplify_layout;
mod simplify_scalars;
mod widen_floats;

pub use choose_algorithms::{Applied, choose_algorithms, use_algorithm};
pub use fold_affine::fold_affine;
pub use fold_constants::fold_constants;
pub use fold_pads::fold_pads;
pub use group::{Group, GroupPolicy, group};
pub use keep_operands::keep_operands;
pub use keep_scores::keep_scores;
pub use lay_out::{GroupLayout, lay_out};
pub use merge_channel_groups::{MOST_MERGED, merge_channel_groups};
pub use merge_common::merge_common;
pub use narrow_weights::narrow_weights;
pub use simplify_layout::simplify_layout;
pub use simplify_scalars::simplify_scalars;
pub use widen_floats::{Weights, widen_floats};

use crate::graph::Graph;

/// A named rewrite.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// The name of its function.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Graph) -> Graph,
}

/// What every model goes through, in order.
pub const PIPELINE: &[Pass] = &[
    Pass { name: "fold_constants", run: fold_constants },
    Pass { name: "simplify_scalars", run: simplify_scalars },
    Pass { name: "simplify_layout", run: simplify_layout },
    Pass { name: "merge_common", run: merge_common },
    Pass { name: "fold_affine", run: fold_affine },
    Pass { name: "fold_pads", run: fold_pads },
];

/// The graph after [`PIPELINE`].
pub fn simplify(graph: &Graph) -> Graph {
    PIPELINE.iter().fold(graph.clone(), |graph, pass| {
        let result = (pass.run)(&graph);
        debug_assert_eq!(result.verify(), Ok(()), "after {}", pass.name);
        result
    })
}

#[cfg(test)]
mod tests;
