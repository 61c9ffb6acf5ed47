//! Winograd's convolution over blocks of channels.
//!
//! The nest is that of `ops::conv::winograd`, by whose names the loops are known here: the transformed weights `u`, the transformed
//! input `v`, the products `m`, and the results. Weights are transformed and packed when the nest is compiled. The products of a
//! *panel*, the output channels that are computed at once, and of a *band* of rows of tiles become results while they are in the
//! second-level cache. Of images of one row of tiles, a band is some of its tiles.
//!
//! Where there is more input than weights, threads divide the bands, and each transforms the input of a band for all its panels;
//! else they transform the input together and divide the panels, so that each reads its own weights only.

use super::super::Scheduler;
use super::super::shape::find_reductions;
use super::blocked::panel;
use super::share_out;
use crate::expr::Scope;
use crate::schedule::Step;
use crate::target::CpuTarget;
use paisley_kernels::transform::Sides;

/// The names of the loops over a buffer of transformed tiles.
struct Tiles {
    blocks: String,
    points: [String; 2],
    rows: String,
    columns: String,
    lane: String,
}

impl Tiles {
    /// Of `buffer`, computed in a loop: its dimensions are images, blocks, points, points, rows, columns and lanes.
    fn within(buffer: &str) -> Tiles {
        let [blocks, a, b, rows, columns, lane] = [1, 2, 3, 4, 5, 6].map(|axis| format!("{buffer}.{axis}"));
        Tiles { blocks, points: [a, b], rows, columns, lane }
    }

    /// Of the transformed input where it is computed as a whole.
    fn of_input() -> Tiles {
        let [blocks, a, b, rows, columns, lane] =
            ["vc.0", "va", "vb", "vh", "vw", "vc.1"].map(str::to_string);
        Tiles { blocks, points: [a, b], rows, columns, lane }
    }
}

pub(super) fn winograd_tiles(scheduler: &mut Scheduler, target: &CpuTarget) -> Option<()> {
    let nest = &scheduler.nest;
    if find_reductions(nest).len() != 4 {
        return None;
    }
    let shape = |name: &str| Some(nest.pool.buffers[nest.buffer_named(name)?].shape.clone());
    let (v, m, u) = (shape("v")?, shape("m")?, shape("u")?);
    let &[images, _, down, across, tile_rows, tile_columns, lanes] = v.as_slice() else { return None };
    let sides = if down.min(across) > 1 { Sides::Both } else { Sides::Row };
    let transform = |of: &str| format!("winograd_{of}_{}{}_{lanes}", down.max(across) - 2, sides.suffix());
    let bytes = |shape: &[usize]| 4 * shape.iter().product::<usize>();
    let (at_once, instruction) = panel(target.isa, m[1]);
    let (lines, tiles_of_line) = if tile_rows > 1 { (tile_rows, tile_columns) } else { (tile_columns, 1) };
    let line = if tile_rows > 1 { "th" } else { "tw" };

    let by_bands = bytes(&v) > bytes(&u) && images * lines >= target.threads;
    let line_bytes = if by_bands {
        bytes(&v) / (images * lines)
    } else {
        4 * down * across * tiles_of_line * at_once * lanes
    };
    let fits = |count: usize| count * line_bytes <= target.l2_bytes / 2;
    let divides_evenly = |count: usize| {
        let bands = images * (lines / count);
        !by_bands || bands.is_multiple_of(target.threads) || bands >= 8 * target.threads
    };
    let of_band = (1..=lines)
        .filter(|&count| {
            lines.is_multiple_of(count) && (count == 1 || (fits(count) && divides_evenly(count)))
        })
        .max()?;

    scheduler.split("k.0", &[at_once])?;
    scheduler.split(line, &[of_band])?;
    let [band, within] = [0, 1].map(|level| format!("{line}.{level}"));
    let columns = if tile_rows > 1 { "tw" } else { &within };
    let outside = scheduler.present(&if by_bands { ["n", &band, "k.0.0"] } else { ["k.0.0", "n", &band] });
    let rows = if tile_rows > 1 { scheduler.present(&["k.0.1", &within]) } else { vec!["k.0.1".to_string()] };
    let inside = scheduler.present(&["i", columns, "j", "k.1"]);
    scheduler.reorder(&[outside.as_slice(), &rows, &inside].concat())?;
    scheduler.compute_at("products", outside.last()?)?;
    let tiles = if by_bands {
        scheduler.compute_at("transformed", &band)?;
        Tiles::within("v")
    } else {
        Tiles::of_input()
    };

    // The input: the tiles of a block of channels are transformed a row at a time; what is beyond an edge is left out.
    let of_input = scheduler.present(&[
        &tiles.blocks,
        &tiles.rows,
        &tiles.columns,
        &tiles.points[0],
        &tiles.points[1],
        &tiles.lane,
    ]);
    scheduler.reorder(&of_input)?;
    let around = scheduler.present(&[&band, &tiles.blocks, &tiles.rows]);
    scheduler.stage_out("v_sum", around.last().map(String::as_str))?;
    let order =
        scheduler.present(&["r", "s", &tiles.columns, &tiles.points[0], &tiles.points[1], &tiles.lane]);
    scheduler.reorder(&order)?;
    scheduler.replace(order.first()?, &transform("input"))?;

    // The products: a matrix product for each pair of points.
    let products = Tiles::within("m");
    let [a, b] = &products.points;
    let order =
        scheduler.present(&[a, b, &products.rows, &products.columns, &products.blocks, &products.lane]);
    scheduler.reorder(&order)?;
    let places = scheduler.present(&[&products.rows, &products.columns]);
    let row = scheduler.fuse_all(&places, "t")?;
    let of_panel = scheduler.present(&[&products.blocks, &products.lane]);
    let panel = scheduler.present(&["k.0.0", a, b, "c.0", "c.1"]);
    prepare_weights(scheduler, &[panel, of_panel.clone()].concat(), lanes, &transform("weights"))?;
    scheduler.stage_out("m_sum", scheduler.present(&[a, b]).last().map(String::as_str))?;
    let depth = scheduler.present(&["c.0", "c.1"]);
    scheduler.reorder(&[depth.as_slice(), &[row], &of_panel].concat())?;
    let one_vector = super::tile(target.isa).2;
    scheduler.replace(depth.first()?, if of_panel.len() == 2 { instruction } else { one_vector })?;

    // The results.
    scheduler.stage_out("acc", rows.last().map(String::as_str))?;
    let order = scheduler.present(&["a", "b", columns, "i", "j", "k.1"]);
    scheduler.reorder(&order)?;
    scheduler.replace(order.first()?, &transform("output"))?;

    if by_bands {
        let bands = scheduler.present(&["n", &band]);
        share_out(scheduler, &bands, target);
    } else {
        let of_input = scheduler.present(&["vn", &tiles.blocks, &tiles.rows]);
        share_out(scheduler, &of_input, target);
        share_out(scheduler, &outside, target);
    }
    Some(())
}

