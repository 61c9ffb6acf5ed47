//! The rules for GPUs.
//!
//! - A contraction: a tile of results in the registers of each invocation, as wide as `known good` tiles of tuned engines where
//!   there is enough to do, constants packed so that a tile's factors are adjacent. On hardware both factors pass through
//!   workgroup memory; a software adapter has no such memory and takes larger tiles without it.
//! - Another reduction: invocations over the results, each with a short run of adjacent ones.
//! - Everything else: invocations over the elements, four adjacent ones each where that makes accesses wide.

mod tiles;

use super::shape::{Contraction, ContractionNames, Reduction, find_reductions};
use super::{Scheduler, buffer_name, iterations, loop_names};
use crate::expr::{Scope, VarId};
use crate::loopir::{Axis, LoopKind, Stmt};
use crate::target::{GpuKind, GpuTarget};
use crate::tensor::DType;

/// The tile of a contraction.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// Results of one invocation.
    rows: usize,
    columns: usize,
    /// Invocations of a workgroup.
    high: usize,
    wide: usize,
    /// Terms staged at once in workgroup memory; 0 without.
    depth: usize,
}

pub(super) fn schedule(scheduler: &mut Scheduler, target: &GpuTarget) {
    scheduler.prepare_all();
    let reductions = find_reductions(&scheduler.nest);
    if let ([reduction], 1) = (reductions.as_slice(), scheduler.nest.body.len()) {
        if target.kind == GpuKind::Software
            && scheduler.attempt(|scheduler| tiles::tile_results(scheduler, reduction, target))
        {
            return;
        }
        let contraction = reduction.contraction(&mut scheduler.nest);
        if let Some(contraction) = contraction.filter(|contraction| contraction.dtypes == [DType::F32; 2])
            && scheduler.attempt(|scheduler| matrix_tiles(scheduler, &contraction, target))
        {
            return;
        }
        if scheduler.attempt(|scheduler| result_runs(scheduler, reduction, target)) {
            return;
        }
    }
    spread_all(scheduler, target);
}

fn choose_tile(target: &GpuTarget, rows: usize, columns: usize, batch: usize) -> Tile {
    if target.kind == GpuKind::Software {
        let tile_rows = if rows >= 8 { 8 } else { rows.next_power_of_two() };
        let tile_columns = if columns >= 64 {
            16
        } else if columns >= 16 {
            8
        } else {
            columns.min(4)
        };
        return Tile { rows: tile_rows, columns: tile_columns, high: 1, wide: 8, depth: 0 };
    }
    // Fill the machine before growing the tile: two workgroups for each of some 32 compute units.
    let workgroups = |tile: &Tile| {
        rows.div_ceil(tile.rows * tile.high) * columns.div_ceil(tile.columns * tile.wide) * batch
    };
    let tiles = [
        Tile { rows: 8, columns: 8, high: 8, wide: 16, depth: 16 },
        Tile { rows: 4, columns: 8, high: 16, wide: 8, depth: 16 },
        Tile { rows: 4, columns: 4, high: 8, wide: 8, depth: 16 },
    ];
    let fits = |tile: &Tile| {
        tile.high * tile.wide <= target.limits.max_invocations_per_workgroup as usize
            && 4 * tile.depth * (tile.rows * tile.high + tile.columns * tile.wide)
                <= target.limits.max_workgroup_memory_bytes as usize
    };
    tiles.into_iter().find(|tile| fits(tile) && workgroups(tile) >= 64).unwrap_or(tiles[2])
}

fn matrix_tiles(scheduler: &mut Scheduler, contraction: &Contraction, target: &GpuTarget) -> Option<()> {
    let nest = &scheduler.nest;
    let [row_count, column_count, batch_count] =
        [&contraction.rows, &contraction.columns, &contraction.batch].map(|vars| iterations(nest, vars));
    if contraction.rows.is_empty() || column_count < 4 {
        return None;
    }
    let tile = choose_tile(target, row_count, column_count, batch_count);
    let ContractionNames { a, b, accumulator, batch, rows, columns, inner } = contraction.names(nest);
    let a_constant = contraction.is_constant(nest, contraction.a);
    let b_constant = contraction.is_constant(nest, contraction.b);

    scheduler.reorder(&[batch.as_slice(), &rows, &columns].concat())?;
    let batch = scheduler.fuse_all(&batch, "b");
    let row = scheduler.fuse_all(&rows, "i")?;
    let column = scheduler.fuse_all(&columns, "j")?;
    scheduler.split(&row, &[tile.high, tile.rows])?;
    scheduler.split(&column, &[tile.wide, tile.columns])?;
    let [row_outer, row_invocation, row_inner] = [0, 1, 2].map(|level| format!("{row}.{level}"));
    let [column_outer, column_invocation, column_inner] = [0, 1, 2].map(|level| format!("{column}.{level}"));
    let order = [&row_outer, &column_outer, &row_invocation, &column_invocation, &row_inner, &column_inner];
    scheduler.reorder(&order.map(String::clone))?;
    let deep = if tile.depth > 0 {
        let deep = scheduler.fuse_all(&inner, "d")?;
        scheduler.split(&deep, &[tile.depth])?;
        vec![format!("{deep}.0"), format!("{deep}.1")]
    } else {
        inner
    };
    // The factors of one tile adjacent, in the order in which they are used; the names of the buffers that the tile reads.
    let mut packed = |buffer: String, constant: bool, outer: &String, invocation: &String, lane: &String| {
        if !constant {
            return Some(buffer);
        }
        let batch: Vec<String> = batch.iter().cloned().collect();
        let outer = [outer.clone(), invocation.clone()];
        let by = [batch.as_slice(), &outer, &deep, std::slice::from_ref(lane)].concat();
        scheduler.relayout(&buffer, &scheduler.loops_of_reads(&buffer, &by))
    };
    let a = packed(a, a_constant, &row_outer, &row_invocation, &row_inner)?;
    let b = packed(b, b_constant, &column_outer, &column_invocation, &column_inner)?;
    scheduler.stage_out(&accumulator, Some(&column_invocation))?;
    scheduler.reorder(&[deep.as_slice(), &[row_inner.clone(), column_inner.clone()]].concat())?;
    scheduler.bind(&row_outer, LoopKind::Workgroup(Axis::Y))?;
    scheduler.bind(&column_outer, LoopKind::Workgroup(Axis::X))?;
    scheduler.bind(&row_invocation, LoopKind::Invocation(Axis::Y))?;
    scheduler.bind(&column_invocation, LoopKind::Invocation(Axis::X))?;
    if let Some(batch) = &batch {
        scheduler.bind(batch, LoopKind::Workgroup(Axis::Z))?;
    }
    if let [at, term] = deep.as_slice()
        && tile.depth > 0
    {
        for (buffer, by) in
            [(&a, [term, &row_invocation, &row_inner]), (&b, [term, &column_invocation, &column_inner])]
        {
            scheduler.stage_in(buffer, Some(at), Scope::Workgroup, &by.map(String::clone))?;
        }
    }
    scheduler.bind(&row_inner, LoopKind::Unroll)?;
    scheduler.bind(&column_inner, LoopKind::Vector)
}

