//! Register tiles for adapters without fast shared memory: software that runs the invocations of a workgroup in vector lanes.
//!
//! There an access of memory costs as much as some 35 multiply-adds for one element and 70 for a `vec4`, wherever it points,
//! and workgroup memory is no faster. So each invocation computes a tile of results: `rows` values of the loops that one
//! factor alone depends on, by `high` x `columns` neighbours of the other. Loops over which a window slides are expanded, as
//! the window's elements are then loaded once for all results that need them, constants are stored in the order of use, and
//! the tile is the one that takes the least by this price list.

use super::super::shape::{Reduction, reads_with};
use super::{Scheduler, names};
use crate::expr::{Affine, BufferId, Expr, ExprId, Role, VarId};
use crate::loopir::{Axis, LoopKind, Nest};

/// Time of operations on the lanes of a vector, in nanoseconds on one core of a current processor.
const SCALAR_ACCESS: f64 = 10.0;
const WIDE_ACCESS: f64 = 20.0;
const MULTIPLY_ADD: f64 = 0.3;
const ITERATION: f64 = 3.0;
/// Invocations that run at once in the lanes of a vector.
const LANES: usize = 8;
/// The most statements of an expanded body: the driver's compile time grows with them.
const MAX_BODY: usize = 400;
/// The most results of an invocation.
const MAX_RESULTS: usize = 160;
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
pub(super) fn tile_results(scheduler: &mut Scheduler, reduction: &Reduction) -> Option<()> {
    let roles = roles(&mut scheduler.nest, reduction)?;
    let tile = choose(&scheduler.nest, &roles)?;
    apply(scheduler, reduction, &roles, tile)
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
        if index.iter().any(|&i| !nest.pool.loads_of(i).is_empty()) {
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
    let column = match reduction.contiguous_loop(nest) {
        Some(var) => var,
        None => {
            let adjacent =
                |&var: &VarId| reads.iter().any(|read| coefficient(nest, &read.address, var) == Some(1));
            outer.iter().copied().rev().find(adjacent).or(outer.last().copied())?
        }
    };
    let reads_inner = |read: &Read| reduction.inner.iter().any(|&var| uses(nest, &read.address, var));
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
        let area: usize = reduction.inner.iter().map(|&var| extent(nest, var)).product();
        if area <= MAX_WINDOW_AREA {
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
    Some(Roles { reads, batch, rows, others, high, column, fused_with, rolled, unrolled, quartered })
}

impl Roles {
    fn column_extent(&self, nest: &Nest) -> usize {
        extent(nest, self.column) * self.fused_with.map_or(1, |var| extent(nest, var))
    }

    fn row_extent(&self, nest: &Nest) -> usize {
        self.rows.iter().map(|&var| extent(nest, var)).product()
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
        if read.packed {
            let wide = count.is_multiple_of(4);
            return count as f64 * if wide { WIDE_ACCESS / 4.0 } else { SCALAR_ACCESS };
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
            let step = match nest.pool.get(atom) {
                Expr::Var(var) => {
                    let of = [tiled.as_slice(), &expanded].concat();
                    let whole = self.unrolled.contains(var) && self.quartered != Some(*var);
                    let inside = of.iter().find(|(other, _)| other == var).map_or(1, |&(_, count)| count);
                    if whole { 0 } else { coefficient * inside as i64 }
                }
                Expr::Int(..)
                | Expr::Float(..)
                | Expr::Load(..)
                | Expr::Unary(..)
                | Expr::Binary(..)
                | Expr::Select(..)
                | Expr::Guard(..)
                | Expr::Cast(..) => coefficient,
            };
            step % 4 == 0
        });
        let constant = if aligned { read.address.constant } else { 0 };
        offsets.iter_mut().for_each(|offset| *offset += constant);
        offsets.sort_unstable();
        offsets.dedup();
        if !aligned {
            return offsets.len() as f64 * SCALAR_ACCESS;
        }
        offsets
            .chunk_by(|a, b| a.div_euclid(4) == b.div_euclid(4))
            .map(|quarter| (quarter.len() as f64 * SCALAR_ACCESS).min(WIDE_ACCESS))
            .sum()
    }

    /// What all results take with a tile; `None` where it is too large.
    fn time(&self, nest: &Nest, tile: Tile) -> Option<f64> {
        let results = tile.rows * tile.high * tile.columns;
        let expanded: usize = self.unrolled.iter().map(|&var| self.expanded(nest, var)).product();
        let body = results * expanded;
        if results > MAX_RESULTS || body > MAX_BODY.max(expanded) {
            return None;
        }
        let iterations: usize = self
            .rolled
            .iter()
            .map(|&var| extent(nest, var) / if self.quartered == Some(var) { 4 } else { 1 })
            .product();
        let reads: f64 = self.reads.iter().map(|read| self.read_time(nest, read, tile)).sum();
        let once = iterations as f64 * (reads + body as f64 * MULTIPLY_ADD + ITERATION);
        let vectors = tile.columns.is_multiple_of(4);
        let store = if vectors { WIDE_ACCESS / 4.0 } else { SCALAR_ACCESS };
        let tiles = self.row_extent(nest).div_ceil(tile.rows)
            * self.column_extent(nest).div_ceil(tile.columns)
            * self.high.map_or(1, |var| extent(nest, var).div_ceil(tile.high))
            * self.batch.iter().chain(&self.others).map(|&var| extent(nest, var)).product::<usize>();
        // Some cores share the vectors.
        let vectors = tiles.div_ceil(LANES).next_multiple_of(4);
        Some(vectors as f64 * (once + results as f64 * 2.0 * store + 100.0))
    }
}

/// Sizes of a tile along a loop: those that divide it, and a few that leave a rest.
fn sizes(extent: usize, most: usize) -> Vec<usize> {
    let most = most.min(extent);
    let divides = |size: usize| extent.is_multiple_of(size);
    (1..=most).filter(|&size| divides(size) || matches!(size, 4 | 8 | 12 | 16)).collect()
}

fn choose(nest: &Nest, roles: &Roles) -> Option<Tile> {
    let rows = sizes(roles.row_extent(nest), 16);
    let columns = sizes(roles.column_extent(nest), 28);
    let highs = roles.high.map_or(vec![1], |var| sizes(extent(nest, var), 4));
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
    let accumulator = nest.pool.buffers[reduction.accumulator].name.clone();
    let [batch, rows, others, rolled, unrolled] =
        [&roles.batch, &roles.rows, &roles.others, &roles.rolled, &roles.unrolled]
            .map(|vars| names(nest, vars));
    let name_of = |var: VarId| nest.pool.vars[var].name.clone();
    let (high, fused_with) = (roles.high.map(name_of), roles.fused_with.map(name_of));
    let mut column = name_of(roles.column);
    let packed: Vec<String> = roles
        .reads
        .iter()
        .filter(|read| read.packed)
        .map(|read| nest.pool.buffers[read.buffer].name.clone())
        .collect();
    let quartered = roles.quartered.map(name_of);

    let around: Vec<String> = high.iter().chain(&fused_with).cloned().collect();
    scheduler
        .reorder(&[batch.as_slice(), &rows, &others, &around, std::slice::from_ref(&column)].concat())?;
    let row = if rows.is_empty() { None } else { Some(scheduler.fuse_all(&rows, "i")?) };
    if let Some(outer) = fused_with {
        column = scheduler.fuse_all(&[outer, column], "j")?;
    }
    let (mut outer, mut inner) = (batch, vec![]);
    let mut columns_outer = others;
    for (of, size, is_row) in
        [(row, tile.rows, true), (high, tile.high, false), (Some(column), tile.columns, false)]
    {
        let Some(of) = of else { continue };
        let (tiles, tiled) = split(scheduler, of, size)?;
        if is_row {
            outer.push(tiles)
        } else {
            columns_outer.push(tiles)
        }
        inner.extend(tiled);
    }
    outer.extend(columns_outer);
    scheduler.reorder(&[outer.as_slice(), &inner].concat())?;

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
        let by = [outer.as_slice(), &rolled, &unrolled, &inner].concat();
        let by: Vec<String> = by.into_iter().filter(|of| reads_with(&scheduler.nest, &buffer, of)).collect();
        scheduler.relayout(&buffer, &by)?;
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
        let last = place + 1 == inner.len() && tile.columns > 1;
        let vector = last && tile.columns.is_multiple_of(4);
        scheduler.bind(name, if vector { LoopKind::Vector } else { LoopKind::Unroll })?;
    }
    Some(())
}
