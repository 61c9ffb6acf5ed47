//! From a group of operators to one unscheduled loop nest.
//!
//! # How an operator takes part
//!
//! An operator says by [`Define::form`] how it is computed:
//!
//! - *Element form* ([`ElementForm`]): an element of its output is an expression of elements of its inputs (arithmetic,
//!   layout, padding, gathering). Such a node before the anchor is inlined where the anchor reads it; after the anchor it maps
//!   the value the anchor has just computed. A group without anchor is a loop over the output that stores the element.
//! - *Anchor form* ([`AnchorForm`]): the operator needs loops of its own (convolution, reduction, softmax). It opens
//!   its loops, reads operands by [`Definer::read`] and hands each finished output element to [`Definer::emit`], which computes
//!   what follows in the group and stores the group's outputs.
//!
//! # The nest
//!
//! Parameters are the group's externals in their order, then its outputs in their order. The loops of extent 1 are omitted: the
//! index is 0. Where the group consists of elementwise work, reductions along axes or normalisations, adjacent
//! dimensions that every access walks through as one are one loop, and parameters are declared with the dimensions
//! merged accordingly: the elements and their order are those of the tensor, the shape may differ
//! ([`collapse`](super::collapse)).
//!
//! The blocks that store outputs are named `store`, `store1` ...; those that start and carry on an accumulation `init` and
//! `update`, or `init_NAME` and `update_NAME` where there are several.

use super::{Fact, OpDef, collapse};
use crate::expr::{BinaryOp, BufferId, ExprId, ExprPool, Role, Scope};
use crate::loopir::{Combiner, Nest, NestBuilder};
use crate::tensor::DType;
use std::collections::HashMap;

/// A value that comes into a group from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Its type and shape.
    pub fact: Fact,
    /// Whether it is known when the nest is compiled.
    pub constant: bool,
}

/// Where an operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// From outside: [`Group::externals`].
    External(usize),
    /// An output of an earlier node: the node's place in [`Group::nodes`] and which of its outputs.
    Node(usize, usize),
}

/// One operator of a group.
#[derive(Clone)]
pub struct GroupNode<'a> {
    /// What it computes.
    pub op: &'a dyn OpDef,
    /// Its operands.
    pub inputs: Vec<Source>,
    /// The facts of its outputs.
    pub outputs: Vec<Fact>,
}

/// Operators that become one nest.
#[derive(Clone)]
pub struct Group<'a> {
    /// What comes in.
    pub externals: Vec<External>,
    /// The operators, each behind those it reads.
    pub nodes: Vec<GroupNode<'a>>,
    /// The node whose loops the nest has; `None` where all nodes have element form.
    pub anchor: Option<usize>,
    /// What goes out; each a node's output.
    pub outputs: Vec<Source>,
}

impl Group<'_> {
    /// Type and shape of a value of the group.
    ///
    /// # Panics
    /// When there is no such value.
    pub fn fact(&self, source: Source) -> &Fact {
        match source {
            Source::External(i) => &self.externals[i].fact,
            Source::Node(j, output) => &self.nodes[j].outputs[output],
        }
    }
}

/// How an operator becomes a nest. Operators implement it beside their shape rule.
pub trait Define {
    /// A short lower-case word for the names of nests: `conv`, `softmax`.
    fn label(&self) -> String;

    /// In which form it can take part in a group.
    fn form(&self) -> Form<'_>;
}

/// The forms of an operator.
#[derive(Clone, Copy)]
pub enum Form<'a> {
    /// Output elements are expressions of input elements.
    Element(&'a dyn ElementForm),
    /// It needs loops of its own.
    Anchor(&'a dyn AnchorForm),
    /// Both: as anchor its loops are better than a loop over the output (concatenation).
    Either(&'a dyn ElementForm, &'a dyn AnchorForm),
    /// Not computed by a nest: its output shape depends on data, or it is control flow.
    Host,
}

impl<'a> Form<'a> {
    /// The element form, if there is one.
    pub fn element(self) -> Option<&'a dyn ElementForm> {
        match self {
            Form::Element(element) | Form::Either(element, _) => Some(element),
            Form::Anchor(_) | Form::Host => None,
        }
    }

    /// The anchor form, if there is one.
    pub fn anchor(self) -> Option<&'a dyn AnchorForm> {
        match self {
            Form::Anchor(anchor) | Form::Either(_, anchor) => Some(anchor),
            Form::Element(_) | Form::Host => None,
        }
    }
}

/// Where an element of an input goes in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Each input element decides one output element; [`ElementForm::forward`] gives its index.
    Maps,
    /// As [`Follow::Maps`], and the output element is the input element: a layout operation.
    Moves,
    /// Neither: it cannot follow an anchor.
    Never,
}