/// Results dealt out over the invocations in short runs along memory, each run in registers.
fn result_runs(scheduler: &mut Scheduler, reduction: &Reduction, target: &GpuTarget) -> Option<()> {
    let contiguous = reduction.contiguous_loop(&mut scheduler.nest)?;
    if reduction.outer.last() != Some(&contiguous) || reduction.outer.len() < 2 {
        return None;
    }
    let extent = scheduler.nest.pool.vars[contiguous].extent;
    let run = [8, 7, 4]
        .into_iter()
        .find(|run| extent.is_multiple_of(*run) && (target.kind == GpuKind::Software || *run <= 4))?;
    let outer = loop_names(&scheduler.nest, &reduction.outer);
    let last = outer.last()?.clone();
    let accumulator = buffer_name(&scheduler.nest, reduction.accumulator);
    let inner = loop_names(&scheduler.nest, &reduction.inner);
    scheduler.split(&last, &[run])?;
    let [last_outer, last_inner] = [0, 1].map(|level| format!("{last}.{level}"));
    let all = [&outer[..outer.len() - 1], std::slice::from_ref(&last_outer)].concat();
    let fused = scheduler.fuse_all(&all, "f")?;
    let count = scheduler.extent(&fused);
    let wide = invocations(target, count);
    scheduler.split(&fused, &[wide])?;
    let [workgroup, invocation] = [0, 1].map(|level| format!("{fused}.{level}"));
    scheduler.stage_out(&accumulator, Some(&invocation))?;
    scheduler.reorder(&[inner.as_slice(), std::slice::from_ref(&last_inner)].concat())?;
    scheduler.bind(&workgroup, LoopKind::Workgroup(Axis::X))?;
    scheduler.bind(&invocation, LoopKind::Invocation(Axis::X))?;
    scheduler.bind(&last_inner, LoopKind::Unroll)
}

/// Invocations of a workgroup for `count` independent pieces of work.
fn invocations(target: &GpuTarget, count: usize) -> usize {
    64.min(target.limits.max_invocations_per_workgroup as usize).min(count.next_power_of_two())
}

/// Deals every statement's outer loops out over the invocations.
fn spread_all(scheduler: &mut Scheduler, target: &GpuTarget) {
    for top in scheduler.top_loops() {
        // Steps address loops by name, so an earlier statement's schedule may have reached this one.
        if scheduler.nest.loop_of(top).is_some_and(|of| of.kind == LoopKind::Serial) {
            scheduler.attempt(|scheduler| spread(scheduler, top, target));
        }
    }
}

fn spread(scheduler: &mut Scheduler, top: VarId, target: &GpuTarget) -> Option<()> {
    let mut chain = vec![];
    let mut at = scheduler.nest.loop_of(top)?;
    let single_block = loop {
        chain.push(at.clone());
        match at.body.as_slice() {
            [Stmt::Loop(inner)] => at = inner,
            [Stmt::Store(store)] => break store.combine.is_none(),
            _several => break false,
        }
    };
    // Only loops whose iterations are independent can be dealt out.
    let independent = chain
        .iter()
        .take_while(|of| crate::analysis::carried_buffers(&mut scheduler.nest.pool, of).is_empty())
        .count();
    let outer: Vec<VarId> = chain[..independent].iter().map(|of| of.var).collect();
    let outer = loop_names(&scheduler.nest, &outer);
    if outer.is_empty() {
        return None;
    }
    let fused = scheduler.fuse_all(&outer, "f")?;
    let count = scheduler.extent(&fused);
    let lanes = if single_block && independent == chain.len() && count.is_multiple_of(4) { 4 } else { 1 };
    let wide = invocations(target, count / lanes);
    if lanes > 1 {
        scheduler.split(&fused, &[wide, lanes])?;
        scheduler.bind(&format!("{fused}.2"), LoopKind::Vector);
    } else {
        scheduler.split(&fused, &[wide])?;
    }
    scheduler.bind(&format!("{fused}.0"), LoopKind::Workgroup(Axis::X))?;
    scheduler.bind(&format!("{fused}.1"), LoopKind::Invocation(Axis::X))
}
