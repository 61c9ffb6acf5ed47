//! The rules for CPUs.
//!
//! - A contraction becomes matrix tiles: rows and columns are cut to the micro-kernel's tile, constant factors packed when the
//!   nest is compiled, guarded or strided factors packed as they are read (which is im2col for a convolution), and the results
//!   finished tile by tile while they are in the first-level cache. Planes that fill no row of a tile become its rows.
//! - A contraction of bytes becomes matrix tiles of fours of them likewise, whose factor of the columns is always packed, and which finish
//!   their results tile by tile where these are bytes again.
//! - Columns that the nest itself writes, as im2col does, are written by all threads first; their product is a contraction.
//! - A convolution whose results lie in blocks of channels becomes matrix tiles of their vectors, and reads its input in place; so does
//!   a pooling of blocks, over windows or over all places.
//! - A 1x1 convolution that makes its operand computes bands of it where it reads them, and one of each channel by itself strips.
//! - An attention computes bands of its scores where it reads them.
//! - Another reduction whose results are adjacent over an outer loop keeps a tile of accumulators and runs the reduction outside
//!   of it, so that vectors run along the results; guarded reads go through a padded copy of their region. A window over a
//!   plane becomes a window instruction; small planes are done several at once.
//! - Short reductions over adjacent terms run many together, and so do reductions that follow one another, as in a softmax: with
//!   a result a lane where the results are adjacent.
//! - Everything else runs its innermost loops as vectors.
//! - The outermost loops are divided over the threads where there is enough to do.

mod bands;
mod blocked;
mod columns;
mod contraction;
mod reduction;
mod scores;
mod spatial_pack;
mod winograd;

use super::shape::{Reduction, find_reductions};
use super::{Scheduler, loop_name, loop_names};
use crate::analysis;
use crate::expr::{BinaryOp, ExprId, VarId};
use crate::loopir::{LoopKind, Stmt};
use crate::target::{CpuIsa, CpuTarget};

/// The micro-kernel of a processor for fours of bytes, of tiles as large as [`tile`] says.
fn tile_of_bytes(isa: CpuIsa) -> &'static str {
    match isa {
        CpuIsa::Generic => "dots_3x12",
        CpuIsa::Avx2 => "dots_6x16",
        CpuIsa::Avx512 => "dots_12x32",
    }
}

/// Rows and columns of the micro-kernel's tile, and its instruction.
fn tile(isa: CpuIsa) -> (usize, usize, &'static str) {
    match isa {
        CpuIsa::Generic => (3, 12, "fma_3x12"),
        CpuIsa::Avx2 => (6, 16, "fma_6x16"),
        CpuIsa::Avx512 => (12, 32, "fma_12x32"),
    }
}

/// Elements that are few for a call of a vector program.
const SHORT_ROW: usize = 256;

/// Elements that are worth a second thread.
const PARALLEL_ELEMENTS: usize = 8192;

pub(super) fn schedule(scheduler: &mut Scheduler, target: &CpuTarget) {
    if let ([reduction], 1) = (find_reductions(&scheduler.nest).as_slice(), scheduler.nest.body.len()) {
        let stored = reduction.stores.iter().flat_map(|store| store.index.to_vec()).collect();
        cut_divided_loops(scheduler, &reduction.outer, stored);
        // What is shuffled before it is combined.
        cut_divided_loops(scheduler, &reduction.inner, vec![reduction.update.value]);
    }
    if scheduler.attempt(|scheduler| winograd::winograd_tiles(scheduler, target)) {
        return;
    }
    if scheduler.attempt(|scheduler| bands::pointwise_bands(scheduler, target))
        || scheduler.attempt(|scheduler| bands::lanewise_strips(scheduler, target))
    {
        return;
    }
    if scheduler.attempt(|scheduler| scores::score_bands(scheduler, target)) {
        return;
    }
    scheduler.prepare_all();
    let reductions = find_reductions(&scheduler.nest);
    if let ([reduction], 1) = (reductions.as_slice(), scheduler.nest.body.len()) {
        if scheduler.attempt(|scheduler| blocked::blocked_tiles_of_places(scheduler, reduction, target))
            || scheduler.attempt(|scheduler| blocked::blocked_tiles(scheduler, reduction, target))
        {
            return;
        }
        if contraction_tiles(scheduler, reduction, target)
            || scheduler.attempt(|scheduler| blocked::blocked_pools(scheduler, reduction, target))
        {
            return;
        }
        let _first = scheduler.attempt(|scheduler| reduction::accumulator_tile(scheduler, reduction, target))
            || scheduler.attempt(|scheduler| reduction::rows_together(scheduler, reduction, target));
    } else if scheduler.attempt(|scheduler| spatial_pack::packed_tiles(scheduler, target))
        || scheduler.attempt(|scheduler| columns::product_of_columns(scheduler, target))
    {
        return;
    } else if scheduler.nest.body.len() == 1
        && !scheduler.attempt(|scheduler| reduction::reductions_together(scheduler, target))
    {
        cut_loops_of_moves(scheduler);
    }
    divide(scheduler, target);
}

