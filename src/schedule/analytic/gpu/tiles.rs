//! Register tiles for adapters without fast shared memory: software that runs the invocations of a workgroup in vector lanes.
//!
//! There an access of memory costs as much as some 35 multiply-adds for one element and 70 for a `vec4`, wherever it points,
//! and workgroup memory is no faster. So each invocation computes a tile of results: `rows` values of the loops that one
//! factor alone depends on, by `high` x `columns` neighbours of the other. Loops over which a window slides are expanded, as
//! the window's elements are then loaded once for all results that need them, constants are stored in the order of use, and
//! the tile is the one that takes the least by this price list.

use super::super::shape::Reduction;
use super::super::{Scheduler, buffer_name, iterations, loop_name, loop_names};
use crate::expr::{Affine, BufferId, Expr, ExprId, Role, VarId};
use crate::loopir::{Axis, LoopKind, Nest};
use crate::target::GpuTarget;

/// Time of operations on the lanes of a vector, in nanoseconds on one core of a current processor.
const SCALAR_ACCESS: f64 = 10.0;
const WIDE_ACCESS: f64 = 20.0;
const MULTIPLY_ADD: f64 = 0.3;
const ITERATION: f64 = 3.0;
const BROADCAST: f64 = 0.3;
/// How much longer it takes where tiles hang over an edge.
const CONDITIONS: f64 = 1.15;
/// Invocations that run at once in the lanes of a vector.
const LANES: usize = 8;
/// The most statements of an expanded body: the driver's compile time grows with them.
const MAX_BODY: usize = 300;
/// The most results of an invocation.
const MAX_RESULTS: usize = 112;
/// The longest window that is expanded.
const MAX_WINDOW: usize = 11;
/// The most positions of a window of two dimensions that is expanded whole.
const MAX_WINDOW_AREA: usize = 25;

/// A read of the reduction's update.
struct Read {
    buffer: BufferId,
    address: Affine,
    guarded: bool,
    /// Whether a copy in the order of use is made of it.
    packed: bool,
}

/// Which loop does what.
struct Roles {
    reads: Vec<Read>,
    batch: Vec<VarId>,
    rows: Vec<VarId>,
    /// Loops of the results' neighbours, but `high` and `column`.
    others: Vec<VarId>,
    /// The loop around `column` where a tile extends over it.
    high: Option<VarId>,
    column: VarId,
    /// The loop whose results are adjacent in memory.
    contiguous: Option<VarId>,
    /// Whether the lanes of a vector share loads that do not differ between them.
    shares: bool,
    /// Whether `column` is fused with the loop around it.
    fused_with: Option<VarId>,
    rolled: Vec<VarId>,
    unrolled: Vec<VarId>,
    /// An unrolled loop of which only four iterations are expanded.
    quartered: Option<VarId>,
}

/// Results of one invocation.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: usize,
    high: usize,
    columns: usize,
}

/// Deals the results of a reduction out in tiles.
pub(super) fn tile_results(
    scheduler: &mut Scheduler,
    reduction: &Reduction,
    target: &GpuTarget,
) -> Option<()> {
    let mut roles = roles(&mut scheduler.nest, reduction)?;
    let subgroups = target.features.subgroups;
    roles.shares = subgroups.is_some_and(|sizes| sizes.min == sizes.max && sizes.min as usize == LANES);
    // Results that another tile may write too where a tile hangs over take tiles that do not.
    [true, false].into_iter().find_map(|over_edges| {
        let tile = choose(&scheduler.nest, &roles, over_edges)?;
        scheduler.attempt(|scheduler| apply(scheduler, reduction, &roles, tile)).then_some(())
    })
}

fn extent(nest: &Nest, var: VarId) -> usize {
    nest.pool.vars[var].extent
}

fn uses(nest: &Nest, address: &Affine, var: VarId) -> bool {
    address.terms.keys().any(|&atom| nest.pool.uses_var(atom, var))
}

/// The coefficient of a loop in an address; `None` where it is not affine in it or independent of it.
fn coefficient(nest: &Nest, address: &Affine, var: VarId) -> Option<i64> {
    address.coefficient(&nest.pool, var).filter(|&coefficient| coefficient != 0)
}

