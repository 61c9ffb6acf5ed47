//! Conversion between element types, and literals.

use half::{bf16, f16};

use super::code::{ElementType, Literal};
use super::lower::{TEMPORARIES, TEMPORARY_BYTES};
use crate::table::KernelTable;

/// Calls `$body` with `$native` an alias of the Rust type of an element type, or `$other` for bool and the half floats.
macro_rules! with_native {
    ($dtype:expr, $native:ident => $body:expr, $other:expr) => {
        match $dtype {
            ElementType::F32 => {
                type $native = f32;
                $body
            }
            ElementType::F64 => {
                type $native = f64;
                $body
            }
            ElementType::I8 => {
                type $native = i8;
                $body
            }
            ElementType::I16 => {
                type $native = i16;
                $body
            }
            ElementType::I32 => {
                type $native = i32;
                $body
            }
            ElementType::I64 => {
                type $native = i64;
                $body
            }
            ElementType::U8 => {
                type $native = u8;
                $body
            }
            ElementType::U16 => {
                type $native = u16;
                $body
            }
            ElementType::U32 => {
                type $native = u32;
                $body
            }
            ElementType::U64 => {
                type $native = u64;
                $body
            }
            ElementType::F16 | ElementType::BF16 | ElementType::Bool => $other,
        }
    };
}

/// The bytes of a literal as an element of the type, at the front.
pub(super) fn literal_bits(literal: Literal, dtype: ElementType) -> [u8; 8] {
    let mut bits = [0; 8];
    macro_rules! put {
        ($value:expr) => {{
            let bytes = $value.to_ne_bytes();
            bits[..bytes.len()].copy_from_slice(&bytes);
        }};
    }
    let float = match literal {
        Literal::Float(value) => value,
        Literal::Int(value) => value as f64,
    };
    match (dtype, literal) {
        (ElementType::F16, _) => put!(f16::from_f64(float)),
        (ElementType::BF16, _) => put!(bf16::from_f64(float)),
        (ElementType::Bool, Literal::Float(value)) => put!(u8::from(value != 0.0)),
        (ElementType::Bool, Literal::Int(value)) => put!(u8::from(value != 0)),
        (_, Literal::Float(value)) => with_native!(dtype, T => put!(value as T), ()),
        (_, Literal::Int(value)) => with_native!(dtype, T => put!(value as T), ()),
    }
    bits
}

/// `target[i] = f(source[i])`.
///
/// # Safety
/// Both are valid for `count` elements; they may start at one address if `U` is not larger than `T`, and overlap in no
/// other way.
#[inline(always)]
pub(super) unsafe fn map<T: Copy, U>(target: *mut U, source: *const T, count: usize, f: impl Fn(T) -> U) {
    for i in 0..count {
        // SAFETY: `i < count`.
        unsafe { *target.add(i) = f(*source.add(i)) };
    }
}

/// A thread's memory for intermediate steps.
#[derive(Clone, Copy)]
pub(super) struct Temporaries(pub(super) *mut u8);

impl Temporaries {
    /// The temporaries, each large enough for a chunk of any type.
    #[inline(always)]
    pub(super) fn each(self) -> [*mut u8; TEMPORARIES] {
        std::array::from_fn(|at| self.0.wrapping_add(at * TEMPORARY_BYTES))
    }
}

