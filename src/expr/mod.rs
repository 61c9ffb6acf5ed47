//! Layer 2: scalar and index expressions over loop variables and buffers.
//!
//! An [`ExprPool`] holds the variables and buffers of one nest and interns its expressions: two equal expressions have one
//! [`ExprId`], so comparing is comparing ids and a shared part is stored once. An expression has no place in the program
//! and no effect: it means its value for given values of the variables and contents of the buffers.
//!
//! - Index expressions are of type [`DType::I64`]: integers, variables, `+ - *`, and floor division and modulus by positive
//!   constants (quasi-affine), or loads from integer buffers (gather).
//! - [`Expr::Guard`] is its value where the condition holds and zero elsewhere, where its value, the loads in it included, is
//!   not evaluated.
//! - A float constant is stored as the bits of an f64 and rounded to its type; there is one NaN.

mod affine;
mod below;
mod display;
mod interval;
mod simplify;

pub use affine::Affine;
pub use below::Below;
pub use interval::Interval;
pub use paisley_kernels::{BinaryKind, BinaryOp, Comparison, OnIntegers, UnaryOp};

use crate::base::{Id, IdVec};
use crate::tensor::DType;
use indexmap::IndexSet;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use smallvec::{SmallVec, smallvec};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// A loop variable, counting `0..extent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variable {
    /// Role and level: `k`, `k.1`. Loops that split from one another share the role; copies of one loop share the name.
    pub name: String,
    /// The number of iterations.
    pub extent: usize,
}

/// The id of a [`Variable`].
pub type VarId = Id<Variable>;

/// Where a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Memory of the device, visible to all.
    Global,
    /// Memory of a workgroup on a GPU; of one thread's cache on a CPU.
    Workgroup,
    /// Registers of an invocation on a GPU; a small tile in the first-level cache on a CPU.
    Register,
}

/// What a buffer is to its nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Read only, differs from run to run.
    Input,
    /// Read only, known when the nest is compiled.
    Constant,
    /// Read only, computed from constants by the nest's preparation when it is compiled (a packed weight).
    Packed,
    /// Written, every element at least once, before it is read.
    Output,
    /// Exists only while the nest runs; allocated by a statement.
    Local,
}

/// A dense row-major array the nest reads or writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// Unique in the nest.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The extents; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where it lives.
    pub scope: Scope,
    /// What it is to the nest.
    pub role: Role,
    /// Elements added behind each innermost row of the storage (against bank conflicts); no index reaches them.
    pub row_padding: usize,
}

impl Buffer {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Strides of the storage in elements, the padding of rows included.
    pub fn strides(&self) -> Vec<usize> {
        let mut storage = self.shape.clone();
        if let Some(row) = storage.last_mut() {
            *row += self.row_padding;
        }
        crate::tensor::row_major_strides(&storage)
    }

    /// Elements of the storage, the padding of rows included.
    pub fn storage_len(&self) -> usize {
        match self.shape.split_last() {
            Some((row, rest)) => rest.iter().product::<usize>() * (row + self.row_padding),
            None => 1,
        }
    }
}

/// The id of a [`Buffer`].
pub type BufferId = Id<Buffer>;

/// The id of an interned [`Expr`].
pub type ExprId = Id<Expr>;

/// One node of the expression graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// An integer or bool constant; index constants have type I64. A bool is 0 or 1.
    Int(i64, DType),
    /// A float constant as the bits of an f64.
    Float(u64, DType),
    /// A loop variable.
    Var(VarId),
    /// The element of a buffer at one index expression a dimension.
    Load(BufferId, Box<[ExprId]>),
    /// An operation of one operand.
    Unary(UnaryOp, ExprId),
    /// An operation of two operands of one type.
    Binary(BinaryOp, ExprId, ExprId),
    /// `Select(c, a, b)` is `a` where `c` holds, else `b`.
    Select(ExprId, ExprId, ExprId),
    /// `Guard(c, v)` is `v` where `c` holds, else zero without evaluating `v`.
    Guard(ExprId, ExprId),
    /// Conversion to a type, as [`crate::tensor::Tensor::cast`] says.
    Cast(DType, ExprId),
}

