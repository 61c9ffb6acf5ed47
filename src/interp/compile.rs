//! From nests to instructions.
//!
//! Values that depend on loop variables alone are computed once an iteration of the innermost loop they depend on; sums are
//! ordered so that the parts of outer loops come first. Equal operations on equal registers are one instruction.

use super::code::{Instr, Op, differs_unsigned};
use super::machine;
use super::steps::{Step, order};
use super::{InterpError, Options};
use crate::expr::{Affine, BinaryOp, Expr, ExprId, ExprPool, UnaryOp};
use crate::loopir::{Axis, BufferId, LoopKind, Nest, Role, Stmt, Store, VarId};
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;

/// A nest made ready to run any number of times.
#[derive(Debug)]
pub struct Program {
    pub(super) registers: usize,
    /// Registers that hold constants.
    pub(super) constants: Vec<(u32, u64)>,
    pub(super) preparation: Vec<Node>,
    pub(super) body: Vec<Node>,
    /// One for each buffer, in order of ids.
    pub(super) slots: Vec<Slot>,
    pub(super) sites: Vec<Site>,
    pub(super) blocks: Vec<String>,
    pub(super) params: Vec<BufferId>,
}

/// The memory of a buffer.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) role: Role,
    /// Elements of one instance.
    pub(super) len: usize,
    /// Every invocation and lane around the allocation has an instance of its own.
    pub(super) instances: usize,
}

/// One dimension of a buffer whose index is checked.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) slot: u32,
    pub(super) axis: usize,
    pub(super) extent: usize,
}

/// How the iterations of a loop relate to each other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Iterations {
    Ordered,
    /// In any order.
    Parallel,
    /// Invocations of a workgroup.
    Lanes(Axis),
}

/// A statement ready to run.
#[derive(Debug)]
pub(super) enum Node {
    Loop(Box<LoopNode>),
    Code(Code),
    Barrier,
}

/// Instructions of one block.
#[derive(Debug, Default)]
pub(super) struct Code {
    pub(super) instrs: Vec<Instr>,
    pub(super) block: usize,
}

/// A loop ready to run.
#[derive(Debug)]
pub(super) struct LoopNode {
    pub(super) name: String,
    pub(super) register: u32,
    pub(super) extent: u64,
    pub(super) iterations: Iterations,
    /// Runs at the start of each iteration; all of the body, when that is one block.
    pub(super) code: Code,
    pub(super) body: Vec<Node>,
}

impl Program {
    /// Makes `nest` ready.
    ///
    /// # Errors
    /// When the nest is not well-formed.
    pub fn new(nest: &Nest) -> Result<Program, InterpError> {
        nest.verify_structure().map_err(InterpError::Invalid)?;
        let mut compiler = Compiler::new(nest);
        let preparation = compiler.top(&nest.preparation);
        let body = compiler.top(&nest.body);
        Ok(Program {
            registers: compiler.registers as usize,
            constants: compiler.constants.iter().map(|(&bits, &register)| (register, bits)).collect(),
            preparation,
            body,
            slots: compiler.slots,
            sites: compiler.sites,
            blocks: compiler.blocks,
            params: nest.params.clone(),
        })
    }

    /// Runs preparation and body on inputs and constants, in the order of the nest's parameters; returns the outputs.
    ///
    /// # Errors
    /// When the tensors do not fit, or the run fails a check.
    pub fn run(&self, params: &[Tensor], options: Options) -> Result<Vec<Tensor>, InterpError> {
        machine::run(self, params, options).map_err(|error| *error)
    }
}

/// A register, and the place in [`Compiler::levels`] of the code that sets it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Value {
    level: usize,
    register: u32,
}

/// Code that runs together: once, once an iteration of a loop, for a block, or for an operand that is evaluated on condition.
#[derive(Default)]
struct Level {
    instrs: Vec<Instr>,
    numbers: HashMap<(Op, u32, u32), Value>,
    exprs: HashMap<ExprId, Value>,
}

