//! Layer 6: a model as a graph of typed operators over values of known type and shape.
//!
//! A [`Graph`] holds values and nodes in tables. A value is an input of the model, a constant, or the output of a node; a
//! node applies one [`Op`] to values that exist already, so the order of the nodes' ids is an order of evaluation and a
//! graph has no cycle by construction. Graphs grow and are rewritten into new ones ([`Graph::rewrite`]); nothing in a
//! graph changes in place.
//!
//! A value keeps its name through every rewrite that keeps its contents: two stages of the compiler that both have a value
//! `x` agree on its elements (up to rounding).

mod display;
mod fold;
mod op;
mod verify;

pub use fold::fold;
pub use op::Op;
pub use verify::VerifyError;

use crate::base::{Id, IdVec};
use crate::ops::{Fact, OpError};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// It is given for every run.
    Input,
    /// It is known when the model is compiled.
    Constant(Tensor),
    /// It is that output of that node.
    Node(NodeId, usize),
}

/// A tensor of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Unique in the graph.
    pub name: String,
    /// Element type and shape.
    pub fact: Fact,
    /// Where it comes from.
    pub source: Source,
}

/// The id of a [`Value`].
pub type ValueId = Id<Value>;

/// An operator applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The node of the model file it stems from, for messages; not unique.
    pub origin: String,
    /// What it computes.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<ValueId>,
    /// What it gives, at least one value.
    pub outputs: Vec<ValueId>,
}

/// The id of a [`Node`].
pub type NodeId = Id<Node>;

/// What the model gives under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The name callers know it by; unique among the outputs.
    pub name: String,
    /// The value; several outputs may share one, and it may be an input or a constant.
    pub value: ValueId,
}

/// A model; see the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    values: IdVec<Value>,
    nodes: IdVec<Node>,
    inputs: Vec<ValueId>,
    outputs: Vec<Output>,
    names: HashMap<String, ValueId>,
}

impl Graph {
    /// A graph without values.
    pub fn new(name: &str) -> Graph {
        Graph { name: name.to_owned(), ..Graph::default() }
    }

    /// All values; a value that nothing needs may be among them.
    pub fn values(&self) -> &IdVec<Value> {
        &self.values
    }

    /// All nodes, in an order of evaluation.
    pub fn nodes(&self) -> &IdVec<Node> {
        &self.nodes
    }

    /// The inputs, in the order of the model.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// The outputs, in the order of the model.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Type and shape of a value.
    pub fn fact(&self, value: ValueId) -> &Fact {
        &self.values[value].fact
    }

    /// Types and shapes of values.
    pub fn facts(&self, values: &[ValueId]) -> Vec<&Fact> {
        values.iter().map(|&value| self.fact(value)).collect()
    }

    /// The tensor of a constant, `None` for other values.
    pub fn constant(&self, value: ValueId) -> Option<&Tensor> {
        match &self.values[value].source {
            Source::Constant(tensor) => Some(tensor),
            Source::Input | Source::Node(..) => None,
        }
    }

    /// The node that gives a value, `None` for inputs and constants.
    pub fn producer(&self, value: ValueId) -> Option<NodeId> {
        match self.values[value].source {
            Source::Node(node, _) => Some(node),
            Source::Input | Source::Constant(_) => None,
        }
    }

    /// The value of that name.
    pub fn value_named(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// Operations of one evaluation of a node, as [`OpDef::flop`](crate::ops::OpDef::flop) counts them.
    pub fn flop(&self, node: NodeId) -> u64 {
        let node = &self.nodes[node];
        node.op.def().flop(&self.facts(&node.inputs), &self.facts(&node.outputs))
    }

    /// Which nodes read each value, a node once for each of its inputs, and how often the value is an output.
    pub fn uses(&self) -> Uses {
        let mut uses =
            Uses { nodes: vec![Vec::new(); self.values.len()], outputs: vec![0; self.values.len()] };
        for (id, node) in self.nodes.iter_with_ids() {
            for input in &node.inputs {
                uses.nodes[input.index()].push(id);
            }
        }
        for output in &self.outputs {
            uses.outputs[output.value.index()] += 1;
        }
        uses
    }

    /// Adds an input. A name that is taken gets a number.
    pub fn add_input(&mut self, name: &str, fact: Fact) -> ValueId {
        let id = self.add_value(name, fact, Source::Input);
        self.inputs.push(id);
        id
    }

    /// Adds a constant. A name that is taken gets a number.
    pub fn add_constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.add_value(name, Fact::of(&tensor), Source::Constant(tensor))
    }

