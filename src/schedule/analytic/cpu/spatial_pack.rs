//! Convolutions of packed tiles.
//!
//! The nest is that of `ops::conv::spatial_pack`, by whose names the loops are known here. A tile of a group is packed where it is needed,
//! for all output channels of the group, and stays in a thread's caches meanwhile; where there are fewer tiles than threads, all
//! tiles are packed first. The results of a tile and of a *panel*, the output channels that are computed at once, are kept in
//! registers a row at a time and finished together. The weights of a panel are packed in the order in which the tile reads them.

use super::super::shape::find_reductions;
use super::super::{Scheduler, loop_names};
use super::blocked::panel;
use super::{balanced, share_out, tile};
use crate::expr::{Role, Scope};
use crate::loopir::Stmt;
use crate::target::CpuTarget;

pub(super) fn packed_tiles(scheduler: &mut Scheduler, target: &CpuTarget) -> Option<()> {
    let reductions = find_reductions(&scheduler.nest);
    let ([sum], [Stmt::Alloc(packed), Stmt::Loop(_), Stmt::Loop(_)]) =
        (reductions.as_slice(), scheduler.nest.body.as_slice())
    else {
        return None;
    };
    if scheduler.nest.pool.buffers[*packed].name != "xs" {
        return None;
    }
    let [outer, depth] = [&sum.outer, &sum.inner].map(|vars| loop_names(&scheduler.nest, vars));
    let is_tile = |name: &&String| name.starts_with('t');
    let is_place = |name: &&String| !is_tile(name) && !["n", "g", "k", "k.0", "k.1"].contains(&name.as_str());
    let tiles: Vec<String> = outer.iter().filter(is_tile).cloned().collect();
    let places: Vec<String> = outer.iter().filter(is_place).cloned().collect();
    let (row, lines) = places.split_last()?;

    // Output channels that are computed at once.
    let lanes = target.isa.vector_lanes_f32();
    let (panel, columns, instruction) = if scheduler.present(&["k.1"]).is_empty() {
        let (_, most, instruction) = tile(target.isa);
        let filters = scheduler.extent("k");
        let whole =
            (1..=most / lanes).rev().map(|vectors| vectors * lanes).find(|of| filters.is_multiple_of(*of));
        scheduler.split("k", &[whole.unwrap_or_else(|| balanced(filters, most))])?;
        ("k.0".to_string(), vec!["k.1".to_string()], instruction)
    } else {
        let (blocks, instruction) = panel(target.isa, scheduler.extent("k.0"));
        scheduler.split("k.0", &[blocks])?;
        ("k.0.0".to_string(), vec!["k.0.1".to_string(), "k.1".to_string()], instruction)
    };

    let around = [scheduler.present(&["n", "g"]), tiles].concat();
    let [blocks @ .., lane] = columns.as_slice() else { return None };
    let results = [blocks, &[row.clone(), lane.clone()]].concat();
    scheduler.reorder(&[&*around, std::slice::from_ref(&panel), lines, &results].concat())?;

    let pieces: usize = around.iter().map(|of| scheduler.extent(of)).product();
    let by_tiles = pieces >= target.threads && pieces > 1;
    if by_tiles {
        scheduler.compute_at("packed", around.last()?)?;
    }
    let by = [&scheduler.present(&["g"]), std::slice::from_ref(&panel), &depth, &columns].concat();
    let weights = "w";
    let constant = scheduler.nest.pool.buffers[scheduler.nest.buffer_named(weights)?].role == Role::Constant;
    if constant {
        scheduler.relayout(weights, &by)?;
    } else {
        scheduler.stage_in(weights, None, Scope::Global, &by)?;
    }
    scheduler.stage_out("acc", Some(&panel))?;
    scheduler.reorder(&[depth.as_slice(), std::slice::from_ref(row), &columns].concat())?;
    scheduler.replace(depth.first()?, instruction)?;

    if by_tiles {
        share_out(scheduler, &around, target);
    } else {
        let packing = scheduler.present(&["xn", "xc.0", "xc"]);
        share_out(scheduler, &packing, target);
        share_out(scheduler, &[&*around, &[panel]].concat(), target);
    }
    Some(())
}