/// The reads of a value, where no index is read from memory.
fn reads(nest: &mut Nest, value: ExprId) -> Option<Vec<Read>> {
    let mut guarded = vec![];
    nest.pool.visit(value, &mut |id| {
        if let Expr::Guard(_, inner) = *nest.pool.get(id) {
            guarded.extend(nest.pool.loads_of(inner));
        }
    });
    let mut reads: Vec<Read> = vec![];
    for load in nest.pool.loads_of(value) {
        let Expr::Load(buffer, index) = nest.pool.get(load).clone() else { continue };
        let from_memory = index.iter().flat_map(|&i| nest.pool.loads_of(i));
        if from_memory.into_iter().any(|inner| !nest.pool.vars_of(inner).is_empty()) {
            return None;
        }
        let linear = nest.pool.linear_index(buffer, &index);
        let address = nest.pool.affine(linear);
        reads.push(Read { buffer, address, guarded: guarded.contains(&load), packed: false });
    }
    Some(reads)
}

fn roles(nest: &mut Nest, reduction: &Reduction) -> Option<Roles> {
    let mut reads = reads(nest, reduction.update.value)?;
    let outer = &reduction.outer;
    let contiguous = reduction.contiguous_loop(nest);
    let reads_inner = |read: &Read| reduction.inner.iter().any(|&var| uses(nest, &read.address, var));
    // Lanes run over loops that a constant factor does not depend on, where there are enough, so that they share it.
    let shared: Vec<VarId> = reads
        .iter()
        .filter(|read| nest.pool.buffers[read.buffer].role == Role::Constant && reads_inner(read))
        .map(|read| outer.iter().copied().filter(|&var| !uses(nest, &read.address, var)).collect())
        .find(|free: &Vec<VarId>| iterations(nest, free) >= 2 * LANES && free.len() < outer.len())
        .unwrap_or_else(|| outer.clone());
    let column = match contiguous.filter(|var| shared.contains(var)) {
        Some(var) => var,
        None => {
            let adjacent =
                |&var: &VarId| reads.iter().any(|read| coefficient(nest, &read.address, var) == Some(1));
            shared.iter().copied().rev().find(adjacent).or(shared.last().copied())?
        }
    };
    let of_column = |read: &Read| uses(nest, &read.address, column);
    let (mut batch, mut rows, mut columns) = (vec![], vec![], vec![]);
    for &var in outer {
        let used = |wanted: bool| {
            reads
                .iter()
                .any(|read| of_column(read) == wanted && reads_inner(read) && uses(nest, &read.address, var))
        };
        match (used(true) || var == column, used(false)) {
            (true, true) => batch.push(var),
            (true, false) | (false, false) => columns.push(var),
            (false, true) => rows.push(var),
        }
    }
    let around = columns.iter().position(|&var| var == column)?.checked_sub(1).map(|place| columns[place]);
    let mut others: Vec<VarId> = columns.iter().copied().filter(|&var| var != column).collect();

    // Expanded: loops over which a window slides.
    let slides = |inner: VarId, along: VarId| {
        extent(nest, inner) <= MAX_WINDOW
            && reads.iter().any(|read| {
                let steps =
                    coefficient(nest, &read.address, inner).zip(coefficient(nest, &read.address, along));
                steps.is_some_and(|(inner_step, step)| {
                    step < inner_step * extent(nest, inner) as i64
                        && inner_step < step * extent(nest, along) as i64
                })
            })
    };
    let mut unrolled: Vec<VarId> =
        reduction.inner.iter().copied().filter(|&var| slides(var, column)).collect();
    let mut quartered = None;
    let mut high = None;
    if unrolled.is_empty() {
        let last = *reduction.inner.last()?;
        let adjacent = reads.iter().any(|read| {
            let constant = nest.pool.buffers[read.buffer].role == Role::Constant;
            let tiled = outer.iter().any(|&var| uses(nest, &read.address, var));
            coefficient(nest, &read.address, last) == Some(1) && !(constant && tiled)
        });
        if adjacent && extent(nest, last).is_multiple_of(4) {
            unrolled.push(last);
            quartered = Some(last);
        }
    } else {
        let rest: Vec<VarId> =
            reduction.inner.iter().copied().filter(|var| !unrolled.contains(var)).collect();
        if iterations(nest, &reduction.inner) <= MAX_WINDOW_AREA {
            high = around.filter(|&along| rest.iter().any(|&var| slides(var, along)));
            unrolled = reduction.inner.clone();
        }
    }
    let rolled: Vec<VarId> = reduction
        .inner
        .iter()
        .copied()
        .filter(|var| !unrolled.contains(var) || quartered == Some(*var))
        .collect();

    // Rows of results that are neighbours throughout are one long row.
    let continues = |around: VarId| {
        reads.iter().filter(|read| of_column(read)).all(|read| {
            let steps =
                read.address.coefficient(&nest.pool, around).zip(coefficient(nest, &read.address, column));
            !read.guarded && steps.is_some_and(|(outer, inner)| outer == inner * extent(nest, column) as i64)
        })
    };
    let fused_with = around.filter(|&around| high.is_none() && continues(around));
    others.retain(|&var| Some(var) != high && Some(var) != fused_with);

    let single = |buffer: BufferId| reads.iter().filter(|read| read.buffer == buffer).count() == 1;
    let packed: Vec<bool> = reads
        .iter()
        .map(|read| {
            nest.pool.buffers[read.buffer].role == Role::Constant
                && single(read.buffer)
                && reads_inner(read)
                && (of_column(read) || rows.iter().any(|&var| uses(nest, &read.address, var)))
        })
        .collect();
    for (read, packed) in reads.iter_mut().zip(packed) {
        read.packed = packed;
    }
    Some(Roles {
        reads,
        batch,
        rows,
        others,
        high,
        column,
        fused_with,
        rolled,
        unrolled,
        quartered,
        contiguous,
        shares: false,
    })
}

