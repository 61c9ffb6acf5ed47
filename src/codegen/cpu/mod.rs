//! Scheduled nests to CPU programs.
//!
//! The statements of the body become the phases of a program, loops become counted loops, and the leaves calls: a loop that an
//! instruction stands for becomes a call of its micro-kernel; a block, with up to three loops directly around it, a straight-
//! line vector program (`block`). Loops around a block stay loops where an iteration depends on another other than by
//! combining. Zeros before a tile, what follows its sums and the loop around it become part of the tile where it can do that
//! itself (`fold`).
//!
//! Buffers: parameters and packed constants are external, in that order; a local buffer is shared between the threads when it is
//! allocated at the top of the nest and private to a thread below.

mod activation;
mod block;
mod columns;
mod fold;
mod instruction;
#[cfg(test)]
mod tests;

use crate::analysis::{accesses, carried_buffers};
use crate::expr::{Affine, BufferId, ExprId, ExprPool, Role, VarId};
use crate::loopir::{Loop, LoopKind, Nest, Stmt, Store};
use crate::schedule::INSTRUCTIONS;
use crate::tensor::DType;
use paisley_kernels::program as cpu;
use std::collections::BTreeMap;

/// Why a nest has no CPU program. Every one is a defect of the schedule or of the compiler, not of the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// A loop of a GPU.
    #[error("loop '{0}' is bound to a GPU; schedule the nest for a CPU")]
    GpuLoop(String),
    /// A loop is replaced by something that is no instruction.
    #[error("loop '{of}' is replaced by '{instruction}', but there is no such instruction")]
    Instruction {
        /// The loop's name.
        of: String,
        /// The instruction's name.
        instruction: String,
    },
    /// A form that programs cannot express.
    #[error("block '{block}': {reason}")]
    Block {
        /// The block's name.
        block: String,
        /// What cannot be expressed.
        reason: String,
    },
    /// The program was refused by its verifier.
    #[error("the program of nest '{nest}' is not safe: {problem}")]
    Unsafe {
        /// The nest's name.
        nest: String,
        /// What the verifier found.
        problem: String,
    },
}

/// One program and what its external buffers are bound to, in order.
#[derive(Clone, Debug)]
pub struct CpuCode {
    /// The program.
    pub code: cpu::Code,
    /// Buffers of the nest: parameters and packed constants.
    pub bindings: Vec<BufferId>,
}

/// Emits the body of a scheduled nest.
///
/// # Errors
/// See [`CpuError`].
pub fn emit(nest: &Nest) -> Result<CpuCode, CpuError> {
    emit_stmts(nest, &nest.body, "run", false)
}

/// Emits the preparation of a nest scheduled for any device, its outer loops divided over the threads; `None` where there is
/// nothing to prepare.
///
/// # Errors
/// See [`CpuError`].
pub fn emit_preparation(nest: &Nest) -> Result<Option<CpuCode>, CpuError> {
    if nest.preparation.is_empty() {
        return Ok(None);
    }
    let (mut pool, mut stmts) = (nest.pool.clone(), nest.preparation.clone());
    for stmt in &mut stmts {
        if let Stmt::Loop(of) = stmt {
            divide(&mut pool, of, 2);
        }
    }
    emit_stmts(nest, &stmts, "prepare", true).map(Some)
}

/// Makes the outermost loop parallel where its iterations touch different elements, and up to `more` loops in it, of which enough
/// are left for a block.
fn divide(pool: &mut ExprPool, of: &mut Loop, more: usize) {
    const BLOCK_LOOPS: usize = 3;
    fn chain(of: &Loop) -> usize {
        if let [Stmt::Loop(inner)] = of.body.as_slice() { 1 + chain(inner) } else { 1 }
    }
    if of.kind != LoopKind::Serial || !carried_buffers(pool, of).is_empty() {
        return;
    }
    of.kind = LoopKind::Parallel;
    if let [Stmt::Loop(inner)] = of.body.as_mut_slice()
        && more > 0
        && chain(inner) > BLOCK_LOOPS
    {
        divide(pool, inner, more - 1);
    }
}

