//! Vectors of AVX-512 (F, BW, DQ, VL).

use std::arch::asm;
use std::arch::x86_64::*;

use super::Vector;

/// One 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// The mask of the first `count` lanes, `count` at most 16.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1u32 << count) - 1) as __mmask16
}

/// The values of which these are the upper halves.
///
/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn widened_bf16(halves: __m256i) -> Avx512 {
    // SAFETY: the caller grants the instruction set.
    Avx512(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))) })
}

/// Wraps an intrinsic over the values of `Avx512` vectors.
macro_rules! op {
    ($intrinsic:ident $([$constant:expr])?($($argument:expr),*)) => {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        Avx512(unsafe { $intrinsic $(::<{ $constant }>)?($($argument),*) })
    };
}

/// Wraps an integer intrinsic over the bits of `Avx512` vectors.
macro_rules! bits {
    ($intrinsic:ident($($argument:expr),*)) => {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        Avx512(unsafe { _mm512_castsi512_ps($intrinsic($(_mm512_castps_si512($argument)),*)) })
    };
}

/// Wraps a comparison of `Avx512` vectors to a mask.
macro_rules! compare {
    ($condition:ident($left:expr, $right:expr)) => {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        Avx512(unsafe {
            _mm512_castsi512_ps(_mm512_movm_epi32(_mm512_cmp_ps_mask::<$condition>($left, $right)))
        })
    };
}

