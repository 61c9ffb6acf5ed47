//! Vectors as plain arrays, which the compiler maps to the baseline vectors of any target.

use half::f16;

use super::Vector;
use crate::vector::math;

/// Lanes of the baseline vectors: one 128-bit register of SSE2, NEON or WASM.
const WIDTH: usize = 4;

/// A vector as an array.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct Lanes([f32; WIDTH]);

/// 2^23: floats from here on are integers, and adding and subtracting it rounds smaller positive ones to integers.
const INTEGERS: f32 = 8388608.0;

/// The first `count` values, zeros behind them.
///
/// # Safety
/// So many values at `source` are valid for reads.
#[inline(always)]
unsafe fn first_halves(source: *const u16, count: usize) -> [u16; WIDTH] {
    // SAFETY: the caller grants the values below `count`.
    let lane = |l: usize| if l < count { unsafe { source.add(l).read_unaligned() } } else { 0 };
    std::array::from_fn(lane)
}

/// The value of half precision with these bits. Its exponent and fraction, in their places in an f32, are 2^112 times too small,
/// also where it is subnormal; an infinity and NaN keep the largest exponent.
#[inline(always)]
fn widened_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let largest = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    f32::from_bits(finite | largest | sign)
}

/// The value of bfloat16 with these bits.
#[inline(always)]
fn widened_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

