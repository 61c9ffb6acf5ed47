//! Operations on chunks of lanes, for every element type. f32 goes to the vector kernels; half floats compute there too
//! and round; the other types run plain loops, one per type and operation.
//!
//! All functions share one contract: pointers are aligned and valid for `count` elements of their types (one element for a
//! uniform operand), `count` is at most a chunk, and the temporaries are apart from everything else. The target of `unary`
//! and `binary` may be the very address of an operand of the same size; in all other ways targets overlap no operand.

use half::{bf16, f16};

use super::arithmetic::{self, Lane, zip};
use super::code::{Combine, ElementType};
use super::convert::{Temporaries, map, narrow, widen, with_native};
use crate::plane::Operand;
use crate::scalar::{BinaryOp, OnIntegers, UnaryOp};
use crate::table::KernelTable;
use crate::vector::body::Form;

/// A register's value for the lanes of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) pointer: *const u8,
    /// All lanes have the value of the first, and only the first is there.
    pub(super) uniform: bool,
}

impl Value {
    /// Elements between lanes.
    pub(super) fn step(self) -> usize {
        usize::from(!self.uniform)
    }

    /// The value as one of `count` lanes, spread into `temporary` if it is uniform.
    pub(super) unsafe fn spread(self, size: usize, count: usize, temporary: *mut u8) -> *const u8 {
        if self.uniform && count > 1 {
            // SAFETY: the caller grants the element and room for `count`.
            unsafe { fill(size, temporary, self.pointer, count) };
            temporary
        } else {
            self.pointer
        }
    }
}

/// Calls `$body` with `$native` an unsigned type of that many bytes.
macro_rules! with_size {
    ($size:expr, $native:ident => $body:expr) => {
        match $size {
            1 => {
                type $native = u8;
                $body
            }
            2 => {
                type $native = u16;
                $body
            }
            4 => {
                type $native = u32;
                $body
            }
            _ => {
                type $native = u64;
                $body
            }
        }
    };
}

/// `target[i] = source[0]`.
pub(super) unsafe fn fill(size: usize, target: *mut u8, source: *const u8, count: usize) {
    with_size!(size, T => {
        // SAFETY: the caller grants `count` elements of `target` and one of `source`.
        unsafe {
            let value = *source.cast::<T>();
            std::slice::from_raw_parts_mut(target.cast::<T>(), count).fill(value);
        }
    });
}

/// `target[i * target_step] = source[i * source_step]`, with steps in elements.
pub(super) unsafe fn copy_strided(
    size: usize,
    (target, target_step): (*mut u8, isize),
    (source, source_step): (*const u8, isize),
    count: usize,
) {
    with_size!(size, T => {
        let (target, source) = (target.cast::<T>(), source.cast::<T>());
        for i in 0..count as isize {
            // SAFETY: the caller grants the elements at these steps.
            unsafe { *target.offset(i * target_step) = *source.offset(i * source_step) };
        }
    });
}

/// `target[i] = op(x[i])`; a bool for tests.
pub(super) unsafe fn unary(
    table: &KernelTable,
    op: UnaryOp,
    dtype: ElementType,
    target: *mut u8,
    x: Value,
    count: usize,
    temporaries: Temporaries,
) {
    let ([first, ..], x) = (temporaries.each(), x.pointer);
    // SAFETY: the module's contract.
    unsafe {
        match dtype {
            ElementType::F32 if op.is_test() => arithmetic::test::<f32>(op, target, x.cast(), count),
            ElementType::F32 => (table.raw.unary)(op, target.cast(), x.cast(), count),
            ElementType::F16 | ElementType::BF16 => {
                widen(table, dtype, first.cast(), x, count);
                if op.is_test() {
                    arithmetic::test::<f32>(op, target, first.cast(), count);
                } else {
                    (table.raw.unary)(op, first.cast(), first.cast_const().cast(), count);
                    narrow(table, dtype, target, first.cast(), count);
                }
            }
            ElementType::Bool => map(target, x, count, |x| bool_unary(op, x != 0)),
            ElementType::F64
            | ElementType::I8
            | ElementType::I16
            | ElementType::I32
            | ElementType::I64
            | ElementType::U8
            | ElementType::U16
            | ElementType::U32
            | ElementType::U64 => with_native!(dtype, T => {
                if op.is_test() {
                    arithmetic::test::<T>(op, target, x.cast(), count);
                } else {
                    arithmetic::unary::<T>(op, target.cast(), x.cast(), count);
                }
            }, ()),
        }
    }
}

