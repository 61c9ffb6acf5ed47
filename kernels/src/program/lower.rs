//! From verified code to the form that the executor walks: offsets in bytes, dimensions merged, registers given places.

use std::collections::BTreeSet;

use super::affine::{Affine, Bound, Condition};
use super::code::{
    AccessId, Block, BlockOp, BufferId, Call, Code, Combine, ElementType, Loop, Node, Place, Register, Trip,
    Window, WindowKind,
};
use super::convert::literal_bits;
use super::tile::TileOp;
use super::transform::TransformOp;
use crate::activation::Activation;
use crate::copy::CHANNELS;
use crate::scalar::{BinaryOp, UnaryOp};
use crate::table::KernelTable;

/// Elements of a register at most.
pub(super) const CHUNK: usize = 2048;
/// Registers of a block take about this much, so that they stay in the first-level cache.
const REGISTER_BYTES: usize = 24 << 10;
/// Bytes of one temporary; there are [`TEMPORARIES`] before a block's registers.
pub(super) const TEMPORARY_BYTES: usize = CHUNK * 8;
pub(super) const TEMPORARIES: usize = 4;

/// A phase: `total` iterations of the merged parallel loops, or one.
#[derive(Debug)]
pub(super) struct Phase {
    /// The merged loops, outermost first: counter and trip.
    pub(super) loops: Vec<(usize, usize)>,
    pub(super) total: usize,
    /// What one step of the innermost merged loop adds to the accesses.
    pub(super) steps: Box<[PointerStep]>,
    /// The accesses used below.
    pub(super) accesses: Box<[usize]>,
    pub(super) body: Vec<Op>,
}

impl Phase {
    pub(super) fn is_parallel(&self) -> bool {
        !self.loops.is_empty()
    }
}

/// An access and what is added to its pointer, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct PointerStep {
    pub(super) access: usize,
    pub(super) bytes: isize,
}

#[derive(Debug)]
pub(super) enum Op {
    Loop(LoopOp),
    Tile(Box<TileOp>),
    Window(Window),
    Transform(Box<TransformOp>),
    Copy(CopyOp),
    Block(BlockCode),
}

/// A block that only copies f32, of contiguous columns, into another buffer; or bytes that it interleaves.
#[derive(Debug)]
pub(super) struct CopyOp {
    /// Outer, rows, columns.
    pub(super) dims: [Trip; 3],
    pub(super) source: View,
    pub(super) target: View,
    /// At most [`COPY_LIMITS`].
    pub(super) guard: Box<[Guard]>,
    /// Whether the threads share the target.
    pub(super) shared: bool,
}

impl CopyOp {
    /// Whether it makes channels of bytes, its columns, neighbours, of places that are neighbours in the source.
    fn interleaves(&self) -> bool {
        let channels = if let Trip::Constant(count) = self.dims[2] { count } else { 0 };
        let whole = channels > 0 && channels.is_multiple_of(CHANNELS);
        whole
            && self.guard.is_empty()
            && self.source.size == 1
            && self.source.strides[1] == 1
            && self.target.strides[2] == 1
            && self.target.strides[1] >= channels as isize
    }
}

/// Conditions of a copy at most.
pub(super) const COPY_LIMITS: usize = 8;

#[derive(Debug)]
pub(super) struct LoopOp {
    pub(super) counter: usize,
    pub(super) trip: Trip,
    pub(super) steps: Box<[PointerStep]>,
    pub(super) body: Vec<Op>,
}

#[derive(Debug)]
pub(super) struct BlockCode {
    /// Outer, rows, columns.
    pub(super) dims: [Trip; 3],
    /// Elements a register holds.
    pub(super) chunk: usize,
    pub(super) ops: Vec<LaneOp>,
}

/// Where an operation's result goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) register: usize,
    /// Bytes from the start of the thread's register memory.
    pub(super) offset: usize,
    /// Bytes of an element.
    pub(super) size: usize,
    /// Where the only use of the result stores it: written there at once if columns are next to one another there.
    pub(super) forward: Option<View>,
}