fn emit_stmts(nest: &Nest, stmts: &[Stmt], suffix: &str, preparing: bool) -> Result<CpuCode, CpuError> {
    let mut emitter = Emitter {
        pool: nest.pool.clone(),
        code: cpu::Code::new(format!("{}.{suffix}", nest.name)),
        buffers: BTreeMap::new(),
        counters: BTreeMap::new(),
    };
    let mut bindings = vec![];
    let packed = nest.pool.buffers.iter_with_ids().filter(|(_, b)| b.role == Role::Packed).map(|(id, _)| id);
    let touched = accesses(&nest.pool, stmts);
    for id in nest.params.iter().copied().chain(packed).filter(|id| touched.contains_key(id)) {
        let role = nest.pool.buffers[id].role;
        let writable = role == Role::Output || (preparing && role == Role::Packed);
        emitter.declare(id, cpu::Place::External { index: bindings.len(), writable });
        bindings.push(id);
    }
    let mut body = vec![];
    for stmt in stmts {
        if let Stmt::Alloc(id) = stmt {
            if nest.pool.buffers[*id].role == Role::Local {
                emitter.declare(*id, cpu::Place::Shared);
            }
        } else {
            emitter.stmt(stmt, true, &mut body)?;
        }
    }
    emitter.code.body = body;
    activation::recognise(&mut emitter.code);
    fold::fold(&mut emitter.code);
    Ok(CpuCode { code: emitter.code, bindings })
}

/// The type of a program's buffer or register.
pub fn element_type(dtype: DType) -> cpu::ElementType {
    match dtype {
        DType::F16 => cpu::ElementType::F16,
        DType::BF16 => cpu::ElementType::BF16,
        DType::F32 => cpu::ElementType::F32,
        DType::F64 => cpu::ElementType::F64,
        DType::I8 => cpu::ElementType::I8,
        DType::I16 => cpu::ElementType::I16,
        DType::I32 => cpu::ElementType::I32,
        DType::I64 => cpu::ElementType::I64,
        DType::U8 => cpu::ElementType::U8,
        DType::U16 => cpu::ElementType::U16,
        DType::U32 => cpu::ElementType::U32,
        DType::U64 => cpu::ElementType::U64,
        DType::Bool => cpu::ElementType::Bool,
    }
}

struct Emitter {
    pool: ExprPool,
    code: cpu::Code,
    buffers: BTreeMap<BufferId, cpu::BufferId>,
    counters: BTreeMap<VarId, cpu::CounterId>,
}

impl Emitter {
    fn declare(&mut self, id: BufferId, place: cpu::Place) {
        let buffer = &self.pool.buffers[id];
        let declared =
            self.code.buffer(buffer.name.clone(), element_type(buffer.dtype), buffer.storage_len(), place);
        self.buffers.insert(id, declared);
    }

    fn counter(&mut self, var: VarId) -> cpu::CounterId {
        let name = self.pool.vars[var].name.clone();
        let counter = self.code.counter(name);
        self.counters.insert(var, counter);
        counter
    }

    fn stmt(&mut self, stmt: &Stmt, top: bool, out: &mut Vec<cpu::Node>) -> Result<(), CpuError> {
        match stmt {
            Stmt::Alloc(id) => self.declare(*id, cpu::Place::Scratch),
            Stmt::Barrier => {}
            Stmt::Store(store) => {
                self.blocks(&[], store, out)?;
            }
            Stmt::Loop(of) => self.loop_stmt(of, top, out)?,
        }
        Ok(())
    }

