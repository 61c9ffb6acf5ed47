//! Layer 3: the loop nest, the one form in which computations are defined, scheduled and emitted.
//!
//! # Meaning
//!
//! A [`Nest`] runs its statements in order. A [`Loop`] runs its body for each value `0..extent` of its variable; the kind
//! says how, never what: a schedule that changes kinds keeps the meaning.
//!
//! - `serial`, `unroll`: one iteration after the other. `vector`: all lanes of a statement before the next statement.
//! - `parallel`, `workgroup.*`: iterations in any order, none sees what another writes.
//! - `invocation.*`: all iterations side by side; each runs up to the next [`Stmt::Barrier`], then all go on. Two of them
//!   touching one element without a barrier between, one writing, is a race.
//!
//! A [`Store`] is a *block*: a statement with a name. It evaluates its condition (absent: true) and, where that holds, its
//! value and its indices, and writes or combines one element. Where the condition does not hold nothing is read.
//!
//! [`Stmt::Alloc`] makes a local buffer whose contents are undefined until written, living to the end of the enclosing body.
//! Under `invocation` loops every invocation has its own unless the allocation stands outside of them.
//!
//! # Names
//!
//! A loop variable is bound by exactly one loop; copies that a step makes of a loop get variables of their own under the same
//! name, so that a step addressing `i.2` reaches all copies. Block names are unique in a nest; so are buffer names.
//!
//! # Preparation
//!
//! Statements of [`Nest::preparation`] run once, when the nest is compiled: they read constants and write
//! [`Role::Packed`] buffers, which the body reads. The meaning of a nest is that of its preparation followed by its body.

mod build;
mod hash;
mod lex;
mod parse;
pub(crate) mod print;
mod range;
mod types;
mod verify;
pub mod walk;

pub use build::NestBuilder;
pub use hash::NestHash;
pub use parse::ParseError;
pub use range::{Facts, Range};
pub use types::TypeError;
pub use verify::{UnprovedAccess, VerifyError};

pub use crate::expr::{Buffer, BufferId, Role, Scope, VarId, Variable};

use crate::expr::{BinaryOp, ExprId, ExprPool, Mark};

/// A grid axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Axis {
    /// The fastest.
    X,
    /// The middle one.
    Y,
    /// The slowest.
    Z,
}

/// How the iterations of a loop run; see the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopKind {
    /// In order.
    Serial,
    /// Over the threads of a CPU.
    Parallel,
    /// As lanes of vectors.
    Vector,
    /// In order, expanded.
    Unroll,
    /// Over the workgroups of a GPU.
    Workgroup(Axis),
    /// Over the invocations of a workgroup.
    Invocation(Axis),
}

/// A loop and what it repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// The variable, with its extent.
    pub var: VarId,
    /// How iterations run.
    pub kind: LoopKind,
    /// The instruction that stands for this loop and all it contains, put there by the step `replace`.
    pub instruction: Option<String>,
    /// What is repeated.
    pub body: Vec<Stmt>,
}

/// How a block combines its value with the element it writes. Each is associative and commutative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combiner {
    /// `+=`
    Add,
    /// `*=`
    Mul,
    /// `min=`
    Min,
    /// `max=`
    Max,
}

impl Combiner {
    /// The operation on two values.
    pub fn op(self) -> BinaryOp {
        match self {
            Combiner::Add => BinaryOp::Add,
            Combiner::Mul => BinaryOp::Mul,
            Combiner::Min => BinaryOp::Min,
            Combiner::Max => BinaryOp::Max,
        }
    }

    /// The value that changes nothing, for floats and, saturated, for integers.
    pub fn identity(self) -> f64 {
        match self {
            Combiner::Add => 0.0,
            Combiner::Mul => 1.0,
            Combiner::Min => f64::INFINITY,
            Combiner::Max => f64::NEG_INFINITY,
        }
    }
}