/// An access over the dimensions of a block, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) access: usize,
    pub(super) strides: [isize; 3],
    pub(super) size: usize,
}

/// A condition over the three dimensions.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) value: Affine,
    pub(super) strides: [i64; 3],
    pub(super) limit: i64,
}

#[derive(Debug)]
pub(super) enum LaneOp {
    Load {
        to: Target,
        view: View,
        guard: Box<[Guard]>,
        by_reference: bool,
    },
    Constant {
        to: usize,
        bits: [u8; 8],
        size: u8,
    },
    Index {
        to: Target,
        value: Affine,
        strides: [i64; 3],
    },
    Unary {
        to: Target,
        op: UnaryOp,
        dtype: ElementType,
        x: usize,
    },
    Activate {
        to: Target,
        activation: Activation,
        x: usize,
    },
    Binary {
        to: Target,
        op: BinaryOp,
        dtype: ElementType,
        a: usize,
        b: usize,
    },
    MultiplyAdd {
        to: Target,
        dtype: ElementType,
        a: usize,
        b: usize,
        c: usize,
    },
    Select {
        to: Target,
        dtype: ElementType,
        condition: usize,
        then: usize,
        otherwise: usize,
    },
    Cast {
        to: Target,
        dtype: ElementType,
        from: ElementType,
        x: usize,
    },
    Gather {
        to: Target,

        buffer: BufferId,
        index: usize,
        mask: Option<usize>,
    },
    Store {
        view: View,
        dtype: ElementType,
        value: usize,
        combine: Combine,
        guard: Box<[Guard]>,
        mask: Option<usize>,
    },
    /// The sum of `a * b` over the columns of a row, in f32, added to what the view holds: one element a row.
    SumProduct {
        view: View,
        a: usize,
        b: usize,
    },
    Scatter {
        dtype: ElementType,
        buffer: BufferId,
        index: usize,
        value: usize,
        combine: Combine,
        mask: Option<usize>,
    },
}

/// Verified code in the executor's form.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) phases: Vec<Phase>,
    /// Registers of the block with the most.
    pub(super) registers: usize,
    /// Bytes of register memory, temporaries included.
    pub(super) register_bytes: usize,
    /// For each buffer whether it may lie at any address: all that is done with it is to copy planes or gather from it.
    pub(super) anywhere: Vec<bool>,
}

/// Lowers code that [`Code::verify`] accepts, with tiles that `table` has kernels for.
pub(super) fn lower(code: &Code, table: &'static KernelTable) -> Lowered {
    let mut lowering = Lowering {
        code,
        table,
        registers: 0,
        register_bytes: TEMPORARIES * TEMPORARY_BYTES,
        anywhere: vec![true; code.buffers.len()],
    };
    let phases = code.body.iter().map(|node| lowering.phase(node)).collect();
    let Lowering { registers, register_bytes, anywhere, .. } = lowering;
    Lowered { phases, registers, register_bytes, anywhere }
}

struct Lowering<'a> {
    code: &'a Code,
    table: &'static KernelTable,
    registers: usize,
    register_bytes: usize,
    anywhere: Vec<bool>,
}

type Used = BTreeSet<usize>;