/// Matrix tiles of one kind or another for a reduction that is a contraction; whether there are such.
fn contraction_tiles(scheduler: &mut Scheduler, reduction: &Reduction, target: &CpuTarget) -> bool {
    let Some(contraction) = reduction.contraction(&mut scheduler.nest) else { return false };
    (!contraction.is_of_bytes()
        && (scheduler.attempt(|scheduler| contraction::small_plane_tiles(scheduler, &contraction, target))
            || scheduler.attempt(|scheduler| contraction::sum_of_rows(scheduler, &contraction, target))))
        || scheduler.attempt(|scheduler| contraction::matrix_tiles(scheduler, &contraction, target))
}

/// Cuts the outer loops of a move, whose element may be read where a loop is divided by a constant: a shuffle of channels then copies
/// whole planes.
fn cut_loops_of_moves(scheduler: &mut Scheduler) {
    let nest = &scheduler.nest;
    let mut loops = vec![];
    nest.visit_loops(&mut |of, _| loops.push(of.var));
    loops.pop();
    let mut stores = vec![];
    nest.visit_stores(&mut |store| stores.push(store));
    let [store] = stores.as_slice() else { return };
    let addresses = store.roots().collect();
    cut_divided_loops(scheduler, &loops, addresses);
}

/// Cuts those of `loops` that `addresses` divide by a constant: `y[j // 64, i, j % 64]` gets loops of its own for both parts, so that
/// its address is affine in the loops.
fn cut_divided_loops(scheduler: &mut Scheduler, loops: &[VarId], addresses: Vec<ExprId>) {
    let nest = &scheduler.nest;
    let mut cuts: Vec<(String, usize)> = vec![];
    for address in addresses {
        nest.pool.visit(address, &mut |id| {
            let Some((x, divisor)) = nest.pool.by_constant(id, BinaryOp::Mod) else { return };
            let Some(var) = nest.pool.as_var(x) else { return };
            let (extent, divisor) = (nest.pool.vars[var].extent, divisor as usize);
            if loops.contains(&var) && divisor > 1 && extent.is_multiple_of(divisor) {
                cuts.push((loop_name(nest, var), divisor));
            }
        });
    }
    cuts.sort();
    cuts.dedup_by(|a, b| a.0 == b.0);
    for (of, divisor) in cuts {
        scheduler.split(&of, &[divisor]);
    }
}

/// At most `wanted` of `extent`, so that the pieces are of nearly one size.
fn balanced(extent: usize, wanted: usize) -> usize {
    extent.div_ceil(extent.div_ceil(wanted.clamp(1, extent.max(1))).max(1))
}

/// About `wanted` of `extent`: what divides it where that is near, so that all pieces are of one size, else at most `wanted`.
fn even(extent: usize, wanted: usize) -> usize {
    let near = divisor_near(extent, wanted);
    let wanted = wanted.clamp(1, extent.max(1));
    if 2 * near.max(wanted) <= 3 * near.min(wanted) { near } else { balanced(extent, wanted) }
}