struct Compiler {
    pool: ExprPool,
    registers: u32,
    constants: HashMap<u64, u32>,
    levels: Vec<Level>,
    /// The level of the block being compiled.
    block_level: usize,
    vars: HashMap<VarId, Value>,
    slots: Vec<Slot>,
    /// Variable and stride, in elements, of the instances of a buffer.
    instances: Vec<Vec<(VarId, usize)>>,
    sites: Vec<Site>,
    blocks: Vec<String>,
}

impl Compiler {
    fn new(nest: &Nest) -> Compiler {
        let mut pool = nest.pool.clone();
        let mut slots = vec![];
        for id in pool.buffers.ids().collect::<Vec<_>>() {
            let buffer = &mut pool.buffers[id];
            buffer.row_padding = 0;
            slots.push(Slot {
                name: buffer.name.clone(),
                dtype: buffer.dtype,
                shape: buffer.shape.clone(),
                role: buffer.role,
                len: 0,
                instances: 0,
            });
        }
        let instances = vec![vec![]; slots.len()];
        let mut compiler = Compiler {
            pool,
            registers: 0,
            constants: HashMap::new(),
            levels: vec![],
            block_level: 0,
            vars: HashMap::new(),
            slots,
            instances,
            sites: vec![],
            blocks: vec![],
        };
        for &param in &nest.params {
            compiler.lay_out(param, &[]);
        }
        compiler.lay_out_locals(&nest.preparation, &mut vec![]);
        compiler.lay_out_locals(&nest.body, &mut vec![]);
        compiler
    }

    fn lay_out(&mut self, id: BufferId, lanes: &[VarId]) {
        let slot = &mut self.slots[id.index()];
        slot.len = self.pool.buffers[id].len();
        slot.instances = 1;
        for &var in lanes.iter().rev() {
            self.instances[id.index()].push((var, slot.len.saturating_mul(slot.instances)));
            slot.instances = slot.instances.saturating_mul(self.pool.vars[var].extent);
        }
    }