impl Lowering<'_> {
    fn phase(&mut self, node: &Node) -> Phase {
        let (mut loops, mut total) = (Vec::new(), 1usize);
        let mut body = std::slice::from_ref(node);
        while let [Node::Loop(Loop { counter, trip, parallel: true, body: inner })] = body {
            let count = trip.evaluate(&[]);
            let Some(product) = total.checked_mul(count).filter(|product| *product < 1 << 31) else { break };
            total = product;
            loops.push((counter.index(), count));
            body = inner;
        }
        let mut used = Used::new();
        let body = self.body(body, &mut used);
        let steps = loops.last().map_or_else(Box::default, |(counter, _)| self.steps(*counter, &used));
        Phase { loops, total, steps, accesses: used.into_iter().collect(), body }
    }

    fn body(&mut self, nodes: &[Node], used: &mut Used) -> Vec<Op> {
        nodes.iter().map(|node| self.node(node, used)).collect()
    }

    fn node(&mut self, node: &Node, used: &mut Used) -> Op {
        match node {
            Node::Loop(Loop { counter, trip, parallel: _, body }) => {
                let mut inside = Used::new();
                let body = self.body(body, &mut inside);
                let steps = self.steps(counter.index(), &inside);
                used.extend(inside);
                Op::Loop(LoopOp { counter: counter.index(), trip: trip.clone(), steps, body })
            }
            Node::Call(Call::Tile(tile)) => {
                self.uses(tile.accesses(), used);
                Op::Tile(Box::new(TileOp::lower(self.code, self.table, tile)))
            }
            Node::Call(Call::Window(window)) => {
                self.uses([window.x, window.y], used);
                match &window.kind {
                    WindowKind::Depthwise { weights, start, .. } => self.uses([*weights, *start], used),
                    WindowKind::Max | WindowKind::Sum => {}
                }
                Op::Window(window.clone())
            }
            Node::Call(Call::Transform(transform)) => {
                self.uses(transform.accesses(), used);
                Op::Transform(Box::new(TransformOp::lower(self.code, transform)))
            }
            Node::Call(Call::Block(block)) => match self.copy(block) {
                Some(copy) => {
                    used.insert(copy.source.access);
                    self.uses([AccessId(copy.target.access as u32)], used);
                    Op::Copy(copy)
                }
                None => Op::Block(self.block(block, used)),
            },
        }
    }

    /// Notes accesses that want their elements aligned.
    fn uses(&mut self, accesses: impl IntoIterator<Item = AccessId>, used: &mut Used) {
        for access in accesses {
            used.insert(access.index());
            self.anywhere[self.code.accesses[access.index()].buffer.index()] = false;
        }
    }

    /// What one step of the counter adds to each of the accesses.
    fn steps(&self, counter: usize, accesses: &Used) -> Box<[PointerStep]> {
        let step = |&access: &usize| {
            let declared = &self.code.accesses[access];
            let terms = declared.offset.terms.iter().filter(|(known, _)| known.index() == counter);
            let elements: i64 = terms.map(|(_, factor)| factor).sum();
            let size = self.code.buffers[declared.buffer.index()].dtype.size_bytes();
            (elements != 0).then_some(PointerStep { access, bytes: elements as isize * size as isize })
        };
        accesses.iter().filter_map(step).collect()
    }

    /// The block as a copy, if it is one.
    fn copy(&self, block: &Block) -> Option<CopyOp> {
        let [
            BlockOp::Load { to, access: source, strides: source_strides, guard },
            BlockOp::Store {
                access: target,
                strides: target_strides,
                value,
                combine: Combine::Replace,
                guard: unguarded,
                mask: None,
            },
        ] = block.ops.as_slice()
        else {
            return None;
        };
        let buffer = |access: &AccessId| self.code.accesses[access.index()].buffer;
        let elsewhere = buffer(source) != buffer(target);
        let shared = self.code.buffers[buffer(target).index()].place == Place::Shared;
        let shape = Shape::of(block);
        let (places, chunk) = (Places::of(block), CHUNK);
        let lanes = LaneLowering { code: self.code, block, shape: &shape, places: &places, chunk };
        let (source, target) = (lanes.view(*source, source_strides), lanes.view(*target, target_strides));
        let (guard, dims) = (lanes.guard(guard), shape.dims.clone());
        let mut copy = CopyOp { guard, source, target, dims, shared };
        let apart = copy.target.strides[2].unsigned_abs() >= copy.dims[1].max().max(2);
        if copy.target.strides[1] == 1 && apart {
            // Columns of the target are next to one another; it does not matter which dimension they come from.
            copy.dims.swap(1, 2);
            copy.source.strides.swap(1, 2);
            copy.target.strides.swap(1, 2);
            copy.guard.iter_mut().for_each(|guard| guard.strides.swap(1, 2));
        }
        let fits = value == to
            && (block.registers[to.index()] == ElementType::F32 || copy.interleaves())
            && unguarded.is_empty()
            && copy.guard.len() <= COPY_LIMITS
            && elsewhere
            && (copy.target.strides[2] == 1 || copy.dims[2] == Trip::Constant(1));
        fits.then_some(copy)
    }

    fn block(&mut self, block: &Block, used: &mut Used) -> BlockCode {
        let shape = Shape::of(block);
        let places = Places::of(block);
        let elements = REGISTER_BYTES / places.bytes_per_element.max(1);
        let chunk = (elements.clamp(128, CHUNK) / 64) * 64;
        self.registers = self.registers.max(block.registers.len());
        let bytes = TEMPORARIES * TEMPORARY_BYTES + places.bytes_per_element * chunk;
        self.register_bytes = self.register_bytes.max(bytes);
        let lanes = LaneLowering { code: self.code, block, shape: &shape, places: &places, chunk };
        let ops = (0..block.ops.len())
            .filter(|&at| lanes.sum_product(at + 1).is_none())
            .map(|at| lanes.sum_product(at).unwrap_or_else(|| lanes.op(at, &block.ops[at])))
            .collect();
        self.uses(block.ops.iter().filter_map(accessed), used);
        for op in &block.ops {
            if let BlockOp::Scatter { buffer, .. } = op {
                self.anywhere[buffer.index()] = false;
            }
        }
        BlockCode { dims: shape.dims, chunk, ops }
    }
}

