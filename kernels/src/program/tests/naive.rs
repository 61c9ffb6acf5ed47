//! A plain interpreter of programs, one element at a time, to compare the executor with.

use crate::program::{
    AccessId, Affine, Block, BlockOp, Call, Code, Combine, Condition, Depth, ElementType, Finish, Literal,
    Loop, Node, Register, Terms, Tile, Transform, Window, WindowKind,
};
use crate::scalar::BinaryOp;
use crate::transform::Sides;
use half::{bf16, f16};

fn float(literal: Literal) -> f64 {
    match literal {
        Literal::Float(value) => value,
        Literal::Int(value) => value as f64,
    }
}

/// A value of any type: floats as f64, all others as i64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Float(f64),
    Int(i64),
}

impl Number {
    pub(super) fn zero(dtype: ElementType) -> Number {
        if dtype.is_float() { Number::Float(0.0) } else { Number::Int(0) }
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Number::Float(value) => value,
            Number::Int(value) => value as f64,
        }
    }

    /// The value as one of the type: a cast.
    pub(super) fn cast(self, dtype: ElementType) -> Number {
        macro_rules! to {
            ($own:ty) => {
                match self {
                    Number::Float(value) => Number::Int(value as $own as i64),
                    Number::Int(value) => Number::Int(value as $own as i64),
                }
            };
        }
        match dtype {
            ElementType::F16 => Number::Float(f16::from_f64(self.float()).to_f64()),
            ElementType::BF16 => Number::Float(bf16::from_f64(self.float()).to_f64()),
            ElementType::F32 => match self {
                Number::Float(value) => Number::Float(f64::from(value as f32)),
                Number::Int(value) => Number::Float(f64::from(value as f32)),
            },
            ElementType::F64 => Number::Float(self.float()),
            ElementType::I8 => to!(i8),
            ElementType::I16 => to!(i16),
            ElementType::I32 => to!(i32),
            ElementType::I64 => to!(i64),
            ElementType::U8 => to!(u8),
            ElementType::U16 => to!(u16),
            ElementType::U32 => to!(u32),
            ElementType::U64 => to!(u64),
            ElementType::Bool => Number::Int(i64::from(self.float() != 0.0)),
        }
    }

    pub(super) fn write(self, dtype: ElementType, bytes: &mut [u8]) {
        macro_rules! put {
            ($value:expr) => {
                bytes.copy_from_slice(&$value.to_ne_bytes())
            };
        }
        match (dtype, self) {
            (ElementType::F16, _) => put!(f16::from_f64(self.float())),
            (ElementType::BF16, _) => put!(bf16::from_f64(self.float())),
            (ElementType::F32, _) => put!((self.float() as f32)),
            (ElementType::F64, _) => put!(self.float()),
            (_, Number::Int(value)) => bytes.copy_from_slice(&value.to_ne_bytes()[..dtype.size_bytes()]),
            (_, Number::Float(_)) => panic!("a float in an integer buffer"),
        }
    }

    pub(super) fn read(dtype: ElementType, bytes: &[u8]) -> Number {
        macro_rules! get {
            ($own:ty) => {
                <$own>::from_ne_bytes(bytes.try_into().unwrap())
            };
        }
        match dtype {
            ElementType::F16 => Number::Float(get!(f16).to_f64()),
            ElementType::BF16 => Number::Float(get!(bf16).to_f64()),
            ElementType::F32 => Number::Float(f64::from(get!(f32))),
            ElementType::F64 => Number::Float(get!(f64)),
            ElementType::I8 => Number::Int(get!(i8).into()),
            ElementType::I16 => Number::Int(get!(i16).into()),
            ElementType::I32 => Number::Int(get!(i32).into()),
            ElementType::I64 => Number::Int(get!(i64)),
            ElementType::U8 => Number::Int(get!(u8).into()),
            ElementType::U16 => Number::Int(get!(u16).into()),
            ElementType::U32 => Number::Int(get!(u32).into()),
            ElementType::U64 => Number::Int(get!(u64) as i64),
            ElementType::Bool => Number::Int(get!(u8).into()),
        }
    }
}

