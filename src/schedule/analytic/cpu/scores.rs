//! An attention that computes the scores it needs, a band of rows of one head at a time.
//!
//! The nest computes scores `t`, their softmax `t1`, and the product of that with another factor, each as a whole. Here a
//! band of rows of both is computed where it is read, and stays in the second-level cache; threads divide heads and bands. Both
//! products are matrix tiles, and the softmax goes row after row.

use super::super::shape::{Contraction, find_reductions};
use super::super::{Scheduler, buffer_name, iterations, loop_name, loop_names};
use super::contraction::{Columns, columns_of_tiles, copy_together, rows_in_place};
use super::reduction::keep_terms;
use super::{balanced, share_out, tile};
use crate::expr::{BufferId, Role, Scope};
use crate::loopir::{Nest, Stmt};
use crate::target::CpuTarget;

/// Rows of a band, at most: enough to read the factors of the columns from a far cache seldom.
const BAND_ROWS: usize = 96;
/// Scores whose softmax is computed step by step together: few calls, and less than a second-level cache.
const SCORES_TOGETHER: usize = 16384;

pub(super) fn score_bands(scheduler: &mut Scheduler, target: &CpuTarget) -> Option<()> {
    let reductions = find_reductions(&scheduler.nest);
    let [scores, product] = reductions.as_slice() else { return None };
    let (scores, product) =
        (scores.contraction(&mut scheduler.nest)?, product.contraction(&mut scheduler.nest)?);
    let nest = &scheduler.nest;
    let [stored] = scores.reduction.stores.as_slice() else { return None };
    let (t, t1) = (stored.buffer, product.a);
    let kept = |id: BufferId| nest.pool.buffers[id].role == Role::Local;
    let plain =
        |of: &Contraction| of.rows.len() == 1 && of.columns.len() == 1 && of.reduction.inner.len() == 1;
    if t == t1 || !kept(t) || !kept(t1) || !plain(&scores) || !plain(&product) {
        return None;
    }
    let [make_t, make_t1] = [maker(nest, t)?, maker(nest, t1)?];
    let softmax = nest.loop_of(*nest.loops_around(&make_t1).iter().rev().nth(1)?)?.body.clone();
    let Some(Stmt::Alloc(peak)) = softmax.first() else { return None };
    let [peak, t, t1] = [*peak, t, t1].map(|id| buffer_name(nest, id));
    let row = loop_name(nest, product.rows[0]);
    let batch = loop_names(nest, &product.batch);
    let column = loop_name(nest, product.columns[0]);
    let [heads, rows] = [&product.batch, &product.rows].map(|vars| iterations(nest, vars));
    let keys = iterations(nest, &scores.columns);
    let rank = nest.pool.buffers[product.a].shape.len();
    let rows_apart = !rows_in_place(nest, &scores, tile(target.isa).0);
    let packed = [&scores, &product].map(|of| columns_of_tiles(nest, of, 1) != Columns::InPlace);

    keep_terms(scheduler, &softmax);
    let at_once = rows_of_band(rows, heads, keys, target);
    scheduler.split(&row, &[at_once])?;
    let [band, row] = [0, 1].map(|level| format!("{row}.{level}"));
    scheduler.reorder(&[&*batch, &[band.clone(), row.clone(), column.clone()]].concat())?;
    scheduler.compute_at(&make_t1, &band)?;
    scheduler.compute_at(&make_t, &band)?;

    let of_scores = [rank - 2, rank - 1].map(|axis| format!("{t}.{axis}"));
    if rows_apart {
        let by = [&of_scores[..1], &loop_names(&scheduler.nest, &scores.reduction.inner)].concat();
        let q = buffer_name(&scheduler.nest, scores.a);
        scheduler.stage_in(&q, Some(&band), Scope::Workgroup, &by)?;
    }
    tiles(scheduler, &scores, of_scores, packed[0], &batch, target)?;
    let of_softmax = format!("{t1}.{}", rank - 2);
    let together = balanced(at_once, SCORES_TOGETHER / keys.max(1));
    if together > 1 {
        scheduler.split(&of_softmax, &[together])?;
        scheduler.stage_out(&peak, Some(&format!("{of_softmax}.0")))?;
    }
    tiles(scheduler, &product, [row, column], packed[1], &batch, target)?;
    share_out(scheduler, &[&*batch, &[band]].concat(), target);
    Some(())
}

/// The block that writes a buffer, if a single one does.
fn maker(nest: &Nest, buffer: BufferId) -> Option<String> {
    let mut makers = vec![];
    nest.visit_stores(&mut |store| {
        if store.buffer == buffer {
            makers.push(store.block.clone());
        }
    });
    let [maker] = makers.as_slice() else { return None };
    Some(maker.clone())
}

/// Rows of a band: whole tiles, of which scores and softmax fit half of the second-level cache, and few enough for every thread
/// to have several bands.
fn rows_of_band(rows: usize, heads: usize, keys: usize, target: &CpuTarget) -> usize {
    let (tile_rows, ..) = tile(target.isa);
    let fit = target.l2_bytes / 2 / (8 * keys.max(1));
    let bands = (4 * target.threads).div_ceil(heads.max(1));
    let wanted = fit.min(BAND_ROWS).min(rows / bands);
    balanced(rows.div_ceil(tile_rows), wanted / tile_rows) * tile_rows
}

/// Matrix tiles for a product whose loops over rows and columns are directly inside of one over bands, those of a panel of columns
/// together.
fn tiles(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    [row, column]: [String; 2],
    packed: bool,
    batch: &[String],
    target: &CpuTarget,
) -> Option<()> {
    let (_, tile_columns, instruction) = tile(target.isa);
    let nest = &scheduler.nest;
    let deep = loop_names(nest, &contraction.reduction.inner);
    let [columns, accumulator] =
        [contraction.b, contraction.reduction.accumulator].map(|id| buffer_name(nest, id));
    scheduler.split(&column, &[tile_columns])?;
    let [panel, lane] = [0, 1].map(|level| format!("{column}.{level}"));
    scheduler.reorder(&[panel.clone(), row.clone(), lane.clone()])?;
    if packed {
        let by = [batch, std::slice::from_ref(&panel), &deep, std::slice::from_ref(&lane)].concat();
        copy_together(scheduler, &columns, &by, target)?;
    }
    scheduler.stage_out(&accumulator, Some(&panel))?;
    scheduler.reorder(&[&*deep, &[row, lane]].concat())?;
    scheduler.replace(deep.first()?, instruction)
}
