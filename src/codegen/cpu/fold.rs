//! What stands around a tile, done by the tile itself: the zeros that it adds to or what else changes nothing, what follows its sums,
//! and the loop around it.
//! Transforms overwrite zeros and finish their sums likewise.

mod scale;

use crate::expr::BinaryOp;
use paisley_kernels::Activation;
use paisley_kernels::program as cpu;
use std::collections::BTreeMap;

/// Folds zeros, what follows and loops into the tiles and transforms of a program.
pub(super) fn fold(code: &mut cpu::Code) {
    let mut body = std::mem::take(&mut code.body);
    let uses = uses(code, &body);
    let mut folding = Folding { code, uses };
    for phase in &mut body {
        folding.node(phase);
    }
    code.body = body;
}

struct Folding<'a> {
    code: &'a mut cpu::Code,
    /// How many operands of calls are in each buffer.
    uses: BTreeMap<cpu::BufferId, usize>,
}

impl Folding<'_> {
    fn node(&mut self, node: &mut cpu::Node) {
        let cpu::Node::Loop(of) = node else { return };
        for node in &mut of.body {
            self.node(node);
        }
        self.pairs(&mut of.body, |folding, fill, tile| folding.overwriting(fill, tile));
        self.pairs(&mut of.body, |folding, tile, block| {
            folding.finishing(tile, block).or_else(|| folding.scaling(tile, block))
        });
        for node in &mut of.body {
            if let Some(tile) = self.with_lines(node) {
                *node = tile;
            }
        }
    }

    /// The tile that goes through the iterations of the innermost loop around it by itself, if that loop has nothing else in it.
    fn with_lines(&mut self, node: &cpu::Node) -> Option<cpu::Node> {
        let cpu::Node::Loop(cpu::Loop { counter, trip, parallel: false, body }) = node else { return None };
        let [inner] = body.as_slice() else { return None };
        let cpu::Node::Call(cpu::Call::Tile(tile)) = inner else {
            let inner = self.with_lines(inner)?;
            let body = vec![inner];
            return Some(cpu::Node::Loop(cpu::Loop {
                counter: *counter,
                trip: trip.clone(),
                parallel: false,
                body,
            }));
        };
        let coefficient = |form: &cpu::Affine| {
            form.terms.iter().find(|(known, _)| known == counter).map_or(0, |(_, factor)| *factor)
        };
        let bounded_by_counter = |trip: &cpu::Trip| match trip {
            cpu::Trip::Constant(_) => false,
            cpu::Trip::Bounded { max: _, bounds } => {
                bounds.iter().any(|bound| coefficient(&bound.value) != 0)
            }
        };
        let trips = [&tile.rows, &tile.cols].into_iter().chain(tile.depths.iter().map(|level| &level.trip));
        let rounds_differ = match &tile.accumulate {
            cpu::Accumulate::Never | cpu::Accumulate::Always => false,
            cpu::Accumulate::UnlessZero(form) => coefficient(form) != 0,
        };
        if tile.lines != ONCE || rounds_differ || trips.into_iter().any(bounded_by_counter) {
            return None;
        }
        let without = |form: &cpu::Affine| {
            let mut form = form.clone();
            form.terms.retain(|(known, _)| known != counter);
            form
        };
        let mut moved = |id: cpu::AccessId| {
            let cpu::Access { buffer, offset } = self.code.accesses[id.index()].clone();
            (self.code.access(buffer, without(&offset)), coefficient(&offset))
        };
        let mut lined = tile.clone();
        lined.lines = trip.clone();
        (lined.a, lined.a_line_stride) = moved(tile.a);
        (lined.c, lined.c_line_stride) = moved(tile.c);
        let mut fixed = tile.b().is_none_or(|b| moved(b).1 == 0);
        if let Some(scaled) = tile.scaled {
            fixed &= scaled.start.is_none_or(|(start, _)| moved(start).1 == 0) && moved(scaled.scale).1 == 0;
        }
        if let Some(finish) = &mut lined.finish {
            fixed &= finish.start.is_none_or(|(start, _)| moved(start).1 == 0);
            if let Some((addend, [line, ..])) = &mut finish.addend {
                (*addend, *line) = moved(*addend);
            }
        }
        for condition in &mut lined.guard {
            condition.strides[0] = coefficient(&condition.value);
            condition.value.terms.retain(|(known, _)| known != counter);
        }
        fixed.then_some(cpu::Node::Call(cpu::Call::Tile(lined)))
    }

    /// Replaces neighbours by what `both` makes of them.
    fn pairs(
        &mut self,
        body: &mut Vec<cpu::Node>,
        both: impl Fn(&mut Self, &cpu::Node, &cpu::Node) -> Option<cpu::Node>,
    ) {
        let mut at = 0;
        while at + 1 < body.len() {
            if let Some(one) = both(self, &body[at], &body[at + 1]) {
                body.splice(at..at + 2, [one]);
            }
            at += 1;
        }
    }

    /// The call in `user`, overwriting what it adds to, where `fill` writes to exactly that what changes nothing.
    fn overwriting(&mut self, fill: &cpu::Node, user: &cpu::Node) -> Option<cpu::Node> {
        let writer = self.writer(user)?;
        let block = self.block(fill)?;
        let [
            cpu::BlockOp::Constant { to, value: constant },
            cpu::BlockOp::Store { access, strides, value, combine: cpu::Combine::Replace, guard, mask: None },
        ] = block.call.ops.as_slice()
        else {
            return None;
        };
        let filled = block.place(self.code, *access, strides);
        let mut call = writer.call.clone();
        let target = Target::of(&mut call)?;
        let dtype = self.code.buffers[filled.buffer.index()].dtype;
        let least = limits_of_bytes(dtype).map_or(f64::NEG_INFINITY, |(least, _)| least);
        let fits = value == to
            && as_float(*constant) == target.nothing.max(least)
            && guard.is_empty()
            && *target.accumulate == cpu::Accumulate::Always;
        *target.accumulate = cpu::Accumulate::Never;
        paired(&writer, &block, &filled).filter(|_| fits)?;
        let buffer = filled.buffer;
        self.uses.entry(buffer).and_modify(|uses| *uses -= 1);
        Some(with_call(user, &call))
    }

    /// The call in `user`, doing itself what `follower` does with its results, where nothing else uses them.
    fn finishing(&mut self, user: &cpu::Node, follower: &cpu::Node) -> Option<cpu::Node> {
        let writer = self.writer(user)?;
        let block = self.block(follower)?;
        let mut call = writer.call.clone();
        let target = Target::of(&mut call)?;
        let (ops, tail) = block.call.ops.split_at(block.call.ops.len().checked_sub(1)?);
        let [
            cpu::BlockOp::Store { access, strides, value, combine: cpu::Combine::Replace, guard, mask: None },
        ] = tail
        else {
            return None;
        };
        let fresh =
            *target.accumulate == cpu::Accumulate::Never && target.finish.is_none() && target.finishes;
        let sums = self.code.accesses[target.access.index()].buffer;
        let own = self.code.buffers[sums.index()].place == cpu::Place::Scratch && self.uses[&sums] == 2;
        if !(fresh && own && guard.is_empty()) {
            return None;
        }
        let steps = steps(ops, *value)?;
        let [mut of_sums, mut start, mut addend] = [None, None, None];
        let mut divisor = 1.0;
        for Addend { access, strides, over } in steps.addends {
            let place = block.place(self.code, access, strides);
            if place.buffer == sums {
                (of_sums, divisor) = (Some(place), over);
            } else if over != 1.0 {
                return None;
            } else {
                // What is the same for all rows is where the sums start.
                let rows_differ = addend.is_none() && start.is_some();
                *(if rows_differ { &mut addend } else { &mut start }) = Some(place);
            }
        }
        let pairs = paired(&writer, &block, &of_sums?)?;
        let results = block.place(self.code, *access, strides);
        let along = |place: &Place| along(&writer, &pairs, place);
        let (form, moved) = along(&results)?;
        let [start, addend] = match [start.as_ref(), addend.as_ref()].map(|place| place.map(along)) {
            [Some(None), _] | [_, Some(None)] => return None,
            [a, b] => {
                let (a, b) = (a.flatten(), b.flatten());
                let starts = |of: &Option<(cpu::Affine, [i64; 3])>| {
                    of.as_ref().is_none_or(|(_, [line, row, block])| {
                        (*line, *row) == (0, 0) && (target.starts_differ || *block == 0)
                    })
                };
                if starts(&a) {
                    [a.zip(start), b.zip(addend)]
                } else if starts(&b) {
                    [b.zip(addend), a.zip(start)]
                } else {
                    return None;
                }
            }
        };
        let read: Vec<_> = target.operands.iter().map(|id| self.code.accesses[id.index()].buffer).collect();
        let added = [&start, &addend].into_iter().flatten().map(|(_, place)| place.buffer);
        if read.into_iter().chain(added).any(|buffer| buffer == results.buffer) {
            return None;
        }
        let start = start.map(|((form, [_, _, block]), place)| (self.code.access(place.buffer, form), block));
        let addend = addend.map(|((form, strides), place)| (self.code.access(place.buffer, form), strides));
        let plain = cpu::Finish { start: None, addend: None, low: FREE.0, high: FREE.1, activation: None };
        let Steps { low, high, activation, .. } = steps;
        let finish_by = cpu::Finish { start, addend, low, high, activation };
        *target.finish = (finish_by != plain).then_some(finish_by);
        match target.divisor {
            Some(by) => *by = cpu::Literal::Float(divisor),
            None if divisor == 1.0 => {}
            None => return None,
        }
        for (stride, moved) in target.strides.into_iter().zip(moved) {
            *stride = moved;
        }
        *target.access = self.code.access(results.buffer, form);
        // Nothing is left there.
        self.code.buffers[sums.index()].length = 0;
        Some(with_call(user, &call))
    }

    fn writer<'n>(&self, node: &'n cpu::Node) -> Option<InLoops<'n, cpu::Call>> {
        let (loops, call) = chain(node)?;
        let mut copy = call.clone();
        let target = Target::of(&mut copy)?;
        let mut found = InLoops { loops, call, dims: target.dims.to_vec(), target: Place::default() };
        let strides: Vec<i64> = target.strides.iter().map(|stride| **stride).chain([1]).collect();
        found.target = found.place(self.code, *target.access, &strides);
        Some(found)
    }

    fn block<'n>(&self, node: &'n cpu::Node) -> Option<InLoops<'n, cpu::Block>> {
        let (loops, cpu::Call::Block(call)) = chain(node)? else { return None };
        Some(InLoops { loops, call, dims: call.dims.clone(), target: Place::default() })
    }
}