/// The access of a load or store.
fn accessed(op: &BlockOp) -> Option<AccessId> {
    match op {
        BlockOp::Load { access, .. } | BlockOp::Store { access, .. } => Some(*access),
        BlockOp::Constant { .. }
        | BlockOp::Index { .. }
        | BlockOp::Unary { .. }
        | BlockOp::Activate { .. }
        | BlockOp::Binary { .. }
        | BlockOp::MultiplyAdd { .. }
        | BlockOp::Select { .. }
        | BlockOp::Cast { .. }
        | BlockOp::Gather { .. }
        | BlockOp::Scatter { .. } => None,
    }
}

/// The dimensions of a block after those of length 1 are dropped and neighbours merged where every stride allows it.
struct Shape {
    dims: [Trip; 3],
    /// For each of the three, the dimension of the block whose strides are its strides.
    source: [Option<usize>; 3],
}

impl Shape {
    fn of(block: &Block) -> Shape {
        let mut strides: Vec<&[i64]> = Vec::new();
        for op in &block.ops {
            match op {
                BlockOp::Load { strides: own, guard, .. } | BlockOp::Store { strides: own, guard, .. } => {
                    strides.push(own);
                    strides.extend(guard.iter().map(|condition| &*condition.strides));
                }
                BlockOp::Index { strides: own, .. } => strides.push(own),
                BlockOp::Constant { .. }
                | BlockOp::Unary { .. }
                | BlockOp::Activate { .. }
                | BlockOp::Binary { .. }
                | BlockOp::MultiplyAdd { .. }
                | BlockOp::Select { .. }
                | BlockOp::Cast { .. }
                | BlockOp::Gather { .. }
                | BlockOp::Scatter { .. } => {}
            }
        }
        let mut kept: Vec<(usize, Trip)> = Vec::new();
        for (at, trip) in block.dims.iter().enumerate() {
            if *trip == Trip::Constant(1) {
                continue;
            }
            let merged = match (kept.last(), trip) {
                (Some((outer, count)), Trip::Constant(length)) => {
                    let joined = |own: &&[i64]| own[at].checked_mul(*length as i64) == Some(own[*outer]);
                    if strides.iter().all(joined) { scaled(count, *length) } else { None }
                }
                (Some(_), Trip::Bounded { .. }) | (None, _) => None,
            };
            if let Some(merged) = merged {
                kept.pop();
                kept.push((at, merged));
            } else {
                kept.push((at, trip.clone()));
            }
        }
        let mut shape = Shape { dims: [const { Trip::Constant(1) }; 3], source: [None; 3] };
        let first = 3 - kept.len();
        for (at, (source, trip)) in kept.into_iter().enumerate() {
            shape.dims[first + at] = trip;
            shape.source[first + at] = Some(source);
        }
        if shape.stores_across(block) {
            shape.dims.swap(0, 1);
            shape.source.swap(0, 1);
        }
        shape
    }

