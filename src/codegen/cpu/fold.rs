//! Blocks that the call of a micro-kernel beside them makes superfluous: zeros before a call that could overwrite instead of adding
//! to them, and the copy of a call's result to where the call could write.

use paisley_kernels::program as cpu;

/// Drops fills of zeros and copies around tiles and transforms.
pub(super) fn fold(code: &mut cpu::Code) {
    let mut body = std::mem::take(&mut code.body);
    in_loops(&mut body, &mut |body| fold_zeros(code, body));
    let uses = uses(code, &body);
    in_loops(&mut body, &mut |body| fold_copies(code, &uses, body));
    code.body = body;
}

/// Calls `change` with the body of every loop, inner ones first.
fn in_loops(nodes: &mut [cpu::Node], change: &mut impl FnMut(&mut Vec<cpu::Node>)) {
    for node in nodes {
        match node {
            cpu::Node::Loop(of) => {
                in_loops(&mut of.body, change);
                change(&mut of.body);
            }
            cpu::Node::Call(_) => {}
        }
    }
}

/// Drops a fill of zeros directly before a call that adds to them all, which overwrites instead.
fn fold_zeros(code: &cpu::Code, body: &mut Vec<cpu::Node>) {
    let mut place = 0;
    while place + 1 < body.len() {
        let filled = match &mut body[place..place + 2] {
            [fill, user] => overwrite(code, fill, user),
            _fewer => false,
        };
        if filled {
            body.remove(place);
        }
        place += 1;
    }
}

/// Drops a copy directly after a call that writes what is copied, and writes where it is copied to instead.
fn fold_copies(code: &mut cpu::Code, uses: &[usize], body: &mut Vec<cpu::Node>) {
    let mut place = 0;
    while place + 1 < body.len() {
        let written = match &mut body[place..place + 2] {
            [user, copy] => write_there(code, uses, user, copy),
            _fewer => false,
        };
        if written {
            body.remove(place + 1);
        }
        place += 1;
    }
}

/// A block and a call in loops that run side by side.
struct Pair<'a> {
    block: &'a cpu::Block,
    call: &'a mut cpu::Call,
    /// The counters of the loops around both: the block's and the call's.
    counters: Vec<(cpu::CounterId, cpu::CounterId)>,
    /// The further loops around the block.
    own: Vec<(cpu::CounterId, cpu::Trip)>,
}

impl Pair<'_> {
    fn new<'a>(block: &'a cpu::Node, call: &'a mut cpu::Node) -> Option<Pair<'a>> {
        let (mut counters, mut own) = (vec![], vec![]);
        let (mut block, mut call) = (block, call);
        loop {
            match (block, call) {
                (cpu::Node::Loop(of_block), cpu::Node::Loop(of_call)) => {
                    let ([inner], [inner_call], true) = (
                        of_block.body.as_slice(),
                        of_call.body.as_mut_slice(),
                        of_block.trip == of_call.trip,
                    ) else {
                        return None;
                    };
                    counters.push((of_block.counter, of_call.counter));
                    (block, call) = (inner, inner_call);
                }
                (cpu::Node::Loop(of_block), same @ cpu::Node::Call(_)) => {
                    let [inner] = of_block.body.as_slice() else { return None };
                    own.push((of_block.counter, of_block.trip.clone()));
                    (block, call) = (inner, same);
                }
                (cpu::Node::Call(cpu::Call::Block(block)), cpu::Node::Call(call)) => {
                    return Some(Pair { block, call, counters, own });
                }
                (cpu::Node::Call(_), _) => return None,
            }
        }
    }

    /// The extents of the block: its further loops, then its dimensions.
    fn extents(&self) -> Vec<cpu::Trip> {
        self.own.iter().map(|(_, trip)| trip.clone()).chain(self.block.dims.iter().cloned()).collect()
    }

    /// Where an access of the block begins, over the counters around the call, and its strides over the block's extents.
    fn view(&self, code: &cpu::Code, access: cpu::AccessId, strides: &[i64]) -> (cpu::Access, Vec<i64>) {
        let cpu::Access { buffer, offset } = &code.accesses[access.index()];
        let mut start = cpu::Affine::constant(offset.constant);
        let mut all = vec![0; self.own.len()];
        for &(counter, factor) in &offset.terms {
            match self.own.iter().position(|(own, _)| *own == counter) {
                Some(place) => all[place] = factor,
                None => {
                    let pair = self.counters.iter().find(|(of_block, _)| *of_block == counter);
                    start.add_term(pair.map_or(counter, |&(_, of_call)| of_call), factor);
                }
            }
        }
        all.extend(strides);
        (sorted(cpu::Access { buffer: *buffer, offset: start }), all)
    }
}

