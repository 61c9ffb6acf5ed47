//! Matrix tiles for contractions.

use super::super::shape::{Contraction, ContractionNames};
use super::super::{Scheduler, iterations, loop_names};
use super::{balanced, share_out, tile};
use crate::expr::{Affine, Scope, VarId};
use crate::loopir::{LoopKind, Nest};
use crate::target::CpuTarget;

/// How the factor of the columns reaches the tiles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    /// As it is: the columns are one run of memory.
    InPlace,
    /// Packed when the nest is compiled.
    Constant,
    /// Packed as it is read.
    Copied,
}

/// The loops of the tiles.
struct Tiles {
    /// The loops over tiles, outermost first.
    outer: Vec<String>,
    /// The loop among them over tiles of rows; `None` where one tile has all.
    rows: Option<String>,
    /// The loops among them over tiles of columns, outermost first.
    columns: [String; 2],
    /// The row of a tile.
    row: String,
    /// The column of a tile.
    lane: String,
    /// The reduction.
    deep: String,
}

/// Tiles of the micro-kernel's size: rows of the one factor by columns of the other.
pub(super) fn matrix_tiles(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    target: &CpuTarget,
) -> Option<()> {
    let runs = result_runs(&mut scheduler.nest, contraction);
    let nest = &scheduler.nest;
    let [batches, rows, columns, depth] =
        [&contraction.batch, &contraction.rows, &contraction.columns, &contraction.reduction.inner]
            .map(|vars| iterations(nest, vars));
    let source = source_of_columns(nest, contraction, runs);
    // Without rows each packed element would be used once.
    let used_once = contraction.rows.is_empty() && source == Columns::Copied;
    if columns < 2 || (batches > 1 && rows * columns * depth < 512) || used_once {
        return None;
    }
    let names = contraction.names(nest);
    let (outer_columns, inner_columns) = if source == Columns::Copied && runs >= 2 {
        cut_columns(scheduler, contraction, &names.columns, target)?
    } else {
        // Only columns that are adjacent in the result form one run of the tile; the others stay outside.
        let (outer, inner) = names.columns.split_at(names.columns.len() - runs);
        (outer.to_vec(), inner.to_vec())
    };
    let (outer_rows, last_row) = names.rows.split_at(names.rows.len().saturating_sub(1));
    let around = [outer_rows, &outer_columns].concat();
    scheduler.reorder(&[&*names.batch, &around, last_row, &inner_columns].concat())?;
    // Loops around the tiles that were cut divide the work, in pieces that keep their panel of columns in the cache.
    let panels_divide = around.iter().any(|of| of.ends_with(".0"));
    if source == Columns::Copied {
        let by = [&*names.inner, &inner_columns].concat();
        if panels_divide {
            scheduler.stage_in(&names.b, around.last().map(String::as_str), Scope::Workgroup, &by)?;
        } else {
            // One copy for all threads, made before they divide the rows.
            copy_together(scheduler, &names.b, &[&*names.batch, &around, &by].concat(), target)?;
        }
    }
    let divisible = !panels_divide && source != Columns::Copied;
    let tiles = cut_tiles(scheduler, &names, &inner_columns, divisible, target)?;
    pack_rows(scheduler, contraction, &names, outer_rows, &tiles)?;
    if source == Columns::Constant {
        pack_panels(scheduler, &names.b, &[&*names.batch, &around].concat(), &tiles)?;
    }
    run_tiles(scheduler, &names.accumulator, &tiles, target)?;
    // Inside a loop that packs a panel first, threads cannot divide further.
    let dividing = if panels_divide { vec![] } else { tiles.outer };
    share_out(scheduler, &[names.batch, around, dividing].concat(), target);
    Some(())
}