fn bool_unary(op: UnaryOp, x: bool) -> u8 {
    match op.on_integers() {
        Some(OnIntegers::Not) => u8::from(!x),
        Some(OnIntegers::False) => 0,
        Some(OnIntegers::Neg | OnIntegers::Abs | OnIntegers::Sign | OnIntegers::Same) | None => u8::from(x),
    }
}

/// `target[i] = op(a[i], b[i])`; a bool for comparisons.
#[expect(clippy::too_many_arguments, reason = "the operands of the operation and of the machine")]
pub(super) unsafe fn binary(
    table: &KernelTable,
    op: BinaryOp,
    dtype: ElementType,
    target: *mut u8,
    a: Value,
    b: Value,
    count: usize,
    temporaries: Temporaries,
) {
    let [first, second, third, _] = temporaries.each();
    // SAFETY: the module's contract.
    unsafe {
        match dtype {
            ElementType::F32 => {
                binary_f32(table, op, target, (a.pointer.cast(), b.pointer.cast()), form(a, b), count);
            }
            ElementType::F16 | ElementType::BF16 => {
                widen(table, dtype, first.cast(), a.pointer, if a.uniform { 1 } else { count });
                widen(table, dtype, second.cast(), b.pointer, if b.uniform { 1 } else { count });
                let operands = (first.cast_const().cast(), second.cast_const().cast());
                if op.is_comparison() {
                    binary_f32(table, op, target, operands, form(a, b), count);
                } else {
                    binary_f32(table, op, third, operands, form(a, b), count);
                    narrow(table, dtype, target, third.cast(), count);
                }
            }
            ElementType::Bool => {
                let (a, b) = (a.spread(1, count, first), b.spread(1, count, second));
                zip(target, a, b, count, |a, b| {
                    u8::from(op.eval_i64(i64::from(a != 0), i64::from(b != 0)) != 0)
                });
            }
            ElementType::F64
            | ElementType::I8
            | ElementType::I16
            | ElementType::I32
            | ElementType::I64
            | ElementType::U8
            | ElementType::U16
            | ElementType::U32
            | ElementType::U64 => {
                let size = dtype.size_bytes();
                let (a, b) = (a.spread(size, count, first), b.spread(size, count, second));
                if (table.raw.arithmetic)(op, dtype, target, a, b, count) {
                    return;
                }
                with_native!(dtype, T => {
                    if op.is_comparison() {
                        arithmetic::compare::<T>(op, target, a.cast(), b.cast(), count);
                    } else {
                        arithmetic::binary::<T>(op, target.cast(), a.cast(), b.cast(), count);
                    }
                }, ());
            }
        }
    }
}

/// Both uniform means a count of 1, for which any form is right.
fn form(a: Value, b: Value) -> Form {
    match (a.uniform, b.uniform) {
        (false, true) => Form::ScalarRight,
        (true, false) => Form::ScalarLeft,
        (false, false) | (true, true) => Form::Arrays,
    }
}

unsafe fn binary_f32(
    table: &KernelTable,
    op: BinaryOp,
    target: *mut u8,
    (a, b): (*const f32, *const f32),
    form: Form,
    count: usize,
) {
    // SAFETY: the module's contract; a table is given out only where the CPU has its instruction set.
    unsafe {
        if op.is_comparison() {
            (table.raw.compare)(op, form, target, a, b, count);
        } else {
            (table.raw.binary)(op, form, target.cast(), a, b, count);
        }
    }
}

