//! The verifier.
//!
//! [`Nest::verify`] checks, and reports all that fails at once:
//!
//! - names: those of buffers, loops and blocks can be parsed back; buffers and blocks are unique; a loop is not named as one
//!   around it, nor as a buffer of rank 0;
//! - scope: a variable is bound by one loop and used inside it; a parameter has the role of one; a local buffer is allocated
//!   once, and accessed behind that in the same or a deeper body (packed buffers: anywhere behind);
//! - access: inputs, constants and packed buffers are read only, but the preparation writes packed buffers; it reads no
//!   input and no output;
//! - types: every operand, index, condition and stored value has the type its place needs, every index its buffer's rank;
//! - ranges: every index is within its extent, proved by [`Nest::unproved_accesses`]'s means. An index that depends on data
//!   cannot be proved wrong, only unproved: it is left to that query;
//! - kinds: barriers stand outside of vector and parallel loops and of the preparation; no axis is bound twice around a
//!   statement; workgroup loops are not inside of invocation, vector or parallel loops, parallel ones not inside of
//!   workgroup, invocation or vector ones, and nothing but serial and unrolled loops is inside of a vector loop.
//!
//! It does not check that outputs are written and buffers initialised (the interpreter does), nor races
//! (`analysis::verify_races`), nor limits of a target.

use super::lex::is_name;
use super::parse::special_float;
use super::print::kind_name;
use super::range::Facts;
use super::types::TypeError;
use super::{BufferId, Loop, LoopKind, Nest, Role, Scope, Stmt, Store, VarId};
use crate::expr::{Expr, ExprId, ExprPool};
use crate::tensor::elements;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What is wrong with a nest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A name that the text form cannot hold.
    #[error(
        "{what} `{name}` cannot be named so: use letters, digits, `_` and `.`, and no word of the text form"
    )]
    BadName {
        /// A buffer, a loop or a block.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Two things share a name.
    #[error("{what} `{name}` exists twice: rename or remove one")]
    DuplicateName {
        /// Buffers, blocks, or what else.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A shape whose number of elements overflows.
    #[error("buffer `{buffer}` of shape {shape:?} is too large to count its elements")]
    TooLarge {
        /// The buffer.
        buffer: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A parameter or an allocation with a role or scope it cannot have.
    #[error("buffer `{buffer}` of role {role:?} and scope {scope:?} cannot stand as {place}")]
    WrongRole {
        /// The buffer.
        buffer: String,
        /// Its role.
        role: Role,
        /// Its scope.
        scope: Scope,
        /// A parameter, an allocation ...
        place: &'static str,
    },
    /// Two loops with one variable.
    #[error("two loops bind the variable `{var}`: give each its own")]
    BoundTwice {
        /// The variable's name.
        var: String,
    },
    /// A variable outside of its loop.
    #[error("block `{block}` uses the loop variable `{var}` outside of its loop")]
    UnboundVariable {
        /// The block.
        block: String,
        /// The variable's name.
        var: String,
    },
    /// A buffer where it does not exist.
    #[error("block `{block}` accesses buffer `{buffer}` where it is not allocated")]
    OutOfScope {
        /// The block.
        block: String,
        /// The buffer.
        buffer: String,
    },
    /// A write to what cannot be written there.
    #[error("block `{block}` writes buffer `{buffer}`, whose role is {role:?}")]
    ReadOnly {
        /// The block.
        block: String,
        /// The buffer.
        buffer: String,
        /// Its role.
        role: Role,
    },
    /// An access the preparation must not make.
    #[error("block `{block}` of the preparation accesses buffer `{buffer}`, whose role is {role:?}")]
    NotInPreparation {
        /// The block.
        block: String,
        /// The buffer.
        buffer: String,
        /// Its role.
        role: Role,
    },
    /// Types that do not fit.
    #[error("block `{block}`: {error}")]
    Type {
        /// The block.
        block: String,
        /// Where and how.
        error: TypeError,
    },
    /// An index that can leave its buffer.
    #[error(
        "block `{block}` accesses buffer `{buffer}` at `{index}` in dimension {axis}, which is {} to {} but the \
         extent is {extent}: guard the access", bound(.range.0), bound(.range.1)
    )]
    OutOfRange {
        /// The block.
        block: String,
        /// The buffer.
        buffer: String,
        /// The dimension.
        axis: usize,
        /// The index of that dimension.
        index: String,
        /// The least and the largest value that could be proved, as far as there is one.
        range: (Option<i64>, Option<i64>),
        /// The buffer's extent there.
        extent: usize,
    },
    /// A loop kind where it cannot be.
    #[error("the {} loop `{var}` cannot stand inside of the {} loop `{outer}`", kind_name(*.kind), kind_name(*.outer_kind))]
    Kind {
        /// The variable of the inner loop.
        var: String,
        /// The kind of the inner loop.
        kind: LoopKind,
        /// The variable of the outer loop.
        outer: String,
        /// The kind of the outer loop.
        outer_kind: LoopKind,
    },
    /// A barrier where not all invocations of a workgroup meet.
    #[error("a barrier cannot stand inside of {place}")]
    Barrier {
        /// Where it stands.
        place: String,
    },
}