/// The access with its terms in the order of the counters.
fn sorted(mut access: cpu::Access) -> cpu::Access {
    access.offset.terms.sort_by_key(|&(counter, _)| counter);
    access
}

/// What a call writes, and how.
struct Target<'a> {
    access: &'a mut cpu::AccessId,
    /// Extents and, but for the last one, whose elements are next to one another, their strides.
    extents: Vec<cpu::Trip>,
    strides: Vec<&'a mut i64>,
    accumulate: &'a mut cpu::Accumulate,
    /// What the call reads.
    operands: Vec<cpu::AccessId>,
}

impl Target<'_> {
    fn of(call: &mut cpu::Call) -> Option<Target<'_>> {
        match call {
            cpu::Call::Tile(tile) => Some(Target {
                access: &mut tile.c,
                extents: vec![tile.rows.clone(), cpu::Trip::Constant(tile.blocks), tile.cols.clone()],
                strides: vec![&mut tile.c_row_stride, &mut tile.c_block_stride],
                accumulate: &mut tile.accumulate,
                operands: vec![tile.a, tile.b],
            }),
            cpu::Call::Transform(transform) => {
                let side = cpu::Trip::Constant(transform.matrix.rows().len());
                let lanes = cpu::Trip::Constant(transform.lanes);
                Some(Target {
                    access: &mut transform.y,
                    extents: vec![transform.tiles.clone(), side.clone(), side, lanes],
                    strides: vec![
                        &mut transform.y_tile_stride,
                        &mut transform.y_row_stride,
                        &mut transform.y_col_stride,
                    ],
                    accumulate: &mut transform.accumulate,
                    operands: vec![transform.x],
                })
            }
            cpu::Call::Window(_) | cpu::Call::Block(_) => None,
        }
    }

    /// Its strides over all extents.
    fn strides(&self) -> Vec<i64> {
        self.strides.iter().map(|stride| **stride).chain([1]).collect()
    }
}

/// The extents of several iterations with their strides, those inside first.
fn long(extents: &[cpu::Trip], strides: &[i64]) -> Vec<(cpu::Trip, i64)> {
    let all = extents.iter().cloned().zip(strides.iter().copied());
    let mut long: Vec<_> = all.filter(|(trip, _)| *trip != cpu::Trip::Constant(1)).collect();
    long.sort_by_key(|(_, stride)| *stride);
    long
}

/// Lets the call in `user` overwrite what it adds to where `fill` writes zeros to exactly that; whether it does. Both may be in
/// loops.
fn overwrite(code: &cpu::Code, fill: &cpu::Node, user: &mut cpu::Node) -> bool {
    let Some(pair) = Pair::new(fill, user) else { return false };
    let [
        cpu::BlockOp::Constant { to, value: cpu::Literal::Float(0.0) },
        cpu::BlockOp::Store { access, strides, value, combine: cpu::Combine::Replace, guard, mask: None },
    ] = pair.block.ops.as_slice()
    else {
        return false;
    };
    let (filled, fill_strides) = pair.view(code, *access, strides);
    let extents = pair.extents();
    let Some(target) = Target::of(pair.call) else { return false };
    let zeroed = value == to
        && guard.is_empty()
        && *target.accumulate == cpu::Accumulate::Always
        && filled == sorted(code.accesses[target.access.index()].clone())
        && long(&extents, &fill_strides) == long(&target.extents, &target.strides());
    if zeroed {
        *target.accumulate = cpu::Accumulate::Never;
    }
    zeroed
}