impl Roles {
    /// Whether rows are workgroups of their own, so that the lanes of a vector have the same.
    fn separate(&self) -> bool {
        self.shares && !self.rows.is_empty()
    }

    fn column_extent(&self, nest: &Nest) -> usize {
        extent(nest, self.column) * self.fused_with.map_or(1, |var| extent(nest, var))
    }

    fn row_extent(&self, nest: &Nest) -> usize {
        iterations(nest, &self.rows)
    }

    /// Expanded iterations of a loop of the reduction.
    fn expanded(&self, nest: &Nest, var: VarId) -> usize {
        if self.quartered == Some(var) { 4 } else { extent(nest, var) }
    }

    /// What the reads of one expanded body take.
    fn read_time(&self, nest: &Nest, read: &Read, tile: Tile) -> f64 {
        let steps = |vars: &[(VarId, usize)]| -> Vec<(Option<i64>, usize)> {
            vars.iter()
                .filter(|(var, count)| *count > 1 && uses(nest, &read.address, *var))
                .map(|&(var, count)| (coefficient(nest, &read.address, var), count))
                .collect()
        };
        let mut tiled: Vec<(VarId, usize)> = vec![(self.column, tile.columns)];
        tiled.extend(self.high.map(|var| (var, tile.high)));
        tiled.extend(self.rows.last().map(|&var| (var, tile.rows)));
        let expanded: Vec<(VarId, usize)> =
            self.unrolled.iter().map(|&var| (var, self.expanded(nest, var))).collect();
        let loops = steps(&[tiled.as_slice(), &expanded].concat());
        let count: usize = loops.iter().map(|(_, count)| count).product();
        let mut differing = vec![self.column];
        differing.extend(self.high.iter().chain(&self.others).chain(&self.fused_with));
        let shared = self.shares && !differing.iter().any(|&var| uses(nest, &read.address, var));
        let accesses = |wide: usize, scalar: usize| {
            if shared {
                let loads = |count: usize| if count < 3 { count } else { count.div_ceil(LANES) };
                let each = (wide + scalar) as f64 * BROADCAST;
                loads(wide) as f64 * WIDE_ACCESS + loads(scalar) as f64 * SCALAR_ACCESS + each
            } else {
                wide as f64 * WIDE_ACCESS + scalar as f64 * SCALAR_ACCESS
            }
        };
        if read.packed {
            return if count.is_multiple_of(4) { accesses(count / 4, 0) } else { accesses(0, count) };
        }
        let Some(loops) =
            loops.into_iter().map(|(step, count)| Some((step?, count))).collect::<Option<Vec<_>>>()
        else {
            return count as f64 * SCALAR_ACCESS;
        };
        let mut offsets = vec![0i64];
        for (step, count) in &loops {
            let start = offsets.clone();
            for number in 1..*count {
                offsets.extend(start.iter().map(|offset| offset + step * number as i64));
            }
        }
        // Aligned where every loop that is not expanded moves by whole `vec4`s.
        let aligned = read.address.terms.iter().all(|(&atom, &coefficient)| {
            let step = match nest.pool.as_var(atom) {
                Some(var) => {
                    let of = [tiled.as_slice(), &expanded].concat();
                    let whole = self.unrolled.contains(&var) && self.quartered != Some(var);
                    let inside = of.iter().find(|(other, _)| *other == var).map_or(1, |&(_, count)| count);
                    if whole { 0 } else { coefficient * inside as i64 }
                }
                None => coefficient,
            };
            step % 4 == 0
        });
        let constant = if aligned { read.address.constant } else { 0 };
        offsets.iter_mut().for_each(|offset| *offset += constant);
        offsets.sort_unstable();
        offsets.dedup();
        if !aligned {
            return accesses(0, offsets.len());
        }
        let quarters = offsets.chunk_by(|a, b| a.div_euclid(4) == b.div_euclid(4));
        let (wide, scalar): (Vec<&[i64]>, Vec<&[i64]>) = quarters.partition(|quarter| quarter.len() > 1);
        accesses(wide.len(), scalar.len())
    }

