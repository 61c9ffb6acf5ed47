//! Instructions over registers of 64 bits, which hold the bits of an f64 or an i64.

use crate::expr::{BinaryOp, UnaryOp};
use crate::tensor::DType;
use half::{bf16, f16};

/// What an instruction does with the registers `a` and `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// On i64, wrapping.
    Add,
    /// On i64, wrapping.
    Mul,
    /// On i64.
    Less,
    /// On i64.
    AtLeast,
    /// Bitwise.
    And,
    /// On f64.
    FloatAdd,
    /// On f64.
    FloatMul,
    /// Any other operation on i64.
    Int(BinaryOp),
    /// On u64, where that differs.
    Unsigned(BinaryOp),
    /// On f64 with an f64 as result.
    Float(BinaryOp),
    /// On f64 with a bool as result.
    FloatTest(BinaryOp),
    /// On i64.
    IntUnary(UnaryOp),
    /// On f64 with an f64 as result.
    FloatUnary(UnaryOp),
    /// On f64 with a bool as result.
    FloatUnaryTest(UnaryOp),
    /// Of a bool.
    Not,
    /// An i64 wrapped to the width of an integer type.
    Wrap(DType),
    /// An f64 rounded to a float type.
    Round(DType),
    /// An f64 truncated and saturated to an integer type.
    Truncate(DType),
    /// An i64 as f64.
    ToFloat,
    /// A u64 as f64.
    UnsignedToFloat,
    /// Whether an i64 is not 0.
    IsTrue,
    /// Whether an f64 is not 0.
    FloatIsTrue,
    /// `a`.
    Move,
    /// Fails unless `a` is within the extent of site `b`.
    Check,
    /// The element at `a` of slot `b`.
    Load(DType),
    /// Writes the target register to the element at `a` of slot `b`.
    Store(DType),
    /// The instance at `a` of slot `b` becomes undefined.
    Reset,
    /// Skips `b` instructions where `a` is 0.
    SkipIfZero,
}

/// `target = op(a, b)`
#[derive(Clone, Copy, Debug)]
pub(super) struct Instr {
    pub(super) op: Op,
    pub(super) target: u32,
    pub(super) a: u32,
    pub(super) b: u32,
}

/// The result of an operation that only computes and is not so frequent that the machine does it itself.
///
/// # Panics
/// For other operations.
#[inline]
pub(super) fn compute(op: Op, a: u64, b: u64) -> u64 {
    let (int_a, int_b) = (a as i64, b as i64);
    let (float_a, float_b) = (f64::from_bits(a), f64::from_bits(b));
    match op {
        Op::Int(op) => op.eval_i64(int_a, int_b) as u64,
        Op::Unsigned(op) => unsigned(op, a, b),
        Op::Float(op) => op.eval_f64(float_a, float_b).to_bits(),
        Op::FloatTest(op) => u64::from(op.eval_f64(float_a, float_b) != 0.0),
        // The verifier lets no operation without a meaning pass.
        Op::IntUnary(op) => op.eval_i64(int_a).unwrap_or(0) as u64,
        Op::FloatUnary(op) => op.eval_f64(float_a).to_bits(),
        Op::FloatUnaryTest(op) => u64::from(op.eval_f64(float_a) != 0.0),
        Op::Not => u64::from(a == 0),
        Op::Wrap(dtype) => wrap(dtype, int_a) as u64,
        Op::Round(dtype) => round(dtype, float_a).to_bits(),
        Op::Truncate(dtype) => truncate(dtype, float_a),
        Op::ToFloat => (int_a as f64).to_bits(),
        Op::UnsignedToFloat => (a as f64).to_bits(),
        Op::IsTrue => u64::from(a != 0),
        Op::FloatIsTrue => u64::from(float_a != 0.0),
        Op::Add
        | Op::Mul
        | Op::Less
        | Op::AtLeast
        | Op::And
        | Op::FloatAdd
        | Op::FloatMul
        | Op::Move
        | Op::Check
        | Op::Load(_)
        | Op::Store(_)
        | Op::Reset
        | Op::SkipIfZero => {
            unreachable!("the machine should run this itself")
        }
    }
}

/// The operations on u64 that differ from those on the same bits as i64.
pub(super) fn differs_unsigned(op: BinaryOp) -> bool {
    match op {
        BinaryOp::Div
        | BinaryOp::FloorDiv
        | BinaryOp::Mod
        | BinaryOp::Rem
        | BinaryOp::Min
        | BinaryOp::Max
        | BinaryOp::Pow
        | BinaryOp::Shl
        | BinaryOp::Shr
        | BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::Gt
        | BinaryOp::Ge => true,
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Eq
        | BinaryOp::Ne => false,
    }
}