/// `target[i] = a[i] * b[i] + c[i]`.
pub(super) unsafe fn multiply_add(
    table: &KernelTable,
    dtype: ElementType,
    target: *mut u8,
    [a, b, c]: [Value; 3],
    count: usize,
    temporaries: Temporaries,
) {
    let [first, second, third, fourth] = temporaries.each();
    // SAFETY: the module's contract; the temporaries are used for one operand each.
    unsafe {
        match dtype {
            ElementType::F32 if a.uniform && b.uniform => {
                binary_f32(
                    table,
                    BinaryOp::Mul,
                    first,
                    (a.pointer.cast(), b.pointer.cast()),
                    Form::Arrays,
                    1,
                );
                let product = Value { pointer: first, uniform: true };
                let operands = (first.cast_const().cast(), c.pointer.cast());
                binary_f32(table, BinaryOp::Add, target, operands, form(product, c), count);
            }
            ElementType::F32 => {
                let operands = if a.uniform { [b, a, c] } else { [a, b, c] };
                let operands = operands.map(|operand| Operand {
                    pointer: operand.pointer.cast(),
                    pitch: 0,
                    single: operand.uniform,
                });
                (table.raw.multiply_add_rows)((target.cast(), 0), operands, (1, count));
            }
            ElementType::F16 | ElementType::BF16 => {
                let widened = |value: Value, temporary: *mut u8| {
                    widen(
                        table,
                        dtype,
                        temporary.cast(),
                        value.pointer,
                        if value.uniform { 1 } else { count },
                    );
                    Value { pointer: temporary, uniform: value.uniform }
                };
                let (a, b, c) = (widened(a, first), widened(b, second), widened(c, third));
                // The product is rounded to f32 only, as in a fused operation.
                let product = Value { pointer: fourth, uniform: a.uniform && b.uniform };
                let products = if product.uniform { 1 } else { count };
                binary_f32(
                    table,
                    BinaryOp::Mul,
                    fourth,
                    (a.pointer.cast(), b.pointer.cast()),
                    form(a, b),
                    products,
                );
                binary_f32(
                    table,
                    BinaryOp::Add,
                    first,
                    (fourth.cast_const().cast(), c.pointer.cast()),
                    form(product, c),
                    count,
                );
                narrow(table, dtype, target, first.cast(), count);
            }
            ElementType::Bool
            | ElementType::F64
            | ElementType::I8
            | ElementType::I16
            | ElementType::I32
            | ElementType::I64
            | ElementType::U8
            | ElementType::U16
            | ElementType::U32
            | ElementType::U64 => {
                let product = Value { pointer: third, uniform: a.uniform && b.uniform };
                let products = if product.uniform { 1 } else { count };
                binary(table, BinaryOp::Mul, dtype, third, a, b, products, temporaries);
                binary(table, BinaryOp::Add, dtype, target, product, c, count, temporaries);
            }
        }
    }
}

/// `target[i] = if condition[i] { then[i] } else { otherwise[i] }`.
pub(super) unsafe fn select(
    table: &KernelTable,
    dtype: ElementType,
    target: *mut u8,
    condition: Value,
    [then, otherwise]: [Value; 2],
    count: usize,
    temporaries: Temporaries,
) {
    let size = dtype.size_bytes();
    let [first, second, ..] = temporaries.each();
    // SAFETY: the module's contract.
    unsafe {
        if condition.uniform {
            let chosen = if *condition.pointer != 0 { then } else { otherwise };
            if chosen.uniform {
                fill(size, target, chosen.pointer, count);
            } else {
                std::ptr::copy_nonoverlapping(chosen.pointer, target, count * size);
            }
            return;
        }
        let (then, otherwise) = (then.spread(size, count, first), otherwise.spread(size, count, second));
        if dtype == ElementType::F32 {
            (table.raw.select)(target.cast(), condition.pointer, then.cast(), otherwise.cast(), count);
            return;
        }
        with_size!(size, T => {
            let (target, then, otherwise) = (target.cast::<T>(), then.cast::<T>(), otherwise.cast::<T>());
            for i in 0..count {
                let (then, otherwise) = (*then.add(i), *otherwise.add(i));
                *target.add(i) = if *condition.pointer.add(i) != 0 { then } else { otherwise };
            }
        });
    }
}