/// Matrix tiles for planes that fill no row of a tile: the elements of the plane are the rows, and the columns those results that
/// a constant factor makes of them.
pub(super) fn small_plane_tiles(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    target: &CpuTarget,
) -> Option<()> {
    let (tile_rows, tile_columns, _) = tile(target.isa);
    let runs = result_runs(&mut scheduler.nest, contraction);
    let nest = &scheduler.nest;
    let (outside, plane) = contraction.columns.split_at(contraction.columns.len() - runs);
    let [results] = contraction.rows.as_slice() else { return None };
    let fits = iterations(nest, plane) <= tile_rows
        && iterations(nest, &[*results]) >= tile_columns
        && contraction.is_constant(nest, contraction.a)
        && !contraction.is_constant(nest, contraction.b)
        && !contraction.guarded[0];
    if !fits {
        return None;
    }
    let in_place = !contraction.guarded[1]
        && fuses(nest, &contraction.b_address, plane)
        && fuses(nest, &contraction.b_address, &contraction.reduction.inner);
    let [outside, plane] = [outside, plane].map(|vars| loop_names(nest, vars));
    let ContractionNames { a: weights, b: x, accumulator, batch, rows: results, inner, .. } =
        contraction.names(nest);

    scheduler.reorder(&[&*batch, &outside, &plane, &results].concat())?;
    if !in_place {
        copy_together(scheduler, &x, &[&*batch, &outside, &inner, &plane].concat(), target)?;
    }
    let element = scheduler.fuse_all(&plane, "i")?;
    let deep = scheduler.fuse_all(&inner, "d")?;
    let [results] = results.as_slice() else { return None };
    let panels = scheduler.extent(results).div_ceil(tile_columns);
    scheduler.split(results, &[balanced(panels, panels / (4 * target.threads)), tile_columns])?;
    let [outer, middle, lane] = [0, 1, 2].map(|level| format!("{results}.{level}"));
    // The weights of some panels stay in the cache while all planes go by.
    let dividing = [&*batch, std::slice::from_ref(&outer), &outside].concat();
    scheduler.reorder(&[&*dividing, &[middle.clone(), element.clone(), lane.clone()]].concat())?;
    let tiles = Tiles { outer: dividing, rows: None, columns: [outer, middle], row: element, lane, deep };
    pack_panels(scheduler, &weights, &batch, &tiles)?;
    run_tiles(scheduler, &accumulator, &tiles, target)?;
    share_out(scheduler, &tiles.outer, target);
    Some(())
}

fn source_of_columns(nest: &Nest, contraction: &Contraction, runs: usize) -> Columns {
    let address = &contraction.b_address;
    let in_place = !contraction.guarded[1]
        && address.variables(&nest.pool).is_some()
        && adjacent(nest, address, &contraction.columns) >= runs;
    if contraction.is_constant(nest, contraction.b) {
        Columns::Constant
    } else if in_place {
        Columns::InPlace
    } else {
        Columns::Copied
    }
}

/// Cuts the last but one of the columns, so that few enough of it and the last are packed at once; the columns outside of what
/// is packed, and those inside.
fn cut_columns(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    columns: &[String],
    target: &CpuTarget,
) -> Option<(Vec<String>, Vec<String>)> {
    let (outer, [cut, last]) = columns.split_last_chunk()?;
    let (_, tile_columns, _) = tile(target.isa);
    let depth = iterations(&scheduler.nest, &contraction.reduction.inner);
    // Enough columns for the packing to pay and few enough for the packed panel to stay in the second-level cache.
    let wanted = (target.l2_bytes / 8 / depth.max(1)).clamp(2 * tile_columns, 8 * tile_columns);
    let extent = scheduler.extent(cut);
    let at_once = balanced(extent, (wanted / scheduler.extent(last)).max(1));
    let pieces = extent.div_ceil(at_once) * iterations(&scheduler.nest, &contraction.batch);
    if at_once == extent || pieces < 2 * target.threads {
        return Some((outer.to_vec(), vec![cut.clone(), last.clone()]));
    }
    scheduler.split(cut, &[at_once])?;
    Some(([outer, &[format!("{cut}.0")]].concat(), vec![format!("{cut}.1"), last.clone()]))
}

/// Fuses the loops of the columns and of the reduction, and cuts rows and columns into tiles. Where the columns are `divisible`
/// and alone give every thread several panels, threads shall divide columns, else rows.
fn cut_tiles(
    scheduler: &mut Scheduler,
    names: &ContractionNames,
    columns: &[String],
    divisible: bool,
    target: &CpuTarget,
) -> Option<Tiles> {
    let (tile_rows, tile_columns, _) = tile(target.isa);
    let column = scheduler.fuse_all(columns, "j")?;
    let deep = scheduler.fuse_all(&names.inner, "d")?;
    let panels = scheduler.extent(&column).div_ceil(tile_columns);
    let divide_columns = divisible && panels >= 4 * target.threads;
    let at_once = if divide_columns { balanced(panels, 4) } else { panels };
    scheduler.split(&column, &[at_once, tile_columns])?;
    let [outer, middle, lane] = [0, 1, 2].map(|level| format!("{column}.{level}"));
    let (rows, row, middle) = match names.rows.last() {
        Some(row) => {
            let count = scheduler.extent(row);
            scheduler.split(row, &[balanced(count, tile_rows)])?;
            (Some(format!("{row}.0")), format!("{row}.1"), middle)
        }
        None => {
            // A single row: a loop of one iteration takes its place in the tile.
            scheduler.split(&middle, &[1])?;
            (None, format!("{middle}.1"), format!("{middle}.0"))
        }
    };
    let mut tiles: Vec<String> = rows.iter().chain([&outer, &middle]).cloned().collect();
    if rows.is_some() && divide_columns {
        tiles.swap(0, 1);
    }
    scheduler.reorder(&[tiles.as_slice(), &[row.clone(), lane.clone()]].concat())?;
    Some(Tiles { outer: tiles, rows, columns: [outer, middle], row, lane, deep })
}