/// Runs code on the contents of its buffers; the error is an index that is out of range.
pub(super) fn interpret(code: &Code, buffers: &mut [Vec<Number>]) -> Result<(), i64> {
    let mut naive = Naive { code, buffers, counters: vec![0; code.counters.len()] };
    code.body.iter().try_for_each(|node| naive.node(node))
}

struct Naive<'a> {
    code: &'a Code,
    buffers: &'a mut [Vec<Number>],
    counters: Vec<i64>,
}

impl Naive<'_> {
    fn node(&mut self, node: &Node) -> Result<(), i64> {
        match node {
            Node::Loop(Loop { counter, trip, parallel: _, body }) => {
                for at in 0..trip.evaluate(&self.counters) {
                    self.counters[counter.index()] = at as i64;
                    body.iter().try_for_each(|node| self.node(node))?;
                }
                Ok(())
            }
            Node::Call(Call::Tile(tile)) => {
                self.tile(tile);
                Ok(())
            }
            Node::Call(Call::Window(window)) => {
                self.window(window);
                Ok(())
            }
            Node::Call(Call::Transform(transform)) => {
                self.transform(transform);
                Ok(())
            }
            Node::Call(Call::Block(block)) => self.block(block),
        }
    }

    fn form(&self, form: &Affine, strides: &[i64], at: &[i64]) -> i64 {
        form.evaluate(&self.counters) + strides.iter().zip(at).map(|(stride, at)| stride * at).sum::<i64>()
    }

    fn place(&mut self, access: AccessId, strides: &[i64], at: &[i64]) -> &mut Number {
        let access = &self.code.accesses[access.index()];
        let offset = self.form(&access.offset, strides, at);
        &mut self.buffers[access.buffer.index()][usize::try_from(offset).unwrap()]
    }

    fn tile(&mut self, tile: &Tile) {
        let accumulate = tile.accumulate.evaluate(&self.counters);
        let counts: Vec<i64> =
            tile.depths.iter().map(|level| level.trip.evaluate(&self.counters) as i64).collect();
        let [a_depths, b_depths] = [|level: &Depth| level.a_stride, |level: &Depth| level.b_stride]
            .map(|stride| tile.depths.iter().map(stride).collect::<Vec<i64>>());
        let [lines, rows] = [&tile.lines, &tile.rows].map(|trip| trip.evaluate(&self.counters) as i64);
        let dots = matches!(tile.terms, Terms::Dots { .. });
        for (p, i) in (0..lines).flat_map(|p| (0..rows).map(move |i| (p, i))) {
            for block in 0..tile.blocks as i64 {
                for j in 0..tile.cols.evaluate(&self.counters) as i64 {
                    let mut sum = if tile.terms == Terms::Largest { f64::NEG_INFINITY } else { 0.0 };
                    for term in 0..counts.iter().product() {
                        let mut rest = term;
                        let mut at: Vec<i64> =
                            counts.iter().rev().map(|count| (rest % count, rest /= count).0).collect();
                        at.reverse();
                        let counts = |condition: &Condition| {
                            let form =
                                self.form(&condition.value, &condition.strides, &[&[p, i], &*at].concat());
                            (0..condition.limit).contains(&form)
                        };
                        if !tile.guard.iter().all(counts) {
                            continue;
                        }
                        let own = [tile.a_line_stride, tile.a_row_stride, tile.a_col_stride];
                        let a_strides = [&own, &*a_depths].concat();
                        let a = self.place(tile.a, &a_strides, &[&[p, i, j], &*at].concat()).float();
                        match tile.terms {
                            Terms::Products { b, b_block_stride } => {
                                let strides = [&[b_block_stride, 1], &*b_depths].concat();
                                sum += a * self.place(b, &strides, &[&[block, j], &*at].concat()).float();
                            }
                            Terms::Dots { b, b_block_stride, .. } => {
                                let b_strides = [&[b_block_stride, 4], &*b_depths, &[1]].concat();
                                for q in 0..4 {
                                    let a_strides = [&*a_strides, &[1]].concat();
                                    let a =
                                        self.place(tile.a, &a_strides, &[&[p, i, j], &*at, &[q]].concat());
                                    let a = a.float();
                                    let b = self.place(b, &b_strides, &[&[block, j], &*at, &[q]].concat());
                                    sum += a * b.float();
                                }
                            }
                            Terms::Sum { .. } => sum += a,
                            Terms::Largest => sum = sum.max(a),
                        }
                    }
                    let strides = [tile.c_line_stride, tile.c_row_stride, tile.c_block_stride, 1];
                    if accumulate {
                        let held = self.place(tile.c, &strides, &[p, i, block, j]).float();
                        sum = if tile.terms == Terms::Largest { sum.max(held) } else { sum + held };
                    }
                    if let Terms::Sum { divisor } = &tile.terms {
                        sum /= float(*divisor);
                    }
                    sum = self.finished(sum, tile.finish.as_ref(), [p, i, block, j]);
                    let result = if let Some(scaled) = tile.scaled {
                        if let Some((start, stride)) = scaled.start {
                            sum += self.place(start, &[stride, 1], &[block, j]).float();
                        }
                        let strides = scaled.scale_block_stride.map_or([0; 2], |stride| [stride, 1]);
                        let scale = self.place(scaled.scale, &strides, &[block, j]).float();
                        let rounded = (sum as f32 * scale as f32).round_ties_even();
                        let limits = [scaled.zero, scaled.low, scaled.high].map(float);
                        let dtype =
                            self.code.buffers[self.code.accesses[tile.c.index()].buffer.index()].dtype;
                        let [zero, low, high] = limits;
                        Number::Float((f64::from(rounded) + zero).clamp(low, high)).cast(dtype)
                    } else if dots {
                        Number::Int(sum as i64).cast(ElementType::I32)
                    } else {
                        let c = &self.code.accesses[tile.c.index()];
                        Number::Float(sum).cast(self.code.buffers[c.buffer.index()].dtype)
                    };
                    *self.place(tile.c, &strides, &[p, i, block, j]) = result;
                }
            }
        }
    }

    /// What becomes of the sum at a line, a row, a block and a column.
    fn finished(&mut self, mut sum: f64, finish: Option<&Finish>, at: [i64; 4]) -> f64 {
        let Some(Finish { start, addend, low, high, activation }) = finish else { return sum };
        if let Some((start, block)) = start {
            sum += self.place(*start, &[0, 0, *block, 1], &at).float();
        }
        if let Some((addend, [line, row, block])) = addend {
            sum += self.place(*addend, &[*line, *row, *block, 1], &at).float();
        }
        sum = sum.clamp(float(*low), float(*high));
        activation.map_or(sum, |activation| activation.eval_f64(sum))
    }

    fn window(&mut self, window: &Window) {
        let (stride, dilation) = (window.stride as i64, window.dilation as i64);
        let rows = window.rows.evaluate(&self.counters) as i64;
        for o in 0..window.outputs.evaluate(&self.counters) as i64 {
            for q in 0..if rows == 0 { 0 } else { window.count.evaluate(&self.counters) as i64 } {
                let mut result = match window.kind {
                    WindowKind::Depthwise { start, start_per_result, start_output_stride, .. } => {
                        let strides = [start_output_stride, i64::from(start_per_result)];
                        self.place(start, &strides, &[o, q]).float()
                    }
                    WindowKind::Max | WindowKind::Sum => {
                        self.place(window.y, &[window.y_output_stride, 1], &[o, q]).float()
                    }
                };
                for r in 0..rows {
                    for s in 0..window.cols as i64 {
                        let strides = [window.x_output_stride, window.x_row_stride, stride, dilation];
                        let x = self.place(window.x, &strides, &[o, r, q, s]).float();
                        result = match window.kind {
                            WindowKind::Depthwise { weights, .. } => {
                                result + x * self.place(weights, &[window.cols as i64, 1], &[r, s]).float()
                            }
                            WindowKind::Max => BinaryOp::Max.eval_f64(result, x),
                            WindowKind::Sum => result + x,
                        };
                    }
                }
                let result = Number::Float(result).cast(ElementType::F32);
                *self.place(window.y, &[window.y_output_stride, 1], &[o, q]) = result;
            }
        }
    }

    fn transform(&mut self, op: &Transform) {
        let (rows, points) = (op.matrix.rows(), op.matrix.columns());
        let factor = |[p, q]: [usize; 2], [i, j]: [usize; 2]| match op.sides {
            Sides::Both => rows[p][i] * rows[q][j],
            Sides::Row => rows[q][j],
        };
        let [result_rows, point_rows] = [rows.len(), points].map(|columns| op.sides.rows(columns));
        let accumulate = op.accumulate.evaluate(&self.counters);
        let x_strides = [op.x_tile_stride, op.x_row_stride, op.x_col_stride, 1];
        let y_strides = [op.y_tile_stride, op.y_row_stride, op.y_col_stride, 1];
        for tile in 0..op.tiles.evaluate(&self.counters) as i64 {
            for (p, q) in (0..result_rows).flat_map(|p| (0..rows.len()).map(move |q| (p, q))) {
                for lane in 0..op.lanes as i64 {
                    let mut sum = 0.0;
                    for (i, j) in (0..point_rows).flat_map(|i| (0..points).map(move |j| (i, j))) {
                        let there = |condition: &Condition| {
                            let at = [tile, i as i64, j as i64];
                            let form = self.form(&condition.value, &condition.strides, &at);
                            (0..condition.limit).contains(&form)
                        };
                        if !op.guard.iter().all(there) {
                            continue;
                        }
                        let x = self.place(op.x, &x_strides, &[tile, i as i64, j as i64, lane]).float();
                        sum += f64::from(factor([p, q], [i, j])) * x;
                    }
                    let at = [tile, p as i64, q as i64, lane];
                    if accumulate {
                        sum += self.place(op.y, &y_strides, &at).float();
                    }
                    sum = self.finished(sum, op.finish.as_ref(), at);
                    *self.place(op.y, &y_strides, &at) = Number::Float(sum).cast(ElementType::F32);
                }
            }
        }
    }

    fn block(&mut self, block: &Block) -> Result<(), i64> {
        let mut trips: Vec<i64> =
            block.dims.iter().map(|trip| trip.evaluate(&self.counters) as i64).collect();
        trips.resize(3, 1);
        for i in 0..trips[0] {
            for j in 0..trips[1] {
                for k in 0..trips[2] {
                    self.lane(block, &[i, j, k][..block.dims.len()])?;
                }
            }
        }
        Ok(())
    }

    fn lane(&mut self, block: &Block, at: &[i64]) -> Result<(), i64> {
        let mut values = vec![Number::Int(0); block.registers.len()];
        let dtype = |register: &Register| block.registers[register.index()];
        for op in &block.ops {
            let value = |register: &Register| values[register.index()];
            let holds = |mask: &Option<Register>| mask.is_none_or(|mask| value(&mask).float() != 0.0);
            let guarded = |naive: &Naive<'_>, guard: &[Condition]| {
                guard.iter().all(|condition| {
                    (0..condition.limit).contains(&naive.form(&condition.value, &condition.strides, at))
                })
            };
            let result = match op {
                BlockOp::Load { to, access, strides, guard } => {
                    if guarded(self, guard) {
                        *self.place(*access, strides, at)
                    } else {
                        Number::zero(dtype(to))
                    }
                }
                BlockOp::Constant { to, value: Literal::Float(value) } => {
                    Number::Float(*value).cast(dtype(to))
                }
                BlockOp::Constant { to, value: Literal::Int(value) } => Number::Int(*value).cast(dtype(to)),
                BlockOp::Index { to: _, value, strides } => Number::Int(self.form(value, strides, at)),
                BlockOp::Activate { to, activation, x } => {
                    Number::Float(activation.eval_f64(value(x).float())).cast(dtype(to))
                }
                BlockOp::Unary { to, op, x } => match value(x) {
                    Number::Float(x) if op.is_test() => Number::Int(op.eval_f64(x) as i64),
                    Number::Float(x) => Number::Float(op.eval_f64(x)).cast(dtype(to)),
                    Number::Int(x) if dtype(to) == ElementType::Bool && !op.is_test() => {
                        Number::Float(op.eval_f64(x as f64)).cast(ElementType::Bool)
                    }
                    Number::Int(x) => Number::Int(op.eval_i64(x).unwrap()).cast(dtype(to)),
                },
                BlockOp::Binary { to, op, a, b } => binary(*op, value(a), value(b)).cast(dtype(to)),
                BlockOp::MultiplyAdd { to, a, b, c } => {
                    let product = binary(BinaryOp::Mul, value(a), value(b));
                    let product = if dtype(to).is_float() { product } else { product.cast(dtype(to)) };
                    binary(BinaryOp::Add, product, value(c)).cast(dtype(to))
                }
                BlockOp::Select { to: _, condition, then, otherwise } => {
                    if value(condition).float() != 0.0 {
                        value(then)
                    } else {
                        value(otherwise)
                    }
                }
                BlockOp::Cast { to, x } => value(x).cast(dtype(to)),
                BlockOp::Gather { to, buffer, index, mask } => {
                    if holds(mask) {
                        let Number::Int(index) = value(index) else { panic!("a float index") };
                        let found =
                            usize::try_from(index).ok().and_then(|at| self.buffers[buffer.index()].get(at));
                        *found.ok_or(index)?
                    } else {
                        Number::zero(dtype(to))
                    }
                }
                BlockOp::Store { access, strides, value: from, combine: how, guard, mask } => {
                    if holds(mask) && guarded(self, guard) {
                        let (new, dtype) = (value(from), dtype(from));
                        let place = self.place(*access, strides, at);
                        *place = combine(*how, *place, new).cast(dtype);
                    }
                    continue;
                }
                BlockOp::Scatter { buffer, index, value: from, combine: how, mask } => {
                    if holds(mask) {
                        let Number::Int(index) = value(index) else { panic!("a float index") };
                        let (new, dtype) = (value(from), dtype(from));
                        let buffer = &mut self.buffers[buffer.index()];
                        let place =
                            usize::try_from(index).ok().and_then(|at| buffer.get_mut(at)).ok_or(index)?;
                        *place = combine(*how, *place, new).cast(dtype);
                    }
                    continue;
                }
            };
            if let Some(to) = op.result() {
                values[to.index()] = result;
            }
        }
        Ok(())
    }
}

fn combine(how: Combine, old: Number, new: Number) -> Number {
    match how {
        Combine::Replace => new,
        Combine::Add => binary(BinaryOp::Add, old, new),
        Combine::Mul => binary(BinaryOp::Mul, old, new),
        Combine::Min => binary(BinaryOp::Min, old, new),
        Combine::Max => binary(BinaryOp::Max, old, new),
    }
}

fn binary(op: BinaryOp, a: Number, b: Number) -> Number {
    match (a, b) {
        (Number::Float(a), Number::Float(b)) if op.is_comparison() => Number::Int(op.eval_f64(a, b) as i64),
        (Number::Float(a), Number::Float(b)) => Number::Float(op.eval_f64(a, b)),
        (Number::Int(a), Number::Int(b)) => Number::Int(op.eval_i64(a, b)),
        (Number::Float(_), Number::Int(_)) | (Number::Int(_), Number::Float(_)) => {
            panic!("operands of two types")
        }
    }
}
