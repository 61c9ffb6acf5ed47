//! Tiles for convolutions and poolings of blocks of channels.
//!
//! A vector holds the output channels of a block, the weights are packed in vectors when the nest is compiled, and the input is
//! read where it is: an element is a factor of a whole vector, or a vector is one of another where each channel is convolved
//! by itself. So a tile needs no packing; only an input with padding is copied with its edge, unless each channel is convolved by
//! itself: those tiles leave out what is beyond an edge. A *panel* is the output channels
//! that are computed at once; a *strip* is the rows of the image whose results stay in the first-level cache until what
//! follows the convolution has used them.
//!
//! Where the input does not stay in the second-level cache, or is large beside the weights, threads divide the image into *bands*,
//! each of which is used for all panels, and whose edge its thread copies for itself; else they divide the panels, and copy the
//! input together. So a thread mostly reads what it has written itself, which takes a fraction of the time where threads share no
//! cache, also where a convolution of each channel by itself follows: its rows are divided where those of a 1x1 convolution would
//! be. Groups of channels that are convolved with one another are outside of both: a band is then one of a group.

use super::super::shape::{Factor, Reduction, find_reductions};
use super::super::{Scheduler, buffer_name, iterations, loop_name, loop_names};
use super::contraction::fuses;
use super::{balanced, divisor_near, even, share_out};
use crate::expr::{Role, Scope, VarId};
use crate::loopir::Combiner;
use crate::target::{CpuIsa, CpuTarget};
use crate::tensor::DType;
use paisley_kernels::tile::dots::DOT_TERMS;

/// The micro-kernels of a processor for panels: blocks that one computes at once, and its instruction. The one to prefer is first.
fn panels(isa: CpuIsa) -> [(usize, &'static str); 2] {
    match isa {
        CpuIsa::Generic => [(3, "fma_3x3x4"), (2, "fma_3x3x4")],
        CpuIsa::Avx2 => [(2, "fma_6x2x8"), (3, "fma_4x3x8")],
        CpuIsa::Avx512 => [(2, "fma_12x2x16"), (3, "fma_8x3x16")],
    }
}

/// How many of `blocks` a panel has, so that all panels have as many, and the instruction for it.
pub(super) fn panel(isa: CpuIsa, blocks: usize) -> (usize, &'static str) {
    let panels = panels(isa);
    panels.into_iter().find(|(size, _)| blocks.is_multiple_of(*size)).unwrap_or((1, panels[0].1))
}

/// The same for bytes.
fn panel_of_bytes(isa: CpuIsa, blocks: usize) -> (usize, &'static str) {
    let panels: &[(usize, &str)] = match isa {
        CpuIsa::Generic => &[(3, "dots_3x3x4"), (2, "dots_3x3x4")],
        CpuIsa::Avx2 => &[(2, "dots_6x2x8")],
        CpuIsa::Avx512 => &[(2, "dots_12x2x16"), (3, "dots_8x3x16")],
    };
    panels.iter().copied().find(|(size, _)| blocks.is_multiple_of(*size)).unwrap_or((1, panels[0].1))
}

/// The instruction of a processor for the sums of each channel by itself.
pub(super) fn lane_by_lane(isa: CpuIsa) -> &'static str {
    match isa {
        CpuIsa::Generic => "fma_lanes_4",
        CpuIsa::Avx2 => "fma_lanes_8",
        CpuIsa::Avx512 => "fma_lanes_16",
    }
}

/// The instruction for the largest of each channel, or for the sum.
fn pool(isa: CpuIsa, combine: Combiner) -> Option<&'static str> {
    let (largest, sum) = match isa {
        CpuIsa::Generic => ("pool_max_lanes_4", "pool_sum_lanes_4"),
        CpuIsa::Avx2 => ("pool_max_lanes_8", "pool_sum_lanes_8"),
        CpuIsa::Avx512 => ("pool_max_lanes_16", "pool_sum_lanes_16"),
    };
    match combine {
        Combiner::Max => Some(largest),
        Combiner::Add => Some(sum),
        Combiner::Mul | Combiner::Min => None,
    }
}

#[cfg(test)]
pub(super) fn instructions(isa: CpuIsa) -> Vec<&'static str> {
    let pools = [Combiner::Max, Combiner::Add].into_iter().filter_map(|combine| pool(isa, combine));
    panels(isa)
        .map(|(_, instruction)| instruction)
        .into_iter()
        .chain([lane_by_lane(isa)])
        .chain(pools)
        .collect()
}

/// Results of a strip: a third of the smallest first-level cache, so that weights have room beside them.
pub(super) const STRIP_ELEMENTS: usize = 3072;

