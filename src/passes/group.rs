//! Division of a graph into groups: what becomes one kernel.
//!
//! A group has at most one *anchor*, a node that combines many elements (a contraction, a reduction, a window, a
//! normalisation). Nodes that work element by element or move elements join a group after its anchor (*epilogue*: computed
//! on a result while it is at hand) or before it (*prologue*: computed where the anchor reads an operand).
//!
//! # Rules
//! Nodes are visited from the last to the first. A node joins the group of its consumers when
//! - all its consumers are in one group, none of them is the anchor, and its value is no output of the model;
//! - all consumers read it at the same place: for each element of the group's result the node is evaluated at one index.
//!   So every node of a group has one index function, and nothing is computed twice for one element;
//! - it is a map or it moves elements; an expensive map does not join where the group reads it once for several elements
//!   of its result (behind a broadcast or a gather);
//! - it does not follow an anchor that it could stay with instead: where the group reads it in a way that keeps the anchor
//!   out, what follows an anchor forms a group with that anchor;
//! - the group does more than part neighbours for one contraction, which reads them apart as well as an anchor would write them apart;
//! - it does not make bytes behind an anchor: these end its group;
//! - or it is an anchor, the group has none yet, and every element of the anchor's result is read exactly once (only maps of
//!   the same shape, views and transposes lie between);
//! - and the group does not read too many values with it, nor write the node out too many times: an expression is a tree
//!   where it is printed and stored, and `x + x` of itself doubles with each node.
//!
//! Then a group without anchor becomes the prologue of the one anchor that alone reads its result, when that reads each
//! element once or the computation is cheap enough to be repeated; a contraction only takes what moves elements.
//!
//! Only the last value of a group is read outside of it (or all outputs of an anchor that has several), so groups form no
//! cycle.

use crate::graph::{Graph, Node, NodeId, Op, Uses, ValueId};
use crate::ops::{self, External, GroupNode, Scalar};
use crate::tensor::DType;
use std::collections::BTreeSet;
use std::fmt::Write;

/// What may be computed more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPolicy {
    /// The largest cost ([`Scalar::cost`](crate::ops::Scalar::cost)) of an element that is computed again at each read.
    pub repeated_cost: u64,
    /// The most values a group reads. An anchor that reads more by itself does.
    pub most_inputs: usize,
    /// The most times that the expression of a group's result contains one of its nodes.
    pub most_repeats: u64,
}

impl Default for GroupPolicy {
    /// An affine map and an activation without transcendental functions may be repeated; inputs and an output fit the
    /// eight storage buffers that every WebGPU device has.
    fn default() -> Self {
        GroupPolicy { repeated_cost: 8, most_inputs: 7, most_repeats: 256 }
    }
}

/// Nodes that become one kernel; see the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The node that combines elements, if there is one.
    pub anchor: Option<NodeId>,
    /// The nodes before the anchor, in an order of evaluation; empty where there is no anchor.
    pub prologue: Vec<NodeId>,
    /// Those of them whose result is kept: computed by loops of its own, which may be those of an anchor of its own.
    pub kept: Vec<NodeId>,
    /// The nodes after the anchor, in an order of evaluation; all nodes where there is no anchor. The last one gives the
    /// group's result.
    pub epilogue: Vec<NodeId>,
    /// The values the group reads and does not compute, in the order of the first read.
    pub inputs: Vec<ValueId>,
    /// What other groups, or the outputs of the model, read: the result of the last node, or the outputs of the anchor
    /// where it has several.
    pub outputs: Vec<ValueId>,
}

