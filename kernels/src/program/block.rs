//! One thread's execution of a block: chunk by chunk, each operation over all lanes of the chunk.

use super::code::{Combine, ElementType};
use super::convert::cast;
use super::lanes::{self, Value};
use super::lower::{BlockCode, Guard, LaneOp, Target, View};
use super::machine::{Fault, Machine};

/// The part of a block that is at hand: some rows and columns of one outer index.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    outer: usize,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
}

impl Chunk {
    fn count(self) -> usize {
        self.rows * self.cols
    }
}

/// Columns from which on a row makes a chunk by itself, so that its memory need not be copied to join that of other rows.
const WIDE: usize = 64;

impl Machine<'_> {
    /// # Safety
    /// As for [`Machine::phase`], with the pointers of the block's accesses at the counters' values.
    pub(super) unsafe fn block(&mut self, block: &BlockCode) -> Result<(), Fault> {
        let [outers, rows, cols] = [0, 1, 2].map(|dim: usize| block.dims[dim].evaluate(self.counters));
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        // SAFETY: the caller grants the contract.
        if unsafe { self.guarded_copy(block, [outers, rows, cols]) } {
            return Ok(());
        }
        let (row_step, col_step) = if rows == 1 || cols >= WIDE {
            (1, cols.min(block.chunk))
        } else {
            (rows.min(block.chunk / cols), cols)
        };
        for outer in 0..outers {
            for row in (0..rows).step_by(row_step) {
                for col in (0..cols).step_by(col_step) {
                    let (rows, cols) = (row_step.min(rows - row), col_step.min(cols - col));
                    let chunk = Chunk { outer, row, col, rows, cols };
                    for op in &block.ops {
                        // SAFETY: the caller grants the contract, and the chunk is within the dimensions.
                        unsafe { self.lane_op(op, chunk)? };
                    }
                }
            }
        }
        Ok(())
    }

    /// # Safety
    /// As for [`block`](Self::block); the chunk is within the dimensions and not larger than a register; the operations before
    /// this one have set their registers for it.
    #[inline]
    unsafe fn lane_op(&mut self, op: &LaneOp, chunk: Chunk) -> Result<(), Fault> {
        // SAFETY: the verifier proved accesses in range and types fitting, so that pointers and registers are valid for
        // the lanes of a chunk; targets are registers of their own, or memory that no operand overlaps but element on
        // element (see `forward` in `lower`); temporaries are apart from registers and from buffers.
        unsafe {
            match op {
                LaneOp::Load { to, view, guard, by_reference } => {
                    let value = self.load(to, view, guard, *by_reference, chunk);
                    self.values[to.register] = value;
                }
                LaneOp::Constant { to, bits } => {
                    self.values[*to] = Value { pointer: bits.as_ptr(), uniform: true };
                }
                LaneOp::Index { to, value, strides } => {
                    let start = value.evaluate(self.counters) + along(*strides, chunk);
                    let uniform =
                        (strides[2] == 0 || chunk.cols == 1) && (strides[1] == 0 || chunk.rows == 1);
                    let (target, count) = self.target(to, chunk, uniform);
                    let target = target.cast::<i64>();
                    let cols = if uniform { 1 } else { chunk.cols };
                    for row in 0..count / cols {
                        let first = start + row as i64 * strides[1];
                        for col in 0..cols {
                            *target.add(row * cols + col) = first + col as i64 * strides[2];
                        }
                    }
                }
                LaneOp::Unary { to, op, dtype, x } => {
                    let x = self.values[*x];
                    let (target, count) = self.target(to, chunk, x.uniform);
                    lanes::unary(self.table, *op, *dtype, target, x.pointer, count, self.temporaries());
                }
                LaneOp::Binary { to, op, dtype, a, b } => {
                    let (a, b) = (self.values[*a], self.values[*b]);
                    let (target, count) = self.target(to, chunk, a.uniform && b.uniform);
                    lanes::binary(self.table, *op, *dtype, target, a, b, count, self.temporaries());
                }
                LaneOp::MultiplyAdd { to, dtype, a, b, c } => {
                    let operands = [self.values[*a], self.values[*b], self.values[*c]];
                    let uniform = operands.iter().all(|operand| operand.uniform);
                    let (target, count) = self.target(to, chunk, uniform);
                    lanes::multiply_add(self.table, *dtype, target, operands, count, self.temporaries());
                }
                LaneOp::Select { to, dtype, condition, then, otherwise } => {
                    let condition = self.values[*condition];
                    let operands = [self.values[*then], self.values[*otherwise]];
                    let uniform = condition.uniform && operands.iter().all(|operand| operand.uniform);
                    let (target, count) = self.target(to, chunk, uniform);
                    lanes::select(self.table, *dtype, target, condition, operands, count, self.temporaries());
                }
                LaneOp::Cast { to, dtype, from, x } => {
                    let x = self.values[*x];
                    let (target, count) = self.target(to, chunk, x.uniform);
                    cast(self.table, (*dtype, target), (*from, x.pointer), count, self.temporaries());
                }
                LaneOp::Gather { to, dtype, buffer, index, mask } => {
                    let (index, mask) = (self.values[*index], mask.map(|mask| self.values[mask]));
                    let uniform = index.uniform && mask.is_none_or(|mask| mask.uniform);
                    let (target, count) = self.target(to, chunk, uniform);
                    let length = self.program.code().buffers[buffer.index()].length;
                    let source = (self.bases[buffer.index()].cast_const(), length);
                    gather(dtype.size_bytes(), target, source, index, mask, count)
                        .map_err(|index| Fault::Index { buffer: *buffer, index })?;
                }
                LaneOp::Store { view, dtype, value, combine, guard, mask } => {
                    let mask = mask.map(|mask| self.values[mask]);
                    self.store(view, *dtype, self.values[*value], *combine, guard, mask, chunk);
                }
                LaneOp::Scatter { dtype, buffer, index, value, combine, mask } => {
                    let (index, value) = (self.values[*index], self.values[*value]);
                    let mask = mask.map(|mask| self.values[mask]);
                    let length = self.program.code().buffers[buffer.index()].length;
                    let (base, size) = (self.bases[buffer.index()], dtype.size_bytes());
                    for lane in 0..chunk.count() {
                        if !holds(mask, lane) {
                            continue;
                        }
                        let place = *index.pointer.cast::<i64>().add(lane * index.step());
                        let inside = usize::try_from(place).ok().filter(|place| *place < length);
                        let Some(inside) = inside else {
                            return Err(Fault::Index { buffer: *buffer, index: place });
                        };
                        let target = (base.add(inside * size), 1);
                        let one =
                            Value { pointer: value.pointer.add(lane * value.step() * size), uniform: true };
                        lanes::combine(self.table, *dtype, *combine, target, one, 1, self.temporaries());
                    }
                }
            }
        }
        Ok(())
    }

    /// Where to write a result and how many lanes of it; sets the register to it.
    unsafe fn target(&mut self, to: &Target, chunk: Chunk, uniform: bool) -> (*mut u8, usize) {
        let pointer = match &to.forward {
            // SAFETY: the verifier proved the view in range.
            Some(view) if contiguous(view, chunk) => unsafe { self.first(view, chunk) },
            // SAFETY: the offset of a register is within the register memory.
            Some(_) | None => unsafe { self.lanes.add(to.offset) },
        };
        self.values[to.register] = Value { pointer, uniform };
        (pointer, if uniform { 1 } else { chunk.count() })
    }

    /// The address of the chunk's first element.
    unsafe fn first(&self, view: &View, chunk: Chunk) -> *mut u8 {
        let [outer, row, col] = view.strides;
        let elements = chunk.outer as isize * outer + chunk.row as isize * row + chunk.col as isize * col;
        self.pointers[view.access].wrapping_offset(elements * view.size as isize)
    }

    unsafe fn load(
        &mut self,
        to: &Target,
        view: &View,
        guard: &[Guard],
        by_reference: bool,
        chunk: Chunk,
    ) -> Value {
        let [_, row_stride, col_stride] = view.strides;
        let size = view.size;
        // SAFETY: the elements within the guard are proved in range, and no others are read; the register holds a chunk.
        unsafe {
            let first = self.first(view, chunk);
            let register = self.lanes.add(to.offset);
            if guard.is_empty() {
                let uniform = (col_stride == 0 || chunk.cols == 1) && (row_stride == 0 || chunk.rows == 1);
                if (uniform || contiguous(view, chunk)) && by_reference {
                    return Value { pointer: first, uniform };
                }
                if uniform {
                    lanes::fill(size, register, first, 1);
                    return Value { pointer: register, uniform };
                }
                if contiguous(view, chunk) {
                    std::ptr::copy_nonoverlapping(first, register, chunk.count() * size);
                } else {
                    for row in 0..chunk.rows {
                        let source = first.offset(row as isize * row_stride * size as isize);
                        let target = register.add(row * chunk.cols * size);
                        self.load_row(size, target, source, col_stride, chunk.cols);
                    }
                }
                return Value { pointer: register, uniform: false };
            }
            for row in 0..chunk.rows {
                let (from, to) = self.interval(guard, chunk, row);
                if chunk.rows == 1 && from == 0 && to == chunk.cols && col_stride == 1 && by_reference {
                    return Value { pointer: first, uniform: false };
                }
                let target = register.add(row * chunk.cols * size);
                std::ptr::write_bytes(target, 0, from * size);
                if to > from {
                    let offset = row as isize * row_stride + from as isize * col_stride;
                    let source = first.wrapping_offset(offset * size as isize);
                    self.load_row(size, target.add(from * size), source, col_stride, to - from);
                }
                std::ptr::write_bytes(target.add(to * size), 0, (chunk.cols - to) * size);
            }
            Value { pointer: register, uniform: false }
        }
    }

    /// `count` elements from `source`, `stride` apart, one after the other to `target`.
    ///
    /// # Safety
    /// The elements are valid, and the two do not overlap.
    #[inline]
    pub(super) unsafe fn load_row(
        &self,
        size: usize,
        target: *mut u8,
        source: *const u8,
        stride: isize,
        count: usize,
    ) {
        // SAFETY: the caller grants the elements.
        unsafe {
            match stride {
                1 => std::ptr::copy_nonoverlapping(source, target, count * size),
                0 => lanes::fill(size, target, source, count),
                _ if size == 4 => {
                    (self.table.raw.gather_strided)(target.cast(), source.cast(), stride, count);
                }
                _ => lanes::copy_strided(size, (target, 1), (source, stride), count),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a store")]
    unsafe fn store(
        &mut self,
        view: &View,
        dtype: ElementType,
        value: Value,
        combine: Combine,
        guard: &[Guard],
        mask: Option<Value>,
        chunk: Chunk,
    ) {
        let [_, row_stride, col_stride] = view.strides;
        let size = view.size;
        // SAFETY: the elements within the guard are proved in range, and no others are written; the value has the lanes of
        // the chunk, or one.
        unsafe {
            let first = self.first(view, chunk);
            let replace = combine == Combine::Replace;
            if guard.is_empty() && mask.is_none() {
                let adjacent = contiguous(view, chunk);
                if replace && adjacent && !value.uniform && std::ptr::eq(value.pointer, first) {
                    return;
                }
                let whole = adjacent || (!replace && col_stride == 0 && (row_stride == 0 || chunk.rows == 1));
                if whole {
                    self.store_row((dtype, combine), (first, col_stride), value, chunk.count());
                    return;
                }
            }
            for row in 0..chunk.rows {
                let (from, to) =
                    if guard.is_empty() { (0, chunk.cols) } else { self.interval(guard, chunk, row) };
                let lane = |col: usize| (row * chunk.cols + col) * value.step() * size;
                let place = |col: usize| {
                    let offset = row as isize * row_stride + col as isize * col_stride;
                    first.wrapping_offset(offset * size as isize)
                };
                if mask.is_none() {
                    if to > from {
                        let value = Value { pointer: value.pointer.add(lane(from)), uniform: value.uniform };
                        self.store_row((dtype, combine), (place(from), col_stride), value, to - from);
                    }
                    continue;
                }
                for col in from..to {
                    if holds(mask, row * chunk.cols + col) {
                        let one = Value { pointer: value.pointer.add(lane(col)), uniform: true };
                        self.store_row((dtype, combine), (place(col), 0), one, 1);
                    }
                }
            }
        }
    }

    #[inline]
    unsafe fn store_row(
        &self,
        (dtype, combine): (ElementType, Combine),
        (target, stride): (*mut u8, isize),
        value: Value,
        count: usize,
    ) {
        let size = dtype.size_bytes();
        // SAFETY: the caller grants the elements. A value in a register or in a buffer that is not stored to does not overlap
        // the target; one that is loaded by reference stays unstored until its last use.
        unsafe {
            match (combine, stride) {
                (Combine::Replace, 1) if value.uniform => lanes::fill(size, target, value.pointer, count),
                (Combine::Replace, 1) => std::ptr::copy(value.pointer, target, count * size),
                (Combine::Replace, _) if size == 4 && !value.uniform => {
                    (self.table.raw.scatter_strided)(target.cast(), stride, value.pointer.cast(), count);
                }
                (Combine::Replace | Combine::Add | Combine::Mul | Combine::Min | Combine::Max, _) => {
                    lanes::combine(
                        self.table,
                        dtype,
                        combine,
                        (target, stride),
                        value,
                        count,
                        self.temporaries(),
                    );
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
            let (low, high) = holding(base, condition.strides[2], condition.limit);
            from = low.max(from);
            to = high.min(to);
        }
        if from < to { (from as usize, to as usize) } else { (chunk.cols, chunk.cols) }
    }
}

/// From and up to which index `0 <= base + stride * index < limit` holds.
pub(super) fn holding(base: i64, stride: i64, limit: i64) -> (i64, i64) {
    match stride {
        0 if 0 <= base && base < limit => (0, i64::MAX),
        0 => (0, 0),
        1 => (-base, limit - base),
        stride if stride > 0 => (ceil_div(-base, stride), ceil_div(limit - base, stride)),
        stride => ((base - limit).div_euclid(-stride) + 1, base.div_euclid(-stride) + 1),
    }
}

/// Whether the chunk's elements are one after the other, row after row.
fn contiguous(view: &View, chunk: Chunk) -> bool {
    let [_, row, col] = view.strides;
    (col == 1 || (chunk.cols == 1 && chunk.rows == 1)) && (chunk.rows == 1 || row == chunk.cols as isize)
}

fn along(strides: [i64; 3], chunk: Chunk) -> i64 {
    strides[0] * chunk.outer as i64 + strides[1] * chunk.row as i64 + strides[2] * chunk.col as i64
}

fn ceil_div(value: i64, divisor: i64) -> i64 {
    -(-value).div_euclid(divisor)
}

/// Whether a mask, if there is one, holds for a lane.
unsafe fn holds(mask: Option<Value>, lane: usize) -> bool {
    // SAFETY: the caller grants the lane.
    mask.is_none_or(|mask| unsafe { *mask.pointer.add(lane * mask.step()) } != 0)
}

/// `target[i] = source[index[i]]`, 0 where the mask does not hold, or the first index outside.
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
                    let value = if holds(mask, lane) {
                        let place = *index.pointer.cast::<i64>().add(lane * index.step());
                        match usize::try_from(place) {
                            Ok(inside) if inside < length => *source.cast::<$own>().add(inside),
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
