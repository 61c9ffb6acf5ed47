//! Element types.

use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements. A bool is one byte, 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits; also the type of every index expression.
    I64,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Truth value.
    Bool,
}

impl DType {
    /// Every type, in the order of the declaration.
    pub const ALL: [DType; 13] = [
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::Bool,
    ];

    /// The name used in text forms: `f32`, `i64`, `bool` ...
    pub fn name(self) -> &'static str {
        match self {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bool => "bool",
        }
    }

    /// The type of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes an element takes in host memory.
    pub fn size_bytes(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// Whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Whether this is an integer type; bool is not.
    pub fn is_integer(self) -> bool {
        !self.is_float() && self != DType::Bool
    }

    /// Whether this is a signed integer or a floating-point type.
    pub fn is_signed(self) -> bool {
        self.is_float() || matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64)
    }

    /// Smallest and largest value of an integer type, `None` for the others.
    pub fn integer_range(self) -> Option<(i128, i128)> {
        let bits = 8 * self.size_bytes() as u32;
        match self {
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => {
                Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1))
            }
            DType::U8 | DType::U16 | DType::U32 | DType::U64 => Some((0, (1i128 << bits) - 1)),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 | DType::Bool => None,
        }
    }

    /// Element `i` of `bytes` as f64.
    pub(crate) fn read_f64(self, bytes: &[u8], i: usize) -> f64 {
        let at = &bytes[i * self.size_bytes()..][..self.size_bytes()];
        match self {
            DType::F16 => f16::from_le_bytes(array(at)).to_f64(),
            DType::BF16 => bf16::from_le_bytes(array(at)).to_f64(),
            DType::F32 => f64::from(f32::from_le_bytes(array(at))),
            DType::F64 => f64::from_le_bytes(array(at)),
            DType::U64 => u64::from_le_bytes(array(at)) as f64,
            DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::Bool => self.read_i64(bytes, i).expect("an integer type should read as i64") as f64,
        }
    }

    /// Element `i` of `bytes` when it is an integer or bool; a u64 above `i64::MAX` wraps.
    pub(crate) fn read_i64(self, bytes: &[u8], i: usize) -> Option<i64> {
        let at = &bytes[i * self.size_bytes()..][..self.size_bytes()];
        Some(match self {
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => return None,
            DType::I8 => i64::from(i8::from_le_bytes(array(at))),
            DType::I16 => i64::from(i16::from_le_bytes(array(at))),
            DType::I32 => i64::from(i32::from_le_bytes(array(at))),
            DType::I64 => i64::from_le_bytes(array(at)),
            DType::U8 => i64::from(at[0]),
            DType::U16 => i64::from(u16::from_le_bytes(array(at))),
            DType::U32 => i64::from(u32::from_le_bytes(array(at))),
            DType::U64 => u64::from_le_bytes(array(at)) as i64,
            DType::Bool => i64::from(at[0] != 0),
        })
    }

    /// Appends `value`: rounded to nearest for floats; truncated and saturated (NaN to 0) for integers.
    pub(crate) fn write_f64(self, value: f64, bytes: &mut Vec<u8>) {
        match self {
            DType::F16 => bytes.extend(f16::from_f64(value).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f64(value).to_le_bytes()),
            DType::F32 => bytes.extend((value as f32).to_le_bytes()),
            DType::F64 => bytes.extend(value.to_le_bytes()),
            DType::I8 => bytes.extend((value as i8).to_le_bytes()),
            DType::I16 => bytes.extend((value as i16).to_le_bytes()),
            DType::I32 => bytes.extend((value as i32).to_le_bytes()),
            DType::I64 => bytes.extend((value as i64).to_le_bytes()),
            DType::U8 => bytes.push(value as u8),
            DType::U16 => bytes.extend((value as u16).to_le_bytes()),
            DType::U32 => bytes.extend((value as u32).to_le_bytes()),
            DType::U64 => bytes.extend((value as u64).to_le_bytes()),
            DType::Bool => bytes.push(u8::from(value != 0.0)),
        }
    }

    /// Appends `value`: integers wrap, floats round, bool is whether it is not 0.
    pub(crate) fn write_i64(self, value: i64, bytes: &mut Vec<u8>) {
        match self {
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => self.write_f64(value as f64, bytes),
            DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64 => {
                bytes.extend(&value.to_le_bytes()[..self.size_bytes()]);
            }
            DType::Bool => bytes.push(u8::from(value != 0)),
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the slice should have the size of the type")
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
