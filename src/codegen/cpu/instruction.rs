//! Instructions to calls of micro-kernels.

use super::Emitter;
use crate::expr::{Affine, BufferId, ExprId, VarId};
use crate::loopir::{Combiner, Loop};
use crate::schedule::{Emission, Instruction, Match, Shape, unify};
use paisley_kernels::program as cpu;
use paisley_kernels::transform::Sides;

/// The call of `wanted` for the loop it stands for.
pub(super) fn emit(emitter: &mut Emitter, of: &Loop, wanted: &Instruction) -> Result<cpu::Node, String> {
    let found = unify(&mut emitter.pool, of, wanted)?;
    match wanted.emission {
        Emission::Tile | Emission::Dots => tile(emitter, wanted, &found),
        Emission::Window => window(emitter, wanted, &found),
        Emission::Transform => transform(emitter, wanted, &found),
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

fn tile(emitter: &mut Emitter, wanted: &Instruction, found: &Match) -> Result<cpu::Node, String> {
    let (a, a_strides) = operand(emitter, found, &found.operands[0])?;
    let b = found.operands.get(1).map(|b| operand(emitter, found, b)).transpose()?;
    let (c, c_strides) = operand(emitter, found, &found.result)?;
    let limits = emitter.limits(&found.conditions, &found.loops);
    if !limits.rest.is_empty() {
        return Err("it runs under a condition that is not a limit of one loop".into());
    }
    let guard = read_conditions(emitter, found, |strides| {
        let (levels, rest) = strides.split_at_checked(found.levels)?;
        Some([&[0, *rest.first()?], levels].concat())
    });
    let mut guard = guard.ok_or("it leaves out terms under a condition that is not affine")?;
    if let Some(tail) = found.tail {
        guard.push(tail_condition(emitter, found, tail).ok_or("its tail is not affine")?);
    }
    let mut trips: Vec<cpu::Trip> =
        found.loops.iter().zip(limits.trips).map(|(&var, bounds)| emitter.trip(var, bounds)).collect();
    let of_neighbours = wanted.emission == Emission::Dots;
    if of_neighbours {
        trips.pop();
    }
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
        b_stride: b.as_ref().map_or(0, |(_, strides)| strides[level]),
    });
    let row = found.levels;
    let block_stride = |strides: &[i64]| if columns.len() == 2 { strides[row + 1] } else { 0 };
    let terms = match (&b, wanted.combine) {
        (Some((b, strides)), Combiner::Add) if of_neighbours => {
            cpu::Terms::Dots { b: *b, b_block_stride: block_stride(strides) }
        }
        (Some((b, strides)), Combiner::Add) => {
            cpu::Terms::Products { b: *b, b_block_stride: block_stride(strides) }
        }
        (None, Combiner::Add) => cpu::Terms::Sum { divisor: cpu::Literal::Float(1.0) },
        (None, Combiner::Max) => cpu::Terms::Largest,
        (_, Combiner::Mul | Combiner::Min) | (Some(_), Combiner::Max) => {
            return Err("no tile combines like this".into());
        }
    };
    let tile = cpu::Tile {
        a,
        a_line_stride: 0,
        a_row_stride: a_strides[row],
        a_col_stride: a_strides[trips.len() - 1],
        terms,
        c,
        c_line_stride: 0,
        c_row_stride: c_strides[row],
        c_block_stride: block_stride(&c_strides),
        lines: cpu::Trip::Constant(1),
        rows: rows.clone(),
        blocks: blocks.max(),
        cols: cols.clone(),
        depths: depths.collect(),
        guard,
        accumulate: cpu::Accumulate::Always,
        finish: None,
        scaled: None,
    };
    Ok(emitter.under(limits.outside, cpu::Node::Call(cpu::Call::Tile(Box::new(tile)))))
}