/// Weights for each element of the input at most where threads divide rows that they need not copy. All of them read all weights then,
/// but these they may keep together.
const WEIGHTS_FOR_INPUT: usize = 2;

/// The parts of a convolution over blocks.
pub(super) struct Convolution {
    pub(super) x: Factor,
    pub(super) w: Factor,
    /// Whether each channel is convolved by itself.
    pub(super) lanewise: bool,
    /// The loop over the channels of a block.
    pub(super) lane: VarId,
    /// The loop over blocks.
    pub(super) block: VarId,
    /// The loops over groups of channels that are convolved with one another.
    pub(super) groups: Vec<VarId>,
    /// The loops over images and over places, outermost first.
    pub(super) rows: Vec<VarId>,
}

pub(super) fn convolution(
    scheduler: &mut Scheduler,
    reduction: &Reduction,
    target: &CpuTarget,
) -> Option<Convolution> {
    let nest = &mut scheduler.nest;
    let [x, w] = reduction.factors(nest)?;
    let (x, w) = if w.is_constant(nest) { (x, w) } else { (w, x) };
    let lane = reduction.contiguous_loop(nest)?;
    let lanewise = x.address.coefficient(&nest.pool, lane) == Some(1);
    let extent = |var: VarId| nest.pool.vars[var].extent;
    let (mut blocks, mut groups, mut rows) = (vec![], vec![], vec![]);
    for &var in reduction.outer.iter().filter(|&&var| var != lane) {
        match (x.uses(nest, var), w.uses(nest, var)) {
            (true, false) => rows.push(var),
            (false, false) if extent(var) == 1 => blocks.push(var),
            (of_x, true) if of_x == lanewise => blocks.push(var),
            (true, true) => groups.push(var),
            (false, true) | (false, false) => return None,
        }
    }
    let of_bytes = x.dtype != DType::F32;
    let fits = (!of_bytes || (w.dtype == DType::I8 && !lanewise))
        && (!lanewise || w.dtype == DType::F32)
        && extent(lane) == target.isa.vector_lanes_f32()
        && reduction.outer.last() == Some(&lane)
        && w.uses(nest, lane)
        && x.uses(nest, lane) == lanewise
        && w.is_constant(nest)
        && !x.is_constant(nest)
        && reduction.inner.iter().all(|&var| extent(var) == 1 || (x.uses(nest, var) && w.uses(nest, var)));
    let &[block] = blocks.as_slice() else { return None };
    (fits && !rows.is_empty()).then_some(Convolution { x, w, lanewise, lane, block, groups, rows })
}

/// Tiles over a copy of the places that a convolution reads, where they are less than half of its input, as of a 1x1 convolution with
/// a stride: all panels read them, and they follow one another as a single row then.
pub(super) fn blocked_tiles_of_places(
    scheduler: &mut Scheduler,
    reduction: &Reduction,
    target: &CpuTarget,
) -> Option<()> {
    let Convolution { x, lanewise, groups, rows, .. } = convolution(scheduler, reduction, target)?;
    let nest = &scheduler.nest;
    let depth = &reduction.inner;
    let read: usize = [&*groups, &rows, depth].map(|vars| iterations(nest, vars)).iter().product();
    if lanewise || x.guarded || 2 * read > nest.pool.buffers[x.buffer].shape.iter().product() {
        return None;
    }
    let (images, places) = rows.split_at(rows.len().saturating_sub(2));
    let (within, blocks) = depth.split_last()?;
    let by = [&*groups, images, blocks, places, &[*within]].concat();
    let by = loop_names(nest, &by);
    let x = buffer_name(nest, x.buffer);
    let by = scheduler.loops_of_reads(&x, &by);
    let copy = scheduler.stage_in(&x, None, Scope::Global, &by)?;
    let copying: Vec<String> = by.iter().map(|of| format!("{copy}.{of}")).collect();
    share_out(scheduler, &copying, target);
    let reductions = find_reductions(&scheduler.nest);
    let [reduction] = reductions.as_slice() else { return None };
    blocked_tiles(scheduler, reduction, target)
}