impl Lanes {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Lanes(std::array::from_fn(|lane| f(self.0[lane])))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Lanes(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn zip_bits(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        self.zip(other, |a, b| f32::from_bits(f(a.to_bits(), b.to_bits())))
    }

    #[inline(always)]
    fn test(self, other: Self, f: impl Fn(f32, f32) -> bool) -> Self {
        self.zip(other, |a, b| f32::from_bits(if f(a, b) { u32::MAX } else { 0 }))
    }
}

// SAFETY (of the unsafe functions of this impl): they touch the memory the trait's contract grants, no other, and
// need no instruction set.
impl Vector for Lanes {
    const LANES: usize = WIDTH;
    const ACCUMULATORS: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Lanes([value; WIDTH])
    }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller grants LANES values at `source`.
        Lanes(unsafe { source.cast::<[f32; WIDTH]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(source: *const f32, count: usize) -> Self {
        // SAFETY: as for `gather`, of stride 1.
        unsafe { Self::gather(source, 1, count) }
    }
    #[inline(always)]
    unsafe fn load_between(source: *const f32, from: usize, to: usize) -> Self {
        let lane = |l: usize| {
            // SAFETY: the caller grants the lanes of the interval.
            if (from..to).contains(&l) { unsafe { source.wrapping_add(l).read_unaligned() } } else { 0.0 }
        };
        Lanes(std::array::from_fn(lane))
    }
    #[inline(always)]
    unsafe fn gather(source: *const f32, stride: isize, count: usize) -> Self {
        // SAFETY: the caller grants the lanes below `count`.
        let lane = |l: usize| if l < count { unsafe { *source.offset(l as isize * stride) } } else { 0.0 };
        Lanes(std::array::from_fn(lane))
    }
    #[inline(always)]
    unsafe fn load_truth(source: *const u8) -> Self {
        // SAFETY: the caller grants LANES bytes at `source`.
        let bytes = unsafe { source.cast::<[u8; WIDTH]>().read_unaligned() };
        Lanes(bytes.map(|byte| f32::from_bits(if byte != 0 { u32::MAX } else { 0 })))
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller grants LANES values at `target`.
        unsafe { target.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, count: usize) {
        for (lane, &value) in self.0.iter().enumerate() {
            if lane < count {
                // SAFETY: the caller grants the lanes below `count`.
                unsafe { *target.add(lane) = value };
            }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(source: *const u16) -> Self {
        // SAFETY: the caller grants LANES values at `source`.
        let bits = unsafe { source.cast::<[u16; WIDTH]>().read_unaligned() };
        Lanes(bits.map(widened_f16))
    }
    #[inline(always)]
    unsafe fn load_f16_first(source: *const u16, count: usize) -> Self {
        // SAFETY: the caller grants the lanes below `count`.
        Lanes(unsafe { first_halves(source, count) }.map(widened_f16))
    }
    #[inline(always)]
    unsafe fn load_bf16(source: *const u16) -> Self {
        // SAFETY: the caller grants LANES values at `source`.
        let bits = unsafe { source.cast::<[u16; WIDTH]>().read_unaligned() };
        Lanes(bits.map(widened_bf16))
    }
    #[inline(always)]
    unsafe fn load_bf16_first(source: *const u16, count: usize) -> Self {
        // SAFETY: the caller grants the lanes below `count`.
        Lanes(unsafe { first_halves(source, count) }.map(widened_bf16))
    }
    #[inline(always)]
    unsafe fn store_f16(self, target: *mut u16) {
        let bits = self.0.map(|value| f16::from_f32(value).to_bits());
        // SAFETY: the caller grants LANES values at `target`.
        unsafe { target.cast::<[u16; WIDTH]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, target: *mut u8, count: usize) {
        for lane in 0..count {
            let byte = self.0[lane] as i32 as u8;
            // SAFETY: the caller grants the lanes below `count`.
            unsafe { *target.add(lane) = byte };
        }
    }

    #[inline(always)]
    fn like(self, value: f32) -> Self {
        Lanes([value; WIDTH])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Without the instruction `f32::mul_add` is a library call.
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            Lanes(std::array::from_fn(|lane| self.0[lane].mul_add(factor.0[lane], addend.0[lane])))
        } else {
            self.mul(factor).add(addend)
        }
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        math::scale(self, n)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn floor(self) -> Self {
        let rounded = self.round();
        self.less(rounded).select(rounded.sub(self.like(1.0)), rounded)
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        let rounded = self.round();
        let up = rounded.add(self.like(1.0));
        // -0.5 rises to -0, as the sign of `self` demands.
        let sign = self.and(self.like(-0.0));
        rounded.less(self).select(up, rounded).or(sign)
    }
    #[inline(always)]
    fn round(self) -> Self {
        let sign = self.and(self.like(-0.0));
        let magnitude = self.xor(sign);
        let rounded = magnitude.add(self.like(INTEGERS)).sub(self.like(INTEGERS)).or(sign);
        magnitude.less(self.like(INTEGERS)).select(rounded, self)
    }
    #[inline(always)]
    fn lesser_or(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn greater_or(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn less(self, other: Self) -> Self {
        self.test(other, |a, b| a < b)
    }
    #[inline(always)]
    fn equal(self, other: Self) -> Self {
        self.test(other, |a, b| a == b)
    }
    #[inline(always)]
    fn is_nan(self) -> Self {
        self.test(self, |a, _| a.is_nan())
    }
    #[inline(always)]
    fn with_nan_of(self, a: Self, b: Self) -> Self {
        self.or(a.test(b, |a, b| a.is_nan() || b.is_nan()))
    }
    #[inline(always)]
    fn select(self, yes: Self, no: Self) -> Self {
        self.and(yes).or(self.zip_bits(no, |mask, no| !mask & no))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a | b)
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a ^ b)
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        self.zip_bits(other, u32::wrapping_add)
    }
    #[inline(always)]
    fn shift_left<const BITS: u32>(self) -> Self {
        self.map(|a| f32::from_bits(a.to_bits() << BITS))
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        self.map(|a| f32::from_bits(a.to_bits() >> BITS))
    }
    #[inline(always)]
    fn integer_to_float(self) -> Self {
        self.map(|a| a.to_bits() as i32 as f32)
    }

    #[inline(always)]
    fn deinterleave(self, next: Self) -> (Self, Self) {
        let lane = |l: usize| if l < WIDTH { self.0[l] } else { next.0[l - WIDTH] };
        (Lanes(std::array::from_fn(|l| lane(2 * l))), Lanes(std::array::from_fn(|l| lane(2 * l + 1))))
    }
}