// SAFETY (of the unsafe functions of this impl): the caller grants the instruction set and the memory, as the trait
// demands; masked accesses leave the lanes from `count` on untouched.
impl Vector for Avx512 {
    const LANES: usize = 16;
    const ACCUMULATORS: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        op!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        op!(_mm512_loadu_ps(source))
    }
    #[inline(always)]
    unsafe fn load_first(source: *const f32, count: usize) -> Self {
        op!(_mm512_maskz_loadu_ps(first(count), source))
    }
    #[inline(always)]
    unsafe fn load_between(source: *const f32, from: usize, to: usize) -> Self {
        op!(_mm512_maskz_loadu_ps(first(to) & !first(from), source))
    }
    #[inline(always)]
    unsafe fn gather(source: *const f32, stride: isize, count: usize) -> Self {
        let mut lanes = [0.0; 16];
        for (l, lane) in lanes.iter_mut().enumerate() {
            if l < count {
                // SAFETY: the caller grants the lanes below `count`.
                *lane = unsafe { *source.offset(l as isize * stride) };
            }
        }
        op!(_mm512_loadu_ps(lanes.as_ptr()))
    }
    #[inline(always)]
    unsafe fn load_truth(source: *const u8) -> Self {
        // SAFETY: as said at the impl; sixteen bytes are 128 bits.
        unsafe {
            let bytes = _mm_loadu_si128(source.cast());
            Avx512(_mm512_castsi512_ps(_mm512_movm_epi32(_mm_test_epi8_mask(bytes, bytes))))
        }
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: as said at the impl.
        unsafe { _mm512_storeu_ps(target, self.0) }
    }
    #[inline(always)]
    unsafe fn stream(self, target: *mut f32) {
        // SAFETY: as said at the impl; the caller grants the alignment.
        unsafe { _mm512_stream_ps(target, self.0) }
    }
    #[inline(always)]
    fn settle() {
        // SAFETY: every processor of this architecture has it.
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, count: usize) {
        // SAFETY: as said at the impl.
        unsafe { _mm512_mask_storeu_ps(target, first(count), self.0) }
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
        // SAFETY: as said at the impl; sixteen values are 256 bits.
        Avx512(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(source.cast())) })
    }
    #[inline(always)]
    unsafe fn load_f16_first(source: *const u16, count: usize) -> Self {
        // SAFETY: as said at the impl.
        Avx512(unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), source.cast())) })
    }
    #[inline(always)]
    unsafe fn load_bf16(source: *const u16) -> Self {
        // SAFETY: as said at the impl; sixteen values are 256 bits.
        unsafe { widened_bf16(_mm256_loadu_si256(source.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_first(source: *const u16, count: usize) -> Self {
        // SAFETY: as said at the impl.
        unsafe { widened_bf16(_mm256_maskz_loadu_epi16(first(count), source.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, target: *mut u16) {
        // SAFETY: as said at the impl; sixteen values are 256 bits.
        unsafe {
            _mm256_storeu_si256(target.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, target: *mut u8, count: usize) {
        // SAFETY: as said at the impl.
        unsafe {
            let numbers = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            let integers = _mm512_maskz_cvttps_epi32(numbers, self.0);
            if count == Self::LANES {
                _mm_storeu_si128(target.cast(), _mm512_cvtepi32_epi8(integers));
            } else {
                _mm512_mask_cvtepi32_storeu_epi8(target.cast(), first(count), integers);
            }
        }
    }

    #[inline(always)]
    fn like(self, value: f32) -> Self {
        op!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        op!(_mm512_add_ps(self.0, other.0))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        op!(_mm512_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        op!(_mm512_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        op!(_mm512_div_ps(self.0, other.0))
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        op!(_mm512_fmadd_ps(self.0, factor.0, addend.0))
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        op!(_mm512_scalef_ps(self.0, n.0))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        op!(_mm512_sqrt_ps(self.0))
    }
    #[inline(always)]
    fn floor(self) -> Self {
        op!(_mm512_roundscale_ps[_MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC](self.0))
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        op!(_mm512_roundscale_ps[_MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC](self.0))
    }
    #[inline(always)]
    fn round(self) -> Self {
        op!(_mm512_roundscale_ps[_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC](self.0))
    }
    #[inline(always)]
    fn lesser_or(self, other: Self) -> Self {
        op!(_mm512_min_ps(self.0, other.0))
    }
    #[inline(always)]
    fn greater_or(self, other: Self) -> Self {
        op!(_mm512_max_ps(self.0, other.0))
    }

    #[inline(always)]
    fn less(self, other: Self) -> Self {
        compare!(_CMP_LT_OQ(self.0, other.0))
    }
    #[inline(always)]
    fn equal(self, other: Self) -> Self {
        compare!(_CMP_EQ_OQ(self.0, other.0))
    }
    #[inline(always)]
    fn is_nan(self) -> Self {
        compare!(_CMP_UNORD_Q(self.0, self.0))
    }
    #[inline(always)]
    fn with_nan_of(self, a: Self, b: Self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        unsafe {
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a.0, b.0);
            Avx512(_mm512_mask_blend_ps(nan, self.0, _mm512_set1_ps(f32::NAN)))
        }
    }
    #[inline(always)]
    fn select(self, yes: Self, no: Self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        unsafe {
            let mask = _mm512_movepi32_mask(_mm512_castps_si512(self.0));
            Avx512(_mm512_mask_blend_ps(mask, no.0, yes.0))
        }
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        op!(_mm512_and_ps(self.0, other.0))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        op!(_mm512_or_ps(self.0, other.0))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        op!(_mm512_xor_ps(self.0, other.0))
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        bits!(_mm512_add_epi32(self.0, other.0))
    }
    #[inline(always)]
    fn shift_left<const BITS: u32>(self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        Avx512(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<BITS>(_mm512_castps_si512(self.0))) })
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        Avx512(unsafe { _mm512_castsi512_ps(_mm512_srli_epi32::<BITS>(_mm512_castps_si512(self.0))) })
    }
    #[inline(always)]
    fn integer_to_float(self) -> Self {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        Avx512(unsafe { _mm512_cvtepi32_ps(_mm512_castps_si512(self.0)) })
    }

    #[inline(always)]
    fn deinterleave(self, next: Self) -> (Self, Self) {
        // SAFETY: a vector exists only where the CPU has AVX-512.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            (
                Avx512(_mm512_permutex2var_ps(self.0, even, next.0)),
                Avx512(_mm512_permutex2var_ps(self.0, odd, next.0)),
            )
        }
    }
}
