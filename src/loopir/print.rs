//! The text form of nests.

use super::{Axis, Combiner, Loop, LoopKind, Nest, Role, Scope, Stmt, Store};
use crate::base::IndentWriter;
use crate::expr::{BufferId, ExprId};
use std::fmt;

impl fmt::Display for Nest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = IndentWriter::new(2);
        out.line(format_args!("nest {}", self.name));
        out.indent();
        for &param in &self.params {
            let keyword = match self.pool.buffers[param].role {
                Role::Input => "in",
                Role::Constant => "const",
                Role::Output => "out",
                Role::Packed | Role::Local => "local",
            };
            out.line(format_args!("{keyword:<5} {}", self.declaration(param)));
        }
        if !self.preparation.is_empty() {
            out.line(format_args!("prepare:"));
            out.indent();
            self.write_stmts(&self.preparation, &mut out);
            out.dedent();
        }
        self.write_stmts(&self.body, &mut out);
        f.write_str(&out.finish())
    }
}

impl Nest {
    fn declaration(&self, id: BufferId) -> String {
        let buffer = &self.pool.buffers[id];
        let shape: Vec<String> = buffer.shape.iter().map(usize::to_string).collect();
        let shape = if shape.is_empty() { String::new() } else { format!("[{}]", shape.join(", ")) };
        let padding =
            if buffer.row_padding > 0 { format!(" pad {}", buffer.row_padding) } else { String::new() };
        format!("{}: {}{shape}{padding}", buffer.name, buffer.dtype)
    }

    fn write_stmts(&self, stmts: &[Stmt], out: &mut IndentWriter) {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(outer) => self.write_loops(outer, out),
                Stmt::Store(store) => out.line(format_args!("{}", self.store_line(store))),
                Stmt::Alloc(id) => {
                    let keyword = match (self.pool.buffers[*id].role, self.pool.buffers[*id].scope) {
                        (Role::Packed, _) => "packed",
                        (_, Scope::Global) => "global",
                        (_, Scope::Workgroup) => "workgroup",
                        (_, Scope::Register) => "register",
                    };
                    out.line(format_args!("{keyword} {}", self.declaration(*id)));
                }
                Stmt::Barrier => out.line(format_args!("barrier")),
            }
        }
    }

    /// Loops that contain nothing but a loop share a line.
    fn write_loops(&self, outer: &Loop, out: &mut IndentWriter) {
        let mut heads = vec![self.loop_head(outer)];
        let mut innermost = outer;
        while let [Stmt::Loop(inner)] = innermost.body.as_slice() {
            heads.push(self.loop_head(inner));
            innermost = inner;
        }
        out.line(format_args!("for {}:", heads.join(", ")));
        out.indent();
        self.write_stmts(&innermost.body, out);
        out.dedent();
    }

    fn loop_head(&self, of: &Loop) -> String {
        let var = &self.pool.vars[of.var];
        let kind = kind_name(of.kind);
        let kind = if kind.is_empty() { String::new() } else { format!(" {kind}") };
        let instruction = of.instruction.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
        format!("{} in {}{kind}{instruction}", var.name, var.extent)
    }

    /// One block as a line: `name: y[i] = value if condition`.
    pub fn store_line(&self, store: &Store) -> String {
        let sign = match store.combine {
            None => "=",
            Some(Combiner::Add) => "+=",
            Some(Combiner::Mul) => "*=",
            Some(Combiner::Min) => "min=",
            Some(Combiner::Max) => "max=",
        };
        let condition = store.condition.map(|c| format!(" if {}", self.pool.display(c))).unwrap_or_default();
        format!(
            "{}: {} {sign} {}{condition}",
            store.block,
            self.element(store.buffer, &store.index),
            self.pool.display(store.value)
        )
    }

    fn element(&self, buffer: BufferId, index: &[ExprId]) -> String {
        let index: Vec<String> = index.iter().map(|&i| self.pool.display(i).to_string()).collect();
        let index = if index.is_empty() { String::new() } else { format!("[{}]", index.join(", ")) };
        format!("{}{index}", self.pool.buffers[buffer].name)
    }
}

/// The word for a loop kind; empty for serial.
pub(crate) fn kind_name(kind: LoopKind) -> &'static str {
    match kind {
        LoopKind::Serial => "",
        LoopKind::Parallel => "parallel",
        LoopKind::Vector => "vector",
        LoopKind::Unroll => "unroll",
        LoopKind::Workgroup(Axis::X) => "workgroup.x",
        LoopKind::Workgroup(Axis::Y) => "workgroup.y",
        LoopKind::Workgroup(Axis::Z) => "workgroup.z",
        LoopKind::Invocation(Axis::X) => "invocation.x",
        LoopKind::Invocation(Axis::Y) => "invocation.y",
        LoopKind::Invocation(Axis::Z) => "invocation.z",
    }
}

/// The loop kind of a word; the inverse of [`kind_name`].
pub(crate) fn kind_named(name: &str) -> Option<LoopKind> {
    let axes = [Axis::X, Axis::Y, Axis::Z];
    [LoopKind::Serial, LoopKind::Parallel, LoopKind::Vector, LoopKind::Unroll]
        .into_iter()
        .chain(axes.map(LoopKind::Workgroup))
        .chain(axes.map(LoopKind::Invocation))
        .find(|&kind| kind_name(kind) == name)
}
