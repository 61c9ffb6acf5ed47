//! A 1x1 convolution over blocks of channels that computes its operand, a band of rows at a time.
//!
//! The nest computes the operand `t` as a whole and then the convolution. Here a band of `t` is computed where it is read, and stays
//! in the second-level cache; threads divide the bands. Within a band places follow one another, whatever its width.

use super::super::shape::{Reduction, find_reductions};
use super::super::{Scheduler, buffer_name, iterations, loop_name, loop_names};
use super::blocked::{
    Convolution, STRIP_ELEMENTS, convolution, fill_constants, lane_by_lane, panel, pieces_of_rows,
    rows_are_divided,
};
use super::{even, share_out};
use crate::expr::{BufferId, Role};
use crate::loopir::Nest;
use crate::target::CpuTarget;

pub(super) fn pointwise_bands(scheduler: &mut Scheduler, target: &CpuTarget) -> Option<()> {
    let reductions = find_reductions(&scheduler.nest);
    let (reduction, made) = reductions.split_last()?;
    let Convolution { x, w, lanewise: false, lane, block, groups, rows } =
        convolution(scheduler, reduction, target)?
    else {
        return None;
    };
    let nest = &scheduler.nest;
    let kept = &nest.pool.buffers[x.buffer];
    let &[.., columns, lanes] = kept.shape.as_slice() else { return None };
    if kept.role != Role::Local || x.guarded || !groups.is_empty() || made.len() > 1 {
        return None;
    }
    let makes = maker(nest, x.buffer);
    let (images, places) = rows.split_at(rows.len().checked_sub(2)?);
    let depth = loop_names(nest, &reduction.inner);
    let filled = w.guarded;
    let [images, places] = [images, places].map(|vars| loop_names(nest, vars));
    let [row, column] = places.as_slice() else { return None };
    let (lane, block) = (loop_name(nest, lane), loop_name(nest, block));
    let [t, w, accumulator] =
        [x.buffer, w.buffer, reduction.accumulator].map(|buffer| buffer_name(nest, buffer));
    let row_bytes = 4 * kept.shape.iter().product::<usize>()
        / (images.iter().map(|of| scheduler.extent(of)).product::<usize>() * scheduler.extent(row));

    let (at_once, instruction) = panel(target.isa, scheduler.extent(&block));
    scheduler.split(&block, &[at_once])?;
    let (panel, results) = (format!("{block}.0"), [format!("{block}.1"), lane]);
    let height = scheduler.extent(row);
    let of_band = rows_of_band(height, target.l2_bytes / 4 / row_bytes, target.threads);
    scheduler.split(row, &[of_band])?;
    let [band, row] = [0, 1].map(|level| format!("{row}.{level}"));
    scheduler.reorder(
        &[&*images, &[band.clone(), panel.clone(), row.clone(), column.clone()], &results].concat(),
    )?;
    let weights = match made {
        [made] => Some(constant_factor(scheduler, made)?),
        _none => None,
    };
    scheduler.compute_at(&makes?, &band)?;
    if let ([made], Some(weights)) = (made, weights) {
        operand_tiles(scheduler, [&t, &weights, &band], made, columns * lanes, target)?;
    }

    // Places that follow one another, of which a strip stays in the first-level cache until what follows has used them.
    let places = scheduler.fuse_all(&[row, column.clone()], "i")?;
    let wanted = STRIP_ELEMENTS / (at_once * lanes);
    scheduler.split(&places, &[even(scheduler.extent(&places), wanted)])?;
    let [strip, place] = [0, 1].map(|level| format!("{places}.{level}"));
    let [blocks, lane] = &results;
    scheduler.reorder(&[panel.clone(), strip.clone(), blocks.clone(), place.clone(), lane.clone()])?;
    let columns = [std::slice::from_ref(&panel), &depth, &results].concat();
    scheduler.relayout(&w, &columns)?;
    if filled {
        fill_constants(scheduler, &[std::slice::from_ref(&panel), &results].concat());
    }
    scheduler.stage_out(&accumulator, Some(&strip))?;
    scheduler.reorder(&[&*depth, &[place], &results].concat())?;
    scheduler.replace(depth.first()?, instruction)?;
    share_out(scheduler, &[&*images, &[band]].concat(), target);
    Some(())
}