    /// Gives a constant other elements, perhaps of another type, but as many. Its readers must take them and give what they gave.
    pub fn set_constant(&mut self, constant: ValueId, tensor: Tensor) {
        debug_assert!(self.constant(constant).is_some_and(|known| known.shape() == tensor.shape()));
        let value = &mut self.values[constant];
        value.fact = Fact::of(&tensor);
        value.source = Source::Constant(tensor);
    }

    /// Adds an output.
    pub fn add_output(&mut self, name: &str, value: ValueId) {
        self.outputs.push(Output { name: name.to_owned(), value });
    }

    /// Adds a node that reads `inputs` and gives values of the `names` (numbered where taken, and where there are fewer names
    /// than outputs, after the first).
    ///
    /// # Errors
    /// When the operator does not take the inputs or a result could not exist; the graph is as before.
    pub fn add_node(
        &mut self,
        origin: &str,
        op: impl Into<Op>,
        inputs: &[ValueId],
        names: &[&str],
    ) -> Result<Vec<ValueId>, OpError> {
        let op = op.into();
        let facts = op.def().infer(&self.facts(inputs))?;
        let facts = facts.into_iter().map(Fact::checked).collect::<Result<Vec<_>, _>>()?;
        let node = Id::new(self.nodes.len());
        let outputs: Vec<ValueId> = facts
            .into_iter()
            .enumerate()
            .map(|(i, fact)| {
                let name = names.get(i).or(names.first()).copied().unwrap_or(origin);
                self.add_value(name, fact, Source::Node(node, i))
            })
            .collect();
        self.nodes.push(Node {
            origin: origin.to_owned(),
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
        });
        Ok(outputs)
    }

    /// Gives a value another name, numbered where it is taken.
    pub fn rename(&mut self, value: ValueId, name: &str) {
        if self.values[value].name != name {
            self.names.remove(&self.values[value].name);
            let name = self.unique_name(name);
            self.names.insert(name.clone(), value);
            self.values[value].name = name;
        }
    }

    fn add_value(&mut self, name: &str, fact: Fact, source: Source) -> ValueId {
        let name = self.unique_name(name);
        let id = self.values.push(Value { name: name.clone(), fact, source });
        self.names.insert(name, id);
        id
    }

    fn unique_name(&self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut number = 0;
        while unique.is_empty() || self.names.contains_key(&unique) {
            // After a few small numbers one that is surely free, so that a million values of one name cost no more than others.
            number = if number < 8 { number + 1 } else { number + self.values.len() };
            unique = format!("{name}.{number}");
        }
        unique
    }

    /// The graph without the nodes and constants that no output needs; inputs stay.
    pub fn pruned(&self) -> Graph {
        self.rewrite(|_| None)
    }

