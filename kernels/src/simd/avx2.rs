//! Vectors of AVX2 with FMA and F16C.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Vector;
use crate::vector::math;

/// One 256-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// Eight true lanes, then eight false ones: the mask of the first `n` lanes starts at `8 - n`.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `count` lanes.
///
/// # Safety
/// The CPU has AVX2, and `count` is at most 8.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    debug_assert!(count <= 8);
    // SAFETY: `8 - count` is in 0..=8, and eight values follow it in the table.
    unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()) }
}

/// The first `count` of eight values of 16 bits, zeros behind them.
///
/// # Safety
/// The CPU has AVX2, `count` is at most 8, and so many values at `source` are valid for reads.
#[inline(always)]
unsafe fn first_halves(source: *const u16, count: usize) -> __m128i {
    // SAFETY: the caller grants the values: pairs of them by a mask, and the last by itself where it is in no pair.
    unsafe {
        let pairs = _mm_maskload_epi32(source.cast(), _mm256_castsi256_si128(first(count / 2)));
        if count.is_multiple_of(2) {
            return pairs;
        }
        let last = _mm_set1_epi16(source.add(count - 1).read_unaligned().cast_signed());
        let place = _mm_cmpeq_epi16(_mm_set1_epi16(count as i16 - 1), _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7));
        _mm_or_si128(pairs, _mm_and_si128(last, place))
    }
}

/// The values of which these are the upper halves.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn widened_bf16(halves: __m128i) -> Avx2 {
    // SAFETY: the caller grants the instruction set.
    Avx2(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves))) })
}

/// Wraps an intrinsic over the values of `Avx2` vectors.
macro_rules! op {
    ($intrinsic:ident($($argument:expr),*)) => {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        Avx2(unsafe { $intrinsic($($argument),*) })
    };
}

/// Wraps an integer intrinsic over the bits of `Avx2` vectors.
macro_rules! bits {
    ($intrinsic:ident($($argument:expr),*)) => {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        Avx2(unsafe { _mm256_castsi256_ps($intrinsic($(_mm256_castps_si256($argument)),*)) })
    };
}

