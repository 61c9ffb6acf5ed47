//! One block, with the loops directly around it as dimensions, to a straight-line vector program.

use super::{CpuError, Emitter, columns, element_type};
use crate::expr::{BinaryOp, Expr, ExprId, UnaryOp, VarId};
use crate::loopir::{Combiner, Facts, Store};
use crate::tensor::DType;
use paisley_kernels::program as cpu;
use std::collections::HashMap;

/// More than any index, and far from overflow.
pub(super) const UNLIMITED: i64 = 1 << 48;

impl Emitter {
    /// The call that runs `store` for every value of the loops `dims`, outermost first.
    pub(super) fn block(&mut self, dims: &[VarId], store: &Store) -> Result<cpu::Node, CpuError> {
        let mut conjuncts =
            store.condition.map(|condition| self.pool.conjuncts(condition)).unwrap_or_default();
        let mut value = store.value;
        if let Some((condition, inner)) = self.neutral_unless(store) {
            conjuncts.extend(self.pool.conjuncts(condition));
            value = inner;
        }
        let limits = self.limits(&conjuncts, dims);
        let mut trips: Vec<cpu::Trip> =
            dims.iter().zip(limits.trips).map(|(&var, bounds)| self.trip(var, bounds)).collect();
        if trips.is_empty() {
            trips.push(cpu::Trip::Constant(1));
        }
        let block = cpu::Block::new(store.block.clone(), trips);
        let mut facts = Facts::default();
        for &conjunct in &conjuncts {
            facts.assume(&mut self.pool, conjunct);
        }
        let mut lowering =
            Lowering { emitter: self, dims, block, done: HashMap::new(), name: &store.block, facts };
        let guards = lowering.guards(&limits.rest)?;
        let value = lowering.expr(value, &guards)?;
        lowering.store(store, value, guards)?;
        let mut block = lowering.block;
        columns::cut(&mut block);
        columns::join(&mut block);
        let node = cpu::Node::Call(cpu::Call::Block(block));
        Ok(self.under(limits.outside, node))
    }

    /// The calls of a statement: as [`block`](Self::block), but a copy of what is inside a region, a constant outside, becomes
    /// two, the constant everywhere and the copy inside, so that neither needs to choose by element.
    pub(super) fn blocks(
        &mut self,
        dims: &[VarId],
        store: &Store,
        out: &mut Vec<cpu::Node>,
    ) -> Result<(), CpuError> {
        match self.filled_copy(store) {
            Some(stores) => {
                for store in &stores {
                    out.push(self.block(dims, store)?);
                }
            }
            None => out.push(self.block(dims, store)?),
        }
        Ok(())
    }

    /// The fill and the copy of `y[..] = select(limits of indices, x[..], constant)`.
    fn filled_copy(&mut self, store: &Store) -> Option<[Store; 2]> {
        let Expr::Select(condition, value, otherwise) = *self.pool.get(store.value) else { return None };
        let constant = matches!(self.pool.get(otherwise), Expr::Float(..) | Expr::Int(..));
        let load = if let Expr::Guard(_, load) = *self.pool.get(value) { load } else { value };
        let Expr::Load(buffer, _) = *self.pool.get(load) else { return None };
        let conjuncts = self.pool.conjuncts(condition);
        let affine = conjuncts.iter().all(|&conjunct| {
            self.pool.below(conjunct).is_some_and(|below| below.terms.variables(&self.pool).is_some())
        });
        let reads = self.pool.loads_of(load).len();
        if store.combine.is_some() || !constant || !affine || buffer == store.buffer || reads != 1 {
            return None;
        }
        let within = self.pool.conjunction(&conjuncts);
        let within = match store.condition {
            Some(condition) => self.pool.and(condition, within),
            None => within,
        };
        let fill = Store { value: otherwise, ..store.clone() };
        Some([fill, Store { value, condition: Some(within), ..store.clone() }])
    }

    /// A conjunct as a condition over counters and `dims`; `None` where it is not affine.
    pub(super) fn condition(&mut self, conjunct: ExprId, dims: &[VarId]) -> Option<cpu::Condition> {
        let below = self.pool.below(conjunct)?;
        let (value, mut strides) = self.counters_and_strides(&below.terms, dims)?;
        // terms < bound  is  0 <= bound - 1 - terms
        let mut room = cpu::Affine::constant(below.bound.checked_sub(1)?);
        for &(counter, factor) in &value.terms {
            room.add_term(counter, -factor);
        }
        strides.iter_mut().for_each(|stride| *stride = -*stride);
        Some(cpu::Condition { value: room, strides, limit: UNLIMITED })
    }

