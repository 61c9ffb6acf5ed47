//! Graphs as text and as Graphviz drawings.

use super::{Graph, Source};
use crate::base::IndentWriter;
use std::fmt;

/// The graph as text:
///
/// ```text
/// graph name
///   in    x: f32[1, 4]
///   const w: f32[4, 8]
///   h: f32[1, 8] = matmul(x, w)
///   y: f32[1, 8] = map(h) max(x0, 0.0)
///   out   y
/// ```
///
/// A scalar constant is printed with its value, a node without attributes ends with its inputs, and an output whose name
/// is not its value's is printed `out name = value`.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = IndentWriter::new(2);
        text.line(format_args!("graph {}", self.name));
        text.indent();
        let name = |value| self.values()[value].name.as_str();
        for &input in self.inputs() {
            text.line(format_args!("in    {}: {}", name(input), self.fact(input)));
        }
        for value in self.values().iter() {
            if let Source::Constant(tensor) = &value.source {
                match tensor.len() {
                    1 => text.line(format_args!(
                        "const {}: {} = {}",
                        value.name,
                        value.fact,
                        tensor.get_f64(0)
                    )),
                    _ => text.line(format_args!("const {}: {}", value.name, value.fact)),
                }
            }
        }
        for node in self.nodes().iter() {
            let outputs: Vec<String> =
                node.outputs.iter().map(|&value| format!("{}: {}", name(value), self.fact(value))).collect();
            let inputs: Vec<&str> = node.inputs.iter().map(|&value| name(value)).collect();
            let (op, attributes) = (node.op.def().name(), node.op.def().attributes());
            let space = if attributes.is_empty() { "" } else { " " };
            text.line(format_args!(
                "{} = {op}({}){space}{attributes}",
                outputs.join(", "),
                inputs.join(", ")
            ));
        }
        for output in self.outputs() {
            if output.name == name(output.value) {
                text.line(format_args!("out   {}", output.name));
            } else {
                text.line(format_args!("out   {} = {}", output.name, name(output.value)));
            }
        }
        f.write_str(&text.finish())
    }
}

impl Graph {
    /// The graph in the language of Graphviz: boxes for nodes, ellipses for inputs and outputs, edges labelled with facts;
    /// constants are left out.
    pub fn to_dot(&self) -> String {
        let mut text = IndentWriter::new(2);
        text.line(format_args!("digraph {:?} {{", self.name));
        text.indent();
        text.line(format_args!("node [shape=box]"));
        for &input in self.inputs() {
            text.line(format_args!(
                "v{} [label={:?}, shape=ellipse]",
                input.index(),
                self.values()[input].name
            ));
        }
        for (id, node) in self.nodes().iter_with_ids() {
            let label = format!("{}\n{}", node.op.def().name(), node.op.def().attributes());
            text.line(format_args!("n{} [label={:?}]", id.index(), label.trim_end()));
            for &input in &node.inputs {
                self.edge(&mut text, input, &format!("n{}", id.index()));
            }
        }
        for (i, output) in self.outputs().iter().enumerate() {
            text.line(format_args!("o{i} [label={:?}, shape=ellipse]", output.name));
            self.edge(&mut text, output.value, &format!("o{i}"));
        }
        text.dedent();
        text.line(format_args!("}}"));
        text.finish()
    }

    fn edge(&self, text: &mut IndentWriter, from: super::ValueId, to: &str) {
        let start = match self.values()[from].source {
            Source::Constant(_) => return,
            Source::Input => format!("v{}", from.index()),
            Source::Node(node, _) => format!("n{}", node.index()),
        };
        text.line(format_args!("{start} -> {to} [label=\"{}\"]", self.fact(from)));
    }
}