// SAFETY (of the unsafe functions of this impl): the caller grants the instruction set and the memory, as the trait
// demands; masked accesses leave the lanes from `count` on untouched.
impl Vector for Avx2 {
    const LANES: usize = 8;
    const ACCUMULATORS: usize = 12;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        op!(_mm256_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        op!(_mm256_loadu_ps(source))
    }
    #[inline(always)]
    unsafe fn load_first(source: *const f32, count: usize) -> Self {
        // SAFETY: as said at the impl.
        Avx2(unsafe { _mm256_maskload_ps(source, first(count)) })
    }
    #[inline(always)]
    unsafe fn load_between(source: *const f32, from: usize, to: usize) -> Self {
        // SAFETY: as said at the impl; lanes that the mask leaves out are not read.
        Avx2(unsafe { _mm256_maskload_ps(source, _mm256_andnot_si256(first(from), first(to))) })
    }
    #[inline(always)]
    unsafe fn gather(source: *const f32, stride: isize, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        for (l, lane) in lanes.iter_mut().enumerate() {
            if l < count {
                // SAFETY: the caller grants the lanes below `count`.
                *lane = unsafe { *source.offset(l as isize * stride) };
            }
        }
        op!(_mm256_loadu_ps(lanes.as_ptr()))
    }
    #[inline(always)]
    unsafe fn load_truth(source: *const u8) -> Self {
        // SAFETY: as said at the impl; eight bytes are 64 bits.
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(source.cast()));
            Avx2(_mm256_castsi256_ps(_mm256_cmpgt_epi32(bytes, _mm256_setzero_si256())))
        }
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: as said at the impl.
        unsafe { _mm256_storeu_ps(target, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, count: usize) {
        // SAFETY: as said at the impl.
        unsafe { _mm256_maskstore_ps(target, first(count), self.0) }
    }
    #[inline(always)]
    fn prefetch_to_write(target: *const f32) {
        // SAFETY: a hint that changes no memory; processors that do not know it do nothing. The intrinsic would ask for the line
        // as one to be read, which other cores may keep, and it would have to be asked for again.
        unsafe { asm!("prefetchw [{}]", in(reg) target, options(readonly, nostack, preserves_flags)) }
    }
    #[inline(always)]
    fn prefetch(source: *const f32) {
        // SAFETY: a hint that touches no memory, of the instruction set that every x86-64 has.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(source.cast()) }
    }
    #[inline(always)]
    unsafe fn load_f16(source: *const u16) -> Self {
        // SAFETY: as said at the impl; eight values are 128 bits.
        Avx2(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(source.cast())) })
    }
    #[inline(always)]
    unsafe fn load_f16_first(source: *const u16, count: usize) -> Self {
        // SAFETY: as said at the impl.
        Avx2(unsafe { _mm256_cvtph_ps(first_halves(source, count)) })
    }
    #[inline(always)]
    unsafe fn load_bf16(source: *const u16) -> Self {
        // SAFETY: as said at the impl; eight values are 128 bits.
        unsafe { widened_bf16(_mm_loadu_si128(source.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_first(source: *const u16, count: usize) -> Self {
        // SAFETY: as said at the impl.
        unsafe { widened_bf16(first_halves(source, count)) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, target: *mut u16) {
        // SAFETY: as said at the impl; eight values are 128 bits.
        unsafe {
            _mm_storeu_si128(target.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, target: *mut u8, count: usize) {
        // SAFETY: as said at the impl.
        unsafe {
            let numbers = _mm256_cmp_ps::<_CMP_ORD_Q>(self.0, self.0);
            let integers = _mm256_cvttps_epi32(_mm256_and_ps(self.0, numbers));
            let lowest = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
                -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            let halves = _mm256_shuffle_epi8(integers, lowest);
            let bytes = _mm_or_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
            if count == Self::LANES {
                _mm_storel_epi64(target.cast(), bytes);
            } else {
                let mut held = [0u8; 16];
                _mm_storeu_si128(held.as_mut_ptr().cast(), bytes);
                std::ptr::copy_nonoverlapping(held.as_ptr(), target, count);
            }
        }
    }

    #[inline(always)]
    fn like(self, value: f32) -> Self {
        op!(_mm256_set1_ps(value))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        op!(_mm256_add_ps(self.0, other.0))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        op!(_mm256_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        op!(_mm256_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        op!(_mm256_div_ps(self.0, other.0))
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        op!(_mm256_fmadd_ps(self.0, factor.0, addend.0))
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        math::scale(self, n)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        op!(_mm256_sqrt_ps(self.0))
    }
    #[inline(always)]
    fn floor(self) -> Self {
        op!(_mm256_floor_ps(self.0))
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        op!(_mm256_ceil_ps(self.0))
    }
    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        Avx2(unsafe { _mm256_round_ps::<NEAREST>(self.0) })
    }
    #[inline(always)]
    fn lesser_or(self, other: Self) -> Self {
        op!(_mm256_min_ps(self.0, other.0))
    }
    #[inline(always)]
    fn greater_or(self, other: Self) -> Self {
        op!(_mm256_max_ps(self.0, other.0))
    }

    #[inline(always)]
    fn less(self, other: Self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        Avx2(unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) })
    }
    #[inline(always)]
    fn equal(self, other: Self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        Avx2(unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0) })
    }
    #[inline(always)]
    fn is_nan(self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        Avx2(unsafe { _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0) })
    }
    #[inline(always)]
    fn with_nan_of(self, a: Self, b: Self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        self.or(Avx2(unsafe { _mm256_cmp_ps::<_CMP_UNORD_Q>(a.0, b.0) }))
    }
    #[inline(always)]
    fn select(self, yes: Self, no: Self) -> Self {
        op!(_mm256_blendv_ps(no.0, yes.0, self.0))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        op!(_mm256_and_ps(self.0, other.0))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        op!(_mm256_or_ps(self.0, other.0))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        op!(_mm256_xor_ps(self.0, other.0))
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        bits!(_mm256_add_epi32(self.0, other.0))
    }
    #[inline(always)]
    fn shift_left<const BITS: u32>(self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        let count = unsafe { _mm_cvtsi32_si128(BITS as i32) };
        // SAFETY: as above.
        Avx2(unsafe { _mm256_castsi256_ps(_mm256_sll_epi32(_mm256_castps_si256(self.0), count)) })
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        let count = unsafe { _mm_cvtsi32_si128(BITS as i32) };
        // SAFETY: as above.
        Avx2(unsafe { _mm256_castsi256_ps(_mm256_srl_epi32(_mm256_castps_si256(self.0), count)) })
    }
    #[inline(always)]
    fn integer_to_float(self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        Avx2(unsafe { _mm256_cvtepi32_ps(_mm256_castps_si256(self.0)) })
    }

    #[inline(always)]
    fn deinterleave(self, next: Self) -> (Self, Self) {
        // SAFETY: a vector exists only where the CPU has AVX2, FMA and F16C.
        unsafe {
            // Within 128-bit halves first; then the quarters 0 2 1 3 are in order.
            let even = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(self.0, next.0));
            let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0b11_01_11_01>(self.0, next.0));
            (
                Avx2(_mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(even))),
                Avx2(_mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(odd))),
            )
        }
    }
}
