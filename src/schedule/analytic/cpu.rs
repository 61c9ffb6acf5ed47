//! The rules for CPUs.
//!
//! - A contraction becomes matrix tiles: rows and columns are cut to the micro-kernel's tile, constant factors packed when the
//!   nest is compiled, guarded or strided factors packed as they are read (which is im2col for a convolution), and the results
//!   finished tile by tile while they are in the first-level cache.
//! - Another reduction whose results are adjacent over an outer loop keeps a tile of accumulators and runs the reduction outside
//!   of it, so that vectors run along the results; guarded reads go through a padded copy of their region. A window over a
//!   plane becomes a window instruction.
//! - Everything else runs its innermost loops as vectors.
//! - The outermost loops are divided over the threads where there is enough to do.

use super::shape::{Contraction, Reduction, find_reductions, reads_with};
use super::{Scheduler, Step};
use crate::expr::{Affine, BinaryOp, Expr, Role, Scope, VarId};
use crate::loopir::{LoopKind, Nest, Stmt};
use crate::target::{CpuIsa, CpuTarget};

/// Rows and columns of the micro-kernel's tile, and its instruction.
fn tile(isa: CpuIsa) -> (usize, usize, &'static str) {
    match isa {
        CpuIsa::Generic => (3, 12, "fma_3x12"),
        CpuIsa::Avx2 => (6, 16, "fma_6x16"),
        CpuIsa::Avx512 => (12, 32, "fma_12x32"),
    }
}

/// Elements that are worth a second thread.
const PARALLEL_ELEMENTS: usize = 8192;
/// Elements of a tile of accumulators: half of the smallest first-level cache.
const TILE_ELEMENTS: usize = 4096;
/// Elements of the small planes that are accumulated together.
const PLANES_ELEMENTS: usize = 1024;

pub(super) fn schedule(scheduler: &mut Scheduler, target: &CpuTarget) {
    if let ([reduction], 1) = (find_reductions(&scheduler.nest).as_slice(), scheduler.nest.body.len()) {
        cut_divided_loops(scheduler, reduction);
    }
    let reductions = find_reductions(&scheduler.nest);
    if let ([reduction], 1) = (reductions.as_slice(), scheduler.nest.body.len()) {
        let contraction = reduction.contraction(&mut scheduler.nest);
        if let Some(contraction) = contraction
            && (scheduler.attempt(|scheduler| small_plane_tiles(scheduler, &contraction, target))
                || scheduler.attempt(|scheduler| matrix_tiles(scheduler, &contraction, target)))
        {
            return;
        }
        scheduler.attempt(|scheduler| accumulator_tile(scheduler, reduction, target));
    }
    divide(scheduler, target);
}

fn name(nest: &Nest, var: VarId) -> String {
    nest.pool.vars[var].name.clone()
}

fn name_all(nest: &Nest, vars: &[VarId]) -> Vec<String> {
    vars.iter().map(|&var| name(nest, var)).collect()
}

fn extents(nest: &Nest, vars: &[VarId]) -> usize {
    vars.iter().map(|&var| nest.pool.vars[var].extent).product()
}