fn bound(value: Option<i64>) -> String {
    value.map_or("unknown".to_string(), |value| value.to_string())
}

/// An access with an index that depends on data, so that nothing proves that it is in range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnprovedAccess {
    /// The block that makes it.
    pub block: String,
    /// The buffer accessed.
    pub buffer: BufferId,
    /// The dimension concerned.
    pub axis: usize,
    /// The index of that dimension.
    pub index: ExprId,
}

impl Nest {
    /// Checks what the head of `loopir/verify.rs` lists.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn verify(&self) -> Result<(), Vec<VerifyError>> {
        self.verify_structure()?;
        let errors = self.check_ranges().0;
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// As [`verify`](Self::verify), without the ranges of indices.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn verify_structure(&self) -> Result<(), Vec<VerifyError>> {
        let mut verifier = Verifier {
            nest: self,
            errors: vec![],
            blocks: BTreeSet::new(),
            bound: HashSet::new(),
            allocated: HashSet::new(),
            visible: HashSet::new(),
            around: vec![],
            in_preparation: true,
            scalars: self
                .pool
                .buffers
                .iter()
                .filter(|buffer| buffer.shape.is_empty())
                .map(|buffer| buffer.name.as_str())
                .collect(),
        };
        verifier.params();
        let before = verifier.visible.clone();
        verifier.stmts(&self.preparation);
        verifier.visible = before;
        let packed = verifier.allocated.iter().filter(|&&id| self.pool.buffers[id].role == Role::Packed);
        verifier.visible.extend(packed.copied().collect::<Vec<_>>());
        verifier.in_preparation = false;
        verifier.stmts(&self.body);
        if verifier.errors.is_empty() { Ok(()) } else { Err(verifier.errors) }
    }

    /// Checks the kinds of loops alone: what may stand inside of what, and where barriers stand.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify_kinds(&self) -> Result<(), VerifyError> {
        let mut around = vec![];
        kinds(&self.pool, &self.body, &mut around)
    }

    /// Accesses whose index depends on data (a load) and cannot be proved to be in range: an emitter must check or clamp
    /// them. Meant for nests that verify.
    ///
    /// A range is proved by intervals, refined by the conditions that hold around the access: the block's condition, and
    /// those of the guards and selects the load is an operand of. A select evaluates only the operand it chooses.
    pub fn unproved_accesses(&self) -> Vec<UnprovedAccess> {
        self.check_ranges().1
    }

    fn check_ranges(&self) -> (Vec<VerifyError>, Vec<UnprovedAccess>) {
        let mut ranges =
            Ranges { pool: self.pool.clone(), block: String::new(), errors: vec![], unproved: vec![] };
        ranges.stmts(&self.preparation);
        ranges.stmts(&self.body);
        (ranges.errors, ranges.unproved)
    }
}

