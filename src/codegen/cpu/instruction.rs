//! Instructions to calls of micro-kernels.

use super::Emitter;
use crate::expr::{Affine, BufferId, VarId};
use crate::loopir::{Combiner, Loop};
use crate::schedule::{Emission, Instruction, Match, unify};
use paisley_kernels::program as cpu;

/// The call of `wanted` for the loop it stands for.
pub(super) fn emit(emitter: &mut Emitter, of: &Loop, wanted: &Instruction) -> Result<cpu::Node, String> {
    let found = unify(&mut emitter.pool, of, wanted)?;
    match wanted.emission {
        Emission::Tile => tile(emitter, &found),
        Emission::Window => window(emitter, wanted, &found),
    }
}

/// The access of an operand at the start of the loops, and its stride over each.
fn operand(
    emitter: &mut Emitter,
    found: &Match,
    of: &(BufferId, Affine),
) -> Result<(cpu::AccessId, Vec<i64>), String> {
    let (value, strides) = emitter
        .counters_and_strides(&of.1, &found.loops)
        .ok_or_else(|| format!("the address of '{}' is not affine", emitter.pool.buffers[of.0].name))?;
    let buffer = emitter.buffers[&of.0];
    Ok((emitter.code.access(buffer, value), strides))
}

fn tile(emitter: &mut Emitter, found: &Match) -> Result<cpu::Node, String> {
    let (a, a_strides) = operand(emitter, found, &found.operands[0])?;
    let (b, b_strides) = operand(emitter, found, &found.operands[1])?;
    let (c, c_strides) = operand(emitter, found, &found.result)?;
    let limits = emitter.limits(&found.conditions, &found.loops);
    if !limits.rest.is_empty() {
        return Err("it runs under a condition that is not a limit of one loop".into());
    }
    let trips: Vec<cpu::Trip> =
        found.loops.iter().zip(limits.trips).map(|(&var, bounds)| emitter.trip(var, bounds)).collect();
    let (depths, [rows, columns @ ..]) = trips.split_at(found.levels) else {
        return Err("it has no rows".into());
    };
    let (blocks, cols) = match columns {
        [cols] => (&cpu::Trip::Constant(1), cols),
        [blocks, cols] => (blocks, cols),
        _other => return Err("it has not one or two loops of columns".into()),
    };
    let depths = depths.iter().enumerate().map(|(level, trip)| cpu::Depth {
        trip: trip.clone(),
        a_stride: a_strides[level],
        b_stride: b_strides[level],
    });
    let row = found.levels;
    let block_stride = |strides: &[i64]| if columns.len() == 2 { strides[row + 1] } else { 0 };
    let call = cpu::Call::Tile(cpu::Tile {
        a,
        a_row_stride: a_strides[row],
        a_col_stride: a_strides.last().copied().unwrap_or(0),
        b,
        b_block_stride: block_stride(&b_strides),
        c,
        c_row_stride: c_strides[row],
        c_block_stride: block_stride(&c_strides),
        rows: rows.clone(),
        blocks: blocks.max(),
        cols: cols.clone(),
        depths: depths.collect(),
        accumulate: cpu::Accumulate::Always,
    });
    Ok(emitter.under(limits.outside, cpu::Node::Call(call)))
}