    fn loop_stmt(&mut self, of: &Loop, top: bool, out: &mut Vec<cpu::Node>) -> Result<(), CpuError> {
        if let Some(name) = &of.instruction
            && let Some(node) = self.instruction(of, name)?
        {
            out.push(node);
            return Ok(());
        }
        if let Some((dims, store)) = self.block_chain(of) {
            return self.blocks(&dims, &store, out);
        }
        let parallel = match of.kind {
            // A program divides the outermost loops of a phase; any order will do for those further in.
            LoopKind::Parallel => top,
            LoopKind::Serial | LoopKind::Vector | LoopKind::Unroll => false,
            LoopKind::Workgroup(_) | LoopKind::Invocation(_) => {
                return Err(CpuError::GpuLoop(self.pool.vars[of.var].name.clone()));
            }
        };
        let counter = self.counter(of.var);
        let mut body = vec![];
        let parallel_inside = parallel && matches!(of.body.as_slice(), [Stmt::Loop(_)]);
        for stmt in &of.body {
            self.stmt(stmt, top && parallel_inside, &mut body)?;
        }
        let trip = cpu::Trip::Constant(self.pool.vars[of.var].extent);
        out.push(if parallel {
            cpu::Node::Loop(cpu::Loop { counter, trip, parallel, body })
        } else {
            counted(counter, trip, body)
        });
        Ok(())
    }

    /// The loops and the block of a chain of at most three loops around one block that can run as lanes: no iteration sees
    /// what another writes, or it only combines. A loop of a reduction around loops of results stays a loop: its terms are
    /// uniform then, and vectors run along the results.
    fn block_chain(&mut self, of: &Loop) -> Option<(Vec<VarId>, Store)> {
        let mut dims = vec![];
        let mut at = of;
        let store = loop {
            if matches!(at.kind, LoopKind::Parallel | LoopKind::Workgroup(_) | LoopKind::Invocation(_)) {
                return None;
            }
            dims.push(at.var);
            match at.body.as_slice() {
                [Stmt::Loop(inner)] if dims.len() < 3 && inner.instruction.is_none() => at = inner,
                [Stmt::Store(store)] => break store,
                _several => return None,
            }
        };
        let linear = self.pool.linear_index(store.buffer, &store.index);
        let results: Vec<bool> = dims.iter().map(|&dim| self.pool.uses_var(linear, dim)).collect();
        if !results[0] && results.contains(&true) {
            return None;
        }
        if self.ends_apart(&dims, store) {
            return None;
        }
        let touched = accesses(&self.pool, &of.body);
        let list = touched.get(&store.buffer)?;
        let only_combined = list.iter().all(|access| access.combine.is_some());
        let lanes = only_combined || {
            let mut at = of;
            loop {
                if !carried_buffers(&mut self.pool, at).is_empty() {
                    break false;
                }
                match at.body.as_slice() {
                    [Stmt::Loop(inner)] => at = inner,
                    _block => break true,
                }
            }
        };
        lanes.then(|| (dims, store.clone()))
    }

    /// Whether a condition of the store is over the outermost of three dimensions and the innermost: with a loop for the outermost it
    /// is the length of the innermost, and over both a choice by element.
    fn ends_apart(&mut self, dims: &[VarId], store: &Store) -> bool {
        let (&[outer, _, inner], Some(condition)) = (dims, store.condition) else { return false };
        self.pool
            .conjuncts(condition)
            .into_iter()
            .any(|conjunct| [outer, inner].iter().all(|&dim| self.pool.uses_var(conjunct, dim)))
    }

    /// `form` over counters and, for the variables in `dims`, strides; `None` where an atom is not a variable.
    fn counters_and_strides(&self, form: &Affine, dims: &[VarId]) -> Option<(cpu::Affine, Vec<i64>)> {
        let mut value = cpu::Affine::constant(form.constant);
        let mut strides = vec![0; dims.len()];
        for (var, coefficient) in form.variables(&self.pool)? {
            match dims.iter().position(|&dim| dim == var) {
                Some(dim) => strides[dim] = coefficient,
                None => value.add_term(*self.counters.get(&var)?, coefficient),
            }
        }
        Some((value, strides))
    }