/// The variables, buffers and interned expressions of one nest.
#[derive(Clone, Debug, Default)]
pub struct ExprPool {
    exprs: IndexSet<Expr, BuildHasherDefault<FxHasher>>,
    dtypes: Vec<DType>,
    /// The loop variables.
    pub vars: IdVec<Variable>,
    /// The buffers.
    pub buffers: IdVec<Buffer>,
    /// Affine forms computed before.
    forms: Memo<Affine>,
    /// Simpler expressions found before.
    simpler: Memo<ExprId>,
}

/// Results for expressions, which never change: variables keep their extents. A clone starts empty.
#[derive(Debug)]
struct Memo<T>(FxHashMap<ExprId, T>);

impl<T> Default for Memo<T> {
    fn default() -> Memo<T> {
        Memo(FxHashMap::default())
    }
}

impl<T> Clone for Memo<T> {
    fn clone(&self) -> Memo<T> {
        Memo::default()
    }
}

/// What a pool held, to go back to.
#[derive(Clone, Debug)]
pub struct Mark {
    exprs: usize,
    vars: IdVec<Variable>,
    buffers: IdVec<Buffer>,
}

impl ExprPool {
    /// What it holds now.
    pub fn mark(&self) -> Mark {
        Mark { exprs: self.exprs.len(), vars: self.vars.clone(), buffers: self.buffers.clone() }
    }

    /// Forgets what came after `mark`: one of this pool, which has not gone back to before it since.
    pub fn rewind(&mut self, mark: Mark) {
        self.exprs.truncate(mark.exprs);
        self.dtypes.truncate(mark.exprs);
        (self.vars, self.buffers) = (mark.vars, mark.buffers);
        // They may name what is gone.
        (self.forms, self.simpler) = (Memo::default(), Memo::default());
    }

    /// The node of an id.
    pub fn get(&self, id: ExprId) -> &Expr {
        &self.exprs[id.index()]
    }

    /// The type of an expression.
    pub fn dtype(&self, id: ExprId) -> DType {
        self.dtypes[id.index()]
    }

    /// The value where it is an integer or bool constant.
    pub fn as_int(&self, id: ExprId) -> Option<i64> {
        if let Expr::Int(value, _) = *self.get(id) { Some(value) } else { None }
    }

    /// The variable where it is one.
    pub fn as_var(&self, id: ExprId) -> Option<VarId> {
        if let Expr::Var(var) = *self.get(id) { Some(var) } else { None }
    }

    /// The operand and the divisor where it is `operand // divisor` or, with [`BinaryOp::Mod`], `operand % divisor` for a
    /// positive constant.
    pub fn by_constant(&self, id: ExprId, op: BinaryOp) -> Option<(ExprId, i64)> {
        let Expr::Binary(found, operand, divisor) = *self.get(id) else { return None };
        let divisor = self.as_int(divisor).filter(|&divisor| divisor > 0 && found == op)?;
        Some((operand, divisor))
    }

    /// Whether the node is an operation of index arithmetic, which [`affine`](Self::affine) looks into.
    pub fn is_index_operation(&self, id: ExprId) -> bool {
        use BinaryOp::{Add, FloorDiv, Mod, Mul, Sub};
        self.dtype(id) == DType::I64
            && matches!(
                self.get(id),
                Expr::Unary(UnaryOp::Neg, _) | Expr::Binary(Add | Sub | Mul | FloorDiv | Mod, ..)
            )
    }

    /// The number of interned expressions.
    pub fn len(&self) -> usize {
        self.exprs.len()
    }

    /// Whether nothing is interned.
    pub fn is_empty(&self) -> bool {
        self.exprs.is_empty()
    }

    /// Interns `expr` as it is, without any folding.
    pub fn intern(&mut self, expr: Expr) -> ExprId {
        let dtype = self.type_of(&expr);
        let (index, new) = self.exprs.insert_full(expr);
        if new {
            self.dtypes.push(dtype);
        }
        Id::new(index)
    }