/// A call in loops that have nothing else in them.
struct InLoops<'n, T> {
    /// Outermost first.
    loops: Vec<(cpu::CounterId, &'n cpu::Trip)>,
    call: &'n T,
    /// The dimensions of the call.
    dims: Vec<cpu::Trip>,
    /// What a tile or a transform writes.
    target: Place,
}

/// The elements of an access: where it is outside of the loops, and the stride over each loop and each dimension of the call.
struct Place {
    buffer: cpu::BufferId,
    base: cpu::Affine,
    strides: Vec<i64>,
}

impl Default for Place {
    fn default() -> Place {
        Place { buffer: cpu::BufferId(0), base: cpu::Affine::default(), strides: vec![] }
    }
}

impl<T> InLoops<'_, T> {
    fn place(&self, code: &cpu::Code, access: cpu::AccessId, own: &[i64]) -> Place {
        let cpu::Access { buffer, offset } = &code.accesses[access.index()];
        let stride = |counter: cpu::CounterId| {
            offset.terms.iter().find(|(known, _)| *known == counter).map_or(0, |(_, stride)| *stride)
        };
        let strides = self.loops.iter().map(|(counter, _)| stride(*counter)).chain(own.iter().copied());
        let inside = |counter: cpu::CounterId| self.loops.iter().any(|(known, _)| *known == counter);
        let mut base = offset.clone();
        base.terms.retain(|(counter, _)| !inside(*counter));
        base.terms.sort_by_key(|(counter, _)| *counter);
        Place { buffer: *buffer, base, strides: strides.collect() }
    }

    fn trips(&self) -> impl Iterator<Item = &cpu::Trip> {
        self.loops.iter().map(|(_, trip)| *trip).chain(&self.dims)
    }
}

