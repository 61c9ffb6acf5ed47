//! Sums that become bytes: scaled, rounded, moved and saturated by the tile that adds them up, of bytes or of a channel a column.

use super::{Folding, along, as_float, limits_of_bytes, paired, with_call};
use crate::expr::{BinaryOp, UnaryOp};
use paisley_kernels::program as cpu;

/// A read of a block.
type Read<'b> = (cpu::AccessId, &'b [i64]);

/// `min(max(round(f32(sum + start) * scale) + zero, low), high)` as a byte.
struct Steps<'b> {
    /// What is added up, in any order.
    sums: Vec<Read<'b>>,
    scale: Read<'b>,
    zero: f64,
    low: f64,
    high: f64,
}

impl Folding<'_> {
    /// The tile in `user`, making bytes of its sums as `follower` does, where nothing else uses them.
    pub(super) fn scaling(&mut self, user: &cpu::Node, follower: &cpu::Node) -> Option<cpu::Node> {
        let (writer, block) = (self.writer(user)?, self.block(follower)?);
        let cpu::Call::Tile(tile) = writer.call else { return None };
        let b = tile.b()?;
        let of_bytes = matches!(tile.terms, cpu::Terms::Dots { .. });
        if !(of_bytes || tile.a_col_stride == 1) || tile.scaled.is_some() || tile.finish.is_some() {
            return None;
        }
        let (store, ops) = block.call.ops.split_last()?;
        let cpu::BlockOp::Store { access, strides, value, combine, guard, mask: None } = store else {
            return None;
        };
        let buffer_of = |code: &cpu::Code, id: cpu::AccessId| code.accesses[id.index()].buffer;
        let sums = buffer_of(self.code, tile.c);
        let own = self.code.buffers[sums.index()].place == cpu::Place::Scratch && self.uses[&sums] == 2;
        let fresh = tile.accumulate == cpu::Accumulate::Never;
        if *combine != cpu::Combine::Replace || !(guard.is_empty() && own && fresh) {
            return None;
        }
        let Steps { sums: added, scale, zero, low, high } = steps(ops, *value, of_bytes)?;
        let (of_tile, start): (Vec<_>, Vec<_>) =
            added.into_iter().partition(|(access, _)| buffer_of(self.code, *access) == sums);
        let ([of_tile], [] | [_]) = (of_tile.as_slice(), start.as_slice()) else { return None };
        let pairs = paired(&writer, &block, &block.place(self.code, of_tile.0, of_tile.1))?;
        let results = block.place(self.code, *access, strides);
        let (form, [line, row, of_block]) = along(&writer, &pairs, &results)?;
        let (least, largest) = limits_of_bytes(self.code.buffers[results.buffer.index()].dtype)?;
        if !(least <= low && low <= high && high <= largest) {
            return None;
        }
        // What is read beside the sums is the same for all rows.
        let of_columns = |read: &Read<'_>| {
            let place = block.place(self.code, read.0, read.1);
            let (form, [line, row, of_block]) = along(&writer, &pairs, &place)?;
            ((line, row) == (0, 0)).then_some((place.buffer, form, of_block))
        };
        let start = match start.first() {
            Some(read) => Some(of_columns(read)?),
            None => None,
        };
        let single = scale.1.iter().all(|stride| *stride == 0);
        let scale = if single {
            let place = block.place(self.code, scale.0, scale.1);
            (place.buffer, place.base, None)
        } else {
            let (buffer, form, of_block) = of_columns(&scale)?;
            (buffer, form, Some(of_block))
        };
        if [tile.a, b].iter().any(|id| buffer_of(self.code, *id) == results.buffer) {
            return None;
        }
        let scaled = cpu::Scaled {
            start: start.map(|(buffer, form, of_block)| (self.code.access(buffer, form), of_block)),
            scale: self.code.access(scale.0, scale.1),
            scale_block_stride: scale.2,
            zero: cpu::Literal::Float(zero),
            low: cpu::Literal::Float(low),
            high: cpu::Literal::Float(high),
        };
        let mut tile = tile.clone();
        tile.scaled = Some(scaled);
        (tile.c_line_stride, tile.c_row_stride, tile.c_block_stride) = (line, row, of_block);
        tile.c = self.code.access(results.buffer, form);
        // Nothing is left there.
        self.code.buffers[sums.index()].length = 0;
        Some(with_call(user, &cpu::Call::Tile(tile)))
    }
}

/// What a straight-line program computes in `value`, if it is bytes of scaled sums, which are i32 or f32, and nothing else.
fn steps(ops: &[cpu::BlockOp], value: cpu::Register, of_integers: bool) -> Option<Steps<'_>> {
    let set_by = |register: cpu::Register| ops.iter().find(|op| op.result() == Some(register));
    let constant = |register: cpu::Register| match set_by(register) {
        Some(cpu::BlockOp::Constant { value, .. }) => Some(as_float(*value)),
        _other => None,
    };
    let read = |register: cpu::Register| match set_by(register) {
        Some(cpu::BlockOp::Load { access, strides, guard, .. }) if guard.is_empty() => {
            Some((*access, strides.as_slice()))
        }
        _other => None,
    };
    let with_constant = |register: cpu::Register, wanted: BinaryOp| match set_by(register) {
        Some(cpu::BlockOp::Binary { op, a, b, .. }) if *op == wanted => {
            constant(*b).map(|of_b| (*a, of_b)).or(constant(*a).map(|of_a| (*b, of_a)))
        }
        _other => None,
    };
    let cpu::BlockOp::Cast { x, .. } = set_by(value)? else { return None };
    let (limited, high) = with_constant(*x, BinaryOp::Min)?;
    let (moved, low) = with_constant(limited, BinaryOp::Max)?;
    let (rounded, zero) = with_constant(moved, BinaryOp::Add).unwrap_or((moved, 0.0));
    let cpu::BlockOp::Unary { op: UnaryOp::Round, x, .. } = set_by(rounded)? else { return None };
    let cpu::BlockOp::Binary { op: BinaryOp::Mul, a, b, .. } = set_by(*x)? else { return None };
    let (float, scale) = read(*b).map(|scale| (*a, scale)).or(read(*a).map(|scale| (*b, scale)))?;
    let sum = match set_by(float)? {
        cpu::BlockOp::Cast { x, .. } if of_integers => *x,
        _other if of_integers => return None,
        _sum => float,
    };
    let sums = match set_by(sum)? {
        cpu::BlockOp::Binary { op: BinaryOp::Add, a, b, .. } => vec![read(*a)?, read(*b)?],
        _read => vec![read(sum)?],
    };
    Some(Steps { sums, scale, zero, low, high })
}
