//! The factor of a tile's columns as it is stored: of f32, or of a narrower type that is converted as it is read.

use half::{bf16, f16};

use crate::simd::Vector;

/// Where a factor lies, and its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// Single precision.
    F32(*const f32),
    /// IEEE half precision.
    F16(*const f16),
    /// The upper halves of single precision.
    Bf16(*const bf16),
}

/// A type that a factor is stored in, every value of which is one of f32.
pub(crate) trait Stored: Copy {
    /// Where a factor of this type lies; null if it is of another.
    fn address(of: Factor) -> *const Self;
    /// The lanes at `source`.
    ///
    /// # Safety
    /// As for [`Vector::load`].
    unsafe fn load<V: Vector>(source: *const Self) -> V;
    /// The first `count` lanes from `source`, zeros behind them.
    ///
    /// # Safety
    /// As for [`Vector::load_first`].
    unsafe fn load_first<V: Vector>(source: *const Self, count: usize) -> V;
}

/// A type whose factors are of one variant, with the constructors of a vector that read it.
macro_rules! stored {
    ($dtype:ident, $variant:ident, $load:ident, $load_first:ident) => {
        impl Stored for $dtype {
            #[inline(always)]
            fn address(of: Factor) -> *const Self {
                if let Factor::$variant(address) = of { address } else { std::ptr::null() }
            }
            #[inline(always)]
            unsafe fn load<V: Vector>(source: *const Self) -> V {
                // SAFETY: the caller grants the instruction set and the lanes, whose bits these are.
                unsafe { V::$load(source.cast()) }
            }
            #[inline(always)]
            unsafe fn load_first<V: Vector>(source: *const Self, count: usize) -> V {
                // SAFETY: as above, of the lanes below `count`.
                unsafe { V::$load_first(source.cast(), count) }
            }
        }
    };
}

stored!(f32, F32, load, load_first);
stored!(f16, F16, load_f16, load_f16_first);
stored!(bf16, Bf16, load_bf16, load_bf16_first);
