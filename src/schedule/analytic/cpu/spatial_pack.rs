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

/// What the lanes of a vector are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lanes {
    /// The channels of a block, where the results lie in blocks.
    Block,
    /// Neighbouring places, where results and packed input lie in rows.
    Places,
    /// Output channels, where neighbouring places are steps apart in the input.
    Channels,
}

pub(super) fn packed_tiles(scheduler: &mut Scheduler, target: &CpuTarget) -> Option<()> {
    let [Stmt::Alloc(packed), Stmt::Loop(_), Stmt::Loop(_)] = scheduler.nest.body.as_slice() else {
        return None;
    };
    if scheduler.nest.pool.buffers[*packed].name != "xs" {
        return None;
    }
    let in_blocks = !scheduler.present(&["k.1"]).is_empty();
    let lanes: &[Lanes] = if in_blocks { &[Lanes::Block] } else { &[Lanes::Places, Lanes::Channels] };
    let done = |&lanes: &Lanes| scheduler.attempt(|scheduler| by_lanes(scheduler, lanes, target));
    lanes.iter().any(done).then_some(())
}

fn by_lanes(scheduler: &mut Scheduler, lanes: Lanes, target: &CpuTarget) -> Option<()> {
    let reductions = find_reductions(&scheduler.nest);
    let [sum] = reductions.as_slice() else { return None };
    let [outer, depth] = [&sum.outer, &sum.inner].map(|vars| loop_names(&scheduler.nest, vars));
    let is_tile = |name: &&String| name.starts_with('t');
    let is_place = |name: &&String| !is_tile(name) && !["n", "g", "k", "k.0", "k.1"].contains(&name.as_str());
    let tiles: Vec<String> = outer.iter().filter(is_tile).cloned().collect();
    let places: Vec<String> = outer.iter().filter(is_place).cloned().collect();
    let (width, lines) = places.split_last()?;
    let mut lines = lines.to_vec();

    // The loops over panels, over rows of the micro-kernel's tile and over its columns, and those of them that the weights depend on.
    let (tile_rows, most, instruction) = tile(target.isa);
    let (panel, row, columns, of_weights, instruction) = match lanes {
        Lanes::Block => {
            let (blocks, instruction) = panel(target.isa, scheduler.extent("k.0"));
            scheduler.split("k.0", &[blocks])?;
            let columns = ["k.0.1", "k.1"].map(str::to_string).to_vec();
            ("k.0.0", width.clone(), columns.clone(), columns, instruction)
        }
        Lanes::Places => {
            let at_once = scheduler.extent(width);
            let mut column = width.clone();
            if at_once > most {
                scheduler.split(width, &[balanced(at_once, most)])?;
                lines.push(format!("{width}.0"));
                column = format!("{width}.1");
            }
            scheduler.split("k", &[balanced(scheduler.extent("k"), tile_rows)])?;
            let row = "k.1".to_string();
            ("k.0", row.clone(), vec![column], vec![row], instruction)
        }
        Lanes::Channels => {
            let filters = scheduler.extent("k");
            let vector = target.isa.vector_lanes_f32();
            let whole = (1..=most / vector).rev().map(|vectors| vectors * vector);
            let whole = whole.into_iter().find(|&of| filters.is_multiple_of(of));
            scheduler.split("k", &[whole.unwrap_or_else(|| balanced(filters, most))])?;
            let columns = vec!["k.1".to_string()];
            ("k.0", width.clone(), columns.clone(), columns, instruction)
        }
    };
    let around = [scheduler.present(&["n", "g"]), tiles].concat();
    // The results of a panel lie as those of the nest.
    let [blocks @ .., lane] = columns.as_slice() else { return None };
    let (row, panel) = ([row], [panel.to_string()]);
    let results = match lanes {
        Lanes::Block | Lanes::Channels => [&lines, blocks, &row, std::slice::from_ref(lane)].concat(),
        Lanes::Places => [&row, lines.as_slice(), &columns].concat(),
    };
    scheduler.reorder(&[&*around, &panel, &results].concat())?;

    let pieces: usize = around.iter().map(|of| scheduler.extent(of)).product();
    let by_tiles = pieces >= target.threads && pieces > 1;
    if by_tiles {
        scheduler.compute_at("packed", around.last()?)?;
    }
    let by = [&scheduler.present(&["g"]), panel.as_slice(), &depth, &of_weights].concat();
    let weights = scheduler.nest.buffer_named("w")?;
    if scheduler.nest.pool.buffers[weights].role == Role::Constant {
        scheduler.relayout("w", &by)?;
    } else {
        scheduler.stage_in("w", None, Scope::Global, &by)?;
    }
    scheduler.stage_out("acc", panel.first().map(String::as_str))?;
    scheduler.reorder(&[lines.as_slice(), &depth, &row, &columns].concat())?;
    scheduler.replace(depth.first()?, instruction)?;

    if by_tiles {
        share_out(scheduler, &around, target);
    } else {
        let packing = scheduler.present(&["xn", "xc.0", "xc"]);
        share_out(scheduler, &packing, target);
        share_out(scheduler, &[&*around, panel.as_slice()].concat(), target);
    }
    Some(())
}