struct Verifier<'a> {
    nest: &'a Nest,
    errors: Vec<VerifyError>,
    blocks: BTreeSet<&'a str>,
    bound: HashSet<VarId>,
    allocated: HashSet<BufferId>,
    visible: HashSet<BufferId>,
    around: Vec<&'a Loop>,
    in_preparation: bool,
    scalars: BTreeSet<&'a str>,
}

impl<'a> Verifier<'a> {
    fn check_name(&mut self, what: &'static str, name: &str) {
        let reserved = ["true", "false", "and", "or", "if"].contains(&name) || special_float(name).is_some();
        if reserved || !is_name(name) {
            self.errors.push(VerifyError::BadName { what, name: name.to_string() });
        }
    }

    fn params(&mut self) {
        for &id in &self.nest.params {
            let buffer = &self.nest.pool.buffers[id];
            let fits = matches!(buffer.role, Role::Input | Role::Constant | Role::Output);
            self.declare(id, fits && buffer.scope == Scope::Global, "a parameter");
        }
        let mut names = BTreeSet::new();
        for &id in &self.nest.params {
            let name = &self.nest.pool.buffers[id].name;
            if !names.insert(name) {
                self.errors.push(VerifyError::DuplicateName { what: "the buffer", name: name.clone() });
            }
        }
    }

    fn declare(&mut self, id: BufferId, fits: bool, place: &'static str) {
        let buffer = &self.nest.pool.buffers[id];
        self.check_name("the buffer", &buffer.name);
        if elements(&buffer.shape).and_then(|n| n.checked_mul(8)).is_none_or(|n| n > isize::MAX as usize) {
            let (buffer, shape) = (buffer.name.clone(), buffer.shape.clone());
            self.errors.push(VerifyError::TooLarge { buffer, shape });
        }
        if !fits {
            self.errors.push(VerifyError::WrongRole {
                buffer: buffer.name.clone(),
                role: buffer.role,
                scope: buffer.scope,
                place,
            });
        }
        if !self.allocated.insert(id) {
            let name = buffer.name.clone();
            self.errors.push(VerifyError::DuplicateName { what: "the allocation of", name });
        }
        self.visible.insert(id);
    }

    fn stmts(&mut self, stmts: &'a [Stmt]) {
        let before = self.visible.clone();
        for stmt in stmts {
            match stmt {
                Stmt::Loop(inner) => self.enter(inner),
                Stmt::Store(store) => self.store(store),
                Stmt::Alloc(id) => self.alloc(*id),
                Stmt::Barrier => self.barrier(),
            }
        }
        self.visible = before;
    }

    fn enter(&mut self, inner: &'a Loop) {
        let variable = &self.nest.pool.vars[inner.var];
        let var = || variable.name.clone();
        self.check_name("the loop", &variable.name);
        if !self.bound.insert(inner.var) {
            self.errors.push(VerifyError::BoundTwice { var: var() });
        }
        let shadows = |outer: &&Loop| self.nest.pool.vars[outer.var].name == variable.name;
        if self.scalars.contains(variable.name.as_str()) || self.around.iter().any(shadows) {
            self.errors.push(VerifyError::DuplicateName { what: "the loop or scalar buffer", name: var() });
        }
        self.errors.extend(kind_conflicts(&self.nest.pool, &self.around, inner));
        self.around.push(inner);
        self.stmts(&inner.body);
        self.around.pop();
    }

    fn alloc(&mut self, id: BufferId) {
        let buffer = &self.nest.pool.buffers[id];
        let fits = match buffer.role {
            Role::Packed => self.in_preparation && self.around.is_empty() && buffer.scope == Scope::Global,
            Role::Local => true,
            Role::Input | Role::Constant | Role::Output => false,
        };
        let same = |other: &&BufferId| **other != id && self.nest.pool.buffers[**other].name == buffer.name;
        if self.allocated.iter().any(|other| same(&other)) {
            self.errors.push(VerifyError::DuplicateName { what: "the buffer", name: buffer.name.clone() });
        }
        self.declare(id, fits, "an allocation here");
    }

