//! Matrix tiles for convolutions whose results lie in blocks of channels.
//!
//! A vector holds the output channels of a block, the weights are packed in vectors when the nest is compiled, and the input is
//! read where it is: an element is a factor of a whole vector. So a tile needs no packing; only an input with padding is copied
//! with its edge. A *panel* is the output channels that are computed at once; a *strip* is the rows of the image whose results
//! stay in the first-level cache until what follows the convolution has used them.
//!
//! Where there is more input than weights, threads divide the image into *bands*, and each copies its edge for itself; else
//! they divide the panels, and copy the input together.

use super::super::shape::Contraction;
use super::super::{Scheduler, buffer_name, iterations, loop_names};
use super::contraction::fuses;
use super::{balanced, share_out};
use crate::expr::Scope;
use crate::target::{CpuIsa, CpuTarget};

/// Vectors of columns of the micro-kernel, and its instruction.
fn tile(isa: CpuIsa) -> (usize, &'static str) {
    match isa {
        CpuIsa::Generic => (3, "fma_3x3x4"),
        CpuIsa::Avx2 => (2, "fma_6x2x8"),
        CpuIsa::Avx512 => (2, "fma_12x2x16"),
    }
}

/// Results of a strip: a third of the smallest first-level cache, so that weights have room beside them.
const STRIP_ELEMENTS: usize = 3072;

pub(super) fn blocked_tiles(
    scheduler: &mut Scheduler,
    contraction: &Contraction,
    target: &CpuTarget,
) -> Option<()> {
    let (vectors, instruction) = tile(target.isa);
    let nest = &scheduler.nest;
    let [rows, columns, depth] = [&contraction.rows, &contraction.columns, &contraction.reduction.inner]
        .map(|vars| loop_names(nest, vars));
    let [x, w, accumulator] = [contraction.a, contraction.b, contraction.reduction.accumulator];
    let weights = contraction.is_constant(nest, w) && !contraction.is_constant(nest, x);
    let ([block, lane], true) = (columns.as_slice(), weights && contraction.batch.is_empty()) else {
        return None;
    };
    if scheduler.extent(lane) != target.isa.vector_lanes_f32() {
        return None;
    }
    let elements = |id| nest.pool.buffers[id].shape.iter().product::<usize>();
    let (x_bytes, w_bytes) = (4 * elements(x), 4 * elements(w));
    let padded = contraction.guarded[0];
    let (images, places) = rows.split_at(rows.len().saturating_sub(2));
    let place_vars = &contraction.rows[images.len()..];
    let one_row = !padded && fuses(nest, &contraction.a_address, place_vars);
    let width = if one_row { 1 } else { iterations(nest, place_vars.get(1..)?) };
    let [x, w, accumulator] = [x, w, accumulator].map(|id| buffer_name(nest, id));

    // Several blocks of output channels at once.
    let count = scheduler.extent(block);
    let at_once = (1..=vectors).rev().find(|at_once| count.is_multiple_of(*at_once))?;
    scheduler.split(block, &[at_once])?;
    let [panel, block] = [0, 1].map(|level| format!("{block}.{level}"));

    // Strips of rows; places that follow one another in one step are a single row, of which a strip is a part.
    let (row, column) = match places {
        [row, column] if !one_row => (row.clone(), Some(column.clone())),
        places => (scheduler.fuse_all(places, "i")?, None),
    };
    let height = scheduler.extent(&row);
    let strip = balanced(height, STRIP_ELEMENTS / (at_once * width * scheduler.extent(lane)));
    let by_bands = padded && x_bytes > w_bytes && height >= target.threads;
    let bands = (4 * x_bytes).div_ceil(target.l2_bytes.max(1)).next_multiple_of(target.threads);
    let band =
        if by_bands { height.div_ceil(bands.min(height)).div_ceil(strip) } else { height.div_ceil(strip) };
    scheduler.split(&row, &[band, strip])?;
    let [band, outer, row] = [0, 1, 2].map(|level| format!("{row}.{level}"));
    // The micro-kernel's rows are those of a strip where places follow one another, else the columns of one row.
    let (around, tile_row) = match column {
        Some(column) => (vec![row], column),
        None => (vec![], row),
    };
    let tile = [tile_row, block.clone(), lane.clone()];
    let outside = if by_bands || x_bytes > w_bytes {
        [images, &[band.clone(), panel.clone(), outer.clone()]].concat()
    } else {
        [std::slice::from_ref(&panel), images, &[band.clone(), outer.clone()]].concat()
    };
    let [tile_row, block, lane] = &tile;
    scheduler.reorder(&[&*outside, &around, &[block.clone(), tile_row.clone(), lane.clone()]].concat())?;
    if padded && by_bands {
        scheduler.stage_in(&x, Some(&band), Scope::Workgroup, &[])?;
    } else if padded {
        scheduler.stage_in(&x, None, Scope::Global, &[])?;
        let copying = *scheduler.top_loops().first()?;
        let channels = loop_names(&scheduler.nest, &[copying]);
        share_out(scheduler, &channels, target);
    }
    let by = [std::slice::from_ref(&panel), &depth, &[block.clone(), lane.clone()]].concat();
    scheduler.relayout(&w, &by)?;
    scheduler.stage_out(&accumulator, Some(&outer))?;
    scheduler.reorder(&[&*depth, &tile].concat())?;
    scheduler.replace(depth.first()?, instruction)?;
    let free = if by_bands { images.len() + 1 } else { outside.len() };
    share_out(scheduler, &outside[..free], target);
    Some(())
}
