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
    let mut trips =
        found.loops.iter().zip(limits.trips).map(|(&var, bounds): (&VarId, _)| emitter.trip(var, bounds));
    let (Some(depth), Some(rows), Some(cols)) = (trips.next(), trips.next(), trips.next()) else {
        return Err("it has not three loops".into());
    };
    drop(trips);
    let call = cpu::Call::Tile(cpu::Tile {
        a,
        a_row_stride: a_strides[1],
        a_depth_stride: a_strides[0],
        b,
        b_depth_stride: b_strides[0],
        c,
        c_row_stride: c_strides[1],
        rows,
        cols,
        depth,
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

/// Whether `block` writes zeros to exactly what `tile` adds to.
pub(super) fn zeroes(block: &cpu::Block, tile: &cpu::Tile) -> bool {
    let [
        cpu::BlockOp::Constant { to, value: cpu::Literal::Float(0.0) },
        cpu::BlockOp::Store { access, strides, value, combine: cpu::Combine::Replace, guard, mask: None },
    ] = block.ops.as_slice()
    else {
        return false;
    };
    value == to
        && guard.is_empty()
        && *access == tile.c
        && strides.as_slice() == [tile.c_row_stride, 1]
        && block.dims.as_slice() == [tile.rows.clone(), tile.cols.clone()]
        && tile.accumulate == cpu::Accumulate::Always
}