pub(super) fn blocked_tiles(
    scheduler: &mut Scheduler,
    reduction: &Reduction,
    target: &CpuTarget,
) -> Option<()> {
    let Convolution { x, w, lanewise, lane, block, groups, rows } =
        convolution(scheduler, reduction, target)?;
    let nest = &scheduler.nest;
    let mut depth = loop_names(nest, &reduction.inner);
    let of_bytes = x.dtype != DType::F32;
    let (images, places) = rows.split_at(rows.len().saturating_sub(2));
    let one_row = !x.guarded && fuses(nest, &x.address, places);
    let width = if one_row { 1 } else { iterations(nest, places.get(1..)?) };
    let elements = |factor: &Factor| nest.pool.buffers[factor.buffer].shape.iter().product::<usize>();
    let (x_elems, w_elems) = (elements(&x), elements(&w));
    let (x_bytes, more_input) = (x.dtype.size_bytes() * x_elems, x_elems > w_elems);
    let (padded, filled) = (x.guarded, w.guarded);
    let pieces = iterations(nest, &groups);
    let [images, places, groups] = [images, places, &groups].map(|vars| loop_names(nest, vars));
    let (lane, block) = (loop_name(nest, lane), loop_name(nest, block));
    let [x, w, accumulator] =
        [x.buffer, w.buffer, reduction.accumulator].map(|buffer| buffer_name(nest, buffer));

    // Several blocks of output channels at once.
    let count = scheduler.extent(&block);
    let (at_once, instruction) = if lanewise {
        (1, lane_by_lane(target.isa))
    } else if of_bytes {
        panel_of_bytes(target.isa, count)
    } else {
        panel(target.isa, count)
    };
    let (panel, columns) = if lanewise {
        (block, vec![lane.clone()])
    } else {
        scheduler.split(&block, &[at_once])?;
        (format!("{block}.0"), vec![format!("{block}.1"), lane.clone()])
    };

    // Neighbours of which the products are added at once.
    let mut neighbours = vec![];
    if of_bytes {
        let last = depth.last_mut()?;
        if !scheduler.extent(last).is_multiple_of(DOT_TERMS) {
            return None;
        }
        scheduler.split(last, &[DOT_TERMS])?;
        neighbours.push(format!("{last}.1"));
        last.push_str(".0");
        // A loop of one iteration is of no use inside.
        if scheduler.extent(depth.last()?) == 1 {
            depth.rotate_right(1);
        }
    }

    // Strips of rows; places that follow one another in one step are a single row, of which a strip is a part.
    let (row, column) = match places.as_slice() {
        [row, column] if !one_row => (row.clone(), Some(column.clone())),
        places => (scheduler.fuse_all(places, "i")?, None),
    };
    let height = scheduler.extent(&row);
    let grouped = !groups.is_empty();
    let in_cache = (4 * x_bytes / pieces).div_ceil(target.l2_bytes.max(1));
    let bands = if grouped {
        in_cache.max((2 * target.threads).div_ceil(pieces))
    } else {
        in_cache.next_multiple_of(target.threads)
    };
    let shared = target.threads > 1;
    let from_cache = x_bytes / pieces <= target.l2_bytes / 2;
    let by_bands = if lanewise {
        !grouped && rows_are_divided(height * width, count * scheduler.extent(&lane), target)
    } else {
        let enough_input = if padded { more_input } else { shared && WEIGHTS_FOR_INPUT * x_elems > w_elems };
        ((!from_cache || enough_input) && height >= target.threads) || (padded && grouped)
    };
    let bands = if lanewise { pieces_of_rows(height, target) } else { bands }.min(height);
    let of_band = if by_bands { height.div_ceil(bands) } else { height };
    let wanted = STRIP_ELEMENTS / (at_once * width * scheduler.extent(&lane));
    // Bands keep their size where there are several.
    let strip = if of_band < height { divisor_near(of_band, wanted) } else { even(of_band, wanted) };
    let strips = of_band.div_ceil(strip);
    scheduler.split(&row, &[strips, strip])?;
    let [band, outer, row] = [0, 1, 2].map(|level| format!("{row}.{level}"));
    // The micro-kernel's rows are those of a strip where places follow one another, else the columns of one row.
    let (around, tile_row) = match column {
        Some(column) => (vec![row], column),
        None => (vec![], row),
    };
    let outside = if grouped || by_bands || more_input {
        [&*images, &groups, &[band.clone(), panel.clone(), outer.clone()]].concat()
    } else {
        [std::slice::from_ref(&panel), &images, &[band.clone(), outer.clone()]].concat()
    };
    let [blocks @ .., _lane] = columns.as_slice() else { return None };
    let results = [blocks, std::slice::from_ref(&tile_row), std::slice::from_ref(&lane)].concat();
    scheduler.reorder(&[&*outside, &around, &results].concat())?;

    // Loops that no copy of the input lies between, which threads may divide.
    let mut free = outside.len();
    if by_bands {
        free = images.len() + groups.len() + 1;
        if padded && !lanewise {
            scheduler.stage_in(&x, Some(&band), Scope::Workgroup, &[])?;
        }
    } else if padded && !lanewise {
        let copy = scheduler.stage_in(&x, None, Scope::Global, &[])?;
        let images_and_blocks = [0, 1].map(|axis| format!("{copy}.{axis}"));
        share_out(scheduler, &images_and_blocks, target);
    }
    let by = [&*groups, std::slice::from_ref(&panel), &depth, &columns, &neighbours].concat();
    scheduler.relayout(&w, &by)?;
    if filled {
        fill_constants(scheduler, &[std::slice::from_ref(&panel), &columns].concat());
    }
    scheduler.stage_out(&accumulator, Some(&outer))?;
    scheduler.reorder(&[&*depth, std::slice::from_ref(&tile_row), &columns, &neighbours].concat())?;
    scheduler.replace(depth.first()?, instruction)?;
    share_out(scheduler, &outside[..free], target);
    Some(())
}