    /// What all results take with a tile; `None` where it is too large.
    fn time(&self, nest: &Nest, tile: Tile) -> Option<f64> {
        let results = tile.rows * tile.high * tile.columns;
        let expanded: usize = self.unrolled.iter().map(|&var| self.expanded(nest, var)).product();
        let body = results * expanded;
        if results > MAX_RESULTS || body > MAX_BODY.max(expanded) {
            return None;
        }
        let rounds: usize = self
            .rolled
            .iter()
            .map(|&var| extent(nest, var) / if self.quartered == Some(var) { 4 } else { 1 })
            .product();
        let reads: f64 = self.reads.iter().map(|read| self.read_time(nest, read, tile)).sum();
        let once = rounds as f64 * (reads + body as f64 * MULTIPLY_ADD + ITERATION);
        let vectors = tile.columns.is_multiple_of(4);
        let store = if vectors { WIDE_ACCESS / 4.0 } else { SCALAR_ACCESS };
        let mut groups = self.row_extent(nest).div_ceil(tile.rows) * iterations(nest, &self.batch);
        let mut tiles = self.column_extent(nest).div_ceil(tile.columns)
            * self.high.map_or(1, |var| extent(nest, var).div_ceil(tile.high))
            * iterations(nest, &self.others);
        if !self.separate() {
            tiles *= std::mem::replace(&mut groups, 1);
        }
        // Some cores share the vectors.
        let vectors = (tiles.div_ceil(LANES) * groups).next_multiple_of(4);
        let whole = self.row_extent(nest).is_multiple_of(tile.rows)
            && self.column_extent(nest).is_multiple_of(tile.columns)
            && self.high.is_none_or(|var| extent(nest, var).is_multiple_of(tile.high))
            && tiles.is_multiple_of(LANES);
        let conditions = if whole { 1.0 } else { CONDITIONS };
        Some(vectors as f64 * conditions * (once + results as f64 * 2.0 * store + 100.0))
    }
}

/// Sizes of a tile along a loop: those that divide it, and `over_edges` a few that leave a rest.
fn sizes(extent: usize, most: usize, over_edges: bool) -> Vec<usize> {
    let most = most.min(extent);
    let divides = |size: usize| extent.is_multiple_of(size);
    (1..=most).filter(|&size| divides(size) || over_edges && matches!(size, 4 | 8 | 12 | 16)).collect()
}

fn choose(nest: &Nest, roles: &Roles, over_edges: bool) -> Option<Tile> {
    let rows = sizes(roles.row_extent(nest), 16, over_edges);
    let columns = sizes(roles.column_extent(nest), 28, over_edges);
    let highs = roles.high.map_or(vec![1], |var| sizes(extent(nest, var), 4, over_edges));
    let mut best: Option<(f64, Tile)> = None;
    for &rows in &rows {
        for &high in &highs {
            for &columns in &columns {
                let tile = Tile { rows, high, columns };
                let Some(time) = roles.time(nest, tile) else { continue };
                if best.is_none_or(|(least, _)| time < least) {
                    best = Some((time, tile));
                }
            }
        }
    }
    best.map(|(_, tile)| tile)
}

/// Splits a loop into tiles of a size; the outer loop, and the inner one where there is more than one iteration.
fn split(scheduler: &mut Scheduler, of: String, size: usize) -> Option<(String, Option<String>)> {
    if size == 1 {
        return Some((of, None));
    }
    scheduler.split(&of, &[size])?;
    Some((format!("{of}.0"), Some(format!("{of}.1"))))
}