    /// Whether what is stored lies next to one another over the outer dimension and the columns, rows are apart, and the outer
    /// dimension is longer than they are many: they then serve better the other way around.
    fn stores_across(&self, block: &Block) -> bool {
        let [outer, rows, Trip::Constant(columns)] = &self.dims else { return false };
        let run = (outer.max() * columns) as i64;
        let fits = |op: &BlockOp| match op {
            BlockOp::Store { strides, combine: Combine::Replace, .. } => {
                let [of_outer, of_rows, of_columns] = self.strides(strides);
                of_columns == 1 && of_outer == *columns as i64 && of_rows.abs() >= run
            }
            BlockOp::Store { .. } | BlockOp::Scatter { .. } => false,
            BlockOp::Load { .. }
            | BlockOp::Constant { .. }
            | BlockOp::Index { .. }
            | BlockOp::Unary { .. }
            | BlockOp::Activate { .. }
            | BlockOp::Binary { .. }
            | BlockOp::MultiplyAdd { .. }
            | BlockOp::Select { .. }
            | BlockOp::Cast { .. }
            | BlockOp::Gather { .. } => true,
        };
        outer.max() > rows.max() && block.ops.iter().all(fits)
    }

    fn strides(&self, strides: &[i64]) -> [i64; 3] {
        self.source.map(|source| source.map_or(0, |at| strides[at]))
    }
}

/// The trip `length` times as long, where it can be said.
fn scaled(trip: &Trip, length: usize) -> Option<Trip> {
    match trip {
        Trip::Constant(count) => Some(Trip::Constant(count.checked_mul(length)?)),
        Trip::Bounded { max, bounds } => {
            let factor = i64::try_from(length).ok()?;
            let scale = |bound: &Bound| {
                let mut value = bound.value.clone();
                value.constant = value.constant.checked_mul(factor)?;
                for (_, own) in &mut value.terms {
                    *own = own.checked_mul(factor)?;
                }
                (bound.divisor == 1).then_some(Bound { value, divisor: 1 })
            };
            let bounds = bounds.iter().map(scale).collect::<Option<_>>()?;
            Some(Trip::Bounded { max: max.checked_mul(length)?, bounds })
        }
    }
}

/// Places of registers: one used for the last time makes room for those set later.
struct Places {
    /// Before scaling by the chunk.
    offsets: Vec<usize>,
    /// The last operation that uses a register.
    last_use: Vec<usize>,
    uses: Vec<usize>,
    bytes_per_element: usize,
}

impl Places {
    fn of(block: &Block) -> Places {
        let count = block.registers.len();
        let (mut last_use, mut uses) = (vec![0; count], vec![0; count]);
        for (at, op) in block.ops.iter().enumerate() {
            for operand in op.operands() {
                last_use[operand.index()] = at;
                uses[operand.index()] += 1;
            }
        }
        let (mut offsets, mut bytes_per_element) = (vec![0; count], 0);
        let mut free: Vec<(usize, usize)> = Vec::new();
        for (at, op) in block.ops.iter().enumerate() {
            if let Some(to) = op.result() {
                let size = block.registers[to.index()].size_bytes();
                offsets[to.index()] = match free.iter().position(|(known, _)| *known == size) {
                    Some(found) => free.swap_remove(found).1,
                    None => {
                        bytes_per_element += size;
                        bytes_per_element - size
                    }
                };
            }
            let mut done: Vec<Register> = op.operands().filter(|r| last_use[r.index()] == at).collect();
            done.sort_unstable();
            done.dedup();
            free.extend(done.iter().map(|r| (block.registers[r.index()].size_bytes(), offsets[r.index()])));
        }
        Places { offsets, last_use, uses, bytes_per_element }
    }
}

struct LaneLowering<'a> {
    code: &'a Code,
    block: &'a Block,
    shape: &'a Shape,
    places: &'a Places,
    chunk: usize,
}