/// The conditions under which the first operand is read, over dimensions whose strides `over` makes of those of the loops: the two ends of
/// an interval as one, and each moving forward with the first of its dimensions.
fn read_conditions(
    emitter: &mut Emitter,
    found: &Match,
    over: impl Fn(&[i64]) -> Option<Vec<i64>>,
) -> Option<Vec<cpu::Condition>> {
    let mut conditions: Vec<cpu::Condition> = vec![];
    for &conjunct in &found.guards {
        let cpu::Condition { mut value, strides, limit } = emitter.condition(conjunct, &found.loops)?;
        let mut strides = over(&strides)?;
        let falls = strides.iter().find(|stride| **stride != 0).is_some_and(|stride| *stride < 0);
        let negated = |form: &cpu::Affine| {
            let mut negative = cpu::Affine::constant(limit - 1 - form.constant);
            form.terms.iter().for_each(|&(counter, factor)| negative.add_term(counter, -factor));
            negative
        };
        if falls {
            // 0 <= v < limit  is  0 <= limit - 1 - v < limit
            value = negated(&value);
            strides.iter_mut().for_each(|stride| *stride = -*stride);
        }
        let other_end = conditions.iter_mut().find(|known| {
            known.strides == strides && known.limit == limit && known.value.terms == value.terms
        });
        match other_end {
            // A form that is at least `-a` and less than `limit - b`, where `a` and `b` are small beside the limit.
            Some(known) => {
                let (low, high) =
                    (known.value.constant.min(value.constant), known.value.constant.max(value.constant));
                known.limit = limit - (high - low);
                known.value.constant = low;
            }
            None => conditions.push(cpu::Condition { value, strides, limit }),
        }
    }
    Some(conditions)
}

/// The condition that leaves out the last terms of a sum: a form over the levels that is nowhere negative, below a limit.
fn tail_condition(emitter: &mut Emitter, found: &Match, conjunct: ExprId) -> Option<cpu::Condition> {
    let below = emitter.pool.below(conjunct)?;
    let (value, levels) = emitter.counters_and_strides(&below.terms, &found.loops[..found.levels])?;
    Some(cpu::Condition { value, strides: [vec![0, 0], levels].concat(), limit: below.bound })
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

fn transform(emitter: &mut Emitter, wanted: &Instruction, found: &Match) -> Result<cpu::Node, String> {
    let Shape::Transform(matrix, sides) = wanted.value else { return Err("its value has no matrix".into()) };
    let (x, x_strides) = operand(emitter, found, &found.operands[0])?;
    let (y, y_strides) = operand(emitter, found, &found.result)?;
    let limits = emitter.limits(&found.conditions, &found.loops);
    // The loops over what is read and over the results; a tile that is a row has none over rows.
    let (x_rows, x_columns, tiles, y_rows, y_columns) = match sides {
        Sides::Both => (Some(0), 1, 2, Some(3), 4),
        Sides::Row => (None, 0, 1, None, 2),
    };
    let along = |strides: &[i64], rows: Option<usize>| rows.map_or(0, |rows| strides[rows]);
    let &[.., l] = found.loops.as_slice() else { return Err("it has no loop over channels".into()) };
    let whole = limits.trips.iter().enumerate().all(|(place, bounds)| place == tiles || bounds.is_empty());
    if !(limits.rest.is_empty() && whole) {
        return Err("it runs under a condition that is not a limit of its tiles".into());
    }
    let guard = read_conditions(emitter, found, |strides| {
        Some(vec![strides[tiles], along(strides, x_rows), strides[x_columns]])
    });
    let guard = guard.ok_or("it reads under a condition that is not affine")?;
    let on_columns = guard.iter().filter(|condition| condition.strides[1] == 0 && condition.strides[2] != 0);
    let on_columns = on_columns.count();
    if on_columns > 1 || guard.len() - on_columns > 1 {
        return Err("it reads under several conditions on its rows or on its columns".into());
    }
    let call = cpu::Call::Transform(cpu::Transform {
        matrix,
        sides,
        x,
        x_row_stride: along(&x_strides, x_rows),
        x_col_stride: x_strides[x_columns],
        x_tile_stride: x_strides[tiles],
        y,
        y_row_stride: along(&y_strides, y_rows),
        y_col_stride: y_strides[y_columns],
        y_tile_stride: y_strides[tiles],
        tiles: emitter.trip(found.loops[tiles], limits.trips[tiles].clone()),
        lanes: emitter.pool.vars[l].extent,
        guard,
        accumulate: cpu::Accumulate::Always,
        finish: None,
    });
    Ok(emitter.under(limits.outside, cpu::Node::Call(call)))
}
