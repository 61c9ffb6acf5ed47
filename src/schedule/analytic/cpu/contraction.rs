//! Matrix tiles for contractions.

use super::super::shape::{Contraction, reads_with};
use super::super::{Scheduler, Step};
use super::{balanced, extents, name, name_all, tile};
use crate::expr::{Affine, Scope, VarId};
use crate::loopir::{LoopKind, Nest};
use crate::target::CpuTarget;

pub(super) fn matrix_tiles(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    target: &CpuTarget,
) -> Option<()> {
    let (tile_rows, tile_columns, instruction) = tile(target.isa);
    let runs = result_runs(&mut scheduler.nest, contraction);
    let nest = &scheduler.nest;
    let buffer_name = |id: crate::expr::BufferId| nest.pool.buffers[id].name.clone();
    let (a, b) = (buffer_name(contraction.a), buffer_name(contraction.b));
    let accumulator = buffer_name(contraction.reduction.accumulator);
    let batch = name_all(nest, &contraction.batch);
    let rows = name_all(nest, &contraction.rows);
    let columns = name_all(nest, &contraction.columns);
    let inner = name_all(nest, &contraction.reduction.inner);
    let row_count = extents(nest, &contraction.rows);
    let column_count = extents(nest, &contraction.columns);
    let depth = extents(nest, &contraction.reduction.inner);
    let batch_count = extents(nest, &contraction.batch);
    if column_count < 2 || (batch_count > 1 && row_count * column_count * depth < 512) {
        return None;
    }
    let unit = |var: VarId| contraction.b_address.coefficient(&nest.pool, var) == Some(1);
    let b_constant = contraction.is_constant(nest, contraction.b);
    let last_column = *contraction.columns.last()?;
    // Columns that are one run of memory need no packing.
    let fused_is_run = columns_are_one_run(nest, contraction, runs);
    let b_indirect = contraction.b_address.variables(&nest.pool).is_none();
    let packed_columns = contraction.guarded[1]
        || (b_indirect && !b_constant)
        || !(b_constant || unit(last_column) && fused_is_run);
    let a_constant = contraction.is_constant(nest, contraction.a);

    if contraction.rows.is_empty() && packed_columns && !b_constant {
        // Each packed element would be used once.
        return None;
    }
    let last_extent = nest.pool.vars[last_column].extent;
    // Enough columns for the packing to pay and few enough for the packed panel to stay in the second-level cache.
    let wanted = (target.l2_bytes / 8 / depth.max(1)).clamp(2 * tile_columns, 8 * tile_columns);
    let split_outer = contraction.columns.len() >= 2 && packed_columns;
    let threads = target.threads;

    // Only columns that are adjacent in the result form one run of the tile; the others stay outside.
    let mut column_outer: Vec<String> = columns[..columns.len() - runs].to_vec();
    let mut column_inner: Vec<String> = columns[columns.len() - runs..].to_vec();
    let split_outer = split_outer && runs >= 2;
    if split_outer {
        let place = columns.len() - 2;
        let extent = nest.pool.vars[contraction.columns[place]].extent;
        let at_once = balanced(extent, (wanted / last_extent).max(1));
        let outer_count = extent.div_ceil(at_once) * batch_count;
        if at_once < extent && outer_count >= 2 * threads {
            let of = columns[place].clone();
            scheduler.split(&of, &[at_once])?;
            column_outer = [&columns[..place], &[format!("{of}.0")]].concat();
            column_inner = vec![format!("{of}.1"), columns[place + 1].clone()];
        } else {
            column_outer = columns[..place].to_vec();
            column_inner = columns[place..].to_vec();
        }
    }
    let (row_outer_loops, last_row) = rows.split_at(rows.len().saturating_sub(1));
    let column_outer = [row_outer_loops, &column_outer].concat();
    let order = [batch.as_slice(), &column_outer, last_row, &column_inner].concat();
    scheduler.reorder(&order)?;
    let panels_divide = column_outer.iter().any(|name| name.ends_with(".0"));
    if packed_columns && !b_constant {
        let by = [inner.as_slice(), &column_inner].concat();
        if panels_divide {
            scheduler.stage_in(&b, column_outer.last().map(String::as_str), Scope::Workgroup, &by)?;
        } else {
            let by = [batch.as_slice(), &column_outer, &by].concat();
            // One copy for all threads, made before they divide the rows.
            let used: Vec<String> = by.into_iter().filter(|of| reads_with(&scheduler.nest, &b, of)).collect();
            scheduler.stage_in(&b, None, Scope::Global, &used)?;
            let first = format!(
                "{}.{}",
                copy_name(&scheduler.nest, &b)?,
                parallel_copy_loop(&scheduler.nest, &used, threads)
            );
            scheduler.bind(&first, LoopKind::Parallel);
        }
    }
    let column = scheduler.fuse_all(&column_inner, "j")?;
    let row = rows.last().cloned();
    let deep = scheduler.fuse_all(&inner, "d")?;

    let panels = scheduler.extent(&column).div_ceil(tile_columns);
    // Where columns alone give every thread several panels, threads divide columns; else rows.
    let divide_columns = !panels_divide && panels >= 4 * threads && (b_constant || !packed_columns);
    let at_once = if divide_columns { balanced(panels, 4) } else { panels };
    scheduler.split(&column, &[at_once, tile_columns])?;
    let [outer, middle, lane] = [0, 1, 2].map(|level| format!("{column}.{level}"));
    let (row_outer, row_inner) = match &row {
        Some(row) => {
            let count = scheduler.extent(row);
            scheduler.split(row, &[balanced(count, tile_rows)])?;
            (Some(format!("{row}.0")), format!("{row}.1"))
        }
        None => {
            // A single row: a loop of one iteration takes its place in the tile.
            scheduler.split(&middle, &[1])?;
            (None, format!("{middle}.1"))
        }
    };
    let middle = if row.is_some() { middle } else { format!("{middle}.0") };
    let tiles: Vec<String> = if divide_columns || row_outer.is_none() {
        [outer.clone()].into_iter().chain(row_outer.clone()).chain([middle.clone()]).collect()
    } else {
        row_outer.clone().into_iter().chain([outer.clone(), middle.clone()]).collect()
    };
    let order = [tiles.as_slice(), &[row_inner.clone(), lane.clone()]].concat();
    scheduler.reorder(&order)?;
    let present = |scheduler: &Scheduler, buffer: &str, list: &[String]| -> Vec<String> {
        list.iter().filter(|loop_name| reads_with(&scheduler.nest, buffer, loop_name)).cloned().collect()
    };
    let indirect = contraction.a_address.variables(&scheduler.nest.pool).is_none();
    if row_outer.is_none() && (indirect || contraction.guarded[0]) {
        let by = [batch.as_slice(), std::slice::from_ref(&deep)].concat();
        let by = present(scheduler, &a, &by);
        scheduler.stage_in(&a, None, Scope::Global, &by)?;
    }
    if let Some(row_outer) = &row_outer {
        let by = [batch.as_slice(), row_outer_loops, &[row_outer.clone(), deep.clone(), row_inner.clone()]]
            .concat();
        let by = present(scheduler, &a, &by);
        if a_constant {
            scheduler.relayout(&a, &by)?;
        } else {
            scheduler.stage_in(&a, None, Scope::Global, &by)?;
            let copy = copy_name(&scheduler.nest, &a)?;
            let first = format!("{copy}.{}", by.first()?);
            scheduler.bind(&first, LoopKind::Parallel);
        }
    }
    if b_constant {
        let by =
            [batch.as_slice(), &column_outer, &[outer.clone(), middle.clone(), deep.clone(), lane.clone()]]
                .concat();
        let by = present(scheduler, &b, &by);
        scheduler.relayout(&b, &by)?;
    }
    scheduler.stage_out(&accumulator, Some(&middle))?;
    scheduler.reorder(&[deep.clone(), row_inner, lane])?;
    scheduler.step(Step::Replace { of: deep, instruction: instruction.into() }).then_some(())?;
    // Divide the outermost loops over the threads, as many as it takes.
    let mut share = 1;
    // Inside a loop that packs a panel first, threads cannot divide further.
    let dividing = if panels_divide { vec![] } else { tiles };
    for of in [batch.as_slice(), &column_outer, &dividing].concat() {
        if share >= 4 * threads {
            break;
        }
        let extent = scheduler.extent(&of);
        if scheduler.bind(&of, LoopKind::Parallel).is_none() {
            break;
        }
        share *= extent;
    }
    Some(())
}

