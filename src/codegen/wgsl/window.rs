//! Buffers larger than a binding may be: the workgroups in parts, each with a window on such a buffer.
//!
//! Where the outermost dimension of a large buffer is walked by a `workgroup` loop, a contiguous range of that loop's
//! iterations touches a contiguous range of the buffer. So the statement becomes several: each counts a part of the loop, and
//! sees of the buffer only what this part touches, as a smaller buffer bound at an offset.
//!
//! ```text
//! for j in 64 workgroup.x: .. b[j, k] ..     for j in 32 workgroup.x: .. b[j, k] ..          b bound from row 0
//!                                            for j in 32 workgroup.x: .. b[j, k] .. of j + 32   b bound from row 32
//! ```

use super::storage_type;
use crate::expr::{BufferId, Expr, ExprId, ExprPool, Interval, Scope, VarId};
use crate::loopir::{Loop, LoopKind, Nest, Stmt, walk};
use crate::target::{GpuLimits, GpuTarget};
use crate::tensor::DType;
use std::collections::{BTreeMap, HashMap};

/// What a part of a statement sees of a large buffer: `len` elements from `first` on along one dimension.
#[derive(Clone, Copy, Debug)]
struct Window {
    dimension: usize,
    first: usize,
    len: usize,
    /// Bytes from one element of the dimension to the next.
    row_bytes: u64,
}

/// A part of a statement.
pub(super) struct Part {
    /// A nest of the part alone, its large buffers as small as their windows.
    pub(super) nest: Nest,
    /// Where the window on each large buffer begins, in bytes.
    pub(super) offsets: BTreeMap<BufferId, u64>,
}

/// The statements in parts none of whose buffers is too large for a binding; `None` where they need no parts, or there are
/// none that would help.
pub(super) fn parts(nest: &Nest, stmts: &[Stmt], target: &GpuTarget) -> Option<Vec<Part>> {
    let limits = &target.limits;
    let accesses = large_accesses(nest, stmts, limits);
    if accesses.is_empty() {
        return None;
    }
    workgroup_loops(stmts).into_iter().find_map(|of| {
        let extent = nest.pool.vars[of].extent;
        (2..=extent).find_map(|count| {
            let step = extent.div_ceil(count);
            let ranges: Vec<(usize, usize)> =
                (0..extent).step_by(step).map(|first| (first, extent.min(first + step))).collect();
            let windows: Option<Vec<_>> =
                ranges.iter().map(|&range| windows(&nest.pool, &accesses, of, range, limits)).collect();
            let parts = ranges.iter().zip(windows?);
            Some(parts.map(|(&range, windows)| part(nest, stmts, of, range, &windows)).collect())
        })
    })
}

/// The most bytes of a binding; flat indices are i32.
pub(super) fn binding_limit(limits: &GpuLimits) -> u64 {
    limits.max_storage_buffer_binding_bytes.min(i32::MAX as u64)
}

fn bytes_of(pool: &ExprPool, id: BufferId) -> u64 {
    let buffer = &pool.buffers[id];
    let stored = storage_type(buffer.dtype).map_or(0, DType::size_bytes);
    buffer.storage_len() as u64 * stored as u64
}

/// The accesses of global buffers that fit a memory but no binding.
fn large_accesses(nest: &Nest, stmts: &[Stmt], limits: &GpuLimits) -> BTreeMap<BufferId, Vec<Vec<ExprId>>> {
    let pool = &nest.pool;
    let mut accesses: BTreeMap<BufferId, Vec<Vec<ExprId>>> = BTreeMap::new();
    let mut add = |buffer: BufferId, index: &[ExprId]| {
        let bytes = bytes_of(pool, buffer);
        let large = bytes > binding_limit(limits) && bytes <= limits.max_buffer_bytes;
        if pool.buffers[buffer].scope == Scope::Global && large {
            accesses.entry(buffer).or_default().push(index.to_vec());
        }
    };
    walk::visit_stores(stmts, &mut |store| {
        add(store.buffer, &store.index);
        for load in store.roots().flat_map(|root| pool.loads_of(root)) {
            if let Expr::Load(buffer, index) = pool.get(load) {
                add(*buffer, index);
            }
        }
    });
    accesses
}