impl Group {
    /// All nodes in an order of evaluation.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.prologue.iter().copied().chain(self.anchor).chain(self.epilogue.iter().copied())
    }

    /// The values that the nodes read and do not compute, in the order of the first read.
    pub(super) fn values_read(&self, graph: &Graph) -> Vec<ValueId> {
        let (mut read, mut computed): (Vec<ValueId>, Vec<ValueId>) = (vec![], vec![]);
        for node in self.nodes().map(|node| &graph.nodes()[node]) {
            for &input in &node.inputs {
                if !computed.contains(&input) && !read.contains(&input) {
                    read.push(input);
                }
            }
            computed.extend(&node.outputs);
        }
        read
    }

    /// Whether the group only gives its input another shape: it needs no kernel, its result is the same bytes.
    pub fn is_view(&self, graph: &Graph) -> bool {
        self.anchor.is_none() && self.nodes().all(|node| matches!(graph.nodes()[node].op, Op::View(_)))
    }

    /// The group in the terms of [`ops`], for its nest.
    pub fn definition<'a>(&self, graph: &'a Graph) -> ops::Group<'a> {
        let order: Vec<NodeId> = self.nodes().collect();
        let source = |value: ValueId| {
            let made =
                graph.producer(value).and_then(|producer| order.iter().position(|&node| node == producer));
            match made {
                Some(node) => {
                    let outputs = &graph.nodes()[order[node]].outputs;
                    ops::Source::Node(node, outputs.iter().position(|&output| output == value).unwrap_or(0))
                }
                None => {
                    ops::Source::External(self.inputs.iter().position(|&input| input == value).unwrap_or(0))
                }
            }
        };
        let externals = self.inputs.iter().map(|&value| External {
            fact: graph.fact(value).clone(),
            constant: graph.constant(value).is_some(),
        });
        let nodes = order.iter().map(|&id| {
            let node = &graph.nodes()[id];
            GroupNode {
                op: node.op.def(),
                inputs: node.inputs.iter().map(|&value| source(value)).collect(),
                outputs: graph.facts(&node.outputs).into_iter().cloned().collect(),
            }
        });
        ops::Group {
            externals: externals.collect(),
            nodes: nodes.collect(),
            kept: order
                .iter()
                .enumerate()
                .filter(|(_, id)| self.kept.contains(id))
                .map(|(at, _)| at)
                .collect(),
            anchor: self.anchor.and_then(|anchor| order.iter().position(|&node| node == anchor)),
            outputs: self.outputs.iter().map(|&value| source(value)).collect(),
        }
    }

    /// Floating-point operations of one run.
    pub fn flop(&self, graph: &Graph) -> u64 {
        self.nodes().map(|node| graph.flop(node)).sum()
    }

    /// The model's nodes it stems from, for people.
    pub fn origin(&self, graph: &Graph) -> String {
        let mut origins: Vec<&str> = self.nodes().map(|node| graph.nodes()[node].origin.as_str()).collect();
        origins.dedup();
        origins.join(" + ")
    }

    /// One line: `map + conv + map + view -> y`.
    pub fn describe(&self, graph: &Graph) -> String {
        let mut text = String::new();
        for (i, node) in self.nodes().enumerate() {
            let name = graph.nodes()[node].op.def().name();
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{name}", if i == 0 { "" } else { " + " });
        }
        let outputs: Vec<&str> =
            self.outputs.iter().map(|&value| graph.values()[value].name.as_str()).collect();
        let _ = write!(text, " -> {}", outputs.join(", "));
        text
    }
}

/// How an operator takes part in groups.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It computes element by element.
    Map,
    /// It gives every element of its input another place.
    Move,
    /// It reads some elements of its input, or some of them several times.
    Access { repeats: bool },
    /// It combines elements, reading each one `often` or once.
    Anchor { often: bool },
    /// It stays by itself.
    Alone,
}

fn part(op: &Op) -> Part {
    match op {
        Op::Map(_) => Part::Map,
        Op::View(_) | Op::Transpose(_) => Part::Move,
        Op::Slice(_) => Part::Access { repeats: false },
        // Edges may be repeated, but few of them.
        Op::Pad(_) => Part::Access { repeats: false },
        Op::Broadcast(_) | Op::Gather(_) | Op::GatherElements(_) | Op::GatherNd(_) => {
            Part::Access { repeats: true }
        }
        Op::MatMul(_) | Op::Conv(_) | Op::Pool(_) | Op::Softmax(_) | Op::Normalize(_) | Op::CumSum(_) => {
            Part::Anchor { often: true }
        }
        Op::Reduce(_) | Op::ArgReduce(_) => Part::Anchor { often: false },
        Op::TopK(_) | Op::Concat(_) | Op::ScatterElements(_) | Op::ScatterNd(_) => Part::Alone,
    }
}