/// Matrix tiles for planes that fill no row of a tile: the elements of the plane are the rows, and the columns those results that
/// a constant factor makes of them.
pub(super) fn small_plane_tiles(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    target: &CpuTarget,
) -> Option<()> {
    let (tile_rows, tile_columns, instruction) = tile(target.isa);
    let runs = result_runs(&mut scheduler.nest, contraction);
    let nest = &scheduler.nest;
    let (outside, plane) = contraction.columns.split_at(contraction.columns.len() - runs);
    let [results] = contraction.rows.as_slice() else { return None };
    let fits = extents(nest, plane) <= tile_rows
        && extents(nest, &[*results]) >= tile_columns
        && contraction.is_constant(nest, contraction.a)
        && !contraction.is_constant(nest, contraction.b)
        && !contraction.guarded[0];
    if !fits {
        return None;
    }
    let in_place = !contraction.guarded[1]
        && fuses(nest, &contraction.b_address, plane)
        && fuses(nest, &contraction.b_address, &contraction.reduction.inner);
    let (weights, x) = (&nest.pool.buffers[contraction.a].name, &nest.pool.buffers[contraction.b].name);
    let (weights, x) = (weights.clone(), x.clone());
    let accumulator = nest.pool.buffers[contraction.reduction.accumulator].name.clone();
    let [batch, outside, plane, inner] =
        [&contraction.batch, outside, plane, &contraction.reduction.inner].map(|vars| name_all(nest, vars));
    let results = name(nest, *results);
    let read_by = |scheduler: &Scheduler, buffer: &str, list: &[String]| -> Vec<String> {
        list.iter().filter(|of| reads_with(&scheduler.nest, buffer, of)).cloned().collect()
    };

    scheduler
        .reorder(&[&batch, &outside, &plane, std::slice::from_ref(&results)].map(<[_]>::to_vec).concat())?;
    if !in_place {
        let by = read_by(scheduler, &x, &[&*batch, &outside, &inner, &plane].concat());
        scheduler.stage_in(&x, None, Scope::Global, &by)?;
        let divided = parallel_copy_loop(&scheduler.nest, &by, target.threads);
        let first = format!("{}.{divided}", copy_name(&scheduler.nest, &x)?);
        scheduler.bind(&first, LoopKind::Parallel);
    }
    let element = scheduler.fuse_all(&plane, "i")?;
    let deep = scheduler.fuse_all(&inner, "d")?;
    let panels = scheduler.extent(&results).div_ceil(tile_columns);
    scheduler.split(&results, &[balanced(panels, panels / (4 * target.threads)), tile_columns])?;
    let [outer, middle, lane] = [0, 1, 2].map(|level| format!("{results}.{level}"));
    // The weights of some panels stay in the cache while all planes go by.
    let dividing = [batch.as_slice(), std::slice::from_ref(&outer), &outside].concat();
    scheduler.reorder(&[&*dividing, &[middle.clone(), element.clone(), lane.clone()]].concat())?;
    let by = [&*batch, &[outer, middle.clone(), deep.clone(), lane.clone()]].concat();
    let by = read_by(scheduler, &weights, &by);
    scheduler.relayout(&weights, &by)?;
    scheduler.stage_out(&accumulator, Some(&middle))?;
    scheduler.reorder(&[deep.clone(), element, lane])?;
    scheduler.step(Step::Replace { of: deep, instruction: instruction.into() }).then_some(())?;
    let mut share = 1;
    for of in dividing {
        if share >= 4 * target.threads || scheduler.bind(&of, LoopKind::Parallel).is_none() {
            break;
        }
        share *= scheduler.extent(&of);
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

/// The loop whose iterations the threads divide when a copy is made: the outermost with enough of them.
fn parallel_copy_loop(nest: &Nest, by: &[String], threads: usize) -> String {
    let extent = |name: &String| nest.loops_named(name).first().map_or(1, |&var| nest.pool.vars[var].extent);
    by.iter().find(|name| extent(name) >= threads).or(by.first()).cloned().unwrap_or_default()
}

/// The name `stage_in` just gave the copy of `buffer`: the last buffer whose name starts with it.
fn copy_name(nest: &Nest, buffer: &str) -> Option<String> {
    let prefix = format!("{buffer}_s");
    nest.pool
        .buffers
        .iter()
        .rev()
        .find(|known| known.name.starts_with(&prefix))
        .map(|known| known.name.clone())
}

/// How many of the last columns are one run of memory in every result; at least 1.
fn result_runs(nest: &mut Nest, contraction: &Contraction) -> usize {
    let addresses: Vec<Affine> = contraction
        .reduction
        .stores
        .iter()
        .map(|store| {
            let linear = nest.pool.linear_index(store.buffer, &store.index);
            nest.pool.affine(linear)
        })
        .collect();
    let mut step = 1;
    let adjacent = contraction.columns.iter().rev().take_while(|&&var| {
        let fits = addresses.iter().all(|address| address.coefficient(&nest.pool, var) == Some(step));
        step *= nest.pool.vars[var].extent as i64;
        fits
    });
    adjacent.count().max(1)
}

/// Whether the last `count` columns, fused, step through `b` one element at a time.
fn columns_are_one_run(nest: &Nest, contraction: &Contraction, count: usize) -> bool {
    let mut step = 1;
    contraction.columns.iter().rev().take(count).all(|&var| {
        let fits = contraction.b_address.coefficient(&nest.pool, var) == Some(step);
        step *= nest.pool.vars[var].extent as i64;
        fits
    })
}
