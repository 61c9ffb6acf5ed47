//! Grouping: which nodes become one kernel.
//!
//! Nodes are taken in order. A node with element form joins the group that makes one of its operands when it is the only reader
//! and can follow (its value is computed while the operand is in registers). Any other node starts a group, and takes into it
//! the groups without anchor that make its operands, when it is their only reader and reading them costs no more than before:
//! a contraction or window takes in only layout (and a convolution or window, padding), as it reads each element many times;
//! other anchors and layout operators also take in cheap arithmetic.
//!
//! Every group has one tail, the value that leaves it, or several outputs of its one node.

use crate::expr::UnaryOp;
use crate::graph::{Graph, NodeId, Op, Uses, ValueId};
use crate::ops::{self, External, Fact, GroupNode, Scalar, can_follow};
use std::collections::HashMap;

/// Nodes that become one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// In an order of evaluation.
    pub nodes: Vec<NodeId>,
    /// The node with loops of its own, as a place in `nodes`.
    pub anchor: Option<usize>,
    /// Values from outside, each once, in the order of their first use.
    pub inputs: Vec<ValueId>,
    /// Values that leave the group.
    pub outputs: Vec<ValueId>,
}

struct Forming {
    nodes: Vec<NodeId>,
    anchor: Option<NodeId>,
    /// The value a node may follow; `None` where nothing can.
    tail: Option<ValueId>,
}

/// Forms the groups of `graph`, in an order of evaluation. Every node is in exactly one.
pub fn group(graph: &Graph) -> Vec<Group> {
    let uses = graph.uses();
    let mut groups: Vec<Option<Forming>> = vec![];
    let mut group_of: HashMap<NodeId, usize> = HashMap::new();
    for id in graph.nodes().ids() {
        let joined = leader(graph, &uses, id, &groups, &group_of);
        let place = match joined {
            Some(place) => place,
            None => {
                groups.push(Some(start(graph, &uses, id, &mut groups, &group_of)));
                groups.len() - 1
            }
        };
        if let Some(forming) = &mut groups[place] {
            if joined.is_some() {
                forming.nodes.push(id);
            }
            forming.tail = match graph.nodes()[id].outputs.as_slice() {
                [only] if forming.tail.is_some() || joined.is_none() => Some(*only),
                _several => None,
            };
            if let (None, Some(anchor)) = (joined, forming.anchor) {
                let form = graph.nodes()[anchor].op.def().form();
                if form.anchor().is_some_and(|form| !form.can_be_followed()) {
                    forming.tail = None;
                }
            }
            for node in &forming.nodes {
                group_of.insert(*node, place);
            }
        }
    }
    let mut formed: Vec<Forming> = groups.into_iter().flatten().collect();
    for forming in &mut formed {
        forming.nodes.sort_unstable();
    }
    formed.sort_by_key(|forming| forming.nodes.last().copied());
    formed.into_iter().map(|forming| finish(graph, &uses, forming)).collect()
}

/// The group that the node can join as a follower.
fn leader(
    graph: &Graph,
    uses: &Uses,
    id: NodeId,
    groups: &[Option<Forming>],
    group_of: &HashMap<NodeId, usize>,
) -> Option<usize> {
    let node = &graph.nodes()[id];
    let [output] = node.outputs.as_slice() else { return None };
    node.op.def().form().element()?;
    let facts: Vec<Fact> = graph.facts(&node.inputs).into_iter().cloned().collect();
    let leads = |(place, &input): (usize, &ValueId)| {
        let at = *group_of.get(&graph.producer(input)?)?;
        let alone =
            uses.only(input) == Some(id) && node.inputs.iter().filter(|&&other| other == input).count() == 1;
        let tail = groups[at].as_ref()?.tail == Some(input);
        (alone && tail && can_follow(node.op.def(), place, &facts, graph.fact(*output))).then_some(at)
    };
    // The latest group: the others are finished when it runs.
    node.inputs.iter().enumerate().filter_map(leads).max()
}

/// A new group of a node and of what it takes in.
fn start(
    graph: &Graph,
    uses: &Uses,
    id: NodeId,
    groups: &mut [Option<Forming>],
    group_of: &HashMap<NodeId, usize>,
) -> Forming {
    let node = &graph.nodes()[id];
    let form = node.op.def().form();
    let anchor = form.anchor().is_some().then_some(id);
    let mut nodes = vec![];
    for &input in &node.inputs {
        let place = graph.producer(input).and_then(|producer| group_of.get(&producer).copied());
        let Some(place) = place.filter(|_| uses.only(input) == Some(id)) else { continue };
        let taken = groups[place].as_ref().is_some_and(|forming| {
            forming.anchor.is_none()
                && forming.tail == Some(input)
                && forming.nodes.iter().all(|&inner| takes_in(&node.op, &graph.nodes()[inner].op))
        });
        if taken {
            nodes.extend(groups[place].take().into_iter().flat_map(|forming| forming.nodes));
        }
    }
    nodes.push(id);
    Forming { nodes, anchor, tail: None }
}