    /// The graph built anew, node by node in order: for each node `rule` may add nodes to the new graph and give the values
    /// that stand for its outputs; where it gives `None`, the node is copied. Then what nothing needs is dropped.
    ///
    /// The values that stand for a node's outputs must have their facts.
    pub fn rewrite(&self, mut rule: impl FnMut(&mut Rewrite<'_>) -> Option<Vec<ValueId>>) -> Graph {
        let mut new = Graph::new(&self.name);
        let mut map: Vec<Option<ValueId>> = vec![None; self.values.len()];
        for &input in &self.inputs {
            map[input.index()] = Some(new.add_input(&self.values[input].name, self.fact(input).clone()));
        }
        for (id, node) in self.nodes.iter_with_ids() {
            let inputs: Vec<ValueId> =
                node.inputs.iter().map(|&input| self.mapped(input, &mut map, &mut new)).collect();
            let mut step = Rewrite { old: self, new: &mut new, id, node, inputs };
            let outputs = match rule(&mut step) {
                Some(outputs) => outputs,
                None => step.copy(),
            };
            debug_assert!(
                node.outputs.iter().zip(&outputs).all(|(&old, &value)| self.fact(old) == new.fact(value)),
                "a rewrite of {} should keep the facts of its outputs",
                node.origin
            );
            for (old, value) in node.outputs.iter().zip(outputs) {
                map[old.index()] = Some(value);
            }
        }
        for output in &self.outputs {
            let value = self.mapped(output.value, &mut map, &mut new);
            new.add_output(&output.name, value);
        }
        new.without_dead()
    }

    /// The value of the new graph that stands for `value`; a constant is copied when it is first asked for.
    fn mapped(&self, value: ValueId, map: &mut [Option<ValueId>], new: &mut Graph) -> ValueId {
        if let Some(mapped) = map[value.index()] {
            return mapped;
        }
        let tensor = self.constant(value).expect("inputs and outputs of earlier nodes should be mapped");
        let mapped = new.add_constant(&self.values[value].name, tensor.clone());
        map[value.index()] = Some(mapped);
        mapped
    }

    fn without_dead(self) -> Graph {
        let mut live = vec![false; self.values.len()];
        for output in &self.outputs {
            live[output.value.index()] = true;
        }
        for &input in &self.inputs {
            live[input.index()] = true;
        }
        let mut live_nodes = vec![false; self.nodes.len()];
        for (id, node) in self.nodes.iter_with_ids().collect::<Vec<_>>().into_iter().rev() {
            if node.outputs.iter().any(|output| live[output.index()]) {
                live_nodes[id.index()] = true;
                // A node gives all its outputs or none.
                for value in node.inputs.iter().chain(&node.outputs) {
                    live[value.index()] = true;
                }
            }
        }
        let mut node_map: Vec<NodeId> = Vec::with_capacity(self.nodes.len());
        let mut next = 0;
        for &live in &live_nodes {
            node_map.push(Id::new(next));
            next += usize::from(live);
        }
        let mut value_map: Vec<ValueId> = Vec::with_capacity(self.values.len());
        let mut next = 0;
        for &live in &live {
            value_map.push(Id::new(next));
            next += usize::from(live);
        }
        let renumber = |values: &[ValueId]| values.iter().map(|value| value_map[value.index()]).collect();
        let values: IdVec<Value> = self
            .values
            .iter_with_ids()
            .filter(|(id, _)| live[id.index()])
            .map(|(_, value)| {
                let mut value = value.clone();
                if let Source::Node(node, i) = value.source {
                    value.source = Source::Node(node_map[node.index()], i);
                }
                value
            })
            .collect();
        Graph {
            nodes: self
                .nodes
                .iter_with_ids()
                .filter(|(id, _)| live_nodes[id.index()])
                .map(|(_, node)| Node {
                    inputs: renumber(&node.inputs),
                    outputs: renumber(&node.outputs),
                    ..node.clone()
                })
                .collect(),
            inputs: renumber(&self.inputs),
            outputs: self
                .outputs
                .iter()
                .map(|output| Output { name: output.name.clone(), value: value_map[output.value.index()] })
                .collect(),
            names: values.iter_with_ids().map(|(id, value)| (value.name.clone(), id)).collect(),
            values,
            name: self.name,
        }
    }
}

/// Who reads the values of a graph; see [`Graph::uses`].
#[derive(Clone, Debug)]
pub struct Uses {
    nodes: Vec<Vec<NodeId>>,
    outputs: Vec<usize>,
}

impl Uses {
    /// The nodes that read `value`, in order, a node once for each of its inputs.
    pub fn nodes(&self, value: ValueId) -> &[NodeId] {
        &self.nodes[value.index()]
    }

    /// Whether `value` is an output of the graph.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.outputs[value.index()] > 0
    }

    /// The node that alone reads `value`, and reads it once; `None` where there are several reads or it is an output.
    pub fn only(&self, value: ValueId) -> Option<NodeId> {
        match self.nodes(value) {
            [node] if !self.is_output(value) => Some(*node),
            _ => None,
        }
    }
}

/// One node of a graph that is being rewritten; see [`Graph::rewrite`].
#[derive(Debug)]
pub struct Rewrite<'a> {
    /// The graph that is rewritten.
    pub old: &'a Graph,
    /// The graph that takes its place.
    pub new: &'a mut Graph,
    /// The node's id in the old graph.
    pub id: NodeId,
    /// The node, with ids of the old graph.
    pub node: &'a Node,
    /// What the node reads, with ids of the new graph.
    pub inputs: Vec<ValueId>,
}

impl Rewrite<'_> {
    /// Copies the node with its mapped inputs.
    pub fn copy(&mut self) -> Vec<ValueId> {
        let (op, inputs) = (self.node.op.clone(), self.inputs.clone());
        self.add(op, &inputs).expect("the node should take inputs of the same facts")
    }

    /// Adds a node in place of the old one: its origin and the names of its outputs pass on.
    ///
    /// # Errors
    /// As [`Graph::add_node`].
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Vec<ValueId>, OpError> {
        let names: Vec<&str> = self.node.outputs.iter().map(|&v| self.old.values[v].name.as_str()).collect();
        self.new.add_node(&self.node.origin, op, inputs, &names)
    }

    /// Adds a constant in place of the old node's first output.
    pub fn add_constant(&mut self, tensor: Tensor) -> ValueId {
        self.new.add_constant(&self.old.values[self.node.outputs[0]].name, tensor)
    }
}

#[cfg(test)]
mod tests;
