//! Matrix tiles for contractions.

use super::super::shape::{Contraction, ContractionNames};
use super::super::{Scheduler, iterations, loop_names};
use super::{balanced, share_out, tile, tile_of_bytes};
use crate::expr::{Affine, BinaryOp, Expr, Scope, VarId};
use crate::loopir::{LoopKind, Nest};
use crate::target::{CpuIsa, CpuTarget};
use crate::tensor::DType;
use paisley_kernels::tile::dots::DOT_TERMS;

/// How the factor of the columns reaches the tiles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// As it is: the columns are one run of memory.
    InPlace,
    /// Packed as it is read, some panels at a time.
    Panels,
    /// Packed when the nest is compiled.
    Constant,
    /// Packed as it is read.
    Copied,
}

/// Rows from which on it pays to pack columns that are one run of memory.
const PACKING_ROWS: usize = 64;
/// Bytes of a page, and of a way of the first-level cache: what is whole pages apart competes for the same places of the cache.
const PAGE_BYTES: i64 = 4096;
/// Ways of a first-level cache: how much it holds of what competes for one place.
const CACHE_WAYS: usize = 8;
/// Sums of a single row that are kept at once: half of the smallest first-level cache.
const SUMS: usize = 4096;
/// Rows of the other factor that a single row's sums take in at once.
const ROWS_AT_ONCE: usize = 128;

/// The micro-kernel of a processor for a single row: columns, and the instruction.
fn row_tile(isa: CpuIsa) -> (usize, &'static str) {
    match isa {
        CpuIsa::Generic => (32, "fma_1x32"),
        CpuIsa::Avx2 => (64, "fma_1x64"),
        CpuIsa::Avx512 => (128, "fma_1x128"),
    }
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
    /// The loop over the neighbours whose products are added at once, where the factors are bytes.
    neighbours: Option<String>,
}

/// Cuts the neighbours whose products a micro-kernel for bytes adds at once from the last of the loops `inner` of a reduction.
fn cut_neighbours(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    inner: &mut [String],
) -> Option<Option<String>> {
    if !contraction.is_of_bytes() {
        return Some(None);
    }
    let last = inner.last_mut()?;
    if contraction.dtypes[1] != DType::I8 || !scheduler.extent(last).is_multiple_of(DOT_TERMS) {
        return None;
    }
    scheduler.split(last, &[DOT_TERMS])?;
    let neighbours = format!("{last}.1");
    last.push_str(".0");
    Some(Some(neighbours))
}