/// Whether `reader` may compute `inner` at each read instead of reading its result.
fn takes_in(reader: &Op, inner: &Op) -> bool {
    let layout = matches!(inner, Op::View(_) | Op::Transpose(_));
    match reader {
        Op::Conv(_) | Op::Pool(_) => layout || matches!(inner, Op::Pad(_)),
        Op::MatMul(_) => layout,
        Op::Softmax(_)
        | Op::Normalize(_)
        | Op::Reduce(_)
        | Op::ArgReduce(_)
        | Op::Map(_)
        | Op::View(_)
        | Op::Transpose(_)
        | Op::Slice(_)
        | Op::Pad(_) => match inner {
            Op::Map(map) => is_cheap(&map.scalar),
            Op::View(_) | Op::Transpose(_) | Op::Slice(_) | Op::Broadcast(_) => true,
            Op::MatMul(_)
            | Op::Conv(_)
            | Op::Pool(_)
            | Op::Reduce(_)
            | Op::ArgReduce(_)
            | Op::CumSum(_)
            | Op::Softmax(_)
            | Op::Normalize(_)
            | Op::TopK(_)
            | Op::Pad(_)
            | Op::Concat(_)
            | Op::Gather(_)
            | Op::GatherElements(_)
            | Op::GatherNd(_)
            | Op::ScatterElements(_)
            | Op::ScatterNd(_) => false,
        },
        Op::CumSum(_)
        | Op::TopK(_)
        | Op::Broadcast(_)
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::ScatterNd(_) => false,
    }
}

/// Whether an element costs no more than a few additions.
fn is_cheap(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Input(_) | Scalar::Constant(..) => true,
        Scalar::Unary(op, x) => {
            matches!(op, UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Not | UnaryOp::Floor | UnaryOp::Ceil)
                && is_cheap(x)
        }
        Scalar::Binary(_, a, b) => is_cheap(a) && is_cheap(b),
        Scalar::Select(c, a, b) => is_cheap(c) && is_cheap(a) && is_cheap(b),
        Scalar::Cast(_, x) => is_cheap(x),
    }
}

fn finish(graph: &Graph, uses: &Uses, forming: Forming) -> Group {
    let (mut inputs, mut outputs) = (vec![], vec![]);
    for &id in &forming.nodes {
        let node = &graph.nodes()[id];
        for &input in &node.inputs {
            let inside = graph.producer(input).is_some_and(|producer| forming.nodes.contains(&producer));
            if !inside && !inputs.contains(&input) {
                inputs.push(input);
            }
        }
        for &output in &node.outputs {
            let leaves =
                uses.is_output(output) || uses.nodes(output).iter().any(|user| !forming.nodes.contains(user));
            if leaves {
                outputs.push(output);
            }
        }
    }
    if outputs.is_empty() {
        outputs.extend(forming.nodes.last().and_then(|&last| graph.nodes()[last].outputs.first().copied()));
    }
    let anchor = forming.anchor.and_then(|anchor| forming.nodes.iter().position(|&node| node == anchor));
    Group { nodes: forming.nodes, anchor, inputs, outputs }
}

impl Group {
    /// The group in the terms of [`ops`], for its nest.
    pub fn describe<'a>(&self, graph: &'a Graph) -> ops::Group<'a> {
        let source = |value: ValueId| {
            let made = graph
                .producer(value)
                .and_then(|producer| self.nodes.iter().position(|&node| node == producer));
            match made {
                Some(node) => {
                    let outputs = &graph.nodes()[self.nodes[node]].outputs;
                    let output = outputs.iter().position(|&output| output == value).unwrap_or(0);
                    ops::Source::Node(node, output)
                }
                None => {
                    ops::Source::External(self.inputs.iter().position(|&input| input == value).unwrap_or(0))
                }
            }
        };
        let externals = self
            .inputs
            .iter()
            .map(|&value| External {
                fact: graph.fact(value).clone(),
                constant: graph.constant(value).is_some(),
            })
            .collect();
        let nodes = self
            .nodes
            .iter()
            .map(|&id| {
                let node = &graph.nodes()[id];
                GroupNode {
                    op: node.op.def(),
                    inputs: node.inputs.iter().map(|&value| source(value)).collect(),
                    outputs: graph.facts(&node.outputs).into_iter().cloned().collect(),
                }
            })
            .collect();
        let outputs = self.outputs.iter().map(|&value| source(value)).collect();
        ops::Group { externals, nodes, anchor: self.anchor, outputs }
    }

    /// Floating-point operations of one run.
    pub fn flop(&self, graph: &Graph) -> u64 {
        self.nodes.iter().map(|&node| graph.flop(node)).sum()
    }

    /// The model's nodes it stems from, for people.
    pub fn origin(&self, graph: &Graph) -> String {
        let mut origins: Vec<&str> =
            self.nodes.iter().map(|&node| graph.nodes()[node].origin.as_str()).collect();
        origins.dedup();
        origins.join(" + ")
    }
}
