//! One thread's execution of a block: chunk by chunk, each operation over all lanes of the chunk.

use super::code::{Combine, ElementType};
use super::convert::cast;
use super::lanes::{self, Value};
use super::lower::{BlockCode, Guard, LaneOp, Target, View};
use super::machine::{Fault, Machine};
use crate::plane::Operand;

/// A register's value for the lanes of a chunk, which may be memory of a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) pointer: *const u8,
    /// Bytes from row to row; 0 where all rows are the same.
    pub(super) pitch: isize,
    /// Whether the columns of a row are one after the other; else one value stands for all.
    pub(super) wide: bool,
    /// Bytes of an element.
    pub(super) size: u8,
}

impl Plane {
    pub(super) const NOTHING: Plane = Plane { pointer: std::ptr::null(), pitch: 0, wide: false, size: 1 };

    /// One row, as a value over its columns.
    #[inline(always)]
    fn line(self, row: usize) -> Value {
        Value { pointer: self.pointer.wrapping_offset(row as isize * self.pitch), uniform: !self.wide }
    }

    /// All rows as one value over `rows * cols` lanes, if memory allows it.
    #[inline(always)]
    fn flat(self, rows: usize, cols: usize) -> Option<Value> {
        if rows == 1 || (self.pitch == 0 && !self.wide) {
            Some(self.line(0))
        } else if (self.wide || cols == 1) && self.pitch == (cols * usize::from(self.size)) as isize {
            Some(Value { pointer: self.pointer, uniform: false })
        } else {
            None
        }
    }

    /// The address of one lane.
    #[inline(always)]
    fn lane(self, row: usize, col: usize) -> *const u8 {
        let offset =
            row as isize * self.pitch + (col * usize::from(self.wide) * usize::from(self.size)) as isize;
        self.pointer.wrapping_offset(offset)
    }

    /// A plane of f32 as an operand of the kernels over rows.
    #[inline(always)]
    fn operand(self) -> Operand {
        Operand { pointer: self.pointer.cast(), pitch: self.pitch / 4, single: !self.wide }
    }
}

/// Where a result goes, and the rows and columns of it that differ.
#[derive(Clone, Copy, Debug)]
struct Area {
    pointer: *mut u8,
    pitch: isize,
    rows: usize,
    cols: usize,
}

impl Area {
    /// Calls `operation(target, operands, lanes)`: once if the memory of all is one after the other, or for each row.
    #[inline(always)]
    fn lines<const N: usize>(
        self,
        operands: [Plane; N],
        size: usize,
        operation: impl Fn(*mut u8, [Value; N], usize),
    ) {
        let Area { pointer, pitch, rows, cols } = self;
        if rows == 1 {
            return operation(pointer, operands.map(|operand| operand.line(0)), cols);
        }
        let flat = operands.map(|operand| operand.flat(rows, cols));
        if pitch == (cols * size) as isize && flat.iter().all(Option::is_some) {
            return operation(
                pointer,
                flat.map(|value| value.unwrap_or(Plane::NOTHING.line(0))),
                rows * cols,
            );
        }
        for row in 0..rows {
            let target = pointer.wrapping_offset(row as isize * pitch);
            operation(target, operands.map(|operand| operand.line(row)), cols);
        }
    }

    /// The target as the kernels over rows take it.
    #[inline(always)]
    fn rows_f32(self) -> (*mut f32, isize) {
        (self.pointer.cast(), self.pitch / 4)
    }
}

/// The part of a block that is at hand: some rows and columns of one outer index.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    outer: usize,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
}