/// An index function from elements of the group's result to elements of a value; compared by identity.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    id: usize,
    /// Every element of the value belongs to one element of the result and the other way round.
    bijective: bool,
    /// Several elements of the result read one element of the value.
    repeats: bool,
}

struct Unit {
    anchor: Option<NodeId>,
    /// From the last to the first.
    members: Vec<NodeId>,
    /// Those of them that lie before the anchor.
    prologue: Vec<NodeId>,
    /// The values read and not computed.
    inputs: BTreeSet<ValueId>,
    merged: bool,
}

struct Grouping<'a> {
    graph: &'a Graph,
    uses: Uses,
    policy: GroupPolicy,
    units: Vec<Unit>,
    unit_of: Vec<usize>,
    /// Where the result of each node is read in its unit.
    place_of: Vec<Option<Place>>,
    /// How often the expression of its unit's result contains each node.
    repeats_of: Vec<u64>,
    /// Where each moving or accessing node reads its operand, once asked for.
    operand_of: Vec<Option<Place>>,
    /// Whether only maps of one shape, views and transposes lie between an anchor and the node, each with one use.
    follows_anchor: Vec<bool>,
    places: usize,
}

/// Divides `graph` into groups, in an order of evaluation.
pub fn group(graph: &Graph, policy: GroupPolicy) -> Vec<Group> {
    let count = graph.nodes().len();
    let mut grouping = Grouping {
        graph,
        uses: graph.uses(),
        policy,
        units: Vec::new(),
        unit_of: vec![usize::MAX; count],
        place_of: vec![None; count],
        repeats_of: vec![1; count],
        operand_of: vec![None; count],
        follows_anchor: vec![false; count],
        places: 0,
    };
    let ids: Vec<NodeId> = graph.nodes().ids().collect();
    for &id in &ids {
        grouping.follows_anchor[id.index()] = grouping.follows(id);
    }
    ids.iter().rev().for_each(|&id| grouping.visit(id));
    for unit in 0..grouping.units.len() {
        grouping.add_prologues(unit);
    }
    grouping.groups()
}