    /// Splits conjuncts into limits of single dimensions, limits without a dimension, and the rest as they are.
    fn limits(&mut self, conjuncts: &[ExprId], dims: &[VarId]) -> Limits {
        let mut limits = Limits { trips: vec![vec![]; dims.len()], outside: vec![], rest: vec![] };
        for &conjunct in conjuncts {
            let placed = self.pool.below(conjunct).and_then(|below| {
                let (value, strides) = self.counters_and_strides(&below.terms, dims)?;
                let mut room = cpu::Affine::constant(below.bound);
                for &(counter, factor) in &value.terms {
                    room.add_term(counter, -factor);
                }
                let moving: Vec<usize> = (0..dims.len()).filter(|&dim| strides[dim] != 0).collect();
                match moving.as_slice() {
                    [] => limits.outside.push(cpu::Bound { value: room, divisor: 1 }),
                    &[dim] if strides[dim] > 0 => {
                        limits.trips[dim].push(cpu::Bound { value: room, divisor: strides[dim] });
                    }
                    _several => return None,
                }
                Some(())
            });
            if placed.is_none() {
                limits.rest.push(conjunct);
            }
        }
        limits
    }

    fn trip(&self, var: VarId, bounds: Vec<cpu::Bound>) -> cpu::Trip {
        let extent = self.pool.vars[var].extent;
        if bounds.is_empty() {
            cpu::Trip::Constant(extent)
        } else {
            cpu::Trip::Bounded { max: extent, bounds }
        }
    }

    /// `node` where all of `outside` are positive.
    fn under(&mut self, outside: Vec<cpu::Bound>, node: cpu::Node) -> cpu::Node {
        if outside.is_empty() {
            return node;
        }
        let counter = self.code.counter("if");
        let trip = cpu::Trip::Bounded { max: 1, bounds: outside };
        cpu::Node::Loop(cpu::Loop { counter, trip, parallel: false, body: vec![node] })
    }

    /// The call of an instruction; `None` where its micro-kernel cannot be called with such addresses, so that the loops it
    /// stands for are to be emitted as they are.
    fn instruction(&mut self, of: &Loop, name: &str) -> Result<Option<cpu::Node>, CpuError> {
        let wanted = INSTRUCTIONS.iter().find(|instruction| instruction.name == name);
        let wanted = wanted.ok_or_else(|| CpuError::Instruction {
            of: self.pool.vars[of.var].name.clone(),
            instruction: name.to_string(),
        })?;
        Ok(instruction::emit(self, of, wanted).ok())
    }
}

/// A loop over `body`. Where all of that is under conditions, those on the loop's counter end the loop, and those on none of its
/// iterations go around it.
fn counted(counter: cpu::CounterId, trip: cpu::Trip, body: Vec<cpu::Node>) -> cpu::Node {
    let node = |trip, body| cpu::Node::Loop(cpu::Loop { counter, trip, parallel: false, body });
    let [cpu::Node::Loop(condition)] = body.as_slice() else { return node(trip, body) };
    let cpu::Loop { trip: cpu::Trip::Bounded { max: 1, bounds }, .. } = condition else {
        return node(trip, body);
    };
    let factor = |bound: &cpu::Bound| {
        let of_counter = bound.value.terms.iter().find(|(known, _)| *known == counter);
        of_counter.map_or(0, |(_, factor)| *factor)
    };
    if bounds.iter().any(|bound| factor(bound) > 0 || bound.divisor != 1) {
        return node(trip, body);
    }
    let (ends, around): (Vec<_>, Vec<_>) = bounds.iter().cloned().partition(|bound| factor(bound) < 0);
    let ends = ends.into_iter().map(|mut bound| {
        bound.divisor = -factor(&bound);
        bound.value.terms.retain(|(known, _)| *known != counter);
        bound
    });
    let mut ends: Vec<cpu::Bound> = ends.collect();
    let max = trip.max();
    if let cpu::Trip::Bounded { max: _, bounds } = trip.clone() {
        ends.extend(bounds);
    }
    let trip = if ends.is_empty() { trip } else { cpu::Trip::Bounded { max, bounds: ends } };
    let short = node(trip, condition.body.clone());
    if around.is_empty() {
        return short;
    }
    let trip = cpu::Trip::Bounded { max: 1, bounds: around };
    cpu::Node::Loop(cpu::Loop { counter: condition.counter, trip, parallel: false, body: vec![short] })
}

struct Limits {
    /// For each dimension, what cuts it short.
    trips: Vec<Vec<cpu::Bound>>,
    /// What must be positive for anything to run.
    outside: Vec<cpu::Bound>,
    /// Conjuncts of other forms.
    rest: Vec<ExprId>,
}