    fn type_of(&self, expr: &Expr) -> DType {
        match expr {
            Expr::Int(_, dtype) | Expr::Float(_, dtype) | Expr::Cast(dtype, _) => *dtype,
            Expr::Var(_) => DType::I64,
            Expr::Load(buffer, _) => self.buffers[*buffer].dtype,
            Expr::Unary(op, _) if op.is_test() => DType::Bool,
            Expr::Unary(_, a) => self.dtype(*a),
            Expr::Binary(op, _, _) if op.is_comparison() => DType::Bool,
            Expr::Binary(_, a, _) => self.dtype(*a),
            Expr::Select(_, a, _) | Expr::Guard(_, a) => self.dtype(*a),
        }
    }

    /// The index constant `value`.
    pub fn int(&mut self, value: i64) -> ExprId {
        self.intern(Expr::Int(value, DType::I64))
    }

    /// The constant `value` of `dtype`, rounded or truncated to it.
    pub fn constant(&mut self, value: f64, dtype: DType) -> ExprId {
        if dtype.is_float() {
            let value = if dtype == DType::F64 { value } else { round_to(value, dtype) };
            let value = if value.is_nan() { f64::NAN } else { value };
            self.intern(Expr::Float(value.to_bits(), dtype))
        } else if dtype == DType::Bool {
            self.intern(Expr::Int(i64::from(value != 0.0), dtype))
        } else {
            self.intern(Expr::Int(value as i64, dtype))
        }
    }

    /// A loop variable as an expression.
    pub fn var(&mut self, var: VarId) -> ExprId {
        self.intern(Expr::Var(var))
    }

    /// An element of a buffer.
    pub fn load(&mut self, buffer: BufferId, index: &[ExprId]) -> ExprId {
        self.intern(Expr::Load(buffer, index.into()))
    }

    /// An operation of one operand; constants fold.
    pub fn unary(&mut self, op: UnaryOp, a: ExprId) -> ExprId {
        let dtype = if op.is_test() { DType::Bool } else { self.dtype(a) };
        match *self.get(a) {
            Expr::Float(bits, _) => self.constant(op.eval_f64(f64::from_bits(bits)), dtype),
            Expr::Int(value, DType::Bool) if op == UnaryOp::Not => {
                self.intern(Expr::Int(1 - value, DType::Bool))
            }
            Expr::Int(value, DType::I64) => match op.eval_i64(value) {
                Some(value) => self.intern(Expr::Int(value, dtype)),
                None => self.intern(Expr::Unary(op, a)),
            },
            Expr::Int(..)
            | Expr::Var(_)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => self.intern(Expr::Unary(op, a)),
        }
    }

    /// An operation of two operands of one type; index constants and neutral elements fold.
    pub fn binary(&mut self, op: BinaryOp, a: ExprId, b: ExprId) -> ExprId {
        if let (&Expr::Int(x, dtype @ (DType::I64 | DType::Bool)), &Expr::Int(y, _)) =
            (self.get(a), self.get(b))
        {
            let dtype = if op.is_comparison() { DType::Bool } else { dtype };
            return self.intern(Expr::Int(op.eval_i64(x, y), dtype));
        }
        match (op, self.as_int(a), self.as_int(b)) {
            (BinaryOp::Add, Some(0), _) | (BinaryOp::Mul, Some(1), _) => b,
            (BinaryOp::Add | BinaryOp::Sub, _, Some(0))
            | (BinaryOp::Mul | BinaryOp::FloorDiv, _, Some(1)) => a,
            (BinaryOp::Mul, Some(0), _) => a,
            (BinaryOp::Mul, _, Some(0)) => b,
            (BinaryOp::And, Some(0), _) | (BinaryOp::Or, _, Some(0)) if self.dtype(a) == DType::Bool => a,
            (BinaryOp::And, _, Some(0)) | (BinaryOp::Or, Some(0), _) if self.dtype(a) == DType::Bool => b,
            (BinaryOp::And, Some(1), _) if self.dtype(a) == DType::Bool => b,
            (BinaryOp::And, _, Some(1)) if self.dtype(a) == DType::Bool => a,
            (BinaryOp::And, None, None) if a == b && self.dtype(a) == DType::Bool => a,
            (_, _, _) => self.intern(Expr::Binary(op, a, b)),
        }
    }