/// The loops around a call, where each has one statement, and the call.
fn chain(node: &cpu::Node) -> Option<(Vec<(cpu::CounterId, &cpu::Trip)>, &cpu::Call)> {
    let (mut loops, mut at) = (vec![], node);
    loop {
        match at {
            cpu::Node::Call(call) => return Some((loops, call)),
            cpu::Node::Loop(of) => {
                let [inner] = of.body.as_slice() else { return None };
                loops.push((of.counter, &of.trip));
                at = inner;
            }
        }
    }
}

/// `node` with its call replaced.
fn with_call(node: &cpu::Node, call: &cpu::Call) -> cpu::Node {
    match node {
        cpu::Node::Call(_) => cpu::Node::Call(call.clone()),
        cpu::Node::Loop(of) => {
            let body = of.body.iter().map(|inner| with_call(inner, call)).collect();
            cpu::Node::Loop(cpu::Loop { body, ..of.clone() })
        }
    }
}

/// What a call writes, and how.
struct Target<'a> {
    access: &'a mut cpu::AccessId,
    /// Lines, rows, blocks of columns and columns; or tiles, rows, columns and channels.
    dims: [cpu::Trip; 4],
    /// Those of all dimensions but the last one, whose elements are next to one another.
    strides: [&'a mut i64; 3],
    accumulate: &'a mut cpu::Accumulate,
    /// What changes no result that it is combined with.
    nothing: f64,
    /// What the results are divided by, where they can be.
    divisor: Option<&'a mut cpu::Literal>,
    /// What else it does with its results.
    finish: &'a mut Option<cpu::Finish>,
    /// Whether it can do anything else with them.
    finishes: bool,
    /// Whether blocks of columns may start from different values.
    starts_differ: bool,
    /// What it reads.
    operands: Vec<cpu::AccessId>,
}