/// `target[i * step] = combine(target[i * step], values[i])` one after the other; `step` may be 0, for a reduction.
pub(super) unsafe fn combine(
    table: &KernelTable,
    dtype: ElementType,
    combine: Combine,
    (target, step): (*mut u8, isize),
    value: Value,
    count: usize,
    temporaries: Temporaries,
) {
    let size = dtype.size_bytes();
    let [first, second, third, _] = temporaries.each();
    let Some(op) = combine.op() else {
        // SAFETY: the module's contract, with the target's elements at its step.
        unsafe {
            copy_strided(size, (target, step), (value.pointer, value.step() as isize), count);
        }
        return;
    };
    // SAFETY: the module's contract, with the target's elements at its step; what is computed in temporaries uses each
    // for one thing.
    unsafe {
        match dtype {
            ElementType::F32 | ElementType::I32 | ElementType::U8 | ElementType::I8 if step == 1 => {
                let old = Value { pointer: target, uniform: false };
                binary(table, op, dtype, target, old, value, count, temporaries);
            }
            ElementType::F32 if step == 0 && count > 0 => {
                let values = value.spread(size, count, first);
                let target = target.cast::<f32>();
                *target = (table.raw.reduce)(op, values.cast(), count, *target);
            }
            ElementType::F16 | ElementType::BF16 if step == 0 && count > 0 => {
                let values = value.spread(size, count, first);
                widen(table, dtype, second.cast(), values, count);
                widen(table, dtype, third.cast(), target, 1);
                let total = third.cast::<f32>();
                *total = (table.raw.reduce)(op, second.cast_const().cast(), count, *total);
                narrow(table, dtype, target, third.cast(), 1);
            }
            ElementType::F16 => {
                combine_each::<f16>(target, step, value, count, |a, b| {
                    f16::from_f32(f32::binary(op, a.to_f32(), b.to_f32()))
                });
            }
            ElementType::BF16 => {
                combine_each::<bf16>(target, step, value, count, |a, b| {
                    bf16::from_f32(f32::binary(op, a.to_f32(), b.to_f32()))
                });
            }
            ElementType::Bool => combine_each::<u8>(target, step, value, count, |a, b| {
                u8::from(op.eval_i64(i64::from(a != 0), i64::from(b != 0)) != 0)
            }),
            ElementType::F32
            | ElementType::F64
            | ElementType::I8
            | ElementType::I16
            | ElementType::I32
            | ElementType::I64
            | ElementType::U8
            | ElementType::U16
            | ElementType::U32
            | ElementType::U64 => with_native!(dtype, T => match op {
                BinaryOp::Mul => combine_each::<T>(target, step, value, count, |a, b| T::binary(BinaryOp::Mul, a, b)),
                BinaryOp::Min => combine_each::<T>(target, step, value, count, |a, b| T::binary(BinaryOp::Min, a, b)),
                BinaryOp::Max => combine_each::<T>(target, step, value, count, |a, b| T::binary(BinaryOp::Max, a, b)),
                _ => combine_each::<T>(target, step, value, count, |a, b| T::binary(BinaryOp::Add, a, b)),
            }, ()),
        }
    }
}

unsafe fn combine_each<T: Copy>(
    target: *mut u8,
    step: isize,
    value: Value,
    count: usize,
    f: impl Fn(T, T) -> T,
) {
    let (target, source) = (target.cast::<T>(), value.pointer.cast::<T>());
    for i in 0..count {
        // SAFETY: the caller grants `count` elements at these steps.
        unsafe {
            let place = target.offset(i as isize * step);
            *place = f(*place, *source.add(i * value.step()));
        }
    }
}
