//! One vector of f32 lanes, for each instruction set.
//!
//! Kernels are written once over [`Vector`] as `#[inline(always)]` functions; the registry ([`crate::table`]) compiles
//! them once for each instruction set by calling them from functions that enable its features.

pub(crate) mod bundle;
pub(crate) mod bytes;
pub(crate) mod dots;
pub(crate) mod lanes;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

/// Lanes of the widest vector of an instruction set.
pub(crate) const MOST_LANES: usize = 16;

/// A vector of [`LANES`](Vector::LANES) f32 values.
///
/// A value is also the proof that the CPU has the instruction set: only the unsafe constructors (`splat`, `load`, ...)
/// make one from nothing, so that the methods of a value are safe.
///
/// Masks are vectors whose lanes are all ones (true) or all zeros (false).
///
/// # Safety
///
/// Callers of any constructor guarantee that the CPU has the type's instruction set, and that the memory a function
/// names is valid for its access; `count` is at most `LANES`, and no lane from `count` on is touched in memory.
pub(crate) trait Vector: Copy {
    /// Lanes of a vector.
    const LANES: usize;
    /// How many vectors a loop can add to in registers, beside its operands; enough to hide the latency of an addition.
    const ACCUMULATORS: usize;

    /// All lanes `value`.
    unsafe fn splat(value: f32) -> Self;
    /// The lanes at `source`, with no alignment demanded.
    unsafe fn load(source: *const f32) -> Self;
    /// The first `count` lanes from `source`, zeros behind them.
    unsafe fn load_first(source: *const f32, count: usize) -> Self;
    /// The lanes `from..to` of those at `source`, with no alignment demanded, zeros elsewhere; `from <= to <= LANES`, and no other
    /// lane is read.
    unsafe fn load_between(source: *const f32, from: usize, to: usize) -> Self;
    /// Lane `l < count` from `source + l * stride`, zeros behind them.
    unsafe fn gather(source: *const f32, stride: isize, count: usize) -> Self;
    /// The mask of the lanes whose byte at `source` is not 0.
    unsafe fn load_truth(source: *const u8) -> Self;
    /// Writes all lanes to `target`, with no alignment demanded.
    unsafe fn store(self, target: *mut f32);
    /// Writes all lanes to `target`, which is aligned to a vector, past the caches where the instruction set can write a whole line of
    /// them at once. Other threads may see that later than what this one writes behind it, until it [settles](Self::settle).
    #[inline(always)]
    unsafe fn stream(self, target: *mut f32) {
        // SAFETY: the caller grants the same and more.
        unsafe { self.store(target) }
    }
    /// Orders what this thread has [streamed](Self::stream) before what it writes from now on.
    #[inline(always)]
    fn settle() {}
    /// Writes the first `count` lanes to `target`.
    unsafe fn store_first(self, target: *mut f32, count: usize);
    /// Asks for the line of memory at `target`, which will be written; any address will do.
    #[inline(always)]
    fn prefetch_to_write(_target: *const f32) {}
    /// Asks for the line of memory at `source`, which will be read; any address will do.
    #[inline(always)]
    fn prefetch(_source: *const f32) {}
    /// The lanes of IEEE half-precision values at `source`.
    unsafe fn load_f16(source: *const u16) -> Self;
    /// The first `count` lanes of IEEE half-precision values from `source`, zeros behind them.
    unsafe fn load_f16_first(source: *const u16, count: usize) -> Self;
    /// The lanes of bfloat16 values at `source`.
    unsafe fn load_bf16(source: *const u16) -> Self;
    /// The first `count` lanes of bfloat16 values from `source`, zeros behind them.
    unsafe fn load_bf16_first(source: *const u16, count: usize) -> Self;
    /// Writes the lanes rounded (ties to even) to IEEE half precision.
    unsafe fn store_f16(self, target: *mut u16);
    /// Writes the first `count` lanes, of which each is NaN or a number that a byte of either sign holds once it is cut to an integer, to
    /// `target` as bytes; 0 for NaN.
    unsafe fn store_bytes(self, target: *mut u8, count: usize);

    /// All lanes `value`.
    fn like(self, value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once where the instruction set has that.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    fn sqrt(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    /// Nearest integers, ties to even.
    fn round(self) -> Self;
    /// `self * 2^n` for integers `n`, rounded once where the instruction set has that; |n| is at most 192.
    fn scale(self, n: Self) -> Self;
    /// `self` where `self < other`, else `other`: `other` if either is NaN.
    fn lesser_or(self, other: Self) -> Self;
    /// `self` where `self > other`, else `other`: `other` if either is NaN.
    fn greater_or(self, other: Self) -> Self;

    /// The mask of `self < other`; false with a NaN.
    fn less(self, other: Self) -> Self;
    /// The mask of `self == other`; false with a NaN.
    fn equal(self, other: Self) -> Self;
    /// The mask of the lanes that are NaN.
    fn is_nan(self) -> Self;
    /// `self`, but NaN where `a` or `b` is NaN.
    fn with_nan_of(self, a: Self, b: Self) -> Self;
    /// Lanes of `yes` where the mask `self` is true, of `no` elsewhere.
    fn select(self, yes: Self, no: Self) -> Self;

    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    /// Adds the bit patterns as integers, wrapping.
    fn add_bits(self, other: Self) -> Self;
    /// Shifts the bit patterns to the left, zeros coming in.
    fn shift_left<const BITS: u32>(self) -> Self;
    /// Shifts the bit patterns to the right, zeros coming in.
    fn shift_right<const BITS: u32>(self) -> Self;
    /// The bit patterns read as signed integers, as floats.
    fn integer_to_float(self) -> Self;

    /// The lanes of even index of `self` followed by `next`, and those of odd index.
    fn deinterleave(self, next: Self) -> (Self, Self);
    /// The lanes as an array would hold them, combined in pairs: `combine` must be associative and commutative.
    #[inline(always)]
    fn fold(self, combine: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = [0.0; MOST_LANES];
        // SAFETY: no vector has more lanes, and `self` proves the instruction set.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                lanes[lane] = combine(lanes[lane], lanes[lane + width]);
            }
        }
        lanes[0]
    }
}