/// The divisor of `extent` by whose ratio to `wanted` it is the nearest.
fn divisor_near(extent: usize, wanted: usize) -> usize {
    let wanted = wanted.clamp(1, extent.max(1));
    let apart = |size: usize| size.max(wanted) as f32 / size.min(wanted) as f32;
    (1..=extent)
        .filter(|&size| extent.is_multiple_of(size))
        .min_by(|&a, &b| apart(a).total_cmp(&apart(b)))
        .unwrap_or(1)
}

/// Divides the outermost loops of each statement at the top over the threads where there is enough to do.
fn divide(scheduler: &mut Scheduler, target: &CpuTarget) {
    if target.threads < 2 {
        return;
    }
    for top in scheduler.top_loops() {
        let Some(of) = scheduler.nest.loop_of(top) else { continue };
        let mut chain = vec![of.var];
        let mut at = of;
        while let [Stmt::Loop(inner)] = at.body.as_slice() {
            chain.push(inner.var);
            at = inner;
        }
        let extent = scheduler.nest.pool.vars[top].extent;
        let blocks = analysis::work(&scheduler.nest.pool, &of.body).blocks.saturating_mul(extent as u64);
        if blocks < PARALLEL_ELEMENTS as u64 {
            continue;
        }
        let loops = loop_names(&scheduler.nest, &chain);
        match loops.as_slice() {
            [single] if extent >= PARALLEL_ELEMENTS && matches!(of.body.as_slice(), [Stmt::Store(_)]) => {
                // One long loop: pieces for the threads, each of them vectors.
                let pieces = (extent / (PARALLEL_ELEMENTS / 2)).min(4 * target.threads).max(target.threads);
                if scheduler.split(single, &[extent.div_ceil(pieces)]).is_some() {
                    scheduler.bind(&format!("{single}.0"), LoopKind::Parallel);
                }
            }
            [_single] => share_out(scheduler, &loops, target),
            // The innermost loop is for vectors.
            [outer @ .., innermost] => {
                let outer = cut_long_loop(scheduler, outer, innermost, target);
                share_out(scheduler, &outer, target);
            }
            [] => {}
        }
    }
}

/// Cuts the first of `outer` that has more iterations than the threads need pieces where an iteration is short: a piece then has
/// several loops for vectors. The loops that may be divided.
fn cut_long_loop(
    scheduler: &mut Scheduler,
    outer: &[String],
    innermost: &str,
    target: &CpuTarget,
) -> Vec<String> {
    let mut needed = 4 * target.threads;
    let row = scheduler.extent(innermost);
    let mut inside = outer.iter().fold(row, |elements, of| elements * scheduler.extent(of));
    for (place, of) in outer.iter().enumerate() {
        if needed == 1 {
            return outer[..place].to_vec();
        }
        let extent = scheduler.extent(of);
        let elements = inside;
        inside /= extent.max(1);
        if extent > 2 * needed && inside < SHORT_ROW {
            let pieces = needed.min(elements / SHORT_ROW).max(1);
            if scheduler.split(of, &[extent.div_ceil(pieces)]).is_some() {
                return [&outer[..place], &[format!("{of}.0")]].concat();
            }
        }
        needed = needed.div_ceil(extent.max(1));
    }
    outer.to_vec()
}

/// Divides loops over the threads, outermost first, until there are several pieces for each thread.
fn share_out(scheduler: &mut Scheduler, loops: &[String], target: &CpuTarget) {
    let mut pieces = 1;
    for of in loops {
        if pieces >= 4 * target.threads || scheduler.bind(of, LoopKind::Parallel).is_none() {
            break;
        }
        pieces *= scheduler.extent(of);
    }
}

#[cfg(test)]
pub(super) fn tile_names() -> Vec<String> {
    CpuIsa::ALL
        .iter()
        .flat_map(|&isa| {
            [vec![tile(isa).2, tile_of_bytes(isa)], blocked::instructions(isa).to_vec()].concat()
        })
        .map(str::to_string)
        .collect()
}