/// Converts a chunk as [`BlockOp::Cast`](super::BlockOp::Cast) says.
///
/// # Safety
/// `target` and `source` are valid and aligned for `count` elements of their types and do not overlap, `count` is at most
/// a chunk, and the temporaries are apart from both.
pub(super) unsafe fn cast(
    table: &KernelTable,
    (to, target): (ElementType, *mut u8),
    (from, source): (ElementType, *const u8),
    count: usize,
    temporaries: Temporaries,
) {
    let [temporary, ..] = temporaries.each();
    // SAFETY: the caller grants `count` elements of each; the temporary holds a chunk of f64.
    unsafe {
        if to == from && to != ElementType::Bool {
            std::ptr::copy_nonoverlapping(source, target, count * to.size_bytes());
            return;
        }
        if (table.raw.convert)(to, from, target, source, count) {
            return;
        }
        match from {
            ElementType::F16 | ElementType::BF16 if to == ElementType::F32 => {
                widen(table, from, target.cast(), source, count);
            }
            ElementType::F16 | ElementType::BF16 => {
                widen(table, from, temporary.cast(), source, count);
                from_native::<f32>(to, target, temporary.cast(), count);
            }
            ElementType::F32 if to == ElementType::F16 || to == ElementType::BF16 => {
                narrow(table, to, target, source.cast(), count);
            }
            ElementType::Bool => {
                map(temporary, source, count, |x| u8::from(x != 0));
                from_native::<u8>(to, target, temporary, count);
            }
            ElementType::F32
            | ElementType::F64
            | ElementType::I8
            | ElementType::I16
            | ElementType::I32
            | ElementType::I64
            | ElementType::U8
            | ElementType::U16
            | ElementType::U32
            | ElementType::U64 => {
                with_native!(from, T => from_native::<T>(to, target, source.cast(), count), ());
            }
        }
    }
}

/// Half precision to f32.
///
/// # Safety
/// Both are valid for `count` elements and do not overlap.
pub(super) unsafe fn widen(
    table: &KernelTable,
    from: ElementType,
    target: *mut f32,
    source: *const u8,
    count: usize,
) {
    // SAFETY: the caller grants the elements; a table is given out only where the CPU has its instruction set.
    unsafe {
        if from == ElementType::F16 {
            (table.raw.f16_to_f32)(target, source.cast(), count);
        } else {
            (table.raw.bf16_to_f32)(target, source.cast(), count);
        }
    }
}

/// f32 to half precision.
///
/// # Safety
/// As for [`widen`].
pub(super) unsafe fn narrow(
    table: &KernelTable,
    to: ElementType,
    target: *mut u8,
    source: *const f32,
    count: usize,
) {
    // SAFETY: as for `widen`.
    unsafe {
        if to == ElementType::F16 {
            (table.raw.f32_to_f16)(target.cast(), source, count);
        } else {
            (table.raw.f32_to_bf16)(target.cast(), source, count);
        }
    }
}

/// A type that `as` converts to every native type.
trait Native: Copy {
    unsafe fn convert(to: ElementType, target: *mut u8, source: *const Self, count: usize);
}

macro_rules! natives {
    ($($own:ty),*) => {$(
        impl Native for $own {
            unsafe fn convert(to: ElementType, target: *mut u8, source: *const $own, count: usize) {
                // SAFETY: the caller grants `count` elements of both.
                unsafe {
                    match to {
                        ElementType::F16 => map(target.cast(), source, count, |x: $own| f16::from_f64(x as f64)),
                        ElementType::BF16 => map(target.cast(), source, count, |x: $own| bf16::from_f64(x as f64)),
                        ElementType::Bool => map(target, source, count, |x: $own| u8::from(x != 0 as $own)),
                        ElementType::F32
                        | ElementType::F64
                        | ElementType::I8
                        | ElementType::I16
                        | ElementType::I32
                        | ElementType::I64
                        | ElementType::U8
                        | ElementType::U16
                        | ElementType::U32
                        | ElementType::U64 => {
                            with_native!(to, T => map(target.cast(), source, count, |x: $own| x as T), ());
                        }
                    }
                }
            }
        }
    )*};
}

natives!(f32, f64, i8, i16, i32, i64, u8, u16, u32, u64);

unsafe fn from_native<T: Native>(to: ElementType, target: *mut u8, source: *const T, count: usize) {
    // SAFETY: the caller grants `count` elements of both.
    unsafe { T::convert(to, target, source, count) }
}

pub(super) use with_native;
