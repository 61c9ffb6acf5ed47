//! From a decoded file to a graph: nodes in order, one row each, every problem collected.

use super::call::Call;
use super::integer_operators::integer_operators;
use super::model::{Bindings, Bound, Model, is_standard};
use super::problem::{ImportError, Problem, Refusal};
use super::proto::{GraphProto, NodeProto};
use super::rows::{self, Row};
use super::weights;
use crate::graph::{Graph, ValueId};
use crate::ops::Fact;
use std::collections::{HashMap, HashSet};

/// Bytes of constants that are computed while importing; a file cannot make the importer spend more.
const FOLD_BUDGET_BYTES: usize = 256 << 20;

/// What can be told of the nodes without their inputs.
pub(super) fn check_nodes(nodes: &[NodeProto], opset: i64) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let refusals = match row(node, opset) {
            Ok(row) => unknown_attributes(row, node),
            Err(refusal) => vec![refusal],
        };
        problems.extend(refusals.into_iter().map(|refusal| refusal.at(place(node, i))));
        for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            problems.extend(check_nodes(&graph.node, opset));
        }
    }
    problems
}

fn place(node: &NodeProto, i: usize) -> String {
    format!("node `{}` ({})", origin(node, i), node.op_type)
}

/// The node's name, or its place and first output where it has none.
fn origin(node: &NodeProto, i: usize) -> String {
    if !node.name.is_empty() {
        return node.name.clone();
    }
    let output = node.output.first().map_or("", String::as_str);
    format!("#{i}:{output}")
}

fn row(node: &NodeProto, opset: i64) -> Result<&'static Row, Refusal> {
    let domain = if is_standard(&node.domain) { "" } else { &node.domain };
    rows::find(domain, &node.op_type, opset)
}

fn unknown_attributes(row: &Row, node: &NodeProto) -> Vec<Refusal> {
    let mut seen = HashSet::new();
    let mut refusals = Vec::new();
    for attribute in &node.attribute {
        if !row.attributes.contains(&&*attribute.name) {
            refusals.push(Refusal::unsupported(format!("the attribute {}", attribute.name)));
        }
        if !seen.insert(&attribute.name) {
            refusals.push(Refusal::invalid(format!("the attribute {} is given twice", attribute.name)));
        }
    }
    refusals
}

/// What a name of the file stands for.
#[derive(Clone, Copy)]
enum Slot {
    Value(ValueId),
    /// The result of something that is reported already.
    Broken,
}

struct Importer<'a> {
    model: &'a Model,
    graph: Graph,
    /// Names of the graph and, inside a branch, of the branch.
    scopes: Vec<HashMap<&'a str, Slot>>,
    problems: Vec<Problem>,
    fold_budget_bytes: usize,
}

pub(super) fn import(model: &Model, bindings: &Bindings) -> Result<Graph, ImportError> {
    let nodes = integer_operators(&model.graph, &model.external);
    let mut importer = Importer {
        model,
        graph: Graph::new(&model.graph.name),
        scopes: vec![HashMap::new()],
        problems: model.problems.clone(),
        fold_budget_bytes: FOLD_BUDGET_BYTES,
    };
    importer.initializers(&model.graph);
    importer.inputs(bindings);
    importer.nodes(nodes.iter().map(|(i, node)| (*i, node.as_ref())));
    importer.outputs();
    if importer.problems.is_empty() {
        Ok(importer.graph.pruned())
    } else {
        Err(ImportError { problems: importer.problems })
    }
}

impl<'a> Importer<'a> {
    fn define(&mut self, name: &'a str, slot: Slot, place: impl FnOnce() -> String) {
        let scope = self.scopes.last_mut().expect("there should be the scope of the graph");
        if scope.insert(name, slot).is_some() {
            self.problems.push(Refusal::invalid(format!("the name `{name}` is defined twice")).at(place()));
        }
    }