/// An operator whose output elements are expressions of input elements.
pub trait ElementForm {
    /// The element `index` of output `output`. An index has one expression a dimension, each in range.
    ///
    /// # Errors
    /// As [`Definer::read`].
    fn element(&self, at: &mut Definer<'_>, output: usize, index: &[ExprId]) -> Result<ExprId, DefineError>;

    /// Whether it can follow an anchor through operand `input`, for operands and output 0 of these types.
    fn follow(&self, input: usize, inputs: &[Fact], output: &Fact) -> Follow;

    /// The index in output 0 of the element that operand `input` has at `index`, where [`follow`](Self::follow) allows it.
    fn forward(&self, at: &mut Definer<'_>, input: usize, index: &[ExprId]) -> Vec<ExprId>;
}

/// An operator with loops of its own.
pub trait AnchorForm {
    /// Names for the buffers of its operands, in order; operands beyond are named `x0`, `x1` ...
    fn operand_names(&self) -> &'static [&'static str];

    /// Whether every element of output 0 is emitted exactly once, so that operators can follow.
    fn can_be_followed(&self) -> bool;

    /// Whether adjacent loops of one role may become one. False where schedules address dimensions by role.
    fn may_collapse(&self) -> bool;

    /// Adds its statements.
    ///
    /// # Errors
    /// As [`Definer::read`], or where the operator refuses its operands.
    fn define(&self, at: &mut Definer<'_>) -> Result<(), DefineError>;
}

/// Why a group does not become a nest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefineError {
    /// A node that needs loops of its own is read where only an element can be.
    #[error(
        "node {node} ({label}) of the group needs loops of its own and is read outside of them: make it the anchor, or start a \
         new group after it"
    )]
    NotInline {
        /// The node's place in the group.
        node: usize,
        /// Its label.
        label: String,
    },
    /// A node without a nest.
    #[error("node {node} ({label}) of the group is not computed by a nest: run it on the host")]
    Host {
        /// The node's place in the group.
        node: usize,
        /// Its label.
        label: String,
    },
    /// The group's anchor has no loops of its own, or cannot be followed by what follows.
    #[error("node {node} ({label}) of the group cannot follow its anchor: start a new group there")]
    CannotFollow {
        /// The node's place in the group.
        node: usize,
        /// Its label.
        label: String,
    },
    /// The operator cannot be defined for operands like these.
    #[error("{label}: {reason}")]
    Unsupported {
        /// The operator's label.
        label: String,
        /// What is not supported, and what to do.
        reason: String,
    },
}

/// Whether `op` can follow an anchor through operand `input`, for operands and output 0 of these types.
pub fn can_follow(op: &dyn OpDef, input: usize, inputs: &[Fact], output: &Fact) -> bool {
    op.form().element().is_some_and(|element| element.follow(input, inputs, output) != Follow::Never)
}

/// The nest of a group.
///
/// # Errors
/// Where a node cannot take part as the group wants it.
///
/// # Panics
/// Where the group names a node or an external it does not have.
pub fn define_group(group: &Group<'_>) -> Result<Nest, DefineError> {
    let mut at = Definer::new(group);
    let depends = depends_on(group, group.anchor);
    let (after, before): (Vec<usize>, Vec<usize>) =
        (0..group.outputs.len()).partition(|&o| matches!(group.outputs[o], Source::Node(j, _) if depends[j]));
    let mut may_collapse = true;
    at.element_loops(&before)?;
    if let Some(node) = group.anchor {
        let Some(anchor) = group.nodes[node].op.form().anchor() else {
            return Err(at.host_or_inline_error(node));
        };
        may_collapse = anchor.may_collapse();
        at.pending = after;
        at.node = node;
        anchor.define(&mut at)?;
    }
    let mut nest = at.nest.finish();
    if may_collapse {
        collapse::merge_loops(&mut nest);
    }
    collapse::merge_dimensions(&mut nest, may_collapse);
    Ok(nest)
}

/// For each node whether it is `root` or computed from it; all false without a root.
fn depends_on(group: &Group<'_>, root: Option<usize>) -> Vec<bool> {
    let mut depends = vec![false; group.nodes.len()];
    for (j, node) in group.nodes.iter().enumerate() {
        depends[j] = Some(j) == root
            || node.inputs.iter().any(|source| matches!(source, Source::Node(i, _) if depends[*i]));
    }
    depends
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

/// A nest of a group in the making, seen from one of its nodes.
pub struct Definer<'g> {
    nest: NestBuilder,
    group: &'g Group<'g>,
    externals: Vec<BufferId>,
    outputs: Vec<BufferId>,
    /// Elements that are already expressions.
    values: HashMap<(Source, Vec<ExprId>), ExprId>,
    /// The node that speaks.
    node: usize,
    /// The group outputs that [`emit`](Self::emit) stores.
    pending: Vec<usize>,
}