impl LaneLowering<'_> {
    fn op(&self, at: usize, op: &BlockOp) -> LaneOp {
        let dtype = |register: &Register| self.block.registers[register.index()];
        let mask = |mask: &Option<Register>| mask.map(Register::index);
        match op {
            BlockOp::Load { to, access, strides, guard } => LaneOp::Load {
                to: self.target(at, *to),
                view: self.view(*access, strides),
                guard: self.guard(guard),
                by_reference: self.reads_in_place(at, *to, self.code.accesses[access.index()].buffer),
            },
            BlockOp::Constant { to, value } => LaneOp::Constant {
                to: to.index(),
                bits: literal_bits(*value, dtype(to)),
                size: dtype(to).size_bytes() as u8,
            },
            BlockOp::Index { to, value, strides } => LaneOp::Index {
                to: self.target(at, *to),
                value: value.clone(),
                strides: self.shape.strides(strides),
            },
            BlockOp::Unary { to, op, x } => {
                LaneOp::Unary { to: self.target(at, *to), op: *op, dtype: dtype(x), x: x.index() }
            }
            BlockOp::Activate { to, activation, x } => {
                LaneOp::Activate { to: self.target(at, *to), activation: *activation, x: x.index() }
            }
            BlockOp::Binary { to, op, a, b } => LaneOp::Binary {
                to: self.target(at, *to),
                op: *op,
                dtype: dtype(a),
                a: a.index(),
                b: b.index(),
            },
            BlockOp::MultiplyAdd { to, a, b, c } => LaneOp::MultiplyAdd {
                to: self.target(at, *to),
                dtype: dtype(a),
                a: a.index(),
                b: b.index(),
                c: c.index(),
            },
            BlockOp::Select { to, condition, then, otherwise } => LaneOp::Select {
                to: self.target(at, *to),
                dtype: dtype(then),
                condition: condition.index(),
                then: then.index(),
                otherwise: otherwise.index(),
            },
            BlockOp::Cast { to, x } => {
                LaneOp::Cast { to: self.target(at, *to), dtype: dtype(to), from: dtype(x), x: x.index() }
            }
            BlockOp::Gather { to, buffer, index, mask: own } => LaneOp::Gather {
                to: self.target(at, *to),
                buffer: *buffer,
                index: index.index(),
                mask: mask(own),
            },
            BlockOp::Store { access, strides, value, combine, guard, mask: own } => LaneOp::Store {
                view: self.view(*access, strides),
                dtype: dtype(value),
                value: value.index(),
                combine: *combine,
                guard: self.guard(guard),
                mask: mask(own),
            },
            BlockOp::Scatter { buffer, index, value, combine, mask: own } => LaneOp::Scatter {
                dtype: dtype(value),
                buffer: *buffer,
                index: index.index(),
                value: value.index(),
                combine: *combine,
                mask: mask(own),
            },
        }
    }

    /// Operation `at` and the one before as one, where they sum products over columns.
    fn sum_product(&self, at: usize) -> Option<LaneOp> {
        let [
            BlockOp::Binary { to, op: BinaryOp::Mul, a, b },
            BlockOp::Store { access, strides, value, combine: Combine::Add, guard, mask: None },
        ] = self.block.ops.get(at.checked_sub(1)?..=at)?
        else {
            return None;
        };
        let view = self.view(*access, strides);
        let buffer = |access: AccessId| self.code.accesses[access.index()].buffer;
        let mut others = self.block.ops.iter().enumerate().filter(|(other, _)| *other != at);
        let elsewhere =
            others.all(|(_, op)| accessed(op).is_none_or(|other| buffer(other) != buffer(*access)));
        let fits = value == to
            && self.places.uses[to.index()] == 1
            && self.block.registers[to.index()] == ElementType::F32
            && guard.is_empty()
            && view.strides[2] == 0
            && elsewhere;
        fits.then_some(LaneOp::SumProduct { view, a: a.index(), b: b.index() })
    }

    fn view(&self, access: AccessId, strides: &[i64]) -> View {
        let buffer = self.code.accesses[access.index()].buffer;
        View {
            access: access.index(),
            strides: self.shape.strides(strides).map(|stride| stride as isize),
            size: self.code.buffers[buffer.index()].dtype.size_bytes(),
        }
    }

    fn guard(&self, conditions: &[Condition]) -> Box<[Guard]> {
        let lower = |condition: &Condition| Guard {
            value: condition.value.clone(),
            strides: self.shape.strides(&condition.strides),
            limit: condition.limit,
        };
        conditions.iter().map(lower).collect()
    }

    fn target(&self, at: usize, to: Register) -> Target {
        let offset = TEMPORARIES * TEMPORARY_BYTES + self.places.offsets[to.index()] * self.chunk;
        let size = self.block.registers[to.index()].size_bytes();
        Target { register: to.index(), offset, size, forward: self.forward(at, to) }
    }

    /// The buffer an operation writes.
    fn written(&self, op: &BlockOp) -> Option<BufferId> {
        match op {
            BlockOp::Store { access, .. } => Some(self.code.accesses[access.index()].buffer),
            BlockOp::Scatter { buffer, .. } => Some(*buffer),
            BlockOp::Load { .. }
            | BlockOp::Constant { .. }
            | BlockOp::Index { .. }
            | BlockOp::Unary { .. }
            | BlockOp::Activate { .. }
            | BlockOp::Binary { .. }
            | BlockOp::MultiplyAdd { .. }
            | BlockOp::Select { .. }
            | BlockOp::Cast { .. }
            | BlockOp::Gather { .. } => None,
        }
    }

    /// Whether a load's memory stays as it is until the register's last use, so that it need not be copied.
    fn reads_in_place(&self, at: usize, to: Register, buffer: BufferId) -> bool {
        let until = self.places.last_use[to.index()].max(at);
        self.block.ops[at..until].iter().all(|op| self.written(op) != Some(buffer))
    }

    /// Where to write the result of operation `at` instead of a register: into the memory it is stored to, if the store
    /// is its only use and plain, and nothing else in the block touches that buffer, or only loads of the same elements
    /// by operations before this one.
    fn forward(&self, at: usize, to: Register) -> Option<View> {
        if self.places.uses[to.index()] != 1 {
            return None;
        }
        let store = self.places.last_use[to.index()];
        let BlockOp::Store { access, strides, value, combine: Combine::Replace, guard, mask: None } =
            &self.block.ops[store]
        else {
            return None;
        };
        if *value != to || !guard.is_empty() {
            return None;
        }
        let view = self.view(*access, strides);
        let buffer = self.code.accesses[access.index()].buffer;
        let elementwise = matches!(
            self.block.ops[at],
            BlockOp::Unary { .. } | BlockOp::Activate { .. } | BlockOp::Binary { .. }
        );
        let harmless = |(place, op): (usize, &BlockOp)| match op {
            BlockOp::Load { to: loaded, access: own, strides: steps, guard } => {
                self.code.accesses[own.index()].buffer != buffer
                    || (elementwise
                        && place < at
                        && guard.is_empty()
                        && self.places.last_use[loaded.index()] <= at
                        && self.view(*own, steps) == view)
            }
            BlockOp::Gather { buffer: own, .. } => *own != buffer,
            BlockOp::Store { .. } | BlockOp::Scatter { .. } => {
                place == store || self.written(op) != Some(buffer)
            }
            BlockOp::Constant { .. }
            | BlockOp::Index { .. }
            | BlockOp::Unary { .. }
            | BlockOp::Activate { .. }
            | BlockOp::Binary { .. }
            | BlockOp::MultiplyAdd { .. }
            | BlockOp::Select { .. }
            | BlockOp::Cast { .. } => true,
        };
        self.block.ops.iter().enumerate().all(harmless).then_some(view)
    }
}

/// Bytes of the buffers of one place, each aligned, and the offset of each buffer (0 for the others).
pub(super) fn layout(code: &Code, place: Place) -> (usize, Vec<usize>) {
    let mut end = 0usize;
    let offset = |buffer: &super::code::Buffer| {
        if buffer.place != place {
            return 0;
        }
        let start = end;
        end += (buffer.length * buffer.dtype.size_bytes()).next_multiple_of(super::memory::ALIGNMENT);
        start
    };
    let offsets = code.buffers.iter().map(offset).collect();
    (end, offsets)
}
