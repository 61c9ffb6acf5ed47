//! Layer 7: passes over the graph. Each takes a graph and gives one of the same meaning; [`group`](group()) decides which nodes
//! become one kernel.

mod group;

pub use group::{Group, group};