fn apply(scheduler: &mut Scheduler, reduction: &Reduction, roles: &Roles, tile: Tile) -> Option<()> {
    let nest = &scheduler.nest;
    let accumulator = buffer_name(nest, reduction.accumulator);
    let [batch, rows, others, rolled, unrolled] =
        [&roles.batch, &roles.rows, &roles.others, &roles.rolled, &roles.unrolled]
            .map(|vars| loop_names(nest, vars));
    let name_of = |var: VarId| loop_name(nest, var);
    let (high, fused_with) = (roles.high.map(name_of), roles.fused_with.map(name_of));
    let mut column = name_of(roles.column);
    let packed: Vec<String> =
        roles.reads.iter().filter(|read| read.packed).map(|read| buffer_name(nest, read.buffer)).collect();
    let quartered = roles.quartered.map(name_of);
    let contiguous = roles.contiguous.map(name_of);

    let around: Vec<String> = high.iter().chain(&fused_with).cloned().collect();
    scheduler
        .reorder(&[batch.as_slice(), &rows, &others, &around, std::slice::from_ref(&column)].concat())?;
    let row = if rows.is_empty() { None } else { Some(scheduler.fuse_all(&rows, "i")?) };
    if let Some(outer) = fused_with {
        column = scheduler.fuse_all(&[outer, column], "j")?;
    }
    let (mut groups, mut outer, mut inner) = (batch, others, vec![]);
    let row_contiguous = contiguous.is_some_and(|of| row.as_ref() == Some(&of));
    for (of, size, is_row) in
        [(row, tile.rows, true), (high, tile.high, false), (Some(column), tile.columns, false)]
    {
        let Some(of) = of else { continue };
        let (tiles, tiled) = split(scheduler, of, size)?;
        if is_row {
            groups.push(tiles)
        } else {
            outer.push(tiles)
        }
        inner.extend(tiled);
    }
    // The neighbours in memory last, as the components of vectors.
    let vector = if row_contiguous { tile.rows } else { tile.columns };
    if row_contiguous && tile.rows > 1 {
        inner.rotate_left(1);
    }
    let all = [groups.as_slice(), &outer].concat();
    scheduler.reorder(&[all.as_slice(), &inner].concat())?;

    let (mut rolled, mut unrolled) = (rolled, unrolled);
    if let Some(of) = quartered {
        scheduler.split(&of, &[4])?;
        let place = |names: &mut Vec<String>, level: usize| {
            names.iter_mut().filter(|name| **name == of).for_each(|name| *name = format!("{of}.{level}"));
        };
        place(&mut rolled, 0);
        place(&mut unrolled, 1);
    }
    for buffer in packed {
        let by = [all.as_slice(), &rolled, &unrolled, &inner].concat();
        scheduler.relayout(&buffer, &scheduler.loops_of_reads(&buffer, &by))?;
    }
    if roles.separate() {
        for (place, name) in groups.iter().enumerate() {
            let axis = if place + 1 == groups.len() { Axis::Y } else { Axis::Z };
            scheduler.bind(name, LoopKind::Workgroup(axis))?;
        }
    } else {
        outer = all;
    }
    let fused = scheduler.fuse_all(&outer, "f")?;
    let count = scheduler.extent(&fused);
    let wide = [64, 32, 16].into_iter().find(|wide| count.is_multiple_of(*wide) && count / wide >= 16);
    scheduler.split(&fused, &[wide.unwrap_or(LANES)])?;
    let [workgroup, invocation] = [0, 1].map(|level| format!("{fused}.{level}"));
    scheduler.stage_out(&accumulator, Some(&invocation))?;
    scheduler.reorder(&[rolled.as_slice(), &unrolled, &inner].concat())?;
    scheduler.bind(&workgroup, LoopKind::Workgroup(Axis::X))?;
    scheduler.bind(&invocation, LoopKind::Invocation(Axis::X))?;
    for name in unrolled {
        scheduler.bind(&name, LoopKind::Unroll)?;
    }
    for (place, name) in inner.iter().enumerate() {
        let neighbours = place + 1 == inner.len() && vector > 1 && vector.is_multiple_of(4);
        scheduler.bind(name, if neighbours { LoopKind::Vector } else { LoopKind::Unroll })?;
    }
    Some(())
}