    fn barrier(&mut self) {
        if self.in_preparation {
            self.errors.push(VerifyError::Barrier { place: "the preparation".to_string() });
        } else {
            self.errors.extend(misplaced_barrier(&self.nest.pool, &self.around));
        }
    }

    fn store(&mut self, store: &'a Store) {
        self.check_name("the block", &store.block);
        if !self.blocks.insert(&store.block) {
            let name = store.block.clone();
            self.errors.push(VerifyError::DuplicateName { what: "the block", name });
        }
        let pool = &self.nest.pool;
        let role = pool.buffers[store.buffer].role;
        let writable = match role {
            Role::Input | Role::Constant => false,
            Role::Packed => self.in_preparation,
            Role::Output | Role::Local => true,
        };
        if !writable {
            self.errors.push(VerifyError::ReadOnly {
                block: store.block.clone(),
                buffer: pool.buffers[store.buffer].name.clone(),
                role,
            });
        }
        self.access(store, store.buffer);
        let mut seen = HashSet::new();
        for root in store.roots() {
            pool.visit(root, &mut |id| {
                if seen.insert(id) {
                    self.node(store, id);
                }
            });
        }
        for error in super::types::check_store(pool, store) {
            self.errors.push(VerifyError::Type { block: store.block.clone(), error });
        }
    }

    fn node(&mut self, store: &Store, id: ExprId) {
        if let Expr::Load(buffer, _) = *self.nest.pool.get(id) {
            self.access(store, buffer);
        }
        if let Some(var) = self.nest.pool.as_var(id)
            && !self.around.iter().any(|outer| outer.var == var)
        {
            self.errors.push(VerifyError::UnboundVariable {
                block: store.block.clone(),
                var: self.nest.pool.vars[var].name.clone(),
            });
        }
    }

    fn access(&mut self, store: &Store, id: BufferId) {
        let buffer = &self.nest.pool.buffers[id];
        let block = store.block.clone();
        if !self.visible.contains(&id) {
            self.errors.push(VerifyError::OutOfScope { block, buffer: buffer.name.clone() });
        } else if self.in_preparation && matches!(buffer.role, Role::Input | Role::Output) {
            let (buffer, role) = (buffer.name.clone(), buffer.role);
            self.errors.push(VerifyError::NotInPreparation { block, buffer, role });
        }
    }
}

fn kinds<'a>(pool: &ExprPool, stmts: &'a [Stmt], around: &mut Vec<&'a Loop>) -> Result<(), VerifyError> {
    for stmt in stmts {
        let error = match stmt {
            Stmt::Loop(inner) => kind_conflicts(pool, around, inner).next(),
            Stmt::Barrier => misplaced_barrier(pool, around),
            Stmt::Store(_) | Stmt::Alloc(_) => None,
        };
        if let Some(error) = error {
            return Err(error);
        }
        if let Stmt::Loop(inner) = stmt {
            around.push(inner);
            kinds(pool, &inner.body, around)?;
            around.pop();
        }
    }
    Ok(())
}

/// The loops of `around` that may not contain a loop of the kind of `inner`.
fn kind_conflicts(pool: &ExprPool, around: &[&Loop], inner: &Loop) -> impl Iterator<Item = VerifyError> {
    around.iter().filter(|outer| !may_contain(outer.kind, inner.kind)).map(|outer| VerifyError::Kind {
        var: pool.vars[inner.var].name.clone(),
        kind: inner.kind,
        outer: pool.vars[outer.var].name.clone(),
        outer_kind: outer.kind,
    })
}

/// What is wrong with a barrier inside of these loops.
fn misplaced_barrier(pool: &ExprPool, around: &[&Loop]) -> Option<VerifyError> {
    around.iter().find_map(|outer| match outer.kind {
        LoopKind::Vector | LoopKind::Parallel => {
            let place = format!("the {} loop `{}`", kind_name(outer.kind), pool.vars[outer.var].name);
            Some(VerifyError::Barrier { place })
        }
        LoopKind::Serial | LoopKind::Unroll | LoopKind::Workgroup(_) | LoopKind::Invocation(_) => None,
    })
}