/// Transforms the weights when the nest is compiled, and packs them `by` the loops of the products: those of a panel and a block of
/// channels at a time, which stay in the caches meanwhile. `transform` is the instruction.
fn prepare_weights(scheduler: &mut Scheduler, by: &[String], lanes: usize, transform: &str) -> Option<()> {
    let packed = scheduler.stage_in("u", None, Scope::Global, by)?;
    let named = |of: &str| format!("{packed}.{of}");
    let around = scheduler.present(&[&named("k.0.0"), &named("c.0")]);
    let inside: Vec<String> = by.iter().map(|of| named(of)).filter(|of| !around.contains(of)).collect();
    scheduler.reorder(&[around.as_slice(), &inside].concat())?;
    let block = around.last()?;
    scheduler.compute_at("weights", block)?;
    scheduler.split("u.3", &[lanes])?;
    let order = scheduler.present(&["u.3.0", "u.2", "u.0", "u.1", "u.3.1"]);
    scheduler.reorder(&order)?;
    let filters = scheduler.present(&["u.3.0", "u.3.1"]);
    let weights = [scheduler.present(&["u.2", "ur", "us"]), filters.clone()].concat();
    let copy = scheduler.stage_in("w", Some(block), Scope::Workgroup, &weights)?;
    // Those of a filter follow one another in memory.
    let (taps, filters) = weights.split_at(weights.len() - filters.len());
    let [taps, filters] =
        [taps, filters].map(|loops| loops.iter().map(|of| format!("{copy}.{of}")).collect::<Vec<_>>());
    scheduler.fuse_all(&taps, "taps")?;
    scheduler.fuse_all(&filters, "filters")?;
    scheduler.stage_out("u_sum", Some("u.3.0"))?;
    let order = scheduler.present(&["ur", "us", "u.2", "u.0", "u.1", "u.3.1"]);
    scheduler.reorder(&order)?;
    scheduler.replace(order.first()?, transform)?;
    scheduler.step(Step::Prepare { buffer: packed }).then_some(())
}