/// A block: one element written or combined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The block's name.
    pub block: String,
    /// The buffer written.
    pub buffer: BufferId,
    /// One index expression a dimension.
    pub index: Vec<ExprId>,
    /// The value; of the buffer's type.
    pub value: ExprId,
    /// `None` writes, else combines.
    pub combine: Option<Combiner>,
    /// Where it does not hold, nothing happens. A bool.
    pub condition: Option<ExprId>,
}

impl Store {
    /// Changes every expression of the block.
    pub fn change_exprs(&mut self, change: &mut impl FnMut(ExprId) -> ExprId) {
        for index in &mut self.index {
            *index = change(*index);
        }
        self.value = change(self.value);
        self.condition = self.condition.map(change);
    }

    /// The expressions it evaluates: its indices, its value, its condition.
    pub fn roots(&self) -> impl Iterator<Item = ExprId> + '_ {
        self.index.iter().copied().chain([self.value]).chain(self.condition)
    }
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stmt {
    /// A loop.
    Loop(Loop),
    /// A block.
    Store(Store),
    /// A local buffer comes to life.
    Alloc(BufferId),
    /// All invocations of the workgroup meet.
    Barrier,
}

/// A computation over buffers.
#[derive(Clone, Debug)]
pub struct Nest {
    /// What it computes: `conv_bias_relu`.
    pub name: String,
    /// Variables, buffers and expressions.
    pub pool: ExprPool,
    /// The buffers a caller binds, in order: inputs, constants, outputs.
    pub params: Vec<BufferId>,
    /// What runs once, when the nest is compiled.
    pub preparation: Vec<Stmt>,
    /// What runs each time.
    pub body: Vec<Stmt>,
}

/// What a nest was, to go back to.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pool: Mark,
    params: Vec<BufferId>,
    preparation: Vec<Stmt>,
    body: Vec<Stmt>,
}

impl Nest {
    /// What it is now.
    pub fn snapshot(&self) -> Snapshot {
        let Nest { name: _, pool, params, preparation, body } = self;
        Snapshot {
            pool: pool.mark(),
            params: params.clone(),
            preparation: preparation.clone(),
            body: body.clone(),
        }
    }

    /// Goes back to what it was then, unless it has gone back to before that since.
    pub fn restore(&mut self, snapshot: Snapshot) {
        let Snapshot { pool, params, preparation, body } = snapshot;
        self.pool.rewind(pool);
        (self.params, self.preparation, self.body) = (params, preparation, body);
    }

    /// A nest of that name without anything in it.
    pub fn new(name: &str) -> Nest {
        Nest {
            name: name.to_string(),
            pool: ExprPool::default(),
            params: vec![],
            preparation: vec![],
            body: vec![],
        }
    }

    /// The buffer of that name.
    pub fn buffer_named(&self, name: &str) -> Option<BufferId> {
        self.pool.buffers.iter_with_ids().find(|(_, buffer)| buffer.name == name).map(|(id, _)| id)
    }

    /// Parameters of a role, in order.
    pub fn params_of(&self, role: Role) -> impl Iterator<Item = BufferId> + '_ {
        self.params.iter().copied().filter(move |&id| self.pool.buffers[id].role == role)
    }

    /// `base`, or `base` with the first number behind it that makes it unlike every buffer's name.
    pub fn fresh_buffer_name(&self, base: &str) -> String {
        if self.buffer_named(base).is_none() {
            return base.to_string();
        }
        (1..)
            .map(|n| format!("{base}{n}"))
            .find(|name| self.buffer_named(name).is_none())
            .expect("there should be a free name")
    }

    /// `base`, or `base` with the first number behind it that makes it unlike every block's name.
    pub fn fresh_block_name(&self, base: &str) -> String {
        let mut names = std::collections::BTreeSet::new();
        self.visit_stores(&mut |store| {
            names.insert(store.block.clone());
        });
        if !names.contains(base) {
            return base.to_string();
        }
        (1..)
            .map(|n| format!("{base}{n}"))
            .find(|name| !names.contains(name))
            .expect("there should be a free name")
    }
}
