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
//! A node whose value is *kept* has loops of its own before those of the anchor, and may come behind an anchor of its own: its
//! elements are stored in a buffer of the nest, which the nodes behind it read.
//!
//! # The nest
//!
//! Parameters are the group's externals in their order, then its outputs in their order. The loops of extent 1 are omitted: the
//! index is 0. Where the group consists of elementwise work, reductions along axes or normalisations, adjacent
//! dimensions that every access walks through as one are one loop, and parameters are declared with the dimensions
//! merged accordingly: the elements and their order are those of the tensor, the shape may differ
//! ([`collapse`]).
//!
//! The blocks that store outputs are named `store`, `store1` ...; those that start and carry on an accumulation `init` and
//! `update`, or `init_NAME` and `update_NAME` where there are several. Kept values are `t`, `t1` ..., stored by `make_t` in loops
//! whose names begin with `t.`.

use super::definer::Definer;
use super::{Fact, OpDef, blocks, collapse};
use crate::expr::{BinaryOp, ExprId, ExprPool};
use crate::loopir::Nest;
use crate::tensor::{DType, MemoryLayout};

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
    /// Nodes whose output 0 is kept, in order; each with one node at most of those it is computed from that needs loops of its own.
    pub kept: Vec<usize>,
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

/// The nest of a group. Its parameters lie in memory as `layouts` says, one a parameter; in rows where it says nothing.
///
/// # Errors
/// Where a node cannot take part as the group wants it.
///
/// # Panics
/// Where the group names a node or an external it does not have.
pub fn define_group(group: &Group<'_>, layouts: &[MemoryLayout]) -> Result<Nest, DefineError> {
    let mut at = Definer::new(group);
    let depends = depends_on(group, group.anchor);
    let (after, before): (Vec<usize>, Vec<usize>) =
        (0..group.outputs.len()).partition(|&o| matches!(group.outputs[o], Source::Node(j, _) if depends[j]));
    for &node in &group.kept {
        at.kept_loops(node)?;
    }
    at.element_loops(&before)?;
    let mut may_collapse = true;
    if let Some(node) = group.anchor {
        let anchor = at.anchor_of_outputs(node, &after)?;
        may_collapse = anchor.may_collapse();
    }
    let mut nest = at.finish();
    blocks::lay_out(&mut nest, layouts);
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
