//! The shapes of nests that rules know.

use super::{buffer_name, loop_names};
use crate::expr::{Affine, BinaryOp, BufferId, Expr, ExprId, Role, VarId};
use crate::loopir::{Loop, Nest, Stmt, Store};
use crate::tensor::DType;

/// `for outer: { local acc; init; for inner: acc combine= value; stores }`.
#[derive(Clone, Debug)]
pub struct Reduction {
    /// The loops around the accumulator, outermost first.
    pub outer: Vec<VarId>,
    /// The accumulator.
    pub accumulator: BufferId,
    /// The loops of the reduction, outermost first.
    pub inner: Vec<VarId>,
    /// The block that combines.
    pub update: Store,
    /// The blocks that follow and write results.
    pub stores: Vec<Store>,
}

/// A reduction over products of two reads: matrix products, convolutions.
#[derive(Clone, Debug)]
pub struct Contraction {
    /// The reduction it is.
    pub reduction: Reduction,
    /// The factor whose loops are the rows of the result.
    pub a: BufferId,
    /// The factor whose loops are the columns: the result's neighbours in memory.
    pub b: BufferId,
    /// The types of the elements of `a`, `b`.
    pub dtypes: [DType; 2],
    /// Whether `a`, `b` are read under a guard.
    pub guarded: [bool; 2],
    /// Loops of both factors.
    pub batch: Vec<VarId>,
    /// Loops of `a` alone.
    pub rows: Vec<VarId>,
    /// Loops of `b` alone.
    pub columns: Vec<VarId>,
    /// The address of `b` at each read.
    pub b_address: Affine,
    /// The address of `a` at each read.
    pub a_address: Affine,
}

/// The reductions among the statements at the top of the nest, in order.
pub fn find_reductions(nest: &Nest) -> Vec<Reduction> {
    nest.body.iter().filter_map(|stmt| if let Stmt::Loop(of) = stmt { reduction(of) } else { None }).collect()
}

fn reduction(of: &Loop) -> Option<Reduction> {
    let mut outer = vec![of.var];
    let mut at = of;
    while let [Stmt::Loop(inner)] = at.body.as_slice() {
        outer.push(inner.var);
        at = inner;
    }
    let [Stmt::Alloc(accumulator), Stmt::Store(init), Stmt::Loop(reducing), rest @ ..] = at.body.as_slice()
    else {
        return None;
    };
    if init.buffer != *accumulator || rest.is_empty() {
        return None;
    }
    let mut inner = vec![reducing.var];
    let mut at = reducing;
    let update = loop {
        match at.body.as_slice() {
            [Stmt::Loop(next)] => {
                inner.push(next.var);
                at = next;
            }
            [Stmt::Store(update)] if update.buffer == *accumulator && update.combine.is_some() => {
                break update.clone();
            }
            _other => return None,
        }
    };
    let mut stores = vec![];
    for stmt in rest {
        let Stmt::Store(store) = stmt else { return None };
        stores.push(store.clone());
    }
    Some(Reduction { outer, accumulator: *accumulator, inner, update, stores })
}

impl Reduction {
    /// The loop over which the results are adjacent in memory, when there is one.
    pub fn contiguous_loop(&self, nest: &mut Nest) -> Option<VarId> {
        let store = self.stores.last()?;
        let linear = nest.pool.linear_index(store.buffer, &store.index);
        let form = nest.pool.affine(linear);
        self.outer.iter().copied().find(|&var| form.coefficient(&nest.pool, var) == Some(1))
    }

    /// The factors of the products it sums, if it sums products of reads of two f32 buffers, of which a constant one may be of f16 or
    /// bf16 instead, or of two of bytes in i32.
    pub fn factors(&self, nest: &mut Nest) -> Option<[Factor; 2]> {
        if self.update.combine != Some(crate::loopir::Combiner::Add) {
            return None;
        }
        let of_floats = match nest.pool.dtype(self.update.value) {
            DType::F32 => true,
            DType::I32 => false,
            DType::F16
            | DType::BF16
            | DType::F64
            | DType::I8
            | DType::I16
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
            | DType::Bool => return None,
        };
        let Expr::Binary(BinaryOp::Mul, x, y) = *nest.pool.get(self.update.value) else { return None };
        let (x, y) = (read(nest, x)?, read(nest, y)?);
        let fits = if of_floats {
            let narrow = |of: &Factor| matches!(of.dtype, DType::F16 | DType::BF16) && of.is_constant(nest);
            let single = |of: &Factor| of.dtype == DType::F32;
            (single(&x) && (single(&y) || narrow(&y))) || (narrow(&x) && single(&y))
        } else {
            [&x, &y].iter().all(|factor| matches!(factor.dtype, DType::U8 | DType::I8))
        };
        (fits && x.buffer != y.buffer).then_some([x, y])
    }