    fn lay_out_locals(&mut self, stmts: &[Stmt], lanes: &mut Vec<VarId>) {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(inner) => {
                    let lane = matches!(inner.kind, LoopKind::Vector | LoopKind::Invocation(_));
                    if lane {
                        lanes.push(inner.var);
                    }
                    self.lay_out_locals(&inner.body, lanes);
                    if lane {
                        lanes.pop();
                    }
                }
                Stmt::Alloc(id) => self.lay_out(*id, lanes),
                Stmt::Store(_) | Stmt::Barrier => {}
            }
        }
    }

    fn top(&mut self, stmts: &[Stmt]) -> Vec<Node> {
        self.levels.push(Level::default());
        let mut nodes = self.steps(&order(stmts));
        nodes.insert(0, Node::Code(Code { instrs: self.close_level(), block: 0 }));
        nodes
    }

    fn close_level(&mut self) -> Vec<Instr> {
        self.levels.pop().map(|level| level.instrs).unwrap_or_default()
    }

    fn steps(&mut self, steps: &[Step<'_>]) -> Vec<Node> {
        steps.iter().map(|step| self.step(step)).collect()
    }

    fn step(&mut self, step: &Step<'_>) -> Node {
        match step {
            Step::Barrier => Node::Barrier,
            Step::Store(store) => {
                self.blocks.push(store.block.clone());
                self.block(|compiler| compiler.store(store))
            }
            Step::Alloc(id) => {
                self.blocks.push(format!("allocation of {}", self.slots[id.index()].name));
                self.block(|compiler| {
                    let zero = compiler.pool.int(0);
                    let instance = compiler.element(*id, zero);
                    compiler.effect(Op::Reset, 0, instance.register, id.index() as u32);
                })
            }
            Step::Loop(inner, body) => {
                self.levels.push(Level::default());
                let register = self.register();
                self.vars.insert(inner.var, Value { level: self.levels.len() - 1, register });
                let mut body = self.steps(body);
                let mut code = Code { instrs: self.close_level(), block: 0 };
                if let [Node::Code(block)] = body.as_mut_slice() {
                    code.instrs.append(&mut block.instrs);
                    code.block = block.block;
                    body.clear();
                }
                let variable = &self.pool.vars[inner.var];
                Node::Loop(Box::new(LoopNode {
                    name: variable.name.clone(),
                    register,
                    extent: variable.extent as u64,
                    iterations: match inner.kind {
                        LoopKind::Serial | LoopKind::Vector | LoopKind::Unroll => Iterations::Ordered,
                        LoopKind::Parallel | LoopKind::Workgroup(_) => Iterations::Parallel,
                        LoopKind::Invocation(axis) => Iterations::Lanes(axis),
                    },
                    code,
                    body,
                }))
            }
        }
    }

    fn block(&mut self, compile: impl FnOnce(&mut Compiler)) -> Node {
        self.levels.push(Level::default());
        self.block_level = self.levels.len() - 1;
        compile(self);
        Node::Code(Code { instrs: self.close_level(), block: self.blocks.len() - 1 })
    }

    fn register(&mut self) -> u32 {
        self.registers += 1;
        self.registers - 1
    }

    fn constant(&mut self, bits: u64) -> Value {
        let register = match self.constants.get(&bits) {
            Some(&register) => register,
            None => {
                let register = self.register();
                self.constants.insert(bits, register);
                register
            }
        };
        Value { level: 0, register }
    }

    /// An operation that only computes, in the outermost code that knows both operands.
    fn pure(&mut self, op: Op, a: Value, b: Value) -> Value {
        self.numbered(op, a.level.max(b.level), a.register, b.register)
    }

    fn numbered(&mut self, op: Op, level: usize, a: u32, b: u32) -> Value {
        if let Some(&value) = self.levels[level].numbers.get(&(op, a, b)) {
            return value;
        }
        let value = Value { level, register: self.register() };
        self.levels[level].instrs.push(Instr { op, target: value.register, a, b });
        self.levels[level].numbers.insert((op, a, b), value);
        value
    }

    fn effect(&mut self, op: Op, target: u32, a: u32, b: u32) {
        let level = self.levels.len() - 1;
        self.levels[level].instrs.push(Instr { op, target, a, b });
    }

    /// Code that runs where `condition` is not 0.
    fn on_condition<R>(&mut self, condition: Value, compile: impl FnOnce(&mut Compiler) -> R) -> R {
        self.levels.push(Level::default());
        let result = compile(self);
        let mut instrs = self.close_level();
        self.effect(Op::SkipIfZero, 0, condition.register, instrs.len() as u32);
        let level = self.levels.len() - 1;
        self.levels[level].instrs.append(&mut instrs);
        result
    }

    fn store(&mut self, store: &Store) {
        match store.condition {
            None => self.write(store),
            Some(condition) => {
                let condition = self.expr(condition);
                self.on_condition(condition, |compiler| compiler.write(store));
            }
        }
    }

    fn write(&mut self, store: &Store) {
        let slot = store.buffer.index() as u32;
        let dtype = self.pool.buffers[store.buffer].dtype;
        let mut value = self.expr(store.value);
        let offset = self.access(store.buffer, &store.index);
        if let Some(combiner) = store.combine {
            let level = self.levels.len() - 1;
            let before = Value { level, register: self.register() };
            self.effect(Op::Load(dtype), before.register, offset.register, slot);
            value = self.binary(combiner.op(), dtype, before, value);
        }
        self.effect(Op::Store(dtype), value.register, offset.register, slot);
    }

    /// Checks the indices and gives the element's place in the slot.
    fn access(&mut self, buffer: BufferId, index: &[ExprId]) -> Value {
        for (axis, &i) in index.iter().enumerate() {
            let extent = self.pool.buffers[buffer].shape[axis];
            if !self.pool.interval(i).is_some_and(|range| range.within(extent)) {
                let checked = self.expr(i);
                let site = self.site(Site { slot: buffer.index() as u32, axis, extent });
                let known = (self.block_level..self.levels.len()).any(|level| {
                    self.levels[level].numbers.contains_key(&(Op::Check, checked.register, site))
                });
                if !known {
                    self.numbered(Op::Check, self.levels.len() - 1, checked.register, site);
                }
            }
        }
        let linear = self.pool.linear_index(buffer, index);
        self.element(buffer, linear)
    }

    fn site(&mut self, site: Site) -> u32 {
        let place = self.sites.iter().position(|other| *other == site).unwrap_or_else(|| {
            self.sites.push(site);
            self.sites.len() - 1
        });
        place as u32
    }

    /// The place of an element in the instance of the invocation that runs.
    fn element(&mut self, buffer: BufferId, linear: ExprId) -> Value {
        let mut form = self.pool.affine(linear);
        for (var, stride) in self.instances[buffer.index()].clone() {
            let var = self.pool.var(var);
            form.add_term(var, stride as i64);
        }
        self.sum(&form)
    }

    /// An affine form, the terms of outer loops first.
    fn sum(&mut self, form: &Affine) -> Value {
        let mut terms: Vec<(Value, i64)> = vec![];
        for (&atom, &coefficient) in &form.terms {
            terms.push((self.atom(atom), coefficient));
        }
        terms.sort_unstable();
        let mut sum = (form.constant != 0).then(|| self.constant(form.constant as u64));
        for (atom, coefficient) in terms {
            let term = if coefficient == 1 {
                atom
            } else {
                let coefficient = self.constant(coefficient as u64);
                self.pure(Op::Mul, atom, coefficient)
            };
            sum = Some(sum.map_or(term, |sum| self.pure(Op::Add, sum, term)));
        }
        sum.unwrap_or_else(|| self.constant(0))
    }

    fn atom(&mut self, id: ExprId) -> Value {
        self.memo(id, Compiler::node)
    }

    fn expr(&mut self, id: ExprId) -> Value {
        // Sums over data must wrap as they are written.
        if self.pool.is_index_operation(id) && self.pool.loads_of(id).is_empty() {
            self.memo(id, |compiler, id| {
                let form = compiler.pool.affine(id);
                compiler.sum(&form)
            })
        } else {
            self.memo(id, Compiler::node)
        }
    }

    /// The value of `id` in the code being compiled, made if it is not there yet.
    fn memo(&mut self, id: ExprId, make: impl FnOnce(&mut Compiler, ExprId) -> Value) -> Value {
        let known = self.levels[self.block_level..].iter().find_map(|level| level.exprs.get(&id));
        if let Some(&value) = known {
            return value;
        }
        let value = make(self, id);
        let level = value.level.max(self.block_level);
        self.levels[level].exprs.insert(id, value);
        value
    }

    fn node(&mut self, id: ExprId) -> Value {
        let dtype = self.pool.dtype(id);
        match self.pool.get(id).clone() {
            Expr::Int(value, _) => self.constant(value as u64),
            Expr::Float(bits, _) => self.constant(bits),
            Expr::Var(var) => self.vars[&var],
            Expr::Load(buffer, index) => {
                let offset = self.access(buffer, &index);
                let op = Op::Load(dtype);
                let slot = buffer.index() as u32;
                self.numbered(op, self.levels.len() - 1, offset.register, slot)
            }
            Expr::Unary(op, a) => {
                let of = self.pool.dtype(a);
                let a = if op.jumps() { self.rounded(a) } else { self.expr(a) };
                self.unary(op, of, a)
            }
            Expr::Binary(op, a, b) => {
                let of = self.pool.dtype(a);
                let (a, b) = if op.jumps() {
                    (self.rounded(a), self.rounded(b))
                } else {
                    (self.expr(a), self.expr(b))
                };
                self.binary(op, of, a, b)
            }
            Expr::Cast(_, a) => {
                let of = self.pool.dtype(a);
                let a = if dtype.is_float() { self.expr(a) } else { self.rounded(a) };
                self.cast(of, dtype, a)
            }
            Expr::Guard(condition, a) => {
                let condition = self.expr(condition);
                let zero = self.constant(0);
                let target = self.conditional(zero);
                self.on_condition(condition, |compiler| compiler.assign(target, a));
                target
            }
            Expr::Select(condition, a, b) => {
                let condition = self.expr(condition);
                let target = self.conditional(condition);
                let none = self.constant(0);
                let otherwise = self.pure(Op::Not, condition, none);
                self.on_condition(condition, |compiler| compiler.assign(target, a));
                self.on_condition(otherwise, |compiler| compiler.assign(target, b));
                target
            }
        }
    }

    /// The value of `id`, a float rounded to its type: for operations that jump, where more digits may give another side.
    fn rounded(&mut self, id: ExprId) -> Value {
        let value = self.expr(id);
        let dtype = self.pool.dtype(id);
        let exact = match self.pool.get(id) {
            Expr::Int(..) | Expr::Float(..) | Expr::Var(_) | Expr::Load(..) | Expr::Cast(..) => true,
            Expr::Unary(..) | Expr::Binary(..) | Expr::Select(..) | Expr::Guard(..) => {
                !dtype.is_float() || dtype == DType::F64
            }
        };
        if exact { value } else { self.pure(Op::Round(dtype), value, value) }
    }

    /// A register of its own, with a first value.
    fn conditional(&mut self, first: Value) -> Value {
        let target = Value { level: self.levels.len() - 1, register: self.register() };
        self.effect(Op::Move, target.register, first.register, first.register);
        target
    }

    fn assign(&mut self, target: Value, value: ExprId) {
        let value = self.expr(value);
        self.effect(Op::Move, target.register, value.register, value.register);
    }

    fn unary(&mut self, op: UnaryOp, dtype: DType, a: Value) -> Value {
        if dtype.is_float() {
            let op = if op.is_test() { Op::FloatUnaryTest(op) } else { Op::FloatUnary(op) };
            return self.pure(op, a, a);
        }
        match (op, dtype) {
            (UnaryOp::Not, DType::Bool) => self.pure(Op::Not, a, a),
            (UnaryOp::Abs, DType::U64) => a,
            (UnaryOp::Sign, DType::U64) => self.pure(Op::IsTrue, a, a),
            (_, _) => {
                let result = self.pure(Op::IntUnary(op), a, a);
                self.wrapped(dtype, result)
            }
        }
    }

    fn binary(&mut self, op: BinaryOp, dtype: DType, a: Value, b: Value) -> Value {
        if dtype.is_float() {
            return self.pure(float_op(op), a, b);
        }
        let code = if dtype == DType::U64 && differs_unsigned(op) { Op::Unsigned(op) } else { int_op(op) };
        let result = self.pure(code, a, b);
        if op.is_comparison() { result } else { self.wrapped(dtype, result) }
    }

    fn wrapped(&mut self, dtype: DType, value: Value) -> Value {
        match dtype {
            DType::I8 | DType::I16 | DType::I32 | DType::U8 | DType::U16 | DType::U32 => {
                self.pure(Op::Wrap(dtype), value, value)
            }
            DType::I64 | DType::U64 | DType::Bool | DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
                value
            }
        }
    }

    fn cast(&mut self, from: DType, to: DType, a: Value) -> Value {
        let float = |compiler: &mut Compiler, value| {
            if to == DType::F64 { value } else { compiler.pure(Op::Round(to), value, value) }
        };
        match (from.is_float(), to.is_float()) {
            (true, true) => float(self, a),
            (true, false) if to == DType::Bool => self.pure(Op::FloatIsTrue, a, a),
            (true, false) => self.pure(Op::Truncate(to), a, a),
            (false, true) => {
                let op = if from == DType::U64 { Op::UnsignedToFloat } else { Op::ToFloat };
                let value = self.pure(op, a, a);
                float(self, value)
            }
            (false, false) if to == DType::Bool => self.pure(Op::IsTrue, a, a),
            (false, false) => self.wrapped(to, a),
        }
    }
}

/// The instruction of an operation on f64; the most frequent ones have their own.
fn float_op(op: BinaryOp) -> Op {
    if op == BinaryOp::Add {
        Op::FloatAdd
    } else if op == BinaryOp::Mul {
        Op::FloatMul
    } else if op.is_comparison() {
        Op::FloatTest(op)
    } else {
        Op::Float(op)
    }
}

/// The instruction of an operation on i64; the most frequent ones have their own.
fn int_op(op: BinaryOp) -> Op {
    if op == BinaryOp::Add {
        Op::Add
    } else if op == BinaryOp::Mul {
        Op::Mul
    } else if op == BinaryOp::And {
        Op::And
    } else if op == BinaryOp::Lt {
        Op::Less
    } else if op == BinaryOp::Ge {
        Op::AtLeast
    } else {
        Op::Int(op)
    }
}