fn matrix_tiles(scheduler: &mut Scheduler, contraction: &Contraction, target: &CpuTarget) -> Option<()> {
    let (tile_rows, tile_columns, instruction) = tile(target.isa);
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
    let fused_is_run = columns_are_one_run(nest, contraction);
    let b_indirect = contraction.b_address.variables(&nest.pool).is_none();
    let packed_columns = contraction.guarded[1]
        || (b_indirect && !b_constant)
        || !(b_constant || unit(last_column) && fused_is_run);
    let a_constant = contraction.is_constant(nest, contraction.a);

    // Enough columns for the packing to pay and few enough for the packed panel to stay in the second-level cache.
    if contraction.rows.is_empty() && packed_columns && !b_constant {
        // Each packed element would be used once.
        return None;
    }
    let runs = result_runs(&mut scheduler.nest, contraction);
    let nest = &scheduler.nest;
    let last_extent = nest.pool.vars[last_column].extent;
    let wanted = (target.l2_bytes / 8 / depth.max(1)).clamp(tile_columns, 8 * tile_columns);
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
fn small_plane_tiles(scheduler: &mut Scheduler, contraction: &Contraction, target: &CpuTarget) -> Option<()> {
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

/// Cuts outer loops where the result divides them by a constant: `y[j // 64, i, j % 64]` gets loops of its own for both parts,
/// so that its address is affine in the loops.
fn cut_divided_loops(scheduler: &mut Scheduler, reduction: &Reduction) {
    let nest = &scheduler.nest;
    let mut cuts: Vec<(String, usize)> = vec![];
    for store in &reduction.stores {
        for &index in &store.index {
            nest.pool.visit(index, &mut |id| {
                let Expr::Binary(BinaryOp::Mod, x, divisor) = *nest.pool.get(id) else { return };
                let (Expr::Var(var), Expr::Int(divisor, _)) = (nest.pool.get(x), nest.pool.get(divisor))
                else {
                    return;
                };
                let extent = nest.pool.vars[*var].extent;
                let divisor = *divisor as usize;
                if reduction.outer.contains(var) && divisor > 1 && extent.is_multiple_of(divisor) {
                    cuts.push((name(nest, *var), divisor));
                }
            });
        }
    }
    cuts.sort();
    cuts.dedup_by(|a, b| a.0 == b.0);
    for (of, divisor) in cuts {
        scheduler.split(&of, &[divisor]);
    }
}

/// Whether the columns, fused, step through `b` one element at a time.
fn columns_are_one_run(nest: &Nest, contraction: &Contraction) -> bool {
    let mut step = 1;
    contraction.columns.iter().rev().all(|&var| {
        let fits = contraction.b_address.coefficient(&nest.pool, var) == Some(step);
        step *= nest.pool.vars[var].extent as i64;
        fits
    })
}

/// At most `wanted` of `extent`, so that the pieces are of nearly one size.
fn balanced(extent: usize, wanted: usize) -> usize {
    extent.div_ceil(extent.div_ceil(wanted.clamp(1, extent.max(1))).max(1))
}

/// Vectors along adjacent results: the reduction outside of a tile of accumulators.
fn accumulator_tile(scheduler: &mut Scheduler, reduction: &Reduction, target: &CpuTarget) -> Option<()> {
    let contiguous = reduction.contiguous_loop(&mut scheduler.nest)?;
    if reduction.outer.last() != Some(&contiguous) || adjacent_terms(scheduler, reduction) {
        return None;
    }
    // The tile: as many inner loops as fit; a loop that does not fit is cut.
    let (mut elements, mut place) = (1, reduction.outer.len());
    while place > 0 && reduction.outer.len() - place < 2 {
        let extent = scheduler.nest.pool.vars[reduction.outer[place - 1]].extent;
        if elements * extent > TILE_ELEMENTS {
            break;
        }
        elements *= extent;
        place -= 1;
    }
    let mut outer = name_all(&scheduler.nest, &reduction.outer);
    let mut inside: Vec<String> = outer.split_off(place);
    if let (Some(cut), true) = (outer.last().cloned(), inside.len() < 2) {
        let extent = scheduler.extent(&cut);
        let at_once = balanced(extent, TILE_ELEMENTS / elements.max(1));
        if at_once > 1 {
            scheduler.split(&cut, &[at_once])?;
            outer.pop();
            outer.push(format!("{cut}.0"));
            inside.insert(0, format!("{cut}.1"));
        }
    }
    if inside.is_empty() {
        return None;
    }
    // Small planes: several at once, so that what precedes and follows the windows is done for all of them together.
    if let (Some(plane), 2) = (outer.last().cloned(), inside.len()) {
        let extent = scheduler.extent(&plane);
        let planes: usize = outer.iter().map(|name| scheduler.extent(name)).product();
        let wanted = (PLANES_ELEMENTS / elements).min(planes / (4 * target.threads)).min(extent);
        if let Some(at_once) = (2..=wanted).rev().find(|&count| extent.is_multiple_of(count)) {
            scheduler.split(&plane, &[at_once])?;
            outer.pop();
            outer.push(format!("{plane}.0"));
        }
    }
    let at = outer.last().cloned();
    let windowed: Vec<String> = guarded_reads(&scheduler.nest, reduction);
    for buffer in windowed {
        scheduler.stage_in(&buffer, at.as_deref(), Scope::Workgroup, &[]);
    }
    let accumulator = scheduler.nest.pool.buffers[reduction.accumulator].name.clone();
    scheduler.stage_out(&accumulator, at.as_deref())?;
    let inner = name_all(&scheduler.nest, &reduction.inner);
    let order = [inner.as_slice(), &inside].concat();
    // The loops are nested the other way around in the update's copy.
    scheduler.reorder(&order)?;
    if let ([.., rows, _columns], [_, _]) = (inner.as_slice(), inside.as_slice()) {
        for instruction in ["depthwise", "pool_max", "pool_sum"] {
            if scheduler.step(Step::Replace { of: rows.clone(), instruction: instruction.into() }) {
                break;
            }
        }
    }
    Some(())
}

/// Whether the terms of the reduction are adjacent in memory already, so that vectors can run along them.
fn adjacent_terms(scheduler: &mut Scheduler, reduction: &Reduction) -> bool {
    let nest = &mut scheduler.nest;
    let Some(&innermost) = reduction.inner.last() else { return false };
    if nest.pool.vars[innermost].extent < 16 {
        return false;
    }
    nest.pool.loads_of(reduction.update.value).into_iter().any(|load| {
        let Expr::Load(buffer, index) = nest.pool.get(load).clone() else { return false };
        let linear = nest.pool.linear_index(buffer, &index);
        let form = nest.pool.affine(linear);
        form.coefficient(&nest.pool, innermost) == Some(1)
    })
}

/// Inputs that the update reads under a condition.
fn guarded_reads(nest: &Nest, reduction: &Reduction) -> Vec<String> {
    let mut found = vec![];
    nest.pool.visit(reduction.update.value, &mut |id| {
        let guarded = match nest.pool.get(id) {
            Expr::Guard(_, value) => vec![*value],
            Expr::Select(_, a, b) => vec![*a, *b],
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Cast(..) => vec![],
        };
        for load in guarded.into_iter().flat_map(|value| nest.pool.loads_of(value)) {
            if let Expr::Load(buffer, _) = nest.pool.get(load) {
                let buffer = &nest.pool.buffers[*buffer];
                if buffer.role == Role::Input && !found.contains(&buffer.name) {
                    found.push(buffer.name.clone());
                }
            }
        }
    });
    found
}

/// Divides the outermost loops of each statement at the top over the threads where there is enough to do.
fn divide(scheduler: &mut Scheduler, target: &CpuTarget) {
    if target.threads < 2 {
        return;
    }
    let tops: Vec<VarId> = scheduler
        .nest
        .body
        .iter()
        .filter_map(|stmt| if let Stmt::Loop(of) = stmt { Some(of.var) } else { None })
        .collect();
    for top in tops {
        let Some(of) = scheduler.nest.loop_of(top) else { continue };
        let mut chain = vec![];
        let mut at = of;
        loop {
            chain.push((name(&scheduler.nest, at.var), scheduler.nest.pool.vars[at.var].extent));
            match at.body.as_slice() {
                [Stmt::Loop(inner)] => at = inner,
                _several => break,
            }
        }
        let mut work = 0usize;
        visit_work(&scheduler.nest, std::slice::from_ref(&Stmt::Loop(of.clone())), 1, &mut work);
        if work < PARALLEL_ELEMENTS {
            continue;
        }
        let (first, extent) = chain[0].clone();
        if chain.len() == 1 && extent >= PARALLEL_ELEMENTS && matches!(of.body.as_slice(), [Stmt::Store(_)]) {
            // One long loop: pieces for the threads, each of them vectors.
            let pieces = (extent / (PARALLEL_ELEMENTS / 2)).min(4 * target.threads).max(target.threads);
            let cut = scheduler.split(&first, &[extent.div_ceil(pieces)]);
            if cut.is_some() {
                scheduler.bind(&format!("{first}.0"), LoopKind::Parallel);
            }
            continue;
        }
        let mut share = 1;
        let loops = chain.len();
        for (place, (of, extent)) in chain.into_iter().enumerate() {
            // The innermost loop is for vectors.
            let vectors = place + 1 == loops && loops > 1;
            if share >= 4 * target.threads || vectors || scheduler.bind(&of, LoopKind::Parallel).is_none() {
                break;
            }
            share *= extent;
        }
    }
}

/// The number of times a block runs.
fn visit_work(nest: &Nest, stmts: &[Stmt], times: usize, work: &mut usize) {
    for stmt in stmts {
        match stmt {
            Stmt::Loop(of) => {
                visit_work(nest, &of.body, times.saturating_mul(nest.pool.vars[of.var].extent), work)
            }
            Stmt::Store(_) => *work = work.saturating_add(times),
            Stmt::Alloc(_) | Stmt::Barrier => {}
        }
    }
}

#[cfg(test)]
pub(super) fn tile_names() -> Vec<String> {
    CpuIsa::ALL.map(|isa| tile(isa).2.to_string()).to_vec()
}