    /// The contraction it is, if it sums products of two reads as [`factors`](Self::factors) says, with loops of rows or columns.
    pub fn contraction(&self, nest: &mut Nest) -> Option<Contraction> {
        let [x, y] = self.factors(nest)?;
        let contiguous = self.contiguous_loop(nest)?;
        let (a, b) = match (x.uses(nest, contiguous), y.uses(nest, contiguous)) {
            (true, false) => (y, x),
            (false, true) => (x, y),
            (true, true) | (false, false) => return None,
        };
        let (mut batch, mut rows, mut columns) = (vec![], vec![], vec![]);
        for &var in &self.outer {
            match (a.uses(nest, var), b.uses(nest, var)) {
                (true, true) => batch.push(var),
                (true, false) => rows.push(var),
                (false, true) => columns.push(var),
                (false, false) => return None,
            }
        }
        if self.inner.iter().any(|&var| !(a.uses(nest, var) && b.uses(nest, var))) {
            return None;
        }
        Some(Contraction {
            reduction: self.clone(),
            a: a.buffer,
            b: b.buffer,
            dtypes: [a.dtype, b.dtype],
            guarded: [a.guarded, b.guarded],
            batch,
            rows,
            columns,
            a_address: a.address,
            b_address: b.address,
        })
    }
}

/// One factor of the products that a reduction sums: a read.
#[derive(Clone, Debug)]
pub struct Factor {
    /// What is read.
    pub buffer: BufferId,
    /// The type of its elements.
    pub dtype: DType,
    /// Whether it is read under a guard, or is something else where a condition fails.
    pub guarded: bool,
    /// Where it is read.
    pub address: Affine,
}

impl Factor {
    /// Whether the address depends on a loop.
    pub fn uses(&self, nest: &Nest, var: VarId) -> bool {
        self.address.terms.keys().any(|&atom| nest.pool.uses_var(atom, var))
    }

    /// Whether it is known when the nest is compiled.
    pub fn is_constant(&self, nest: &Nest) -> bool {
        nest.pool.buffers[self.buffer].role == Role::Constant
    }
}

/// A read, plain or guarded or chosen against a constant, that may be converted.
fn read(nest: &mut Nest, id: ExprId) -> Option<Factor> {
    let (mut load, mut guarded) = (id, false);
    if let Expr::Cast(_, value) = *nest.pool.get(load) {
        load = value;
    }
    if let Expr::Select(_, value, otherwise) = *nest.pool.get(load)
        && matches!(nest.pool.get(otherwise), Expr::Int(..))
    {
        (load, guarded) = (value, true);
    }
    if let Expr::Guard(_, value) = *nest.pool.get(load) {
        (load, guarded) = (value, true);
    }
    let Expr::Load(buffer, index) = nest.pool.get(load).clone() else { return None };
    let (linear, dtype) = (nest.pool.linear_index(buffer, &index), nest.pool.buffers[buffer].dtype);
    Some(Factor { buffer, dtype, guarded, address: nest.pool.affine(linear) })
}

/// The parts of a contraction, by the names that steps know them by.
#[derive(Clone, Debug)]
pub(super) struct ContractionNames {
    pub(super) a: String,
    pub(super) b: String,
    pub(super) accumulator: String,
    pub(super) batch: Vec<String>,
    pub(super) rows: Vec<String>,
    pub(super) columns: Vec<String>,
    /// The loops of the reduction.
    pub(super) inner: Vec<String>,
}

impl Contraction {
    pub(super) fn names(&self, nest: &Nest) -> ContractionNames {
        ContractionNames {
            a: buffer_name(nest, self.a),
            b: buffer_name(nest, self.b),
            accumulator: buffer_name(nest, self.reduction.accumulator),
            batch: loop_names(nest, &self.batch),
            rows: loop_names(nest, &self.rows),
            columns: loop_names(nest, &self.columns),
            inner: loop_names(nest, &self.reduction.inner),
        }
    }

    /// Whether the factors are bytes, not floats.
    pub fn is_of_bytes(&self) -> bool {
        self.dtypes.iter().all(|dtype| dtype.size_bytes() == 1)
    }

    /// Whether a factor is known when the nest is compiled.
    pub fn is_constant(&self, nest: &Nest, buffer: BufferId) -> bool {
        nest.pool.buffers[buffer].role == Role::Constant
    }
}

/// Whether a read of `buffer` depends on the loop.
pub(super) fn reads_with(nest: &Nest, buffer: &str, loop_name: &str) -> bool {
    let Some(id) = nest.buffer_named(buffer) else { return false };
    let vars = nest.loops_named(loop_name);
    let mut found = false;
    nest.visit_stores(&mut |store| {
        for load in nest.pool.loads_of(store.value) {
            if matches!(nest.pool.get(load), Expr::Load(known, _) if *known == id) {
                found |= vars.iter().any(|&var| nest.pool.uses_var(load, var));
            }
        }
    });
    found
}