fn may_contain(outer: LoopKind, inner: LoopKind) -> bool {
    match (outer, inner) {
        (_, LoopKind::Serial | LoopKind::Unroll) => true,
        (LoopKind::Serial | LoopKind::Unroll, _) => true,
        (LoopKind::Vector, _) => false,
        (LoopKind::Parallel, LoopKind::Parallel | LoopKind::Vector) => true,
        (LoopKind::Parallel, LoopKind::Workgroup(_) | LoopKind::Invocation(_)) => false,
        (LoopKind::Workgroup(a), LoopKind::Workgroup(b)) => a != b,
        (LoopKind::Workgroup(_), LoopKind::Invocation(_) | LoopKind::Vector) => true,
        (LoopKind::Invocation(a), LoopKind::Invocation(b)) => a != b,
        (LoopKind::Invocation(_), LoopKind::Vector) => true,
        (LoopKind::Invocation(_), LoopKind::Workgroup(_)) => false,
        (LoopKind::Workgroup(_) | LoopKind::Invocation(_), LoopKind::Parallel) => false,
    }
}

/// Walks all accesses with the conditions around them.
struct Ranges {
    pool: ExprPool,
    block: String,
    errors: Vec<VerifyError>,
    unproved: Vec<UnprovedAccess>,
}

impl Ranges {
    fn stmts(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(inner) if self.pool.vars[inner.var].extent == 0 => {}
                Stmt::Loop(inner) => self.stmts(&inner.body),
                Stmt::Store(store) => self.store(store),
                Stmt::Alloc(_) | Stmt::Barrier => {}
            }
        }
    }

    fn store(&mut self, store: &Store) {
        self.block.clone_from(&store.block);
        let mut facts = Facts::default();
        if let Some(condition) = store.condition {
            self.expr(condition, &facts, &mut HashMap::new());
            facts.assume(&mut self.pool, condition);
        }
        let mut seen = HashMap::new();
        for &root in store.index.iter().chain([&store.value]) {
            self.expr(root, &facts, &mut seen);
        }
        self.access(store.buffer, &store.index, &facts);
    }

    /// Checks the loads in `id`, each once under the same facts.
    fn expr(&mut self, id: ExprId, facts: &Facts, seen: &mut HashMap<ExprId, ()>) {
        if seen.insert(id, ()).is_some() {
            return;
        }
        match self.pool.get(id).clone() {
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Cast(..) => {
                self.pool.operands(id).into_iter().for_each(|operand| self.expr(operand, facts, seen));
            }
            Expr::Load(buffer, index) => {
                index.iter().for_each(|&i| self.expr(i, facts, seen));
                self.access(buffer, &index, facts);
            }
            Expr::Guard(condition, a) => {
                self.expr(condition, facts, seen);
                let mut inner = facts.clone();
                inner.assume(&mut self.pool, condition);
                self.expr(a, &inner, &mut HashMap::new());
            }
            Expr::Select(condition, a, b) => {
                self.expr(condition, facts, seen);
                let mut holds = facts.clone();
                holds.assume(&mut self.pool, condition);
                self.expr(a, &holds, &mut HashMap::new());
                let mut fails = facts.clone();
                fails.assume_not(&mut self.pool, condition);
                self.expr(b, &fails, &mut HashMap::new());
            }
        }
    }

    fn access(&mut self, buffer: BufferId, index: &[ExprId], facts: &Facts) {
        for (axis, &i) in index.iter().enumerate() {
            let extent = self.pool.buffers[buffer].shape[axis];
            let range = facts.range(&mut self.pool, i);
            if facts.contradict() || range.within(extent) {
                continue;
            }
            if self.pool.loads_of(i).is_empty() {
                self.errors.push(VerifyError::OutOfRange {
                    block: self.block.clone(),
                    buffer: self.pool.buffers[buffer].name.clone(),
                    axis,
                    index: self.pool.display(i).to_string(),
                    range: (range.low, range.high),
                    extent,
                });
            } else {
                let access = UnprovedAccess { block: self.block.clone(), buffer, axis, index: i };
                if !self.unproved.contains(&access) {
                    self.unproved.push(access);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