impl Target<'_> {
    fn of(call: &mut cpu::Call) -> Option<Target<'_>> {
        match call {
            cpu::Call::Tile(tile) => Some(Target {
                finishes: !matches!(tile.terms, cpu::Terms::Dots { .. }),
                operands: [tile.a].into_iter().chain(tile.b()).collect(),
                nothing: match tile.terms {
                    cpu::Terms::Products { .. } | cpu::Terms::Dots { .. } | cpu::Terms::Sum { .. } => 0.0,
                    cpu::Terms::Largest => f64::NEG_INFINITY,
                },
                divisor: match &mut tile.terms {
                    cpu::Terms::Sum { divisor } => Some(divisor),
                    cpu::Terms::Products { .. } | cpu::Terms::Dots { .. } | cpu::Terms::Largest => None,
                },
                access: &mut tile.c,
                dims: [
                    tile.lines.clone(),
                    tile.rows.clone(),
                    cpu::Trip::Constant(tile.blocks),
                    tile.cols.clone(),
                ],
                strides: [&mut tile.c_line_stride, &mut tile.c_row_stride, &mut tile.c_block_stride],
                accumulate: &mut tile.accumulate,
                finish: &mut tile.finish,
                starts_differ: true,
            }),
            cpu::Call::Transform(transform) => {
                let columns = transform.matrix.rows().len();
                let [rows, columns] = [transform.sides.rows(columns), columns].map(cpu::Trip::Constant);
                Some(Target {
                    access: &mut transform.y,
                    dims: [transform.tiles.clone(), rows, columns, cpu::Trip::Constant(transform.lanes)],
                    strides: [
                        &mut transform.y_tile_stride,
                        &mut transform.y_row_stride,
                        &mut transform.y_col_stride,
                    ],
                    accumulate: &mut transform.accumulate,
                    nothing: 0.0,
                    divisor: None,
                    finish: &mut transform.finish,
                    finishes: true,
                    starts_differ: false,
                    operands: vec![transform.x],
                })
            }
            cpu::Call::Window(_) | cpu::Call::Block(_) => None,
        }
    }
}