impl Machine<'_> {
    /// # Safety
    /// As for [`Machine::phase`], with the pointers of the block's accesses at the counters' values.
    pub(super) unsafe fn block(&mut self, block: &BlockCode) -> Result<(), Fault> {
        let [outers, rows, cols] = [0, 1, 2].map(|dim: usize| block.dims[dim].evaluate(self.counters));
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let col_step = cols.min(block.chunk);
        let row_step = if rows == 1 { 1 } else { rows.min(block.chunk / col_step) };
        let mut chunk = Chunk { outer: 0, row: 0, col: 0, rows: 0, cols: 0 };
        while chunk.outer < outers {
            chunk.row = 0;
            while chunk.row < rows {
                chunk.rows = row_step.min(rows - chunk.row);
                chunk.col = 0;
                while chunk.col < cols {
                    chunk.cols = col_step.min(cols - chunk.col);
                    for op in &block.ops {
                        // SAFETY: the caller grants the contract, and the chunk is within the dimensions.
                        unsafe { self.lane_op(op, chunk)? };
                    }
                    chunk.col += col_step;
                }
                chunk.row += row_step;
            }
            chunk.outer += 1;
        }
        Ok(())
    }

    /// # Safety
    /// As for [`block`](Self::block); the chunk is within the dimensions and not larger than a register; the operations before
    /// this one have set their registers for it.
    #[inline(always)]
    unsafe fn lane_op(&mut self, op: &LaneOp, chunk: Chunk) -> Result<(), Fault> {
        // SAFETY: the verifier proved accesses in range and types fitting, so that pointers and registers are valid for
        // the lanes of a chunk; targets are registers of their own, or memory that no operand overlaps but element on
        // element (see `forward` in `lower`); temporaries are apart from registers and from buffers.
        unsafe {
            match op {
                LaneOp::Load { to, view, guard, by_reference } => {
                    self.values[to.register] = if guard.is_empty() {
                        self.load(to, view, *by_reference, chunk)
                    } else {
                        self.load_guarded(to, view, guard, *by_reference, chunk)
                    };
                }
                LaneOp::Constant { to, bits, size } => {
                    self.values[*to] = Plane { pointer: bits.as_ptr(), size: *size, ..Plane::NOTHING };
                }
                LaneOp::Index { to, value, strides } => {
                    let start = value.evaluate(self.counters) + along(*strides, chunk);
                    let varies = (strides[1] != 0, strides[2] != 0);
                    let Area { pointer, pitch, rows, cols } = self.target(to, chunk, varies);
                    for row in 0..rows {
                        let target = pointer.wrapping_offset(row as isize * pitch).cast::<i64>();
                        let first = start + row as i64 * strides[1];
                        for col in 0..cols {
                            *target.add(col) = first + col as i64 * strides[2];
                        }
                    }
                }
                LaneOp::Unary { to, op, dtype, x } => {
                    let operands = [self.values[*x]];
                    let (area, temporaries) = (self.result(to, chunk, &operands), self.temporaries());
                    area.lines(operands, to.size, |target, [x], count| {
                        lanes::unary(self.table, *op, *dtype, target, x, count, temporaries);
                    });
                }
                LaneOp::Activate { to, activation, x } => {
                    let x = self.values[*x];
                    let Area { pointer, pitch, rows, cols } = self.result(to, chunk, &[x]);
                    let (target, source) = ((pointer.cast(), pitch / 4), (x.pointer.cast(), x.pitch / 4));
                    let flat = rows > 1 && pitch == (4 * cols) as isize && x.pitch == pitch;
                    let extents = if flat { (1, rows * cols) } else { (rows, cols) };
                    (self.table.raw.activate)(*activation, target, source, extents);
                }
                LaneOp::Binary { to, op, dtype, a, b } => {
                    let operands = [self.values[*a], self.values[*b]];
                    let (area, temporaries) = (self.result(to, chunk, &operands), self.temporaries());
                    let Area { rows, cols, .. } = area;
                    if *dtype == ElementType::F32 && rows > 1 {
                        let operands = operands.map(Plane::operand);
                        if (self.table.raw.binary_rows)(*op, area.rows_f32(), operands, (rows, cols)) {
                            return Ok(());
                        }
                    }
                    area.lines(operands, to.size, |target, [a, b], count| {
                        lanes::binary(self.table, *op, *dtype, target, a, b, count, temporaries);
                    });
                }
                LaneOp::MultiplyAdd { to, dtype, a, b, c } => {
                    let operands = [self.values[*a], self.values[*b], self.values[*c]];
                    let (area, temporaries) = (self.result(to, chunk, &operands), self.temporaries());
                    let Area { rows, cols, .. } = area;
                    let [a, b, c] = operands;
                    if *dtype == ElementType::F32 && rows > 1 && (a.wide || b.wide) {
                        let operands = if a.wide { [a, b, c] } else { [b, a, c] }.map(Plane::operand);
                        (self.table.raw.multiply_add_rows)(area.rows_f32(), operands, (rows, cols));
                        return Ok(());
                    }
                    area.lines(operands, to.size, |target, operands, count| {
                        lanes::multiply_add(self.table, *dtype, target, operands, count, temporaries);
                    });
                }
                LaneOp::Select { to, dtype, condition, then, otherwise } => {
                    let operands = [self.values[*condition], self.values[*then], self.values[*otherwise]];
                    let (area, temporaries) = (self.result(to, chunk, &operands), self.temporaries());
                    area.lines(operands, to.size, |target, [condition, then, otherwise], count| {
                        let choice = [then, otherwise];
                        lanes::select(self.table, *dtype, target, condition, choice, count, temporaries);
                    });
                }
                LaneOp::Cast { to, dtype, from, x } => {
                    let operands = [self.values[*x]];
                    let (area, temporaries) = (self.result(to, chunk, &operands), self.temporaries());
                    area.lines(operands, to.size, |target, [x], count| {
                        cast(self.table, (*dtype, target), (*from, x.pointer), count, temporaries);
                    });
                }
                LaneOp::Gather { to, buffer, index, mask } => {
                    let index = self.values[*index];
                    let mask = mask.map(|mask| self.values[mask]);
                    let area = self.result(to, chunk, &[index, mask.unwrap_or(Plane::NOTHING)]);
                    let length = self.program.code().buffers[buffer.index()].length;
                    let source = (self.bases[buffer.index()].cast_const(), length);
                    for row in 0..area.rows {
                        let target = area.pointer.wrapping_offset(row as isize * area.pitch);
                        let mask = mask.map(|mask| mask.line(row));
                        gather(to.size, target, source, index.line(row), mask, area.cols)
                            .map_err(|index| Fault::Index { buffer: *buffer, index })?;
                    }
                }
                LaneOp::Store { view, dtype, value, combine, guard, mask } => {
                    let (value, mask) = (self.values[*value], mask.map(|mask| self.values[mask]));
                    if guard.is_empty() && mask.is_none() {
                        self.store((view, *dtype, *combine), value, chunk);
                    } else {
                        self.store_guarded((view, *dtype, *combine), value, (guard, mask), chunk);
                    }
                }
                LaneOp::SumProduct { view, a, b } => {
                    let (Chunk { rows, cols, .. }, [a, b]) = (chunk, [self.values[*a], self.values[*b]]);
                    let (target, step) = (self.first(view, chunk).cast::<f32>(), view.strides[1]);
                    if a.wide && b.wide {
                        let [left, right] = [a, b].map(|plane| (plane.pointer.cast(), plane.pitch / 4));
                        (self.table.raw.sum_product_rows)((target, step), left, right, (rows, cols));
                        return Ok(());
                    }
                    let [first, second, ..] = self.temporaries().each();
                    for row in 0..rows {
                        let [left, right] = [(a, first), (b, second)]
                            .map(|(plane, temporary)| plane.line(row).spread(4, cols, temporary).cast());
                        let place = (target.offset(row as isize * step), 0);
                        (self.table.raw.sum_product_rows)(place, (left, 0), (right, 0), (1, cols));
                    }
                }
                LaneOp::Scatter { dtype, buffer, index, value, combine, mask } => {
                    let (index, value) = (self.values[*index], self.values[*value]);
                    let mask = mask.map(|mask| self.values[mask]);
                    let length = self.program.code().buffers[buffer.index()].length;
                    let (base, size) = (self.bases[buffer.index()], dtype.size_bytes());
                    for lane in 0..chunk.rows * chunk.cols {
                        let (row, col) = (lane / chunk.cols, lane % chunk.cols);
                        if mask.is_some_and(|mask| *mask.lane(row, col) == 0) {
                            continue;
                        }
                        let place = *index.lane(row, col).cast::<i64>();
                        let inside = usize::try_from(place).ok().filter(|place| *place < length);
                        let Some(inside) = inside else {
                            return Err(Fault::Index { buffer: *buffer, index: place });
                        };
                        let one = Value { pointer: value.lane(row, col), uniform: true };
                        let target = (base.add(inside * size), 1);
                        lanes::combine(self.table, *dtype, *combine, target, one, 1, self.temporaries());
                    }
                }
            }
        }
        Ok(())
    }

    /// Where to write the result of operands, and how much of it.
    #[inline(always)]
    unsafe fn result(&mut self, to: &Target, chunk: Chunk, operands: &[Plane]) -> Area {
        let varies = operands
            .iter()
            .fold((false, false), |(rows, cols), operand| (rows | (operand.pitch != 0), cols | operand.wide));
        // SAFETY: the caller grants the contract of `target`.
        unsafe { self.target(to, chunk, varies) }
    }

    /// Where to write a result that varies over the rows or the columns or both; sets its register to it.
    ///
    /// # Safety
    /// The chunk is within the block's dimensions and not larger than a register.
    #[inline(always)]
    unsafe fn target(&mut self, to: &Target, chunk: Chunk, (over_rows, over_cols): (bool, bool)) -> Area {
        let rows = if over_rows { chunk.rows } else { 1 };
        let cols = if over_cols { chunk.cols } else { 1 };
        // SAFETY: the offset of a register is within the register memory; the verifier proved the view in range.
        let (pointer, pitch) = unsafe {
            match &to.forward {
                Some(view) if view.strides[2] == 1 && rows == chunk.rows && cols == chunk.cols => {
                    (self.first(view, chunk), view.strides[1] * view.size as isize)
                }
                Some(_) | None => (self.lanes.add(to.offset), (cols * to.size) as isize),
            }
        };
        let own = if rows == 1 { 0 } else { pitch };
        self.values[to.register] = Plane { pointer, pitch: own, wide: over_cols, size: to.size as u8 };
        Area { pointer, pitch, rows, cols }
    }

    /// The address of the chunk's first element.
    #[inline(always)]
    fn first(&self, view: &View, chunk: Chunk) -> *mut u8 {
        let [outer, row, col] = view.strides;
        let elements = chunk.outer as isize * outer + chunk.row as isize * row + chunk.col as isize * col;
        self.pointers[view.access].wrapping_offset(elements * view.size as isize)
    }

    /// A load without a guard.
    #[inline(always)]
    unsafe fn load(&self, to: &Target, view: &View, by_reference: bool, chunk: Chunk) -> Plane {
        let (size, first) = (view.size, self.first(view, chunk));
        let [_, row_stride, col_stride] = view.strides;
        let row_stride = if chunk.rows == 1 { 0 } else { row_stride };
        let wide = col_stride != 0 && chunk.cols > 1;
        if by_reference && (!wide || col_stride == 1) {
            return Plane { pointer: first, pitch: row_stride * size as isize, wide, size: size as u8 };
        }
        let (rows, cols) = (if row_stride == 0 { 1 } else { chunk.rows }, if wide { chunk.cols } else { 1 });
        // SAFETY: the elements are proved in range; the register holds a chunk.
        unsafe {
            let register = self.lanes.add(to.offset);
            self.load_rows(
                size,
                (register, (cols * size) as isize),
                (first, [row_stride, col_stride]),
                rows,
                cols,
            );
            let pitch = if rows == 1 { 0 } else { (cols * size) as isize };
            Plane { pointer: register, pitch, wide, size: size as u8 }
        }
    }

    /// Copies strided rows together.
    unsafe fn load_rows(
        &self,
        size: usize,
        (target, pitch): (*mut u8, isize),
        (source, [row_stride, col_stride]): (*const u8, [isize; 2]),
        rows: usize,
        cols: usize,
    ) {
        for row in 0..rows as isize {
            let source = source.wrapping_offset(row * row_stride * size as isize);
            // SAFETY: the caller grants the elements.
            unsafe { self.load_row(size, target.wrapping_offset(row * pitch), source, col_stride, cols) };
        }
    }

    #[inline(always)]
    unsafe fn load_row(&self, size: usize, target: *mut u8, source: *const u8, stride: isize, count: usize) {
        // SAFETY: the caller grants the elements.
        unsafe {
            match stride {
                1 => copy(target, source, count * size),
                0 => lanes::fill(size, target, source, count),
                _ if size == 4 => {
                    (self.table.raw.gather_strided)(target.cast(), source.cast(), stride, count);
                }
                _ => lanes::copy_strided(size, (target, 1), (source, stride), count),
            }
        }
    }

    unsafe fn load_guarded(
        &self,
        to: &Target,
        view: &View,
        guard: &[Guard],
        by_reference: bool,
        chunk: Chunk,
    ) -> Plane {
        let (size, first) = (view.size, self.first(view, chunk));
        let [_, row_stride, col_stride] = view.strides;
        let register = self.lanes.wrapping_add(to.offset);
        let pitch = chunk.cols * size;
        for row in 0..chunk.rows {
            let (from, to) = self.interval(guard, chunk, row);
            if by_reference && chunk.rows == 1 && from == 0 && to == chunk.cols && col_stride == 1 {
                return Plane { pointer: first, pitch: 0, wide: true, size: size as u8 };
            }
            let target = register.wrapping_add(row * pitch);
            // SAFETY: the elements within the guard are proved in range, and no others are read; the register holds a
            // chunk.
            unsafe {
                std::ptr::write_bytes(target, 0, from * size);
                if to > from {
                    let offset = row as isize * row_stride + from as isize * col_stride;
                    let source = first.wrapping_offset(offset * size as isize);
                    self.load_row(size, target.add(from * size), source, col_stride, to - from);
                }
                std::ptr::write_bytes(target.add(to * size), 0, (chunk.cols - to) * size);
            }
        }
        let own = if chunk.rows == 1 { 0 } else { pitch as isize };
        Plane { pointer: register, pitch: own, wide: true, size: size as u8 }
    }

    /// A store without guard and mask.
    #[inline(always)]
    unsafe fn store(
        &self,
        (view, dtype, combine): (&View, ElementType, Combine),
        value: Plane,
        chunk: Chunk,
    ) {
        let (size, first) = (view.size, self.first(view, chunk));
        let [_, row_stride, col_stride] = view.strides;
        let (Chunk { rows, cols, .. }, row_pitch) = (chunk, row_stride * size as isize);
        let replace = combine == Combine::Replace;
        let there = std::ptr::eq(value.pointer, first)
            && (value.wide || cols == 1)
            && (rows == 1 || value.pitch == row_pitch);
        if replace && there && (col_stride == 1 || cols == 1) {
            return;
        }
        let adjacent = col_stride == 1 && (rows == 1 || row_stride == cols as isize);
        let total = !replace && col_stride == 0 && (row_stride == 0 || rows == 1);
        // SAFETY: the elements are proved in range; the value has the lanes of the chunk.
        unsafe {
            if (adjacent || total)
                && let Some(flat) = value.flat(rows, cols)
            {
                self.store_row((dtype, combine), (first, col_stride), flat, rows * cols);
                return;
            }
            if let (Some(op), ElementType::F32, 0, true) = (combine.op(), dtype, col_stride, value.wide) {
                let (target, source) = ((first.cast(), row_stride), (value.pointer.cast(), value.pitch / 4));
                (self.table.raw.reduce_rows)(op, target, source, (rows, cols));
                return;
            }
            for row in 0..rows {
                let target = first.wrapping_offset(row as isize * row_pitch);
                self.store_row((dtype, combine), (target, col_stride), value.line(row), cols);
            }
        }
    }

    unsafe fn store_guarded(
        &self,
        (view, dtype, combine): (&View, ElementType, Combine),
        value: Plane,
        (guard, mask): (&[Guard], Option<Plane>),
        chunk: Chunk,
    ) {
        let (size, first) = (view.size, self.first(view, chunk));
        let [_, row_stride, col_stride] = view.strides;
        for row in 0..chunk.rows {
            let (from, to) = self.interval(guard, chunk, row);
            let place = |col: usize| {
                let offset = row as isize * row_stride + col as isize * col_stride;
                first.wrapping_offset(offset * size as isize)
            };
            // SAFETY: the elements within the guard are proved in range, and no others are written; the value has the
            // lanes of the chunk.
            unsafe {
                let Some(mask) = mask else {
                    if to > from {
                        let value = Value { pointer: value.lane(row, from), uniform: !value.wide };
                        self.store_row((dtype, combine), (place(from), col_stride), value, to - from);
                    }
                    continue;
                };
                for col in from..to {
                    if *mask.lane(row, col) != 0 {
                        let one = Value { pointer: value.lane(row, col), uniform: true };
                        self.store_row((dtype, combine), (place(col), 0), one, 1);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_row(
        &self,
        (dtype, combine): (ElementType, Combine),
        (target, stride): (*mut u8, isize),
        value: Value,
        count: usize,
    ) {
        let size = dtype.size_bytes();
        let temporaries = self.temporaries();
        // SAFETY: the caller grants the elements.
        unsafe {
            match (combine, stride) {
                (Combine::Replace, 1) if value.uniform => lanes::fill(size, target, value.pointer, count),
                (Combine::Replace, 1) => copy(target, value.pointer, count * size),
                (Combine::Replace, _) if size == 4 && !value.uniform => {
                    (self.table.raw.scatter_strided)(target.cast(), stride, value.pointer.cast(), count);
                }
                (Combine::Replace | Combine::Add | Combine::Mul | Combine::Min | Combine::Max, _) => {
                    let target = (target, stride);
                    lanes::combine(self.table, dtype, combine, target, value, count, temporaries);
                }
            }
        }
    }

    /// The columns of a row of the chunk, from and up to, where all conditions hold; empty at the chunk's end if none do.
    fn interval(&self, guard: &[Guard], chunk: Chunk, row: usize) -> (usize, usize) {
        let (mut from, mut to) = (0, chunk.cols as i64);
        for condition in guard {
            let base = condition.value.evaluate(self.counters)
                + along(condition.strides, Chunk { row: chunk.row + row, ..chunk });
            let (low, high) = match condition.strides[2] {
                0 if 0 <= base && base < condition.limit => (0, to),
                0 => (0, 0),
                1 => (-base, condition.limit - base),
                stride if stride > 0 => (ceil_div(-base, stride), ceil_div(condition.limit - base, stride)),
                stride => ((base - condition.limit).div_euclid(-stride) + 1, base.div_euclid(-stride) + 1),
            };
            from = low.max(from);
            to = high.min(to);
        }
        if from < to { (from as usize, to as usize) } else { (chunk.cols, chunk.cols) }
    }
}

fn along(strides: [i64; 3], chunk: Chunk) -> i64 {
    strides[0] * chunk.outer as i64 + strides[1] * chunk.row as i64 + strides[2] * chunk.col as i64
}

fn ceil_div(value: i64, divisor: i64) -> i64 {
    -(-value).div_euclid(divisor)
}

/// Copies bytes that may overlap; a few of them without a call.
#[inline(always)]
unsafe fn copy(target: *mut u8, source: *const u8, bytes: usize) {
    const PIECE: usize = 16;
    type Piece = [u8; PIECE];
    // SAFETY: the caller grants the bytes, of which the pieces are parts.
    unsafe {
        if !(PIECE..=16 * PIECE).contains(&bytes) {
            std::ptr::copy(source, target, bytes);
            return;
        }
        let last = source.add(bytes - PIECE).cast::<Piece>().read_unaligned();
        let mut at = 0;
        while at + PIECE < bytes {
            let piece = source.add(at).cast::<Piece>().read_unaligned();
            target.add(at).cast::<Piece>().write_unaligned(piece);
            at += PIECE;
        }
        target.add(bytes - PIECE).cast::<Piece>().write_unaligned(last);
    }
}

/// `target[i] = source[index[i]]`, 0 where the mask does not hold, or the first index outside. The source may lie at any
/// address.
unsafe fn gather(
    size: usize,
    target: *mut u8,
    (source, length): (*const u8, usize),
    index: Value,
    mask: Option<Value>,
    count: usize,
) -> Result<(), i64> {
    macro_rules! sized {
        ($own:ty) => {
            for lane in 0..count {
                // SAFETY: the caller grants the lanes, and the index is checked against the length.
                unsafe {
                    let holds = mask.is_none_or(|mask| *mask.pointer.add(lane * mask.step()) != 0);
                    let value = if holds {
                        let place = *index.pointer.cast::<i64>().add(lane * index.step());
                        match usize::try_from(place) {
                            Ok(inside) if inside < length => {
                                source.cast::<$own>().add(inside).read_unaligned()
                            }
                            Ok(_) | Err(_) => return Err(place),
                        }
                    } else {
                        0
                    };
                    *target.cast::<$own>().add(lane) = value;
                }
            }
        };
    }
    match size {
        1 => sized!(u8),
        2 => sized!(u16),
        4 => sized!(u32),
        _ => sized!(u64),
    }
    Ok(())
}