/// The `workgroup` loops around everything else, outermost first.
fn workgroup_loops(stmts: &[Stmt]) -> Vec<VarId> {
    let mut vars = vec![];
    let mut body = stmts;
    while let [Stmt::Loop(Loop { var, kind: LoopKind::Workgroup(_), body: inner, .. })] = body {
        vars.push(*var);
        body = inner;
    }
    vars
}

/// What the iterations `range` of a loop touch of each large buffer, where that fits a binding.
fn windows(
    pool: &ExprPool,
    accesses: &BTreeMap<BufferId, Vec<Vec<ExprId>>>,
    of: VarId,
    range: (usize, usize),
    limits: &GpuLimits,
) -> Option<BTreeMap<BufferId, Window>> {
    let ranges = HashMap::from([(of, Interval { low: range.0 as i64, high: range.1 as i64 - 1 })]);
    let mut windows = BTreeMap::new();
    for (&id, indices) in accesses {
        let buffer = &pool.buffers[id];
        let dimension = buffer.shape.iter().position(|&extent| extent > 1)?;
        let (extent, row) = (buffer.shape[dimension], buffer.strides()[dimension]);
        let row_bytes = row as u64 * storage_type(buffer.dtype)?.size_bytes() as u64;
        let mut touched: Option<(usize, usize)> = None;
        for index in indices {
            let Interval { low, high } = pool.interval_with(index[dimension], &ranges)?;
            let inside = |at: i64| usize::try_from(at.max(0)).map_or(extent - 1, |at| at.min(extent - 1));
            let (low, high) = (inside(low), inside(high));
            touched = Some(touched.map_or((low, high), |(a, b)| (a.min(low), b.max(high))));
        }
        let (mut first, last) = touched?;
        let alignment = u64::from(limits.storage_offset_alignment_bytes.max(1));
        while !(first as u64 * row_bytes).is_multiple_of(alignment) {
            first -= 1;
        }
        let len = last + 1 - first;
        if len as u64 * row_bytes > binding_limit(limits) {
            return None;
        }
        windows.insert(id, Window { dimension, first, len, row_bytes });
    }
    Some(windows)
}

/// The iterations `range` of the loop `of`.
fn part(
    nest: &Nest,
    stmts: &[Stmt],
    of: VarId,
    range: (usize, usize),
    windows: &BTreeMap<BufferId, Window>,
) -> Part {
    let mut part = Nest { body: stmts.to_vec(), preparation: vec![], ..nest.clone() };
    let Nest { pool, body, .. } = &mut part;
    pool.vars[of].extent = range.1 - range.0;
    let counter = pool.var(of);
    let shifted = HashMap::from([(of, pool.add_int(counter, range.0 as i64))]);
    let shift = |pool: &mut ExprPool, buffer: BufferId, index: &mut [ExprId]| {
        if let Some(window) = windows.get(&buffer) {
            let moved = pool.add_int(index[window.dimension], -(window.first as i64));
            index[window.dimension] = pool.simplify(moved);
        }
    };
    let change = |pool: &mut ExprPool, root: ExprId| {
        let root = pool.substitute(root, &shifted);
        pool.rewrite(root, &mut |pool, id| {
            let Expr::Load(buffer, mut index) = pool.get(id).clone() else { return None };
            shift(pool, buffer, &mut index);
            Some(pool.load(buffer, &index))
        })
    };
    walk::change_stores(body, &mut |store| {
        store.value = change(pool, store.value);
        store.condition = store.condition.map(|condition| change(pool, condition));
        store.index.iter_mut().for_each(|index| *index = change(pool, *index));
        shift(pool, store.buffer, &mut store.index);
    });
    for (&id, window) in windows {
        pool.buffers[id].shape[window.dimension] = window.len;
    }
    let offsets = windows.iter().map(|(&id, window)| (id, window.first as u64 * window.row_bytes)).collect();
    Part { nest: part, offsets }
}