    /// Where a combining block changes nothing unless a condition holds: that condition, and the value under it.
    fn neutral_unless(&self, store: &Store) -> Option<(ExprId, ExprId)> {
        let combiner = store.combine?;
        let Expr::Select(condition, value, otherwise) = *self.pool.get(store.value) else { return None };
        let neutral = matches!(*self.pool.get(otherwise), Expr::Float(bits, _) if f64::from_bits(bits) == combiner.identity());
        neutral.then_some((condition, value))
    }
}

/// What must hold where an expression is evaluated: affine conditions, and a mask for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Guards {
    conditions: Vec<cpu::Condition>,
    mask: Option<cpu::Register>,
}

struct Lowering<'a> {
    emitter: &'a mut Emitter,
    dims: &'a [VarId],
    block: cpu::Block,
    /// Registers of expressions, by what must hold where they are evaluated.
    done: HashMap<(ExprId, Guards), cpu::Register>,
    name: &'a str,
    /// What holds wherever the block runs.
    facts: Facts,
}

impl Lowering<'_> {
    fn error(&self, reason: impl Into<String>) -> CpuError {
        CpuError::Block { block: self.name.to_string(), reason: reason.into() }
    }

    fn rank(&self) -> usize {
        self.block.dims.len()
    }

    /// Affine form over counters and dimensions; `None` where there is another atom.
    fn affine(&mut self, id: ExprId) -> Option<(cpu::Affine, Vec<i64>)> {
        let form = self.emitter.pool.affine(id);
        let (value, mut strides) = self.emitter.counters_and_strides(&form, self.dims)?;
        strides.resize(self.rank(), 0);
        Some((value, strides))
    }

    /// Conjuncts as conditions where they are affine, else as a mask.
    fn guards(&mut self, conjuncts: &[ExprId]) -> Result<Guards, CpuError> {
        let mut guards = Guards::default();
        for &conjunct in conjuncts {
            match self.emitter.condition(conjunct, self.dims) {
                Some(mut condition) => {
                    condition.strides.resize(self.rank(), 0);
                    guards.conditions.push(condition);
                }
                None => {
                    let mask = self.expr(conjunct, &Guards::default())?;
                    guards.mask = Some(self.and(guards.mask, mask));
                }
            }
        }
        Ok(guards)
    }

    fn and(&mut self, known: Option<cpu::Register>, mask: cpu::Register) -> cpu::Register {
        match known {
            None => mask,
            Some(known) => {
                let to = self.block.register(cpu::ElementType::Bool);
                self.block.ops.push(cpu::BlockOp::Binary { to, op: BinaryOp::And, a: known, b: mask });
                to
            }
        }
    }

    fn both(&mut self, outer: &Guards, inner: Guards) -> Guards {
        let mut conditions = outer.conditions.clone();
        for condition in inner.conditions {
            if !conditions.contains(&condition) {
                conditions.push(condition);
            }
        }
        let mask = match (outer.mask, inner.mask) {
            (Some(a), Some(b)) => Some(self.and(Some(a), b)),
            (a, b) => a.or(b),
        };
        Guards { conditions, mask }
    }

    fn expr(&mut self, id: ExprId, guards: &Guards) -> Result<cpu::Register, CpuError> {
        let reads = !self.emitter.pool.loads_of(id).is_empty();
        let key = (id, if reads { guards.clone() } else { Guards::default() });
        if let Some(&register) = self.done.get(&key) {
            return Ok(register);
        }
        let register = self.lower(id, guards)?;
        self.done.insert(key, register);
        Ok(register)
    }

    fn lower(&mut self, id: ExprId, guards: &Guards) -> Result<cpu::Register, CpuError> {
        let dtype = self.emitter.pool.dtype(id);
        let element = element_type(dtype);
        let node = self.emitter.pool.get(id).clone();
        if dtype == DType::I64
            && !matches!(node, Expr::Int(..))
            && let Some((value, strides)) = self.affine(id)
        {
            let to = self.block.register(element);
            self.block.ops.push(cpu::BlockOp::Index { to, value, strides });
            return Ok(to);
        }
        match node {
            Expr::Int(value, _) => Ok(self.constant(element, cpu::Literal::Int(value))),
            Expr::Float(bits, _) => Ok(self.constant(element, cpu::Literal::Float(f64::from_bits(bits)))),
            Expr::Var(_) => Err(self.error("uses a loop variable that is not bound")),
            Expr::Load(buffer, index) => self.load(buffer, &index, guards),
            Expr::Unary(op, x) => {
                let x = self.expr(x, guards)?;
                Ok(self.unary(element, op, x))
            }
            Expr::Binary(BinaryOp::Add, a, b) if dtype == DType::F32 => self.sum(a, b, guards),
            Expr::Binary(op, a, b) => {
                let a = self.expr(a, guards)?;
                let b = self.expr(b, guards)?;
                let to = self.block.register(element);
                self.block.ops.push(cpu::BlockOp::Binary { to, op, a, b });
                Ok(to)
            }
            Expr::Select(c, a, b) => {
                let condition = self.expr(c, guards)?;
                let (then_guards, else_guards) = self.branches(c, &[a, b], condition, guards)?;
                let then = self.expr(a, &then_guards)?;
                let otherwise = self.expr(b, &else_guards)?;
                let to = self.block.register(element);
                self.block.ops.push(cpu::BlockOp::Select { to, condition, then, otherwise });
                Ok(to)
            }
            Expr::Guard(c, value) => {
                let conjuncts = self.emitter.pool.conjuncts(c);
                let inner = self.guards(&conjuncts)?;
                let inner = self.both(guards, inner);
                if let Expr::Load(..) = self.emitter.pool.get(value) {
                    return self.expr(value, &inner);
                }
                let then = self.expr(value, &inner)?;
                let condition = self.expr(c, guards)?;
                let otherwise = self.constant(element, cpu::Literal::Int(0));
                let to = self.block.register(element);
                self.block.ops.push(cpu::BlockOp::Select { to, condition, then, otherwise });
                Ok(to)
            }
            Expr::Cast(_, x) => {
                let x = self.expr(x, guards)?;
                let to = self.block.register(element);
                self.block.ops.push(cpu::BlockOp::Cast { to, x });
                Ok(to)
            }
        }
    }

    /// What holds in the two branches of a select, for the loads in them.
    fn branches(
        &mut self,
        condition: ExprId,
        values: &[ExprId; 2],
        register: cpu::Register,
        guards: &Guards,
    ) -> Result<(Guards, Guards), CpuError> {
        // Where reading is safe anyway, both values are computed and need no condition.
        let reads = values.map(|value| !self.reads_in_range(value));
        let then = if reads[0] {
            let conjuncts = self.emitter.pool.conjuncts(condition);
            let inner = self.guards(&conjuncts)?;
            self.both(guards, inner)
        } else {
            guards.clone()
        };
        let otherwise = if reads[1] {
            let mask = self.unary(cpu::ElementType::Bool, UnaryOp::Not, register);
            self.both(guards, Guards { conditions: vec![], mask: Some(mask) })
        } else {
            guards.clone()
        };
        Ok((then, otherwise))
    }

    /// Whether everything that `value` reads is in range wherever the block runs.
    fn reads_in_range(&mut self, value: ExprId) -> bool {
        self.emitter.pool.loads_of(value).into_iter().all(|load| {
            let Expr::Load(buffer, index) = self.emitter.pool.get(load).clone() else { return false };
            let shape = self.emitter.pool.buffers[buffer].shape.clone();
            index.len() == shape.len()
                && index
                    .iter()
                    .zip(shape)
                    .all(|(&i, extent)| self.facts.range(&mut self.emitter.pool, i).within(extent))
        })
    }

    fn sum(&mut self, a: ExprId, b: ExprId, guards: &Guards) -> Result<cpu::Register, CpuError> {
        for (product, other) in [(a, b), (b, a)] {
            if let Expr::Binary(BinaryOp::Mul, x, y) = *self.emitter.pool.get(product) {
                let x = self.expr(x, guards)?;
                let y = self.expr(y, guards)?;
                let c = self.expr(other, guards)?;
                let to = self.block.register(cpu::ElementType::F32);
                self.block.ops.push(cpu::BlockOp::MultiplyAdd { to, a: x, b: y, c });
                return Ok(to);
            }
        }
        let a = self.expr(a, guards)?;
        let b = self.expr(b, guards)?;
        let to = self.block.register(cpu::ElementType::F32);
        self.block.ops.push(cpu::BlockOp::Binary { to, op: BinaryOp::Add, a, b });
        Ok(to)
    }

    fn constant(&mut self, element: cpu::ElementType, value: cpu::Literal) -> cpu::Register {
        let to = self.block.register(element);
        self.block.ops.push(cpu::BlockOp::Constant { to, value });
        to
    }

    fn unary(&mut self, element: cpu::ElementType, op: UnaryOp, x: cpu::Register) -> cpu::Register {
        let to = self.block.register(element);
        self.block.ops.push(cpu::BlockOp::Unary { to, op, x });
        to
    }

    fn load(
        &mut self,
        buffer: crate::expr::BufferId,
        index: &[ExprId],
        guards: &Guards,
    ) -> Result<cpu::Register, CpuError> {
        let element = element_type(self.emitter.pool.buffers[buffer].dtype);
        let linear = self.emitter.pool.linear_index(buffer, index);
        let declared = self.declared(buffer)?;
        match self.affine(linear) {
            Some((value, strides)) if guards.mask.is_none() => {
                let access = self.emitter.code.access(declared, value);
                let to = self.block.register(element);
                self.block.ops.push(cpu::BlockOp::Load {
                    to,
                    access,
                    strides,
                    guard: guards.conditions.clone(),
                });
                Ok(to)
            }
            Some(_) | None => {
                let mask = self.mask(guards)?;
                let index = self.expr(linear, guards)?;
                let to = self.block.register(element);
                self.block.ops.push(cpu::BlockOp::Gather { to, buffer: declared, index, mask });
                Ok(to)
            }
        }
    }

    fn declared(&self, buffer: crate::expr::BufferId) -> Result<cpu::BufferId, CpuError> {
        let name = &self.emitter.pool.buffers[buffer].name;
        self.emitter
            .buffers
            .get(&buffer)
            .copied()
            .ok_or_else(|| self.error(format!("buffer '{name}' is not allocated")))
    }

    /// All of `guards` as one mask.
    fn mask(&mut self, guards: &Guards) -> Result<Option<cpu::Register>, CpuError> {
        let mut mask = guards.mask;
        for condition in guards.conditions.clone() {
            let index = self.block.register(cpu::ElementType::I64);
            let (value, strides) = (condition.value, condition.strides);
            self.block.ops.push(cpu::BlockOp::Index { to: index, value, strides });
            let zero = self.constant(cpu::ElementType::I64, cpu::Literal::Int(0));
            let to = self.block.register(cpu::ElementType::Bool);
            self.block.ops.push(cpu::BlockOp::Binary { to, op: BinaryOp::Ge, a: index, b: zero });
            mask = Some(self.and(mask, to));
        }
        Ok(mask)
    }

    fn store(&mut self, store: &Store, value: cpu::Register, guards: Guards) -> Result<(), CpuError> {
        let combine = match store.combine {
            None => cpu::Combine::Replace,
            Some(Combiner::Add) => cpu::Combine::Add,
            Some(Combiner::Mul) => cpu::Combine::Mul,
            Some(Combiner::Min) => cpu::Combine::Min,
            Some(Combiner::Max) => cpu::Combine::Max,
        };
        let linear = self.emitter.pool.linear_index(store.buffer, &store.index);
        let declared = self.declared(store.buffer)?;
        match self.affine(linear) {
            Some((offset, strides)) => {
                let access = self.emitter.code.access(declared, offset);
                let (guard, mask) = (guards.conditions, guards.mask);
                self.block.ops.push(cpu::BlockOp::Store { access, strides, value, combine, guard, mask });
            }
            None => {
                let mask = self.mask(&guards)?;
                let index = self.expr(linear, &guards)?;
                self.block.ops.push(cpu::BlockOp::Scatter { buffer: declared, index, value, combine, mask });
            }
        }
        Ok(())
    }
}
