//! The context in which the nodes of a group add their part to the group's nest.

use super::Fact;
use super::define::{AnchorForm, DefineError, Follow, Form, Group, GroupNode, Source, numbered};
use crate::expr::{BufferId, Expr, ExprId, ExprPool, Role, Scope};
use crate::loopir::{Combiner, Nest, NestBuilder};
use crate::tensor::DType;
use std::collections::HashMap;

/// A nest of a group in the making, seen from one of its nodes.
pub struct Definer<'g> {
    nest: NestBuilder,
    group: &'g Group<'g>,
    externals: Vec<BufferId>,
    outputs: Vec<BufferId>,
    /// Elements that are already expressions.
    values: HashMap<(Source, Vec<ExprId>), ExprId>,
    /// Values that are kept in buffers of the nest.
    kept: HashMap<Source, BufferId>,
    /// What the names of loops and registers begin with.
    prefix: String,
    /// The node that speaks.
    node: usize,
    /// What [`emit`](Self::emit) stores.
    pending: Vec<Target>,
    /// For each node whether something pending is computed from it.
    needed: Vec<bool>,
}

/// A value, and where its elements are stored.
#[derive(Clone)]
struct Target {
    source: Source,
    buffer: BufferId,
    block: String,
}

impl<'g> Definer<'g> {
    pub(super) fn new(group: &'g Group<'g>) -> Definer<'g> {
        let labels: Vec<String> = group.nodes.iter().map(|node| node.op.label()).collect();
        let mut nest = NestBuilder::new(&labels.join("_"));
        let mut names: Vec<Option<&str>> = vec![None; group.externals.len()];
        let anchor = group.anchor.and_then(|j| Some((&group.nodes[j], group.nodes[j].op.form().anchor()?)));
        if let Some((node, anchor)) = anchor {
            for (&source, &name) in node.inputs.iter().zip(anchor.operand_names()) {
                if let Some(i) = first_external(group, source) {
                    names[i].get_or_insert(name);
                }
            }
        }
        let mut unnamed = 0;
        let mut externals = vec![];
        for (external, name) in group.externals.iter().zip(names) {
            let name = name.map(str::to_string).unwrap_or_else(|| {
                unnamed += 1;
                format!("x{}", unnamed - 1)
            });
            let role = if external.constant { Role::Constant } else { Role::Input };
            externals.push(nest.param(role, &name, external.fact.dtype, &external.fact.shape));
        }
        let mut at = Definer {
            nest,
            group,
            externals,
            outputs: vec![],
            values: HashMap::new(),
            kept: HashMap::new(),
            prefix: String::new(),
            node: 0,
            pending: vec![],
            needed: vec![],
        };
        for &output in &group.outputs {
            let fact = at.fact_of(output);
            let buffer = at.nest.param(Role::Output, "y", fact.dtype, &fact.shape);
            at.outputs.push(buffer);
        }
        at
    }

    /// The nest.
    ///
    /// # Panics
    /// When a loop is still open.
    pub(super) fn finish(self) -> Nest {
        self.nest.finish()
    }

    /// Adds the loops of `node`, the group's anchor, which store the group outputs `outputs`.
    pub(super) fn anchor_of_outputs(
        &mut self,
        node: usize,
        outputs: &[usize],
    ) -> Result<&'g dyn AnchorForm, DefineError> {
        let targets = outputs.iter().map(|&o| self.output_target(o)).collect();
        self.anchor_loops(node, targets)
    }

    /// Adds loops that compute output 0 of `node` into a buffer of the nest, which is read wherever the value is from then on.
    pub(super) fn kept_loops(&mut self, node: usize) -> Result<(), DefineError> {
        let source = Source::Node(node, 0);
        let fact = self.fact_of(source);
        let name = if self.kept.is_empty() { "t".to_string() } else { format!("t{}", self.kept.len()) };
        let buffer = self.nest.alloc(Scope::Global, &name, fact.dtype, &fact.shape);
        let target = Target { source, buffer, block: format!("make_{name}") };
        self.prefix = format!("{name}.");
        match self.anchor_behind(node) {
            Some(anchor) => self.anchor_loops(anchor, vec![target]).map(drop)?,
            None => self.loops_over(&[target])?,
        }
        self.prefix.clear();
        self.kept.insert(source, buffer);
        Ok(())
    }

    /// The node with loops of its own that `node` is computed from, itself included, but for what is kept.
    fn anchor_behind(&self, node: usize) -> Option<usize> {
        let GroupNode { op, inputs, .. } = &self.group.nodes[node];
        if let Form::Anchor(_) = op.form() {
            return Some(node);
        }
        inputs.iter().find_map(|source| match source {
            Source::Node(behind, _) if !self.kept.contains_key(source) => self.anchor_behind(*behind),
            Source::Node(..) | Source::External(_) => None,
        })
    }

    fn output_target(&self, output: usize) -> Target {
        let (source, buffer) = (self.group.outputs[output], self.outputs[output]);
        Target { source, buffer, block: "store".to_string() }
    }

    /// Adds the loops of `node`, which store `targets`.
    fn anchor_loops(&mut self, node: usize, targets: Vec<Target>) -> Result<&'g dyn AnchorForm, DefineError> {
        let anchor = self.group.nodes[node].op.form().anchor();
        let anchor = anchor.ok_or_else(|| self.host_or_inline_error(node))?;
        let follower = targets.iter().find_map(|target| match target.source {
            Source::Node(j, _) if j != node => Some(j),
            Source::Node(..) | Source::External(_) => None,
        });
        if let Some(follower) = follower.filter(|_| !anchor.can_be_followed()) {
            let label = self.group.nodes[follower].op.label();
            return Err(DefineError::CannotFollow { node: follower, label });
        }
        self.set_pending(targets);
        self.as_node(node, |at| anchor.define(at))?;
        Ok(anchor)
    }

    fn set_pending(&mut self, targets: Vec<Target>) {
        let nodes = &self.group.nodes;
        self.needed = vec![false; nodes.len()];
        let mut wanted: Vec<Source> = targets.iter().map(|target| target.source).collect();
        while let Some(source) = wanted.pop() {
            if let Source::Node(j, _) = source
                && !self.kept.contains_key(&source)
                && !std::mem::replace(&mut self.needed[j], true)
            {
                wanted.extend(&nodes[j].inputs);
            }
        }
        self.pending = targets;
    }

    /// The expressions of the nest.
    pub fn pool(&mut self) -> &mut ExprPool {
        self.nest.pool()
    }

    /// The statements of the nest.
    pub fn builder(&mut self) -> &mut NestBuilder {
        &mut self.nest
    }

    fn this(&self) -> &'g GroupNode<'g> {
        &self.group.nodes[self.node]
    }

    fn fact_of(&self, source: Source) -> &'g Fact {
        self.group.fact(source)
    }

    /// The number of operands.
    pub fn input_count(&self) -> usize {
        self.this().inputs.len()
    }

    /// Whether the optional operand `input` is given.
    pub fn has_input(&self, input: usize) -> bool {
        input < self.this().inputs.len()
    }

    /// The type of operand `input`.
    ///
    /// # Panics
    /// When it is not given.
    pub fn input(&self, input: usize) -> &'g Fact {
        self.fact_of(self.source(input))
    }

    /// The type of output `output`.
    pub fn output(&self, output: usize) -> &'g Fact {
        &self.this().outputs[output]
    }

    /// The number of outputs.
    pub fn output_count(&self) -> usize {
        self.this().outputs.len()
    }

    fn source(&self, input: usize) -> Source {
        self.this().inputs[input]
    }

    /// A refusal of this node.
    pub fn unsupported(&self, reason: impl Into<String>) -> DefineError {
        DefineError::Unsupported { label: self.this().op.label(), reason: reason.into() }
    }

    /// The element of operand `input` at `index`.
    ///
    /// # Errors
    /// Where the operand comes from a node that cannot be inlined, or from one that refuses.
    pub fn read(&mut self, input: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        self.value(self.source(input), index)
    }

    /// As [`read`](Self::read), converted to `dtype`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_as(&mut self, input: usize, index: &[ExprId], dtype: DType) -> Result<ExprId, DefineError> {
        let value = self.read(input, index)?;
        Ok(self.pool().cast(dtype, value))
    }

    fn value(&mut self, source: Source, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let index: Vec<ExprId> = index.iter().map(|&i| self.pool().simplify(i)).collect();
        let (node, output) = match source {
            Source::External(i) => {
                let buffer = self.externals[i];
                return Ok(self.pool().load(buffer, &index));
            }
            Source::Node(node, output) => (node, output),
        };
        if let Some(&buffer) = self.kept.get(&source) {
            return Ok(self.pool().load(buffer, &index));
        }
        if let Some(&value) = self.values.get(&(source, index.clone())) {
            return Ok(value);
        }
        let Some(element) = self.group.nodes[node].op.form().element() else {
            return Err(self.host_or_inline_error(node));
        };
        let value = self.as_node(node, |at| element.element(at, output, &index))?;
        self.values.insert((source, index), value);
        Ok(value)
    }

    fn as_node<T>(&mut self, node: usize, act: impl FnOnce(&mut Self) -> T) -> T {
        let speaker = std::mem::replace(&mut self.node, node);
        let result = act(self);
        self.node = speaker;
        result
    }

    fn host_or_inline_error(&self, node: usize) -> DefineError {
        let op = self.group.nodes[node].op;
        let label = op.label();
        match op.form() {
            Form::Host => DefineError::Host { node, label },
            Form::Element(_) | Form::Anchor(_) | Form::Either(..) => DefineError::NotInline { node, label },
        }
    }

    /// Opens a loop for each dimension whose extent is not 1 and returns the index and how many loops were opened.
    pub fn open(&mut self, dims: &[(&str, usize)]) -> (Vec<ExprId>, usize) {
        let before = self.nest.depth();
        let index = dims
            .iter()
            .map(|&(name, extent)| match extent {
                1 => self.nest.pool().int(0),
                _ => self.nest.open(&format!("{}{name}", self.prefix), extent),
            })
            .collect();
        (index, self.nest.depth() - before)
    }

    /// As [`open`](Self::open), the loops named `prefix0`, `prefix1` ...
    pub fn open_numbered(&mut self, prefix: &str, extents: &[usize]) -> (Vec<ExprId>, usize) {
        let dims = numbered(prefix, extents);
        let dims: Vec<(&str, usize)> = dims.iter().map(|(name, extent)| (name.as_str(), *extent)).collect();
        self.open(&dims)
    }

    /// Closes the `count` innermost loops.
    pub fn close(&mut self, count: usize) {
        self.nest.close(count);
    }

    /// Accumulates `value` over loops `dims` in a new register `name` and returns its final value. The blocks are
    /// `init` and `update` for the register `acc`, `init_NAME` and `update_NAME` for others.
    ///
    /// # Errors
    /// Those of `value`.
    pub fn accumulate(
        &mut self,
        name: &str,
        dtype: DType,
        combiner: Combiner,
        dims: &[(&str, usize)],
        value: impl FnOnce(&mut Self, &[ExprId]) -> Result<ExprId, DefineError>,
    ) -> Result<ExprId, DefineError> {
        let identity = self.identity(combiner, dtype);
        self.accumulate_from(identity, name, combiner, dims, value)
    }

    /// As [`accumulate`](Self::accumulate), starting from `initial`.
    ///
    /// # Errors
    /// Those of `value`.
    pub fn accumulate_from(
        &mut self,
        initial: ExprId,
        name: &str,
        combiner: Combiner,
        dims: &[(&str, usize)],
        value: impl FnOnce(&mut Self, &[ExprId]) -> Result<ExprId, DefineError>,
    ) -> Result<ExprId, DefineError> {
        let dtype = self.pool().dtype(initial);
        let name = &format!("{}{name}", self.prefix);
        let (init, update) = if name == "acc" {
            ("init".to_string(), "update".to_string())
        } else {
            (format!("init_{name}"), format!("update_{name}"))
        };
        let register = self.nest.alloc(Scope::Register, name, dtype, &[]);
        self.nest.store(&init, register, &[], initial);
        let (index, opened) = self.open(dims);
        let value = value(self, &index)?;
        let value = self.pool().cast(dtype, value);
        self.nest.update(&update, register, &[], combiner, value);
        self.close(opened);
        Ok(self.pool().load(register, &[]))
    }

    /// Keeps `value` in a new register `name`, written by the block of the same name, and returns the read of it.
    pub fn keep(&mut self, name: &str, value: ExprId) -> ExprId {
        let dtype = self.pool().dtype(value);
        let register = self.nest.alloc(Scope::Register, name, dtype, &[]);
        self.nest.store(name, register, &[], value);
        self.pool().load(register, &[])
    }

    /// The value that changes nothing under `combiner`.
    pub fn identity(&mut self, combiner: Combiner, dtype: DType) -> ExprId {
        let limit = dtype.integer_range().map(|(low, high)| match combiner {
            Combiner::Min => high,
            Combiner::Max => low,
            Combiner::Add => 0,
            Combiner::Mul => 1,
        });
        match limit {
            Some(value) => {
                // The largest u64 is stored as the i64 of the same bits.
                let value = value as i64;
                self.pool().intern(Expr::Int(value, dtype))
            }
            None => self.pool().constant(combiner.identity(), dtype),
        }
    }

    /// Hands over element `index` of this node's output `output`: what follows in the group is computed from it, and the group's
    /// outputs are stored. Each element must be handed over exactly once.
    ///
    /// # Errors
    /// Where a node that follows cannot.
    pub fn emit(&mut self, output: usize, index: &[ExprId], value: ExprId) -> Result<(), DefineError> {
        self.emit_where(output, index, value, None)
    }

    /// As [`emit`](Self::emit), for an element that is only there where `condition` holds.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_where(
        &mut self,
        output: usize,
        index: &[ExprId],
        value: ExprId,
        condition: Option<ExprId>,
    ) -> Result<(), DefineError> {
        let dtype = self.output(output).dtype;
        let value = self.pool().cast(dtype, value);
        let index: Vec<ExprId> = index.iter().map(|&i| self.pool().simplify(i)).collect();
        let origin = Source::Node(self.node, output);
        let mut places: HashMap<Source, Vec<ExprId>> = HashMap::from([(origin, index.clone())]);
        self.values.insert((origin, index), value);
        for node in self.node + 1..self.group.nodes.len() {
            if self.needed[node] {
                self.follow(node, &mut places)?;
            }
        }
        for Target { source, buffer, block } in self.pending.clone() {
            if let Some(place) = places.get(&source) {
                let value = self.value(source, place)?;
                self.nest.store_where(&block, buffer, place, None, value, condition);
            }
        }
        Ok(())
    }

    /// Finds where the elements in `places` go in the output of `node`.
    fn follow(&mut self, node: usize, places: &mut HashMap<Source, Vec<ExprId>>) -> Result<(), DefineError> {
        let GroupNode { op, inputs, outputs } = &self.group.nodes[node];
        let Some((input, source)) = inputs
            .iter()
            .enumerate()
            .find_map(|(input, &source)| places.contains_key(&source).then_some((input, source)))
        else {
            return Ok(());
        };
        let types: Vec<Fact> = inputs.iter().map(|&source| self.fact_of(source).clone()).collect();
        let cannot = || DefineError::CannotFollow { node, label: op.label() };
        let element = op.form().element().ok_or_else(cannot)?;
        let follow = element.follow(input, &types, &outputs[0]);
        if follow == Follow::Never {
            return Err(cannot());
        }
        let place = &places[&source];
        let index = self.as_node(node, |at| element.forward(at, input, place));
        let index: Vec<ExprId> = index.iter().map(|&i| self.pool().simplify(i)).collect();
        let target = Source::Node(node, 0);
        if follow == Follow::Moves {
            let value = self.value(source, place)?;
            self.values.insert((target, index.clone()), value);
        }
        places.insert(target, index);
        Ok(())
    }

    /// Stores element `index` of output 0 without letting anything follow, through `combine` if given and where `condition`
    /// holds. For anchors that write an element several times.
    pub fn store(
        &mut self,
        block: &str,
        index: &[ExprId],
        value: ExprId,
        combine: Option<Combiner>,
        condition: Option<ExprId>,
    ) {
        let source = Source::Node(self.node, 0);
        for target in self.pending.clone() {
            if target.source == source {
                self.nest.store_where(block, target.buffer, index, combine, value, condition);
            }
        }
    }

    /// Loops over the group outputs `outputs` that store their elements; outputs of one shape share loops.
    pub(super) fn element_loops(&mut self, outputs: &[usize]) -> Result<(), DefineError> {
        let mut rest: &[usize] = outputs;
        while let Some(&first) = rest.first() {
            let source = self.group.outputs[first];
            let shape = &self.fact_of(source).shape;
            if let Source::Node(node, _) = source
                && let Form::Either(..) = self.group.nodes[node].op.form()
            {
                self.anchor_of_outputs(node, &[first])?;
                rest = &rest[1..];
                continue;
            }
            let same =
                rest.iter().take_while(|&&o| &self.fact_of(self.group.outputs[o]).shape == shape).count();
            let targets: Vec<Target> = rest[..same].iter().map(|&o| self.output_target(o)).collect();
            self.loops_over(&targets)?;
            rest = &rest[same..];
        }
        Ok(())
    }

    /// Loops that store the elements of values of one shape.
    fn loops_over(&mut self, targets: &[Target]) -> Result<(), DefineError> {
        let shape = targets.first().map_or(&[][..], |target| &self.fact_of(target.source).shape);
        let (index, opened) = self.open_numbered("i", shape);
        for Target { source, buffer, block } in targets {
            let value = self.value(*source, &index)?;
            self.nest.store(block, *buffer, &index, value);
        }
        self.close(opened);
        Ok(())
    }
}

/// The external that a value comes from, through first operands.
fn first_external(group: &Group<'_>, mut source: Source) -> Option<usize> {
    loop {
        match source {
            Source::External(i) => return Some(i),
            Source::Node(j, _) => source = *group.nodes[j].inputs.first()?,
        }
    }
}