/// The limits that let every value be.
const FREE: (cpu::Literal, cpu::Literal) =
    (cpu::Literal::Float(f64::NEG_INFINITY), cpu::Literal::Float(f64::INFINITY));

/// The least and the largest value of a type of bytes.
fn limits_of_bytes(dtype: cpu::ElementType) -> Option<(f64, f64)> {
    match dtype {
        cpu::ElementType::U8 => Some((0.0, f64::from(u8::MAX))),
        cpu::ElementType::I8 => Some((f64::from(i8::MIN), f64::from(i8::MAX))),
        cpu::ElementType::F16
        | cpu::ElementType::BF16
        | cpu::ElementType::F32
        | cpu::ElementType::F64
        | cpu::ElementType::I16
        | cpu::ElementType::I32
        | cpu::ElementType::I64
        | cpu::ElementType::U16
        | cpu::ElementType::U32
        | cpu::ElementType::U64
        | cpu::ElementType::Bool => None,
    }
}

fn as_float(literal: cpu::Literal) -> f64 {
    match literal {
        cpu::Literal::Float(value) => value,
        cpu::Literal::Int(value) => value as f64,
    }
}

const ONCE: cpu::Trip = cpu::Trip::Constant(1);

/// For each loop and dimension of the call, the one of the block that goes through the same elements, where the call's results are
/// exactly the elements `of_block`; `None` for those of one iteration.
fn paired(
    writer: &InLoops<cpu::Call>,
    block: &InLoops<cpu::Block>,
    of_block: &Place,
) -> Option<Vec<Option<usize>>> {
    let target = &writer.target;
    if (target.buffer, &target.base) != (of_block.buffer, &of_block.base) {
        return None;
    }
    let of_block: Vec<_> = block.trips().zip(&of_block.strides).collect();
    let mut free: Vec<bool> = of_block.iter().map(|(trip, _)| **trip != ONCE).collect();
    let mut pairs = vec![];
    for (trip, stride) in writer.trips().zip(&target.strides) {
        // What runs once at most has no strides to speak of.
        let same = |(other, along): (&cpu::Trip, &i64)| {
            other == trip && (trip.max() == 1 || (*stride != 0 && along == stride))
        };
        pairs.push(if *trip == ONCE {
            None
        } else {
            let found = (0..free.len()).find(|&at| free[at] && same(of_block[at]))?;
            free[found] = false;
            Some(found)
        });
    }
    (!free.contains(&true)).then_some(pairs)
}

/// The elements of an access of the block as the call goes through them: the offset, and the strides of all dimensions but
/// the last; `None` where that one's are not next to one another.
fn along(
    writer: &InLoops<cpu::Call>,
    pairs: &[Option<usize>],
    place: &Place,
) -> Option<(cpu::Affine, [i64; 3])> {
    let strides: Vec<i64> = pairs.iter().map(|pair| pair.map_or(0, |at| place.strides[at])).collect();
    let (of_loops, &[line, row, block, column]) = strides.split_at(writer.loops.len()) else { return None };
    let mut form = place.base.clone();
    for (&(counter, _), &stride) in writer.loops.iter().zip(of_loops) {
        form.add_term(counter, stride);
    }
    (column == 1 || writer.dims[3] == ONCE).then_some((form, [line, row, block]))
}

/// `activation(clamp(sum of addends, low, high))`.
struct Steps<'b> {
    addends: Vec<Addend<'b>>,
    low: cpu::Literal,
    high: cpu::Literal,
    activation: Option<Activation>,
}

/// A read, divided by a constant.
struct Addend<'b> {
    access: cpu::AccessId,
    strides: &'b [i64],
    over: f64,
}