/// Lets the call in `user` write where `copy` copies its result to, if that is all that `copy` does and nothing else touches the
/// result, which is in scratch memory; whether it does. Both may be in loops.
fn write_there(code: &mut cpu::Code, uses: &[usize], user: &mut cpu::Node, copy: &cpu::Node) -> bool {
    let Some(pair) = Pair::new(copy, user) else { return false };
    let [
        cpu::BlockOp::Load { to, access: from, strides: from_strides, guard: from_guard },
        cpu::BlockOp::Store {
            access: there,
            strides: there_strides,
            value,
            combine: cpu::Combine::Replace,
            guard: there_guard,
            mask: None,
        },
    ] = pair.block.ops.as_slice()
    else {
        return false;
    };
    let (from, from_strides) = pair.view(code, *from, from_strides);
    let (there, there_strides) = pair.view(code, *there, there_strides);
    let extents = pair.extents();
    let Some(mut target) = Target::of(pair.call) else { return false };
    let buffer = |access: &cpu::AccessId| code.accesses[access.index()].buffer;
    let plain = value == to && from_guard.is_empty() && there_guard.is_empty();
    // The call and the copy are the uses of the result.
    let private =
        code.buffers[from.buffer.index()].place == cpu::Place::Scratch && uses[from.buffer.index()] == 2;
    let apart = target.operands.iter().all(|operand| buffer(operand) != there.buffer);
    let strides = target.strides();
    let all_copied = *target.accumulate == cpu::Accumulate::Never
        && from == sorted(code.accesses[target.access.index()].clone())
        && long(&extents, &from_strides) == long(&target.extents, &strides);
    if !(plain && private && apart && all_copied) {
        return false;
    }
    // Of extents of several iterations, no two have the same stride in the result.
    let moved: Vec<i64> = target
        .extents
        .iter()
        .zip(&strides)
        .map(|(extent, stride)| {
            let place = (0..extents.len()).find(|&at| extents[at] == *extent && from_strides[at] == *stride);
            place.map_or(*stride, |at| there_strides[at])
        })
        .collect();
    if moved.last() != Some(&1) || !are_apart(&target.extents, &moved) {
        return false;
    }
    for (stride, moved) in target.strides.iter_mut().zip(moved) {
        **stride = moved;
    }
    let result = from.buffer;
    *target.access = code.access(there.buffer, there.offset);
    // Nothing is left there.
    code.buffers[result.index()].length = 0;
    true
}

/// Whether no two elements are at the same place.
fn are_apart(extents: &[cpu::Trip], strides: &[i64]) -> bool {
    let mut dims: Vec<(u64, u64)> = extents
        .iter()
        .zip(strides)
        .map(|(trip, stride)| (stride.unsigned_abs(), trip.max() as u64))
        .collect();
    dims.retain(|(_, count)| *count > 1);
    dims.sort_unstable();
    let mut inside = 0u64;
    dims.into_iter().all(|(stride, count)| {
        let beyond = stride > inside;
        inside = inside.saturating_add(stride.saturating_mul(count - 1));
        beyond
    })
}

/// How many accesses of calls there are to each buffer.
fn uses(code: &cpu::Code, body: &[cpu::Node]) -> Vec<usize> {
    fn count(code: &cpu::Code, nodes: &[cpu::Node], uses: &mut [usize]) {
        for node in nodes {
            match node {
                cpu::Node::Loop(of) => count(code, &of.body, uses),
                cpu::Node::Call(call) => {
                    for buffer in touched(code, call) {
                        uses[buffer.index()] += 1;
                    }
                }
            }
        }
    }
    let mut uses = vec![0; code.buffers.len()];
    count(code, body, &mut uses);
    uses
}

/// The buffers a call touches, once for each access.
fn touched(code: &cpu::Code, call: &cpu::Call) -> Vec<cpu::BufferId> {
    let buffers = |accesses: &[cpu::AccessId]| {
        accesses.iter().map(|access| code.accesses[access.index()].buffer).collect()
    };
    match call {
        cpu::Call::Tile(tile) => buffers(&[tile.a, tile.b, tile.c]),
        cpu::Call::Transform(transform) => buffers(&[transform.x, transform.y]),
        cpu::Call::Window(window) => match window.kind {
            cpu::WindowKind::Depthwise { weights, start, .. } => {
                buffers(&[window.x, window.y, weights, start])
            }
            cpu::WindowKind::Max | cpu::WindowKind::Sum => buffers(&[window.x, window.y]),
        },
        cpu::Call::Block(block) => block
            .ops
            .iter()
            .filter_map(|op| match op {
                cpu::BlockOp::Load { access, .. } | cpu::BlockOp::Store { access, .. } => {
                    Some(code.accesses[access.index()].buffer)
                }
                cpu::BlockOp::Gather { buffer, .. } | cpu::BlockOp::Scatter { buffer, .. } => Some(*buffer),
                cpu::BlockOp::Constant { .. }
                | cpu::BlockOp::Index { .. }
                | cpu::BlockOp::Unary { .. }
                | cpu::BlockOp::Binary { .. }
                | cpu::BlockOp::MultiplyAdd { .. }
                | cpu::BlockOp::Select { .. }
                | cpu::BlockOp::Cast { .. } => None,
            })
            .collect(),
    }
}