fn window(emitter: &mut Emitter, wanted: &Instruction, found: &Match) -> Result<cpu::Node, String> {
    let (x, x_strides) = operand(emitter, found, &found.operands[0])?;
    let (y, y_strides) = operand(emitter, found, &found.result)?;
    let kind = match (found.operands.get(1), wanted.combine) {
        (Some(weights), _) => cpu::WindowKind::Depthwise {
            weights: operand(emitter, found, weights)?.0,
            start: y,
            start_per_result: true,
            start_output_stride: y_strides[2],
        },
        (None, Combiner::Add) => cpu::WindowKind::Sum,
        (None, Combiner::Max) => cpu::WindowKind::Max,
        (None, Combiner::Mul | Combiner::Min) => return Err("no window combines like this".into()),
    };
    let limits = emitter.limits(&found.conditions, &found.loops);
    let (&[r, s, p, q], [r_bounds, s_bounds, p_bounds, q_bounds]) =
        (found.loops.as_slice(), limits.trips.as_slice())
    else {
        return Err("it has not four loops".into());
    };
    if !(limits.rest.is_empty() && r_bounds.is_empty() && s_bounds.is_empty()) {
        return Err("it runs under a condition that is not a limit of its rows or columns".into());
    }
    let extent = |emitter: &Emitter, var: VarId| emitter.pool.vars[var].extent;
    // The step of a loop of one iteration is of no consequence.
    let step = |stride: i64| usize::try_from(stride).unwrap_or_default().max(1);
    let call = cpu::Call::Window(cpu::Window {
        kind,
        x,
        x_row_stride: x_strides[0],
        x_output_stride: x_strides[2],
        rows: cpu::Trip::Constant(extent(emitter, r)),
        cols: extent(emitter, s),
        stride: step(x_strides[3]),
        dilation: step(x_strides[1]),
        y,
        y_output_stride: y_strides[2],
        outputs: emitter.trip(p, p_bounds.clone()),
        count: emitter.trip(q, q_bounds.clone()),
    });
    Ok(emitter.under(limits.outside, cpu::Node::Call(call)))
}

/// Lets the tile in `user` overwrite what it adds to where `fill` writes zeros to exactly that; whether it does. Both may be in
/// loops: `counters` are the counters of the loops around the fill and around the tile, pair by pair.
pub(super) fn overwrite(
    code: &cpu::Code,
    fill: &cpu::Node,
    user: &mut cpu::Node,
    counters: &mut Vec<(cpu::CounterId, cpu::CounterId)>,
) -> bool {
    match (fill, user) {
        (cpu::Node::Loop(fill), cpu::Node::Loop(user)) => {
            let ([inner], [user_inner], true) =
                (fill.body.as_slice(), user.body.as_mut_slice(), fill.trip == user.trip)
            else {
                return false;
            };
            counters.push((fill.counter, user.counter));
            overwrite(code, inner, user_inner, counters)
        }
        (cpu::Node::Call(cpu::Call::Block(fill)), cpu::Node::Call(cpu::Call::Tile(tile))) => {
            let zeroed = zeroes(code, fill, tile, counters);
            if zeroed {
                tile.accumulate = cpu::Accumulate::Never;
            }
            zeroed
        }
        (cpu::Node::Loop(_) | cpu::Node::Call(_), _) => false,
    }
}

/// Whether `block` writes zeros to exactly what `tile` adds to, under the same counts of the counters.
fn zeroes(
    code: &cpu::Code,
    block: &cpu::Block,
    tile: &cpu::Tile,
    counters: &[(cpu::CounterId, cpu::CounterId)],
) -> bool {
    let [
        cpu::BlockOp::Constant { to, value: cpu::Literal::Float(0.0) },
        cpu::BlockOp::Store { access, strides, value, combine: cpu::Combine::Replace, guard, mask: None },
    ] = block.ops.as_slice()
    else {
        return false;
    };
    let place = |id: cpu::AccessId, renamed: bool| {
        let cpu::Access { buffer, offset } = &code.accesses[id.index()];
        let mut form = cpu::Affine::constant(offset.constant);
        for &(counter, factor) in &offset.terms {
            let pair = counters.iter().find(|(of_fill, _)| renamed && *of_fill == counter);
            form.add_term(pair.map_or(counter, |&(_, of_tile)| of_tile), factor);
        }
        form.terms.sort_by_key(|&(counter, _)| counter);
        (*buffer, form)
    };
    // Dimensions of one iteration are of no consequence.
    let long = |dims: &[cpu::Trip], strides: &[i64]| -> Vec<(cpu::Trip, i64)> {
        let all = dims.iter().cloned().zip(strides.iter().copied());
        let mut long: Vec<_> = all.filter(|(trip, _)| *trip != cpu::Trip::Constant(1)).collect();
        long.sort_by_key(|(_, stride)| *stride);
        long
    };
    let of_tile = [tile.rows.clone(), cpu::Trip::Constant(tile.blocks), tile.cols.clone()];
    value == to
        && guard.is_empty()
        && place(*access, true) == place(tile.c, false)
        && long(&block.dims, strides) == long(&of_tile, &[tile.c_row_stride, tile.c_block_stride, 1])
        && tile.accumulate == cpu::Accumulate::Always
}