    fn lookup(&self, name: &str) -> Option<Slot> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name).copied())
    }

    fn initializers(&mut self, graph: &'a GraphProto) {
        for proto in &graph.initializer {
            let place = || format!("initializer `{}`", proto.name);
            let slot = match weights::tensor(proto, &self.model.external) {
                Ok(tensor) => Slot::Value(self.graph.add_constant(&proto.name, tensor)),
                Err(refusal) => {
                    self.problems.push(refusal.at(place()));
                    Slot::Broken
                }
            };
            self.define(&proto.name, slot, place);
        }
    }

    fn inputs(&mut self, bindings: &Bindings) {
        let model = self.model;
        let bound: Vec<Option<Bound>> = match model.bind(bindings) {
            Ok(bound) => bound.into_iter().map(Some).collect(),
            Err(problems) => {
                self.problems.extend(problems);
                model.inputs().iter().map(|_| None).collect()
            }
        };
        for (input, bound) in model.inputs().iter().zip(bound) {
            let place = || format!("input `{}`", input.name);
            let slot = match bound {
                None => Slot::Broken,
                Some(Bound::Constant(tensor)) => Slot::Value(self.graph.add_constant(&input.name, tensor)),
                Some(Bound::Input(dtype, shape)) => match (Fact { dtype, shape }).checked() {
                    Ok(fact) => Slot::Value(self.graph.add_input(&input.name, fact)),
                    Err(error) => {
                        self.problems.push(Refusal::from(error).at(place()));
                        Slot::Broken
                    }
                },
            };
            self.define(&input.name, slot, place);
        }
        // Inputs of unsupported types are reported already.
        for info in &model.graph.input {
            if self.lookup(&info.name).is_none() {
                self.define(&info.name, Slot::Broken, String::new);
            }
        }
    }

    /// Adds nodes, each with its place in the file.
    fn nodes(&mut self, nodes: impl Iterator<Item = (usize, &'a NodeProto)>) {
        for (i, node) in nodes {
            let before = self.graph.values().len();
            let refusals = match self.node(node, i) {
                Ok(values) => {
                    self.results(node, i, &values, before);
                    continue;
                }
                Err(refusals) => refusals,
            };
            self.problems.extend(refusals.into_iter().map(|refusal| refusal.at(place(node, i))));
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                self.define(name, Slot::Broken, || place(node, i));
            }
        }
    }

    /// The values of a node's outputs, or the reasons why there are none: no reason where one of its inputs is broken.
    fn node(&mut self, node: &'a NodeProto, i: usize) -> Result<Vec<ValueId>, Vec<Refusal>> {
        let row = row(node, self.model.opset).map_err(|refusal| vec![refusal])?;
        let mut refusals = unknown_attributes(row, node);
        let mut broken = false;
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            match self.lookup(name) {
                Some(Slot::Value(value)) => inputs.push(Some(value)),
                Some(Slot::Broken) => broken = true,
                None if name.is_empty() => inputs.push(None),
                None => refusals.push(Refusal {
                    remedy: "the nodes form a cycle or are not in the order of evaluation".into(),
                    ..Refusal::invalid(format!("nothing before it gives its input `{name}`"))
                }),
            }
        }
        if broken || !refusals.is_empty() {
            return Err(refusals);
        }
        if node.op_type == rows::IF {
            return self.branch(node, &inputs).map_err(|refusal| refusal.into_iter().collect());
        }
        let mut call = Call {
            graph: &mut self.graph,
            fold_budget_bytes: &mut self.fold_budget_bytes,
            external: &self.model.external,
            node,
            origin: &origin(node, i),
            opset: self.model.opset,
            inputs,
        };
        (row.import)(&mut call).map_err(|refusal| vec![refusal])
    }

    /// Names a node's results, those of them that are not among the values `before` it: what is there already, because the
    /// node changes nothing, keeps its name.
    fn results(&mut self, node: &'a NodeProto, i: usize, values: &[ValueId], before: usize) {
        for (position, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let slot = match values.get(position) {
                Some(&value) => {
                    if value.index() >= before && !values[..position].contains(&value) {
                        self.graph.rename(value, name);
                    }
                    Slot::Value(value)
                }
                None => {
                    let refusal = Refusal::unsupported(format!("the output {position} (`{name}`)"));
                    self.problems.push(refusal.at(place(node, i)));
                    Slot::Broken
                }
            };
            self.define(name, slot, || place(node, i));
        }
    }

    /// The outputs of the branch that a known condition chooses; its nodes become part of the graph.
    fn branch(
        &mut self,
        node: &'a NodeProto,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<ValueId>, Option<Refusal>> {
        let condition = inputs.first().copied().flatten().and_then(|value| self.graph.constant(value));
        let holds = match condition.and_then(|tensor| tensor.to_i64_vec()).as_deref() {
            Some(&[value]) => value != 0,
            Some(_) => return Err(Some(Refusal::invalid("the condition is not one value"))),
            None => return Err(Some(Refusal::unsupported("a condition that depends on data"))),
        };
        let name = if holds { "then_branch" } else { "else_branch" };
        let graph = node.attribute.iter().find(|attribute| attribute.name == name);
        let graph = graph.and_then(|attribute| attribute.g.as_deref());
        let graph = graph.ok_or_else(|| Some(Refusal::invalid(format!("there is no {name}"))))?;
        self.scopes.push(HashMap::new());
        self.initializers(graph);
        self.nodes(graph.node.iter().enumerate());
        let outputs: Vec<Option<Slot>> = graph.output.iter().map(|info| self.lookup(&info.name)).collect();
        self.scopes.pop();
        let mut values = Vec::with_capacity(outputs.len());
        for (info, slot) in graph.output.iter().zip(outputs) {
            match slot {
                Some(Slot::Value(value)) => values.push(value),
                Some(Slot::Broken) => return Err(None),
                None => {
                    let reason = format!("nothing in the {name} gives its output `{}`", info.name);
                    return Err(Some(Refusal::invalid(reason)));
                }
            }
        }
        Ok(values)
    }

    fn outputs(&mut self) {
        let model = self.model;
        if model.graph.output.is_empty() {
            self.problems.push(Refusal::invalid("it has no output").at("the file"));
        }
        let mut names = HashSet::new();
        for info in &model.graph.output {
            let place = || format!("output `{}`", info.name);
            if !names.insert(&info.name) {
                self.problems.push(Refusal::invalid("it is listed twice").at(place()));
            }
            match self.lookup(&info.name) {
                Some(Slot::Value(value)) => self.graph.add_output(&info.name, value),
                Some(Slot::Broken) => {}
                None => self.problems.push(Refusal::invalid("nothing gives it").at(place())),
            }
        }
    }
}
