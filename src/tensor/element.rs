//! The Rust types that are tensor elements.

use super::DType;
use half::{bf16, f16};

/// A Rust type with the layout of one [`DType`]. (Bool has none: a byte other than 0 and 1 is not a Rust bool.)
pub trait Element: bytemuck::Pod + Send {
    /// The element type it is.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}

elements! {
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
}