/// What a straight-line program computes in `value`, if it is the clamped sum of at most three reads or quotients of them, an
/// activation of that, and nothing else.
fn steps(ops: &[cpu::BlockOp], value: cpu::Register) -> Option<Steps<'_>> {
    let set_by = |register: cpu::Register| ops.iter().find(|op| op.result() == Some(register));
    let constant = |register: cpu::Register| match set_by(register) {
        Some(cpu::BlockOp::Constant { value: cpu::Literal::Float(value), .. }) => Some(*value),
        _other => None,
    };
    let [mut low, mut high] = [None, None];
    let (mut clamped, activation) = match set_by(value) {
        Some(cpu::BlockOp::Activate { activation, x, .. }) => (*x, Some(*activation)),
        _other => (value, None),
    };
    while let Some(cpu::BlockOp::Binary { op: op @ (BinaryOp::Max | BinaryOp::Min), a, b, .. }) =
        set_by(clamped)
    {
        let (x, limit) = constant(*b).map(|limit| (*a, limit)).or(constant(*a).map(|limit| (*b, limit)))?;
        let known = if *op == BinaryOp::Max { &mut low } else { &mut high };
        if limit.is_nan() || known.replace(limit).is_some() {
            return None;
        }
        clamped = x;
    }
    let (low, high) = (low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY));
    let (mut addends, mut left) = (vec![], vec![clamped]);
    while let Some(register) = left.pop() {
        let (read, over) = match set_by(register)? {
            cpu::BlockOp::Binary { op: BinaryOp::Add, a, b, .. } if addends.len() + left.len() < 3 => {
                left.extend([*a, *b]);
                continue;
            }
            cpu::BlockOp::Binary { op: BinaryOp::Div, a, b, .. } => (set_by(*a)?, constant(*b)?),
            other => (other, 1.0),
        };
        let cpu::BlockOp::Load { access, strides, guard, .. } = read else { return None };
        if !guard.is_empty() {
            return None;
        }
        addends.push(Addend { access: *access, strides, over });
    }
    let all_used = ops.iter().all(|op| {
        matches!(
            op,
            cpu::BlockOp::Load { .. }
                | cpu::BlockOp::Constant { .. }
                | cpu::BlockOp::Binary { .. }
                | cpu::BlockOp::Activate { .. }
        )
    });
    let [low_literal, high_literal] = [low, high].map(cpu::Literal::Float);
    let fits = all_used && low <= high && addends.len() <= 3;
    fits.then_some(Steps { addends, low: low_literal, high: high_literal, activation })
}

/// How many operands of calls are in each buffer.
fn uses(code: &cpu::Code, body: &[cpu::Node]) -> BTreeMap<cpu::BufferId, usize> {
    let mut uses = BTreeMap::new();
    let mut nodes: Vec<&cpu::Node> = body.iter().collect();
    while let Some(node) = nodes.pop() {
        let (mut accesses, mut buffers) = (vec![], vec![]);
        match node {
            cpu::Node::Loop(of) => nodes.extend(&of.body),
            cpu::Node::Call(cpu::Call::Tile(tile)) => {
                accesses.extend(tile.accesses());
            }
            cpu::Node::Call(cpu::Call::Transform(transform)) => accesses.extend(transform.accesses()),
            cpu::Node::Call(cpu::Call::Window(window)) => {
                accesses.extend([window.x, window.y]);
                if let cpu::WindowKind::Depthwise { weights, start, .. } = &window.kind {
                    accesses.extend([*weights, *start]);
                }
            }
            cpu::Node::Call(cpu::Call::Block(block)) => {
                for op in &block.ops {
                    match op {
                        cpu::BlockOp::Load { access, .. } | cpu::BlockOp::Store { access, .. } => {
                            accesses.push(*access);
                        }
                        cpu::BlockOp::Gather { buffer, .. } | cpu::BlockOp::Scatter { buffer, .. } => {
                            buffers.push(*buffer);
                        }
                        cpu::BlockOp::Constant { .. }
                        | cpu::BlockOp::Index { .. }
                        | cpu::BlockOp::Unary { .. }
                        | cpu::BlockOp::Activate { .. }
                        | cpu::BlockOp::Binary { .. }
                        | cpu::BlockOp::MultiplyAdd { .. }
                        | cpu::BlockOp::Select { .. }
                        | cpu::BlockOp::Cast { .. } => {}
                    }
                }
            }
        }
        buffers.extend(accesses.iter().map(|access| code.accesses[access.index()].buffer));
        for buffer in buffers {
            *uses.entry(buffer).or_default() += 1;
        }
    }
    uses
}