/// Tiles of the micro-kernel's size: rows of the one factor by columns of the other.
pub(super) fn matrix_tiles(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    target: &CpuTarget,
) -> Option<()> {
    let runs = result_runs(&mut scheduler.nest, contraction);
    let (tile_rows, tile_columns, _) = tile(target.isa);
    let nest = &scheduler.nest;
    let [batches, rows, columns, depth] =
        [&contraction.batch, &contraction.rows, &contraction.columns, &contraction.reduction.inner]
            .map(|vars| iterations(nest, vars));
    let of_bytes = contraction.is_of_bytes();
    let source = match columns_of_tiles(nest, contraction, runs) {
        Columns::InPlace if of_bytes && contraction.rows.is_empty() => return None,
        Columns::InPlace if of_bytes => Columns::Panels,
        source @ (Columns::InPlace | Columns::Panels | Columns::Constant | Columns::Copied) => source,
    };
    // Without rows each packed element would be used once.
    let used_once = contraction.rows.is_empty() && source == Columns::Copied;
    if columns < 2 || (batches > 1 && rows * columns * depth < 512) || used_once {
        return None;
    }
    let mut names = contraction.names(nest);
    let neighbours = cut_neighbours(scheduler, contraction, &mut names.inner)?;
    // The columns of a window.
    let windows = contraction.reduction.inner.len() > 1;
    let (outer_columns, inner_columns, cut) = if source == Columns::Copied && (runs >= 2 || windows) {
        cut_columns(
            scheduler,
            contraction,
            names.columns.split_at(names.columns.len() - runs.min(2)),
            target,
        )?
    } else {
        // Only columns that are adjacent in the result form one run of the tile; the others stay outside.
        let (outer, inner) = names.columns.split_at(names.columns.len() - runs);
        (outer.to_vec(), inner.to_vec(), false)
    };
    let (outer_rows, last_row) = names.rows.split_at(names.rows.len().saturating_sub(1));
    let around = [outer_rows, &outer_columns].concat();
    scheduler.reorder(&[&*names.batch, &around, last_row, &inner_columns].concat())?;
    if source == Columns::Copied {
        let by = [&*names.inner, &inner_columns, neighbours.as_slice()].concat();
        if cut {
            // The pieces divide the work, and each keeps its panel of columns in the cache.
            scheduler.stage_in(&names.b, around.last().map(String::as_str), Scope::Workgroup, &by)?;
        } else {
            // One copy for all threads, made before they divide the rows.
            copy_together(scheduler, &names.b, &[&*names.batch, &around, &by].concat(), target)?;
        }
    }
    let panels =
        inner_columns.iter().map(|of| scheduler.extent(of)).product::<usize>().div_ceil(tile_columns);
    let finished_together = contraction.rows.len() == 1 && is_costly(&scheduler.nest, contraction);
    let group = match source {
        Columns::Panels => Some(panels_at_once(panels, batches, depth, target)),
        Columns::InPlace | Columns::Constant if finished_together => Some(balanced(panels, 4)),
        // Where the columns alone give every thread several groups, they are divided, else the rows.
        Columns::InPlace | Columns::Constant => (panels >= 4 * target.threads).then(|| balanced(panels, 4)),
        Columns::Copied => None,
    };
    let finished_together = finished_together && group.is_some();
    let outside = batches * around.iter().map(|of| scheduler.extent(of)).product::<usize>();
    let pieces = outside * group.map_or(1, |group| panels.div_ceil(group));
    let in_place = rows_in_place(
        &scheduler.nest,
        contraction,
        tile_rows.min(rows_of_tiles(&scheduler.nest, contraction)),
    );
    let at_once = if in_place {
        rows_at_once(&scheduler.nest, contraction, finished_together, pieces, target)
    } else {
        tile_rows
    };
    let tiles = Tiles { neighbours, ..cut_tiles(scheduler, &names, &inner_columns, group, at_once, target)? };
    pack_rows(scheduler, contraction, &names, outer_rows, &tiles, in_place)?;
    // Only now, so that a copy is made in loops that addresses are affine in.
    let deep = scheduler.fuse_all(&names.inner, "d")?;
    match source {
        Columns::Constant => {
            pack_panels(scheduler, &names.b, &[&*names.batch, &around].concat(), &tiles, &deep)?;
        }
        Columns::Panels => {
            let [outer, middle] = &tiles.columns;
            let by = [middle, &deep, &tiles.lane].into_iter().chain(&tiles.neighbours);
            let by: Vec<String> = by.cloned().collect();
            scheduler.stage_in(&names.b, Some(outer), Scope::Workgroup, &by)?;
        }
        Columns::InPlace | Columns::Copied => {}
    }
    run_tiles(scheduler, &names.accumulator, &tiles, &deep, finished_together, target)?;
    // Inside a loop that packs panels first, threads cannot divide further.
    let dividing = match source {
        Columns::Copied if cut => &[],
        Columns::Panels => &tiles.outer[..1],
        Columns::InPlace | Columns::Constant | Columns::Copied => &*tiles.outer,
    };
    share_out(scheduler, &[&*names.batch, &around, dividing].concat(), target);
    Some(())
}

/// A single row: the sum of the rows of the other factor, each times a number. That factor is read in the order in which it lies in
/// memory, some rows at a time, and the sums stay in the first-level cache.
pub(super) fn sum_of_rows(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    target: &CpuTarget,
) -> Option<()> {
    let (tile_columns, instruction) = row_tile(target.isa);
    let runs = result_runs(&mut scheduler.nest, contraction);
    let nest = &scheduler.nest;
    let in_place = source_of_columns(nest, contraction, runs) == Columns::InPlace;
    if !in_place || !contraction.rows.is_empty() || contraction.guarded[0] {
        return None;
    }
    let batches = iterations(nest, &contraction.batch);
    let ContractionNames { accumulator, batch, columns, inner, .. } = contraction.names(nest);
    let (around, columns) = columns.split_at(columns.len() - runs);
    let around = [&*batch, around].concat();
    scheduler.reorder(&[&*around, columns].concat())?;
    let column = scheduler.fuse_all(columns, "j")?;
    let deep = scheduler.fuse_all(&inner, "d")?;
    let tiles = scheduler.extent(&column).div_ceil(tile_columns);
    let pieces = target.threads.div_ceil(batches);
    let at_once = balanced(tiles, (SUMS / tile_columns).min(tiles.div_ceil(pieces)));
    // A loop of one iteration is the row of the tile.
    scheduler.split(&column, &[at_once, 1, tile_columns])?;
    scheduler.split(&deep, &[ROWS_AT_ONCE])?;
    let [outer, middle, row, lane] = [0, 1, 2, 3].map(|level| format!("{column}.{level}"));
    let [block, deep] = [0, 1].map(|level| format!("{deep}.{level}"));
    scheduler.stage_out(&accumulator, Some(&outer))?;
    scheduler.reorder(&[block, middle, deep.clone(), row, lane])?;
    scheduler.replace(&deep, instruction)?;
    share_out(scheduler, &[&*around, &[outer]].concat(), target);
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
    let columns = [outer, middle];
    let tiles = Tiles { outer: dividing, rows: None, columns, row: element, lane, neighbours: None };
    pack_panels(scheduler, &weights, &batch, &tiles, &deep)?;
    run_tiles(scheduler, &accumulator, &tiles, &deep, false, target)?;
    share_out(scheduler, &tiles.outer, target);
    Some(())
}

