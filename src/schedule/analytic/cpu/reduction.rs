//! Tiles of accumulators, so that vectors run along results.

use super::super::shape::Reduction;
use super::super::{Scheduler, buffer_name, iterations, loop_name, loop_names};
use super::balanced;
use crate::expr::{Expr, Role, Scope, VarId};
use crate::loopir::{Nest, Stmt, walk};
use crate::schedule::Step;
use crate::target::CpuTarget;

/// Elements of a tile of accumulators: half of the smallest first-level cache.
const TILE_ELEMENTS: usize = 4096;
/// Elements of the small planes that are accumulated together.
const PLANES_ELEMENTS: usize = 1024;
/// Results whose short reductions run together, at most.
const ROWS_TOGETHER: usize = 64;
/// Terms of a short reduction.
const SHORT: usize = 512;
/// Results that are computed together, one a lane.
const LANES_TOGETHER: usize = 512;

/// Vectors along adjacent results: the reduction outside of a tile of accumulators.
pub(super) fn accumulator_tile(
    scheduler: &mut Scheduler,
    reduction: &Reduction,
    target: &CpuTarget,
) -> Option<()> {
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
    let mut outer = loop_names(&scheduler.nest, &reduction.outer);
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
    let accumulator = buffer_name(&scheduler.nest, reduction.accumulator);
    scheduler.stage_out(&accumulator, at.as_deref())?;
    let inner = loop_names(&scheduler.nest, &reduction.inner);
    let order = [inner.as_slice(), &inside].concat();
    // The loops are nested the other way around in the update's copy.
    scheduler.reorder(&order)?;
    if let ([.., rows, _columns], [_, _]) = (inner.as_slice(), inside.as_slice()) {
        for instruction in ["depthwise", "pool_max", "pool_sum"] {
            if scheduler.replace(rows, instruction).is_some() {
                break;
            }
        }
    }
    Some(())
}

/// Short reductions over adjacent terms: many at once, so that what precedes and follows each is done for all of them together.
pub(super) fn rows_together(
    scheduler: &mut Scheduler,
    reduction: &Reduction,
    target: &CpuTarget,
) -> Option<()> {
    let results = reduction.outer.last()?;
    if iterations(&scheduler.nest, &reduction.inner) > SHORT || reduction.inner.len() > 2 {
        return None;
    }
    let extent = iterations(&scheduler.nest, &[*results]);
    let all = iterations(&scheduler.nest, &reduction.outer);
    let wanted = ROWS_TOGETHER.min(all / (2 * target.threads)).min(extent);
    let at_once = (2..=wanted).rev().find(|&count| extent.is_multiple_of(count))?;
    let results = loop_name(&scheduler.nest, *results);
    scheduler.split(&results, &[at_once])?;
    let accumulator = buffer_name(&scheduler.nest, reduction.accumulator);
    scheduler.stage_out(&accumulator, Some(&format!("{results}.0")))
}

/// Several reductions over the same terms, such as a softmax, for many results at once: a lane for each result where the results are
/// adjacent and the terms are not, else row after row of terms while they are in the first-level cache.
pub(super) fn reductions_together(scheduler: &mut Scheduler, target: &CpuTarget) -> Option<()> {
    let [Stmt::Loop(top)] = scheduler.nest.body.as_slice() else { return None };
    let (mut outer, mut at) = (vec![top.var], top);
    while let [Stmt::Loop(inner)] = at.body.as_slice() {
        outer.push(inner.var);
        at = inner;
    }
    let (results, body) = (at.var, at.body.clone());
    let Some(Stmt::Alloc(local)) = body.first() else { return None };
    let (local, results_name) = (buffer_name(&scheduler.nest, *local), loop_name(&scheduler.nest, results));
    let inner = chains(&body)?;
    let (mut stores, mut adjacent) = (0, 0);
    let nest = &mut scheduler.nest;
    walk::visit_stores(&body, &mut |store| {
        if nest.pool.buffers[store.buffer].role != Role::Local {
            let linear = nest.pool.linear_index(store.buffer, &store.index);
            let form = nest.pool.affine(linear);
            let steps = |var| form.coefficient(&nest.pool, var);
            stores += 1;
            adjacent += usize::from(steps(results) == Some(1));
        }
    });
    let extent = iterations(nest, &[results]);
    if stores == 0 || inner.is_empty() {
        return None;
    }
    if adjacent < stores {
        let terms = inner.iter().map(|chain| iterations(nest, chain)).max()?.max(1);
        let all = iterations(nest, &outer);
        let kept = terms <= TILE_ELEMENTS && keep_terms(scheduler, &body);
        let at_once = balanced(extent, (TILE_ELEMENTS / terms).min(all / (4 * target.threads)));
        if at_once < 2 {
            return kept.then_some(());
        }
        scheduler.split(&results_name, &[at_once])?;
        return scheduler.stage_out(&local, Some(&format!("{results_name}.0")));
    }
    if extent < 8 {
        return None;
    }
    let pieces = if outer.len() == 1 { 4 * target.threads } else { 1 };
    let at_once = balanced(extent, LANES_TOGETHER.min(extent.div_ceil(pieces)).max(16));
    scheduler.split(&results_name, &[at_once])?;
    scheduler.stage_out(&local, Some(&format!("{results_name}.0")))?;
    for chain in inner {
        let order = [loop_names(&scheduler.nest, &chain), vec![format!("{results_name}.1")]].concat();
        scheduler.reorder(&order)?;
    }
    Some(())
}

/// Keeps the first of the terms summed in `body` that cost more to compute than to read again and are needed again; whether there are
/// any.
pub(super) fn keep_terms(scheduler: &mut Scheduler, body: &[Stmt]) -> bool {
    let mut blocks = vec![];
    walk::visit_stores(body, &mut |store| {
        let pool = &scheduler.nest.pool;
        let (mut costly, mut reads) = (false, 0);
        pool.visit(store.value, &mut |id| match pool.get(id) {
            Expr::Unary(..) => costly |= pool.dtype(id).is_float(),
            Expr::Load(_, index) => {
                reads += usize::from(pool.dtype(id).is_float());
                costly |= index.iter().any(|&index| !pool.loads_of(index).is_empty());
            }
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => {}
        });
        if store.combine.is_some() && (costly || reads > 2) {
            blocks.push(store.block.clone());
        }
    });
    blocks.into_iter().any(|block| scheduler.step(Step::Keep { block }))
}

/// The loops around each block of `body` that has any, each name once; nothing where a loop has more than one block.
fn chains(body: &[Stmt]) -> Option<Vec<Vec<VarId>>> {
    let mut chains = vec![];
    for stmt in body {
        let Stmt::Loop(mut at) = stmt.clone() else { continue };
        let mut chain = vec![at.var];
        loop {
            match at.body.as_slice() {
                [Stmt::Loop(inner)] => {
                    chain.push(inner.var);
                    at = inner.clone();
                }
                [Stmt::Store(_)] => break,
                _several => return None,
            }
        }
        chains.push(chain);
    }
    Some(chains)
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