/// Packs the factor of the rows in the order of the tiles. A single row is packed only where its elements are not steps apart.
fn pack_rows(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    names: &ContractionNames,
    outer_rows: &[String],
    tiles: &Tiles,
) -> Option<()> {
    let Some(rows) = &tiles.rows else {
        let indirect = contraction.a_address.variables(&scheduler.nest.pool).is_none();
        if indirect || contraction.guarded[0] {
            let by = [&*names.batch, std::slice::from_ref(&tiles.deep)].concat();
            let by = scheduler.loops_of_reads(&names.a, &by);
            scheduler.stage_in(&names.a, None, Scope::Global, &by)?;
        }
        return Some(());
    };
    let tile = [rows.clone(), tiles.deep.clone(), tiles.row.clone()];
    let by = scheduler.loops_of_reads(&names.a, &[&*names.batch, outer_rows, &tile].concat());
    if contraction.is_constant(&scheduler.nest, contraction.a) {
        scheduler.relayout(&names.a, &by)?;
    } else {
        let copy = scheduler.stage_in(&names.a, None, Scope::Global, &by)?;
        scheduler.bind(&format!("{copy}.{}", by.first()?), LoopKind::Parallel);
    }
    Some(())
}

/// Packs a constant factor of the columns, panel by panel of the tiles in the loops `around` them.
fn pack_panels(scheduler: &mut Scheduler, buffer: &str, around: &[String], tiles: &Tiles) -> Option<()> {
    let [outer, middle] = tiles.columns.clone();
    let by = [around, &[outer, middle, tiles.deep.clone(), tiles.lane.clone()]].concat();
    let by = scheduler.loops_of_reads(buffer, &by);
    scheduler.relayout(buffer, &by).map(drop)
}

/// Keeps the results of a tile in registers and lets the micro-kernel stand for the loops of the tile.
fn run_tiles(scheduler: &mut Scheduler, accumulator: &str, tiles: &Tiles, target: &CpuTarget) -> Option<()> {
    let Tiles { columns: [_, middle], row, lane, deep, .. } = tiles;
    let (_, _, instruction) = tile(target.isa);
    scheduler.stage_out(accumulator, Some(middle))?;
    scheduler.reorder(&[deep.clone(), row.clone(), lane.clone()])?;
    scheduler.replace(deep, instruction)
}

/// Copies what is read of `buffer` in the order of those of the loops `by` that the reads depend on, and divides the copying
/// over the threads: the outermost loop with enough iterations.
fn copy_together(scheduler: &mut Scheduler, buffer: &str, by: &[String], target: &CpuTarget) -> Option<()> {
    let by = scheduler.loops_of_reads(buffer, by);
    let copy = scheduler.stage_in(buffer, None, Scope::Global, &by)?;
    let enough = |of: &&String| scheduler.extent(of) >= target.threads;
    if let Some(of) = by.iter().find(enough).or(by.first()) {
        scheduler.bind(&format!("{copy}.{of}"), LoopKind::Parallel);
    }
    Some(())
}

/// Whether an address goes in equal steps over the loops fused into one.
fn fuses(nest: &Nest, address: &Affine, vars: &[VarId]) -> bool {
    let extent = |var: VarId| nest.pool.vars[var].extent as i64;
    let step = |var: VarId| address.coefficient(&nest.pool, var).unwrap_or(0);
    let moving: Vec<VarId> = vars.iter().copied().filter(|&var| extent(var) > 1).collect();
    address.variables(&nest.pool).is_some()
        && moving.windows(2).all(|pair| step(pair[0]) == extent(pair[1]) * step(pair[1]))
}

/// How many of the last loops, fused, go through an address one element at a time.
fn adjacent(nest: &Nest, address: &Affine, vars: &[VarId]) -> usize {
    let mut step = 1;
    let run = vars.iter().rev().take_while(|&&var| {
        let fits = address.coefficient(&nest.pool, var) == Some(step);
        step *= nest.pool.vars[var].extent as i64;
        fits
    });
    run.count()
}

/// How many of the last columns are one run of memory in every result; at least 1.
fn result_runs(nest: &mut Nest, contraction: &Contraction) -> usize {
    let runs = contraction.reduction.stores.iter().map(|store| {
        let linear = nest.pool.linear_index(store.buffer, &store.index);
        let address = nest.pool.affine(linear);
        adjacent(nest, &address, &contraction.columns)
    });
    runs.min().unwrap_or(0).max(1)
}