/// As [`source_of_columns`], for tiles of many rows.
pub(super) fn columns_of_tiles(nest: &Nest, contraction: &Contraction, runs: usize) -> Columns {
    let competing = pages_apart(nest, &contraction.b_address, &contraction.reduction.inner);
    match source_of_columns(nest, contraction, runs) {
        Columns::InPlace if competing && rows_of_tiles(nest, contraction) >= PACKING_ROWS => Columns::Panels,
        source @ (Columns::InPlace | Columns::Panels | Columns::Constant | Columns::Copied) => source,
    }
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

/// Cuts the first of the columns that are one run, so that few enough of it and those after it are packed at once; the columns outside
/// of what is packed, those inside, and whether there was anything to cut.
fn cut_columns(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    (outer, run): (&[String], &[String]),
    target: &CpuTarget,
) -> Option<(Vec<String>, Vec<String>, bool)> {
    let (cut, rest) = run.split_first()?;
    let row: usize = rest.iter().map(|of| scheduler.extent(of)).product();
    let (_, tile_columns, _) = tile(target.isa);
    let depth = iterations(&scheduler.nest, &contraction.reduction.inner);
    // Enough columns for the packing to pay and few enough for the packed panel to stay in the second-level cache.
    let wanted = (target.l2_bytes / 8 / depth.max(1)).clamp(2 * tile_columns, 8 * tile_columns);
    let extent = scheduler.extent(cut);
    let at_once = balanced(extent, (wanted / row).max(1));
    let pieces = extent.div_ceil(at_once) * iterations(&scheduler.nest, &contraction.batch);
    if at_once == extent || pieces < 2 * target.threads {
        return Some((outer.to_vec(), run.to_vec(), false));
    }
    scheduler.split(cut, &[at_once])?;
    Some(([outer, &[format!("{cut}.0")]].concat(), [&[format!("{cut}.1")], rest].concat(), true))
}

/// How many panels of columns are packed at once: no more than fit the second-level cache, since all rows are read once for each group
/// of them, and few enough for every thread to get several.
fn panels_at_once(panels: usize, batches: usize, depth: usize, target: &CpuTarget) -> usize {
    let (_, tile_columns, _) = tile(target.isa);
    let fit = target.l2_bytes / (4 * tile_columns * depth).max(1);
    let groups = if target.threads > 1 { (4 * target.threads).div_ceil(batches) } else { 1 };
    balanced(panels, fit.min(panels / groups))
}

/// How many rows one call of the micro-kernel does: several tiles, one after the other. So many that the
/// results of a group, which are `finished_together`, stay in the first-level cache, the rows in the second, and the `pieces` that
/// batches and columns make become enough for the threads.
fn rows_at_once(
    nest: &Nest,
    contraction: &Contraction,
    finished_together: bool,
    pieces: usize,
    target: &CpuTarget,
) -> usize {
    let (tile_rows, tile_columns, _) = tile(target.isa);
    let depth = iterations(nest, &contraction.reduction.inner);
    let cached = target.l2_bytes / 4 / (4 * depth).max(1);
    let finished = if finished_together { SUMS / (4 * tile_columns) } else { cached };
    let shared = rows_of_tiles(nest, contraction) / (4 * target.threads).div_ceil(pieces.max(1));
    (cached.min(finished).min(shared) / tile_rows).max(1) * tile_rows
}

/// Fuses the loops of the columns, and cuts rows and columns into tiles, so many rows at once. Where a `group` of panels of columns
/// is given, the loop over groups is outside of the rows, else the rows are outside of all columns.
fn cut_tiles(
    scheduler: &mut Scheduler,
    names: &ContractionNames,
    columns: &[String],
    group: Option<usize>,
    rows_at_once: usize,
    target: &CpuTarget,
) -> Option<Tiles> {
    let (tile_rows, tile_columns, _) = tile(target.isa);
    let column = scheduler.fuse_all(columns, "j")?;
    let at_once = group.unwrap_or_else(|| scheduler.extent(&column).div_ceil(tile_columns));
    scheduler.split(&column, &[at_once, tile_columns])?;
    let [outer, middle, lane] = [0, 1, 2].map(|level| format!("{column}.{level}"));
    let (rows, row, middle) = match names.rows.last() {
        Some(row) => {
            let count = scheduler.extent(row);
            let count = if rows_at_once > tile_rows {
                // Whole tiles but for the last.
                balanced(count.div_ceil(tile_rows), rows_at_once / tile_rows) * tile_rows
            } else {
                let whole = if names.rows.len() > 1 { whole_tiles(count, tile_rows) } else { None };
                whole.unwrap_or_else(|| balanced(count, tile_rows))
            };
            scheduler.split(row, &[count])?;
            (Some(format!("{row}.0")), format!("{row}.1"), middle)
        }
        None => {
            // A single row: a loop of one iteration takes its place in the tile.
            scheduler.split(&middle, &[1])?;
            (None, format!("{middle}.1"), format!("{middle}.0"))
        }
    };
    let mut tiles: Vec<String> = rows.iter().chain([&outer, &middle]).cloned().collect();
    if rows.is_some() && group.is_some() {
        tiles.swap(0, 1);
    }
    scheduler.reorder(&[tiles.as_slice(), &[row.clone(), lane.clone()]].concat())?;
    Some(Tiles { outer: tiles, rows, columns: [outer, middle], row, lane, neighbours: None })
}

/// The rows of a tile that leave no rest, if there are such that take no more pieces of the micro-kernel's height. What is written
/// needs no guard then, so that threads may divide loops around that make one axis with these rows.
fn whole_tiles(count: usize, tile_rows: usize) -> Option<usize> {
    let pieces = count.div_ceil(tile_rows);
    (1..=4 * tile_rows)
        .find(|&rows| count.is_multiple_of(rows) && count / rows * rows.div_ceil(tile_rows) == pieces)
}

/// Packs the factor of the rows in the order of the tiles, unless they read its rows `in_place`. A single row is packed only
/// where its elements are not steps apart, or not of the type that a tile reads.
fn pack_rows(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    names: &ContractionNames,
    outer_rows: &[String],
    tiles: &Tiles,
    in_place: bool,
) -> Option<()> {
    let narrow = matches!(contraction.dtypes[0], DType::F16 | DType::BF16);
    let Some(rows) = &tiles.rows else {
        if narrow {
            let by = scheduler.loops_of_reads(&names.a, &[&*names.batch, &names.inner].concat());
            return scheduler.relayout_as(&names.a, &by, DType::F32).map(drop);
        }
        let indirect = contraction.a_address.variables(&scheduler.nest.pool).is_none();
        let inner = &contraction.reduction.inner;
        let apart = tiles.neighbours.is_some()
            && adjacent(&scheduler.nest, &contraction.a_address, inner) < inner.len();
        if indirect || contraction.guarded[0] || apart {
            let by = [&*names.batch, &names.inner, tiles.neighbours.as_slice()].concat();
            let by = scheduler.loops_of_reads(&names.a, &by);
            scheduler.stage_in(&names.a, None, Scope::Global, &by)?;
        }
        return Some(());
    };
    if in_place {
        return Some(());
    }
    let own = [&*names.inner, std::slice::from_ref(&tiles.row), tiles.neighbours.as_slice()].concat();
    let tile = [std::slice::from_ref(rows), &own].concat();
    let by = scheduler.loops_of_reads(&names.a, &[&*names.batch, outer_rows, &tile].concat());
    if narrow {
        scheduler.relayout_as(&names.a, &by, DType::F32)?;
    } else if contraction.is_constant(&scheduler.nest, contraction.a) {
        scheduler.relayout(&names.a, &by)?;
    } else {
        let copy = scheduler.stage_in(&names.a, None, Scope::Global, &by)?;
        scheduler.bind(&format!("{copy}.{}", by.first()?), LoopKind::Parallel);
    }
    Some(())
}

/// Whether the micro-kernel can read the rows where they lie, so many at once: each is one run of memory, and a first-level cache holds
/// them all.
pub(super) fn rows_in_place(nest: &Nest, contraction: &Contraction, at_once: usize) -> bool {
    let address = &contraction.a_address;
    let [.., row] = contraction.rows.as_slice() else { return false };
    !contraction.is_constant(nest, contraction.a)
        && !contraction.guarded[0]
        && address.variables(&nest.pool).is_some()
        && adjacent(nest, address, &contraction.reduction.inner) == contraction.reduction.inner.len()
        && (at_once <= CACHE_WAYS || !pages_apart(nest, address, &[*row]))
}

/// Whether the steps of the last of some loops through an address are whole pages.
fn pages_apart(nest: &Nest, address: &Affine, vars: &[VarId]) -> bool {
    let step = vars.last().and_then(|&var| address.coefficient(&nest.pool, var)).unwrap_or(0);
    step != 0 && 4 * step % PAGE_BYTES == 0
}

/// The rows that tiles are cut from.
fn rows_of_tiles(nest: &Nest, contraction: &Contraction) -> usize {
    contraction.rows.last().map_or(1, |&row| iterations(nest, &[row]))
}

/// Packs a constant factor of the columns, panel by panel of the tiles in the loops `around` them.
fn pack_panels(
    scheduler: &mut Scheduler,
    buffer: &str,
    around: &[String],
    tiles: &Tiles,
    deep: &str,
) -> Option<()> {
    let [outer, middle] = tiles.columns.clone();
    let own = [outer, middle, deep.to_string(), tiles.lane.clone()];
    let by = [around, &own, tiles.neighbours.as_slice()].concat();
    let by = scheduler.loops_of_reads(buffer, &by);
    scheduler.relayout(buffer, &by).map(drop)
}

/// Whether more follows the sums than a tile does by itself: additions and limits.
fn is_costly(nest: &Nest, contraction: &Contraction) -> bool {
    let mut found = false;
    for store in &contraction.reduction.stores {
        // Tiles of bytes make bytes of their sums.
        if contraction.dtypes[1] == DType::I8 && nest.pool.buffers[store.buffer].dtype.size_bytes() == 1 {
            continue;
        }
        nest.pool.visit(store.value, &mut |id| {
            found |= match nest.pool.get(id) {
                Expr::Unary(..) | Expr::Binary(BinaryOp::Mul | BinaryOp::Div, ..) => {
                    nest.pool.dtype(id).is_float()
                }
                Expr::Int(..)
                | Expr::Float(..)
                | Expr::Var(_)
                | Expr::Load(..)
                | Expr::Binary(..)
                | Expr::Select(..)
                | Expr::Guard(..)
                | Expr::Cast(..) => false,
            };
        });
    }
    found
}

/// Keeps the results of a tile in registers and lets the micro-kernel stand for the loops of the tile. Where tiles are
/// `finished_together`, those of a group of columns are kept, so that what follows has longer rows.
fn run_tiles(
    scheduler: &mut Scheduler,
    accumulator: &str,
    tiles: &Tiles,
    deep: &str,
    finished_together: bool,
    target: &CpuTarget,
) -> Option<()> {
    let Tiles { outer, columns: [_, middle], row, lane, neighbours, .. } = tiles;
    let instruction = if neighbours.is_some() { tile_of_bytes(target.isa) } else { tile(target.isa).2 };
    let inside = [deep, row, lane].into_iter().chain(neighbours.as_deref());
    let inside: Vec<String> = inside.map(str::to_string).collect();
    match outer.as_slice() {
        [around @ .., last] if finished_together && last == middle => {
            scheduler.reorder(&[row, middle, lane].map(String::clone))?;
            scheduler.stage_out(accumulator, around.last().map(String::as_str))?;
            scheduler.reorder(&[std::slice::from_ref(middle), &inside].concat())?;
        }
        _tile_by_tile => {
            scheduler.stage_out(accumulator, Some(middle))?;
            scheduler.reorder(&inside)?;
        }
    }
    scheduler.replace(deep, instruction)
}

/// Copies what is read of `buffer` in the order of those of the loops `by` that the reads depend on, and divides the copying
/// over the threads: the outermost loop with enough iterations.
pub(super) fn copy_together(
    scheduler: &mut Scheduler,
    buffer: &str,
    by: &[String],
    target: &CpuTarget,
) -> Option<()> {
    let by = scheduler.loops_of_reads(buffer, by);
    let copy = scheduler.stage_in(buffer, None, Scope::Global, &by)?;
    let enough = |of: &&String| scheduler.extent(of) >= target.threads;
    if let Some(of) = by.iter().find(enough).or(by.first()) {
        scheduler.bind(&format!("{copy}.{of}"), LoopKind::Parallel);
    }
    Some(())
}

/// Whether an address goes in equal steps over the loops fused into one.
pub(super) fn fuses(nest: &Nest, address: &Affine, vars: &[VarId]) -> bool {
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