/// A convolution of each channel by itself whose operand is made element by element: strips of it are made where they are read.
pub(super) fn lanewise_strips(scheduler: &mut Scheduler, target: &CpuTarget) -> Option<()> {
    let reductions = find_reductions(&scheduler.nest);
    let [reduction] = reductions.as_slice() else { return None };
    let Convolution { x, w, lanewise: true, lane, block, groups, rows } =
        convolution(scheduler, reduction, target)?
    else {
        return None;
    };
    let nest = &scheduler.nest;
    let makes = maker(nest, x.buffer)?;
    let (images, places) = rows.split_at(rows.len().checked_sub(2)?);
    if nest.pool.buffers[x.buffer].role != Role::Local || !groups.is_empty() {
        return None;
    }
    let kept: usize = nest.pool.buffers[x.buffer].shape.iter().product();
    let outside_rows = [images, &[block]].concat();
    let depth = loop_names(nest, &reduction.inner);
    let filled = w.guarded;
    let [images, places] = [images, places].map(|vars| loop_names(nest, vars));
    let [row, column] = places.as_slice() else { return None };
    let (lane, block) = (loop_name(nest, lane), loop_name(nest, block));
    let [w, accumulator] = [w.buffer, reduction.accumulator].map(|buffer| buffer_name(nest, buffer));
    let [height, width, lanes, blocks] = [row, column, &lane, &block].map(|of| scheduler.extent(of));

    let by_bands = rows_are_divided(height * width, blocks * lanes, target);
    let of_band = if by_bands { height.div_ceil(pieces_of_rows(height, target).min(height)) } else { height };
    // What a row of results reads, most of which the next one reads too.
    let row_elems = kept / (iterations(&scheduler.nest, &outside_rows) * height);
    let strip = even(of_band, 3 * STRIP_ELEMENTS / row_elems.max(1));
    scheduler.split(row, &[of_band.div_ceil(strip), strip])?;
    let [band, outer, row] = [0, 1, 2].map(|level| format!("{row}.{level}"));
    let divided = if by_bands { [band, block.clone()] } else { [block.clone(), band] };
    let outside = [&*images, &divided, std::slice::from_ref(&outer)].concat();
    scheduler.reorder(&[&*outside, &[row, column.clone(), lane.clone()]].concat())?;
    let by = [std::slice::from_ref(&block), &depth, std::slice::from_ref(&lane)].concat();
    scheduler.relayout(&w, &by)?;
    if filled {
        fill_constants(scheduler, &[block, lane.clone()]);
    }
    scheduler.compute_at(&makes, &outer)?;
    scheduler.stage_out(&accumulator, Some(&outer))?;
    scheduler.reorder(&[&*depth, &[column.clone(), lane]].concat())?;
    scheduler.replace(depth.first()?, lane_by_lane(target.isa))?;
    share_out(scheduler, &outside[..images.len() + 1], target);
    Some(())
}

/// The block that writes a buffer.
fn maker(nest: &Nest, buffer: BufferId) -> Option<String> {
    let mut makes = None;
    nest.visit_stores(&mut |store| {
        if store.buffer == buffer {
            makes = Some(store.block.clone());
        }
    });
    makes
}

/// How many of `height` rows a band has: a divisor, at most `wanted` where there is such, by which `threads` have nearly as many bands
/// each, and of those the largest.
fn rows_of_band(height: usize, wanted: usize, threads: usize) -> usize {
    let fits = |rows: &usize| height.is_multiple_of(*rows) && *rows <= wanted.max(1);
    // The part of the time, in percent, in which some threads have bands left and others have not.
    let idle = |rows: usize| {
        let bands = height / rows;
        let rounds = bands.next_multiple_of(threads);
        100 * (rounds - bands) / rounds
    };
    let least = (1..=height).filter(fits).map(idle).min().unwrap_or(0);
    (1..=height).filter(fits).filter(|&rows| idle(rows) <= least.max(2)).max().unwrap_or(1)
}

/// The name of the constant among the factors that a reduction sums products of.
fn constant_factor(scheduler: &mut Scheduler, made: &Reduction) -> Option<String> {
    let factors = made.factors(&mut scheduler.nest)?;
    let nest = &scheduler.nest;
    factors.into_iter().find(|factor| factor.is_constant(nest)).map(|factor| buffer_name(nest, factor.buffer))
}

/// Tiles for the operand `t`, a convolution of each channel by itself with constant `weights`, in the loops over a `band` of it: of
/// `row_elements` a row.
fn operand_tiles(
    scheduler: &mut Scheduler,
    [t, weights, band]: [&str; 3],
    made: &Reduction,
    row_elements: usize,
    target: &CpuTarget,
) -> Option<()> {
    let [block, row, column, lane] = [1, 2, 3, 4].map(|axis| format!("{t}.{axis}"));
    let depth = loop_names(&scheduler.nest, &made.inner);
    let accumulator = buffer_name(&scheduler.nest, made.accumulator);
    let by = scheduler.present(&[&block]);
    scheduler.relayout(weights, &[&*by, &depth, std::slice::from_ref(&lane)].concat())?;
    // A band of one row has no loop over rows, and one block of channels none over blocks.
    let around = if scheduler.present(&[&row]).is_empty() {
        by.last().map_or(band, String::as_str)
    } else {
        scheduler.split(&row, &[even(scheduler.extent(&row), STRIP_ELEMENTS / row_elements)])?;
        &format!("{row}.0")
    };
    scheduler.stage_out(&accumulator, Some(around))?;
    scheduler.reorder(&[&*depth, &[column, lane]].concat())?;
    scheduler.replace(depth.first()?, lane_by_lane(target.isa))
}