fn unsigned(op: BinaryOp, a: u64, b: u64) -> u64 {
    match op {
        BinaryOp::Div | BinaryOp::FloorDiv => a.checked_div(b).unwrap_or(0),
        BinaryOp::Mod | BinaryOp::Rem => a.checked_rem(b).unwrap_or(0),
        BinaryOp::Min => a.min(b),
        BinaryOp::Max => a.max(b),
        BinaryOp::Pow => {
            let (mut result, mut square, mut exponent) = (1u64, a, b);
            while exponent > 0 {
                if exponent & 1 == 1 {
                    result = result.wrapping_mul(square);
                }
                square = square.wrapping_mul(square);
                exponent >>= 1;
            }
            result
        }
        BinaryOp::Shl => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0),
        BinaryOp::Shr => u32::try_from(b).ok().and_then(|b| a.checked_shr(b)).unwrap_or(0),
        BinaryOp::Lt => u64::from(a < b),
        BinaryOp::Le => u64::from(a <= b),
        BinaryOp::Gt => u64::from(a > b),
        BinaryOp::Ge => u64::from(a >= b),
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Eq
        | BinaryOp::Ne => op.eval_i64(a as i64, b as i64) as u64,
    }
}

fn wrap(dtype: DType, value: i64) -> i64 {
    match dtype {
        DType::I8 => i64::from(value as i8),
        DType::I16 => i64::from(value as i16),
        DType::I32 => i64::from(value as i32),
        DType::U8 => i64::from(value as u8),
        DType::U16 => i64::from(value as u16),
        DType::U32 => i64::from(value as u32),
        DType::I64 | DType::U64 => value,
        DType::Bool => i64::from(value != 0),
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => value,
    }
}

fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => f16::from_f64(value).to_f64(),
        DType::BF16 => bf16::from_f64(value).to_f64(),
        DType::F32 => f64::from(value as f32),
        DType::F64
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::Bool => value,
    }
}

fn truncate(dtype: DType, value: f64) -> u64 {
    match dtype {
        DType::I8 => i64::from(value as i8) as u64,
        DType::I16 => i64::from(value as i16) as u64,
        DType::I32 => i64::from(value as i32) as u64,
        DType::I64 => value as i64 as u64,
        DType::U8 => u64::from(value as u8),
        DType::U16 => u64::from(value as u16),
        DType::U32 => u64::from(value as u32),
        DType::U64 => value as u64,
        DType::Bool => u64::from(value != 0.0),
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => value.to_bits(),
    }
}

/// Element `i` of `bytes` as a register.
#[inline]
pub(super) fn load(dtype: DType, bytes: &[u8], i: usize) -> u64 {
    match dtype {
        DType::F32 => f64::from(f32::from_le_bytes(at(bytes, i))).to_bits(),
        DType::F64 | DType::I64 | DType::U64 => u64::from_le_bytes(at(bytes, i)),
        DType::F16 => f16::from_le_bytes(at(bytes, i)).to_f64().to_bits(),
        DType::BF16 => bf16::from_le_bytes(at(bytes, i)).to_f64().to_bits(),
        DType::I8 => i64::from(i8::from_le_bytes(at(bytes, i))) as u64,
        DType::I16 => i64::from(i16::from_le_bytes(at(bytes, i))) as u64,
        DType::I32 => i64::from(i32::from_le_bytes(at(bytes, i))) as u64,
        DType::U8 => u64::from(bytes[i]),
        DType::U16 => u64::from(u16::from_le_bytes(at(bytes, i))),
        DType::U32 => u64::from(u32::from_le_bytes(at(bytes, i))),
        DType::Bool => u64::from(bytes[i] != 0),
    }
}

/// Writes a register to element `i` of `bytes`; floats round.
#[inline]
pub(super) fn store(dtype: DType, bytes: &mut [u8], i: usize, value: u64) {
    let float = f64::from_bits(value);
    match dtype {
        DType::F32 => put(bytes, i, (float as f32).to_le_bytes()),
        DType::F64 | DType::I64 | DType::U64 => put(bytes, i, value.to_le_bytes()),
        DType::F16 => put(bytes, i, f16::from_f64(float).to_le_bytes()),
        DType::BF16 => put(bytes, i, bf16::from_f64(float).to_le_bytes()),
        DType::I8 | DType::U8 | DType::Bool => bytes[i] = value as u8,
        DType::I16 | DType::U16 => put(bytes, i, (value as u16).to_le_bytes()),
        DType::I32 | DType::U32 => put(bytes, i, (value as u32).to_le_bytes()),
    }
}

#[inline]
fn at<const N: usize>(bytes: &[u8], i: usize) -> [u8; N] {
    let mut element = [0; N];
    element.copy_from_slice(&bytes[i * N..(i + 1) * N]);
    element
}

#[inline]
fn put<const N: usize>(bytes: &mut [u8], i: usize, element: [u8; N]) {
    bytes[i * N..(i + 1) * N].copy_from_slice(&element);
}