impl<'g> Definer<'g> {
    fn new(group: &'g Group<'g>) -> Definer<'g> {
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
            node: 0,
            pending: vec![],
        };
        for &output in &group.outputs {
            let fact = at.fact_of(output);
            let buffer = at.nest.param(Role::Output, "y", fact.dtype, &fact.shape);
            at.outputs.push(buffer);
        }
        at
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
            .map(
                |&(name, extent)| {
                    if extent == 1 { self.nest.pool().int(0) } else { self.nest.open(name, extent) }
                },
            )
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
        let (init, update) = if name == "acc" {
            ("init".to_string(), "update".to_string())
        } else {
            (format!("init_{name}"), format!("update_{name}"))
        };
        let register = self.nest.alloc(Scope::Register, name, dtype, &[]);
        let identity = self.identity(combiner, dtype);
        self.nest.store(&init, register, &[], identity);
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
                self.pool().intern(crate::expr::Expr::Int(value, dtype))
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
        let dtype = self.output(output).dtype;
        let value = self.pool().cast(dtype, value);
        let index: Vec<ExprId> = index.iter().map(|&i| self.pool().simplify(i)).collect();
        let origin = Source::Node(self.node, output);
        let mut places: HashMap<Source, Vec<ExprId>> = HashMap::from([(origin, index.clone())]);
        self.values.insert((origin, index), value);
        for node in self.node + 1..self.group.nodes.len() {
            self.follow(node, &mut places)?;
        }
        for o in self.pending.clone() {
            let source = self.group.outputs[o];
            if let Some(place) = places.get(&source) {
                let value = self.value(source, place)?;
                self.nest.store("store", self.outputs[o], place, value);
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
        for o in self.pending.clone() {
            if self.group.outputs[o] == source {
                self.nest.store_where(block, self.outputs[o], index, combine, value, condition);
            }
        }
    }

    /// Loops over the group outputs `outputs` that store their elements; outputs of one shape share loops.
    fn element_loops(&mut self, outputs: &[usize]) -> Result<(), DefineError> {
        let mut rest: &[usize] = outputs;
        while let Some(&first) = rest.first() {
            let source = self.group.outputs[first];
            let shape = &self.fact_of(source).shape;
            if let Source::Node(node, _) = source
                && let Form::Either(_, anchor) = self.group.nodes[node].op.form()
            {
                self.pending = vec![first];
                self.as_node(node, |at| anchor.define(at))?;
                rest = &rest[1..];
                continue;
            }
            let same =
                rest.iter().take_while(|&&o| &self.fact_of(self.group.outputs[o]).shape == shape).count();
            let (index, opened) = self.open_numbered("i", shape);
            for &o in &rest[..same] {
                let value = self.value(self.group.outputs[o], &index)?;
                self.nest.store("store", self.outputs[o], &index, value);
            }
            self.close(opened);
            rest = &rest[same..];
        }
        Ok(())
    }
}

/// Names `prefix0`, `prefix1` ... for the dimensions whose extent is not 1.
pub fn numbered(prefix: &str, extents: &[usize]) -> Vec<(String, usize)> {
    let mut count = 0;
    let mut name = |extent: usize| {
        let name = format!("{prefix}{count}");
        count += usize::from(extent != 1);
        name
    };
    extents.iter().map(|&extent| (name(extent), extent)).collect()
}

/// The type a sum of `dtype` elements is kept in: f32 for the 16-bit floats, i32 for bool, else the type itself.
pub fn accumulator(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        DType::Bool => DType::I32,
        DType::F32
        | DType::F64
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64 => dtype,
    }
}

/// The position of `index` in an array of `shape`, row-major.
pub fn linearise(pool: &mut ExprPool, index: &[ExprId], shape: &[usize]) -> ExprId {
    let mut sum = pool.int(0);
    for (&i, stride) in index.iter().zip(crate::tensor::row_major_strides(shape)) {
        let term = pool.mul_int(i, stride as i64);
        sum = pool.add(sum, term);
    }
    pool.simplify(sum)
}

/// The index in an array of `shape` of the element at `position`, row-major; the inverse of [`linearise`].
pub fn delinearise(pool: &mut ExprPool, position: ExprId, shape: &[usize]) -> Vec<ExprId> {
    let strides = crate::tensor::row_major_strides(shape);
    let outermost = shape.iter().position(|&extent| extent != 1);
    (0..shape.len())
        .map(|axis| {
            if shape[axis] == 1 {
                return pool.int(0);
            }
            let mut digit = pool.div_int(position, strides[axis].max(1) as i64);
            if Some(axis) != outermost {
                digit = pool.mod_int(digit, shape[axis].max(1) as i64);
            }
            pool.simplify(digit)
        })
        .collect()
}

/// `low <= value < high`.
pub fn in_range(pool: &mut ExprPool, value: ExprId, low: i64, high: i64) -> ExprId {
    let (above, below) = (pool.at_least_int(value, low), pool.less_int(value, high));
    pool.and(above, below)
}

/// `floor(a / b)` rounded up instead, for a positive index constant `b`.
pub fn div_ceil(pool: &mut ExprPool, a: ExprId, b: i64) -> ExprId {
    let raised = pool.add_int(a, b - 1);
    pool.div_int(raised, b)
}

/// `min(max(value, low), high)` for index constants.
pub fn clamp(pool: &mut ExprPool, value: ExprId, low: i64, high: i64) -> ExprId {
    let (low, high) = (pool.int(low), pool.int(high));
    let raised = pool.binary(BinaryOp::Max, value, low);
    pool.binary(BinaryOp::Min, raised, high)
}