/// Packs the constants that have a guard since the channels do not fill the last block, those that are read in order of the loops
/// `by`: packed they are filled.
pub(super) fn fill_constants(scheduler: &mut Scheduler, by: &[String]) {
    let nest = &scheduler.nest;
    let constants: Vec<String> = nest.params_of(Role::Constant).map(|id| buffer_name(nest, id)).collect();
    for constant in constants {
        let by = scheduler.loops_of_reads(&constant, by);
        if !by.is_empty() {
            scheduler.attempt(|scheduler| scheduler.relayout(&constant, &by).map(drop));
        }
    }
}

/// Whether threads divide the rows of an image where each channel is computed by itself: where those of a 1x1 convolution to as many
/// channels would be, which has a row of weights for each plane.
pub(super) fn rows_are_divided(places: usize, channels: usize, target: &CpuTarget) -> bool {
    target.threads > 1 && WEIGHTS_FOR_INPUT * places > channels
}

/// How many pieces threads divide rows into: several for each, of one size where it can be.
pub(super) fn pieces_of_rows(height: usize, target: &CpuTarget) -> usize {
    let pieces = [4, 2, 1].map(|each| each * target.threads);
    pieces.into_iter().find(|pieces| height.is_multiple_of(*pieces)).unwrap_or(pieces[0])
}

/// Poolings of blocks: of windows, a strip of lines at a time, or of all places, some blocks at a time.
pub(super) fn blocked_pools(
    scheduler: &mut Scheduler,
    reduction: &Reduction,
    target: &CpuTarget,
) -> Option<()> {
    let instruction = pool(target.isa, reduction.update.combine?)?;
    let contiguous = reduction.contiguous_loop(&mut scheduler.nest)?;
    let [outer, depth] = [&reduction.outer, &reduction.inner].map(|vars| loop_names(&scheduler.nest, vars));
    let [around @ .., row, lane] = outer.as_slice() else { return None };
    if reduction.outer.last() != Some(&contiguous) || scheduler.extent(lane) != target.isa.vector_lanes_f32()
    {
        return None;
    }
    // The loop that is cut, and what each of its iterations has.
    let (outside, lines, width) = match around {
        [] => (around, row, scheduler.extent(lane)),
        [outside @ .., lines] => (outside, lines, scheduler.extent(row) * scheduler.extent(lane)),
    };
    let height = scheduler.extent(lines);
    let channels = outside.last().map_or(1, |of| scheduler.extent(of)) * scheduler.extent(lane);
    let by_bands = rows_are_divided(height * width / scheduler.extent(lane), channels, target);
    let wanted = STRIP_ELEMENTS / width;
    let (of_band, strip) = if by_bands {
        let of_band = height.div_ceil(pieces_of_rows(height, target).min(height));
        (of_band, divisor_near(of_band, wanted))
    } else {
        let pieces = outside.iter().map(|of| scheduler.extent(of)).product::<usize>();
        let for_threads = height / (4 * target.threads).div_ceil(pieces.max(1));
        (height, balanced(height, wanted.min(for_threads)))
    };
    scheduler.split(lines, &[of_band.div_ceil(strip), strip])?;
    let [band, strips, line] = [0, 1, 2].map(|level| format!("{lines}.{level}"));
    let row = if around.is_empty() { line } else { row.clone() };
    let dividing = match outside {
        [images @ .., channel] if by_bands => [images, &[band, channel.clone(), strips]].concat(),
        outside => [outside, &[band, strips]].concat(),
    };
    scheduler.reorder(&dividing)?;
    let accumulator = buffer_name(&scheduler.nest, reduction.accumulator);
    scheduler.stage_out(&accumulator, dividing.last().map(String::as_str))?;
    scheduler.reorder(&[&*depth, &[row, lane.clone()]].concat())?;
    scheduler.replace(depth.first()?, instruction)?;
    share_out(scheduler, &dividing, target);
    Some(())
}