    /// `a + b`.
    pub fn add(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::Add, a, b)
    }

    /// `a * b`.
    pub fn mul(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::Mul, a, b)
    }

    /// `a + b` with an index constant.
    pub fn add_int(&mut self, a: ExprId, b: i64) -> ExprId {
        let b = self.int(b);
        self.add(a, b)
    }

    /// `a * b` with an index constant.
    pub fn mul_int(&mut self, a: ExprId, b: i64) -> ExprId {
        let b = self.int(b);
        self.mul(a, b)
    }

    /// `floor(a / b)` with a positive index constant.
    pub fn div_int(&mut self, a: ExprId, b: i64) -> ExprId {
        let b = self.int(b);
        self.binary(BinaryOp::FloorDiv, a, b)
    }

    /// `a mod b` with a positive index constant.
    pub fn mod_int(&mut self, a: ExprId, b: i64) -> ExprId {
        let b = self.int(b);
        self.binary(BinaryOp::Mod, a, b)
    }

    /// `a < b` for an index constant `b`.
    pub fn less_int(&mut self, a: ExprId, b: i64) -> ExprId {
        let b = self.int(b);
        self.binary(BinaryOp::Lt, a, b)
    }

    /// `a >= b` for an index constant `b`.
    pub fn at_least_int(&mut self, a: ExprId, b: i64) -> ExprId {
        let b = self.int(b);
        self.binary(BinaryOp::Ge, a, b)
    }

    /// Both conditions.
    pub fn and(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::And, a, b)
    }

    /// The constant true.
    pub fn truth(&mut self) -> ExprId {
        self.intern(Expr::Int(1, DType::Bool))
    }

    /// `a` where `condition` holds, else `b`.
    pub fn select(&mut self, condition: ExprId, a: ExprId, b: ExprId) -> ExprId {
        match self.as_int(condition) {
            Some(0) => b,
            Some(_) => a,
            None => self.intern(Expr::Select(condition, a, b)),
        }
    }

    /// `value` where `condition` holds, else zero; nested guards join.
    pub fn guard(&mut self, condition: ExprId, value: ExprId) -> ExprId {
        match (self.get(condition).clone(), self.get(value).clone()) {
            (Expr::Int(0, _), _) => {
                let dtype = self.dtype(value);
                self.constant(0.0, dtype)
            }
            (Expr::Int(..), _) => value,
            (_, Expr::Guard(inner, value)) => {
                let both = self.and(condition, inner);
                self.intern(Expr::Guard(both, value))
            }
            (_, _) => self.intern(Expr::Guard(condition, value)),
        }
    }

    /// `a` converted to `dtype`; nothing where it already is.
    pub fn cast(&mut self, dtype: DType, a: ExprId) -> ExprId {
        if self.dtype(a) == dtype { a } else { self.intern(Expr::Cast(dtype, a)) }
    }

    /// The operands of a node, in order.
    pub fn operands(&self, id: ExprId) -> SmallVec<[ExprId; 4]> {
        match self.get(id) {
            Expr::Int(..) | Expr::Float(..) | Expr::Var(_) => smallvec![],
            Expr::Load(_, index) => SmallVec::from_slice(index),
            Expr::Unary(_, a) | Expr::Cast(_, a) => smallvec![*a],
            Expr::Binary(_, a, b) | Expr::Guard(a, b) => smallvec![*a, *b],
            Expr::Select(c, a, b) => smallvec![*c, *a, *b],
        }
    }

    /// The node over other operands, in order, as the builder of its kind makes it.
    pub fn map_operands(
        &mut self,
        id: ExprId,
        map: &mut impl FnMut(&mut ExprPool, ExprId) -> ExprId,
    ) -> ExprId {
        match self.get(id).clone() {
            Expr::Int(..) | Expr::Float(..) | Expr::Var(_) => id,
            Expr::Load(buffer, index) => {
                let index: Vec<ExprId> = index.iter().map(|&i| map(self, i)).collect();
                self.load(buffer, &index)
            }
            Expr::Unary(op, a) => {
                let a = map(self, a);
                self.unary(op, a)
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (map(self, a), map(self, b));
                self.binary(op, a, b)
            }
            Expr::Select(c, a, b) => {
                let (c, a, b) = (map(self, c), map(self, a), map(self, b));
                self.select(c, a, b)
            }
            Expr::Guard(c, a) => {
                let (c, a) = (map(self, c), map(self, a));
                self.guard(c, a)
            }
            Expr::Cast(dtype, a) => {
                let a = map(self, a);
                self.cast(dtype, a)
            }
        }
    }

    /// Calls `visit` once for every node reachable from `root`, operands before users.
    pub fn visit(&self, root: ExprId, visit: &mut impl FnMut(ExprId)) {
        fn walk(pool: &ExprPool, id: ExprId, seen: &mut FxHashSet<ExprId>, visit: &mut impl FnMut(ExprId)) {
            if seen.insert(id) {
                for operand in pool.operands(id) {
                    walk(pool, operand, seen, visit);
                }
                visit(id);
            }
        }
        walk(self, root, &mut FxHashSet::default(), visit);
    }

    /// Whether `var` occurs in `root`.
    pub fn uses_var(&self, root: ExprId, var: VarId) -> bool {
        let mut found = false;
        self.visit(root, &mut |id| found |= *self.get(id) == Expr::Var(var));
        found
    }

    /// The variables that occur in `root`, in order of their ids.
    pub fn vars_of(&self, root: ExprId) -> Vec<VarId> {
        let mut vars = std::collections::BTreeSet::new();
        self.visit(root, &mut |id| {
            if let Expr::Var(var) = self.get(id) {
                vars.insert(*var);
            }
        });
        vars.into_iter().collect()
    }

    /// The distinct loads in `root`, operands before users.
    pub fn loads_of(&self, root: ExprId) -> Vec<ExprId> {
        let mut loads = vec![];
        self.visit(root, &mut |id| {
            if let Expr::Load(..) = self.get(id) {
                loads.push(id);
            }
        });
        loads
    }

    /// The buffers of the loads in `root`, operands before users.
    pub fn buffers_read(&self, root: ExprId) -> Vec<BufferId> {
        let mut buffers = vec![];
        self.visit(root, &mut |id| {
            if let Expr::Load(buffer, _) = self.get(id) {
                buffers.push(*buffer);
            }
        });
        buffers
    }

    /// `root` rebuilt bottom-up: where `replace` gives an expression for a node (seen after its operands were rebuilt), that
    /// one takes its place.
    pub fn rewrite(
        &mut self,
        root: ExprId,
        replace: &mut impl FnMut(&mut ExprPool, ExprId) -> Option<ExprId>,
    ) -> ExprId {
        let mut done = FxHashMap::default();
        self.rewrite_memo(root, replace, &mut done)
    }

    fn rewrite_memo(
        &mut self,
        id: ExprId,
        replace: &mut impl FnMut(&mut ExprPool, ExprId) -> Option<ExprId>,
        done: &mut FxHashMap<ExprId, ExprId>,
    ) -> ExprId {
        if let Some(&result) = done.get(&id) {
            return result;
        }
        let rebuilt = self.map_operands(id, &mut |pool, operand| pool.rewrite_memo(operand, replace, done));
        let result = replace(self, rebuilt).unwrap_or(rebuilt);
        done.insert(id, result);
        result
    }

    /// `root` with variables replaced, index arithmetic simplified on the way.
    pub fn substitute(&mut self, root: ExprId, map: &HashMap<VarId, ExprId>) -> ExprId {
        let replaced =
            self.rewrite(root, &mut |pool, id| pool.as_var(id).and_then(|var| map.get(&var).copied()));
        self.simplify(replaced)
    }

    /// The position of an element in the buffer's storage, simplified: `sum(index * stride)`.
    pub fn linear_index(&mut self, buffer: BufferId, index: &[ExprId]) -> ExprId {
        let strides = self.buffers[buffer].strides();
        let mut sum = self.int(0);
        for (&i, stride) in index.iter().zip(strides) {
            let term = self.mul_int(i, stride as i64);
            sum = self.add(sum, term);
        }
        self.simplify(sum)
    }
}

/// `value` rounded to the nearest of a float type.
fn round_to(value: f64, dtype: DType) -> f64 {
    let mut bytes = Vec::with_capacity(8);
    dtype.write_f64(value, &mut bytes);
    dtype.read_f64(&bytes, 0)
}