impl Grouping<'_> {
    fn node(&self, id: NodeId) -> &Node {
        &self.graph.nodes()[id]
    }

    fn fresh(&mut self, bijective: bool, repeats: bool) -> Place {
        self.places += 1;
        Place { id: self.places, bijective, repeats }
    }

    fn follows(&self, id: NodeId) -> bool {
        let node = self.node(id);
        let elements = self.graph.fact(node.outputs[0]).len();
        let joins = matches!(part(&node.op), Part::Map | Part::Move);
        joins
            && node.inputs.iter().any(|&input| {
                self.graph.producer(input).is_some_and(|producer| {
                    let of_anchor = matches!(part(&self.node(producer).op), Part::Anchor { .. });
                    self.graph.fact(input).len() == elements
                        && self.uses.nodes(input).iter().all(|&user| user == id)
                        && !self.uses.is_output(input)
                        && (of_anchor || self.follows_anchor[producer.index()])
                })
            })
    }

    fn visit(&mut self, id: NodeId) {
        if let Some((unit, place)) = self.joinable(id) {
            self.units[unit].inputs = self.inputs_with(unit, id);
            self.repeats_of[id.index()] = self.repeats(id);
            let is_anchor = matches!(part(&self.node(id).op), Part::Anchor { .. });
            if is_anchor {
                self.units[unit].anchor = Some(id);
            } else {
                self.units[unit].members.push(id);
                self.place_of[id.index()] = Some(place);
            }
            self.unit_of[id.index()] = unit;
            return;
        }
        self.unit_of[id.index()] = self.units.len();
        let mut unit = Unit {
            anchor: None,
            members: Vec::new(),
            prologue: Vec::new(),
            inputs: self.node(id).inputs.iter().copied().collect(),
            merged: false,
        };
        match part(&self.node(id).op) {
            Part::Anchor { .. } | Part::Alone => unit.anchor = Some(id),
            Part::Map | Part::Move | Part::Access { .. } => {
                unit.members.push(id);
                self.place_of[id.index()] = Some(self.fresh(true, false));
            }
        }
        self.units.push(unit);
    }

    /// The unit of the node's consumers and the place where they read it, when the node may join them.
    fn joinable(&mut self, id: NodeId) -> Option<(usize, Place)> {
        let [value] = self.node(id).outputs[..] else { return None };
        // A tile of bytes makes bytes of its sums by itself, and no more.
        let of_bytes = is_byte(self.graph.fact(value).dtype) && part(&self.node(id).op) == Part::Map;
        if self.uses.is_output(value) || (of_bytes && self.follows_anchor[id.index()]) {
            return None;
        }
        let consumers: Vec<NodeId> = self.uses.nodes(value).to_vec();
        let unit = self.unit_of[consumers.first()?.index()];
        let mut place: Option<Place> = None;
        for consumer in consumers {
            let read = self.read_place(consumer, value)?;
            if self.unit_of[consumer.index()] != unit || place.is_some_and(|place| place != read) {
                return None;
            }
            place = Some(read);
        }
        let place = place?;
        let joins = match part(&self.node(id).op) {
            _ if !place.bijective && self.follows_anchor[id.index()] => false,
            Part::Map | Part::Anchor { .. } if self.reorders_an_operand(unit) => false,
            Part::Map => !place.repeats || map_cost(self.node(id)) <= self.policy.repeated_cost,
            Part::Move | Part::Access { .. } => true,
            Part::Anchor { .. } => place.bijective && self.units[unit].anchor.is_none(),
            Part::Alone => false,
        };
        let fits = self.inputs_with(unit, id).len() <= self.policy.most_inputs
            && self.repeats(id) <= self.policy.most_repeats;
        (joins && fits).then_some((unit, place))
    }

    /// Whether the unit does no more than move elements for one contraction, neighbours apart from one another.
    fn reorders_an_operand(&self, unit: usize) -> bool {
        let Unit { anchor, members, .. } = &self.units[unit];
        let part_neighbours = |node: &NodeId| match &self.node(*node).op {
            Op::Transpose(transpose) => transpose.perm.last() != Some(&(transpose.perm.len() - 1)),
            _other => false,
        };
        let moves = |node: &NodeId| part(&self.node(*node).op) == Part::Move;
        let contracts = |value: ValueId| {
            self.uses.only(value).is_some_and(|user| matches!(self.node(user).op, Op::MatMul(_)))
        };
        anchor.is_none()
            && members.iter().all(moves)
            && members.iter().any(part_neighbours)
            && members.first().is_some_and(|&last| contracts(self.node(last).outputs[0]))
    }

    /// How often the expressions of its consumers, which are in one unit, contain the node of one result.
    fn repeats(&self, id: NodeId) -> u64 {
        let value = self.node(id).outputs[0];
        let mut consumers = self.uses.nodes(value).to_vec();
        consumers.sort_unstable();
        consumers.dedup();
        let of = |consumer: NodeId| {
            let node = self.node(consumer);
            let reads = node.inputs.iter().enumerate().filter(|(_, input)| **input == value);
            let reads = reads.map(|(place, _)| reads_of(node, place)).fold(0, u64::saturating_add);
            reads.saturating_mul(self.repeats_of[consumer.index()])
        };
        consumers.into_iter().map(of).fold(0, u64::saturating_add)
    }

    /// What the unit reads with the node in it, one of those that compute what it reads.
    fn inputs_with(&self, unit: usize, id: NodeId) -> BTreeSet<ValueId> {
        let node = self.node(id);
        let mut inputs = self.units[unit].inputs.clone();
        inputs.retain(|input| !node.outputs.contains(input));
        inputs.extend(&node.inputs);
        inputs
    }

    /// Where `consumer` reads `value`; `None` when it is an anchor.
    fn read_place(&mut self, consumer: NodeId, value: ValueId) -> Option<Place> {
        let own = self.place_of[consumer.index()]?;
        let (bijective, repeats) = match part(&self.node(consumer).op) {
            Part::Map => {
                if self.graph.fact(value).shape == self.graph.fact(self.node(consumer).outputs[0]).shape {
                    return Some(own);
                }
                return Some(self.fresh(false, true));
            }
            Part::Move => (own.bijective, own.repeats),
            Part::Access { repeats } => (false, own.repeats || repeats),
            Part::Anchor { .. } | Part::Alone => return None,
        };
        // An indexing node reads data and indices at different places.
        if self.node(consumer).inputs.len() > 1 {
            return Some(self.fresh(bijective, repeats));
        }
        if self.operand_of[consumer.index()].is_none() {
            self.operand_of[consumer.index()] = Some(self.fresh(bijective, repeats));
        }
        self.operand_of[consumer.index()]
    }

    /// Joins to an anchor the units that compute its operands.
    fn add_prologues(&mut self, unit: usize) {
        let Some(anchor) = self.units[unit].anchor else { return };
        let Part::Anchor { often } = part(&self.node(anchor).op) else { return };
        for input in self.node(anchor).inputs.clone() {
            let Some(producer) = self.graph.producer(input) else { continue };
            let source = self.unit_of[producer.index()];
            let members = &self.units[source].members;
            let cost: u64 = members.iter().map(|&node| map_cost(self.node(node))).sum();
            let mut inputs = self.units[unit].inputs.clone();
            inputs.remove(&input);
            inputs.extend(&self.units[source].inputs);
            // A contraction packs its operands as they are, so that arithmetic would be repeated for every product.
            let contraction = matches!(self.node(anchor).op, Op::MatMul(_) | Op::Conv(_));
            let limit = if contraction { 0 } else { self.policy.repeated_cost };
            // A convolution of bytes reads blocks of channels, as a value of its own may lie.
            let fact = self.graph.fact(input);
            if matches!(self.node(anchor).op, Op::Conv(_)) && is_byte(fact.dtype) {
                continue;
            }
            if self.units[source].anchor.is_none()
                && inputs.len() <= self.policy.most_inputs
                && self.uses.only(input) == Some(anchor)
                && (!often || cost <= limit)
            {
                let members = members.clone();
                for node in &members {
                    self.unit_of[node.index()] = unit;
                }
                self.units[unit].inputs = inputs;
                self.units[source].merged = true;
                self.units[unit].prologue.extend(members);
            }
        }
    }

    fn groups(self) -> Vec<Group> {
        let mut groups: Vec<(NodeId, Group)> = Vec::new();
        for unit in self.units.into_iter().filter(|unit| !unit.merged) {
            let (mut prologue, mut epilogue) = (unit.prologue, unit.members);
            prologue.sort_unstable();
            epilogue.sort_unstable();
            let Some(last) = epilogue.last().copied().or(unit.anchor) else { continue };
            let outputs = self.graph.nodes()[last].outputs.clone();
            let anchor = unit.anchor;
            let mut group =
                Group { anchor, prologue, kept: Vec::new(), epilogue, inputs: Vec::new(), outputs };
            group.inputs = group.values_read(self.graph);
            groups.push((last, group));
        }
        groups.sort_unstable_by_key(|(last, _)| *last);
        groups.into_iter().map(|(_, group)| group).collect()
    }
}

fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8)
}

fn map_cost(node: &Node) -> u64 {
    scalar(node).map_or(0, Scalar::cost)
}

/// How often the node's expression contains its input of that place.
fn reads_of(node: &Node, place: usize) -> u64 {
    scalar(node).map_or(1, |scalar| scalar.reads(place))
}

/// What a map computes.
fn scalar(node: &Node) -> Option<&Scalar> {
    match &node.op {
        Op::Map(map) => Some(&map.scalar),
        Op::MatMul(_)
        | Op::Conv(_)
        | Op::Pool(_)
        | Op::Reduce(_)
        | Op::ArgReduce(_)
        | Op::CumSum(_)
        | Op::Softmax(_)
        | Op::Normalize(_)
        | Op::TopK(_)
        | Op::View(_)
        | Op::Transpose(_)
        | Op::Slice(_)
        | Op::Broadcast(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::ScatterNd(_) => None,
    }
}
