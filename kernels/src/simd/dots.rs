//! One vector of i32 sums, for each set of instructions: what a tile of products of bytes needs.
//!
//! A lane adds four products of neighbours at once. Where an instruction does that, one of its operands is unsigned and the other
//! signed; signed factors go in as what they are more than -128 then ([`DotVector::EXCESS`]). Where none does, bytes are widened to
//! pairs of 16 bits, so that no sum of two products saturates.

/// A vector of [`LANES`](DotVector::LANES) i32 sums.
///
/// # Safety
///
/// As for [`Vector`](super::Vector).
pub(crate) trait DotVector: Copy {
    /// Lanes of a vector.
    const LANES: usize;
    /// How many vectors a loop can add to in registers, beside its operands; enough to hide the latency of an addition.
    const ACCUMULATORS: usize;
    /// What [`factors`](DotVector::factors) adds to signed factors.
    const EXCESS: i32;
    /// Four factors for all lanes.
    type Factors: Copy;
    /// Four elements a lane.
    type Elements: Copy;

    /// All lanes 0.
    unsafe fn zero() -> Self;
    /// The lanes at `source`, with no alignment demanded.
    unsafe fn load(source: *const i32) -> Self;
    /// The first `count` lanes from `source`, zeros behind them.
    unsafe fn load_first(source: *const i32, count: usize) -> Self;
    /// Writes all lanes to `target`, with no alignment demanded.
    unsafe fn store(self, target: *mut i32);
    /// Writes the first `count` lanes to `target`.
    unsafe fn store_first(self, target: *mut i32, count: usize);
    /// The four bytes at `source`, unsigned, or signed and [`EXCESS`](DotVector::EXCESS) more.
    unsafe fn factors<const SIGNED: bool>(source: *const u8) -> Self::Factors;
    /// Four factors that are all `EXCESS`, of which there is one.
    unsafe fn excess() -> Self::Factors;
    /// The four signed bytes of each lane at `source`, with no alignment demanded.
    unsafe fn elements(source: *const i8) -> Self::Elements;
    /// Those of the first `count` lanes, zeros behind them.
    unsafe fn elements_first(source: *const i8, count: usize) -> Self::Elements;

    /// Writes the first `count` lanes to `target` as bytes: converted to f32, times their element of `scale`, or the first for all if
    /// `single`, rounded with ties to even, and limited; 0 for NaN.
    unsafe fn store_bytes(
        self,
        target: *mut u8,
        count: usize,
        scale: *const f32,
        single: bool,
        limits: Limits,
    );

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// `self` and, in each lane, the sum of the four products; wraps.
    fn add_dots(self, factors: Self::Factors, elements: Self::Elements) -> Self;
}

/// What becomes of rounded lanes: `min(max(lane + zero, low), high)`. The limits are those of unsigned or of signed bytes, or within.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// What is added.
    pub zero: f32,
    /// The least result.
    pub low: f32,
    /// The largest result, at least `low`.
    pub high: f32,
}

/// What a signed byte is more than -128, as an unsigned byte, is its bits with this one changed.
#[cfg(target_arch = "x86_64")]
const SIGNS: i32 = i32::from_ne_bytes([0x80; 4]);

/// Sums as an array.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy)]
pub(crate) struct DotLanes([i32; 4]);

// SAFETY (of the unsafe functions of this impl): they touch the memory the trait's contract grants, no other, and
// need no instruction set.
#[cfg(not(target_arch = "x86_64"))]
impl DotVector for DotLanes {
    const LANES: usize = 4;
    const ACCUMULATORS: usize = 4;
    const EXCESS: i32 = 0;
    type Factors = [Pairs; 2];
    type Elements = [Pairs; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        DotLanes([0; 4])
    }
    #[inline(always)]
    unsafe fn load(source: *const i32) -> Self {
        // SAFETY: as said at the impl.
        DotLanes(unsafe { source.cast::<[i32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(source: *const i32, count: usize) -> Self {
        let mut lanes = [0; 4];
        // SAFETY: as said at the impl; the array has as many lanes.
        unsafe { std::ptr::copy_nonoverlapping(source, lanes.as_mut_ptr(), count) };
        DotLanes(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut i32) {
        // SAFETY: as said at the impl.
        unsafe { target.cast::<[i32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, target: *mut i32, count: usize) {
        // SAFETY: as said at the impl; the array has as many lanes.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), target, count) }
    }
    #[inline(always)]
    unsafe fn store_bytes(
        self,
        target: *mut u8,
        count: usize,
        scale: *const f32,
        single: bool,
        limits: Limits,
    ) {
        for lane in 0..count {
            // SAFETY: as said at the impl; there are as many lanes.
            unsafe {
                let scaled =
                    (self.0[lane] as f32 * *scale.add(if single { 0 } else { lane })).round_ties_even();
                let limited = (scaled + limits.zero).max(limits.low).min(limits.high);
                *target.add(lane) = if scaled.is_nan() { 0 } else { limited as i32 as u8 };
            }
        }
    }
    #[inline(always)]
    unsafe fn factors<const SIGNED: bool>(source: *const u8) -> [Pairs; 2] {
        // SAFETY: as said at the impl.
        let bytes = unsafe { source.cast::<[u8; 4]>().read_unaligned() };
        let wide =
            if SIGNED { bytes.map(|byte| i16::from(byte.cast_signed())) } else { bytes.map(i16::from) };
        in_pairs([wide; 4])
    }
    #[inline(always)]
    unsafe fn excess() -> [Pairs; 2] {
        [[0; 8]; 2]
    }
    #[inline(always)]
    unsafe fn elements(source: *const i8) -> [Pairs; 2] {
        // SAFETY: as said at the impl.
        let lanes = unsafe { source.cast::<[[i8; 4]; 4]>().read_unaligned() };
        in_pairs(lanes.map(|lane| lane.map(i16::from)))
    }
    #[inline(always)]
    unsafe fn elements_first(source: *const i8, count: usize) -> [Pairs; 2] {
        let mut lanes = [[0; 4]; 4];
        // SAFETY: as said at the impl; the array has as many lanes.
        unsafe { std::ptr::copy_nonoverlapping(source.cast(), lanes.as_mut_ptr(), count) };
        in_pairs(lanes.map(|lane: [i8; 4]| lane.map(i16::from)))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        DotLanes(std::array::from_fn(|lane| self.0[lane].wrapping_add(other.0[lane])))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        DotLanes(std::array::from_fn(|lane| self.0[lane].wrapping_sub(other.0[lane])))
    }
    #[inline(always)]
    fn add_dots(self, [of_first, of_last]: [Pairs; 2], [first, last]: [Pairs; 2]) -> Self {
        self.add(sums_of_pairs(of_first, first)).add(sums_of_pairs(of_last, last))
    }
}

/// Two neighbours of each of four lanes: what the multiplication of 16-bit integers in baseline vectors takes.
#[cfg(not(target_arch = "x86_64"))]
type Pairs = [i16; 8];

/// The first two and the last two of each lane.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn in_pairs(lanes: [[i16; 4]; 4]) -> [Pairs; 2] {
    let [a, b, c, d] = lanes;
    [[a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]], [a[2], a[3], b[2], b[3], c[2], c[3], d[2], d[3]]]
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn sums_of_pairs(a: Pairs, b: Pairs) -> DotLanes {
    let product = |at: usize| i32::from(a[at]) * i32::from(b[at]);
    DotLanes(std::array::from_fn(|lane| product(2 * lane) + product(2 * lane + 1)))
}

/// The sums of one set of instructions: the memory operations, by the intrinsics' prefix, and how products are added.
#[cfg(target_arch = "x86_64")]
macro_rules! sums {
    ($name:ident, $doc:literal, $register:ident, $lanes:literal, $accumulators:literal, $excess:literal,
     { $($intrinsics:tt)* }, { $($products:tt)* }) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub(crate) struct $name($register);

        // SAFETY (of the unsafe functions of this impl): the caller grants the instruction set and the memory, as the trait
        // demands; masked accesses leave the lanes from `count` on untouched. A value is a proof of the instruction set.
        impl DotVector for $name {
            const LANES: usize = $lanes;
            const ACCUMULATORS: usize = $accumulators;
            const EXCESS: i32 = $excess;
            $($products)*
            sums!(@memory $name, $lanes, $($intrinsics)*);
        }
    };
    (@memory $name:ident, $lanes:literal, $zero:ident $load:ident $store:ident $add:ident $sub:ident $first:ident $first_store:ident $bytes_store:ident) => {
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as said at the impl.
            unsafe { $name($zero()) }
        }
        #[inline(always)]
        unsafe fn load(source: *const i32) -> Self {
            // SAFETY: as said at the impl.
            unsafe { $name($load(source.cast())) }
        }
        #[inline(always)]
        unsafe fn load_first(source: *const i32, count: usize) -> Self {
            // SAFETY: as said at the impl.
            unsafe { $name($first(source, count)) }
        }
        #[inline(always)]
        unsafe fn store(self, target: *mut i32) {
            // SAFETY: as said at the impl.
            unsafe { $store(target.cast(), self.0) }
        }
        #[inline(always)]
        unsafe fn store_first(self, target: *mut i32, count: usize) {
            // SAFETY: as said at the impl.
            unsafe { $first_store(target, count, self.0) }
        }
        #[inline(always)]
        unsafe fn store_bytes(self, target: *mut u8, count: usize, scale: *const f32, single: bool, limits: Limits) {
            // SAFETY: as said at the impl.
            unsafe { $bytes_store(self.0, target, count, (scale, single), limits) }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as said at the impl.
            unsafe { $name($add(self.0, other.0)) }
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: as said at the impl.
            unsafe { $name($sub(self.0, other.0)) }
        }
    };
}

/// Products of an instruction that adds four of them, of unsigned and signed bytes.
#[cfg(target_arch = "x86_64")]
macro_rules! dots_at_once {
    ($register:ident, $dots:ident, $splat:ident, $xor:ident, $load:ident, $first:ident) => {
        type Factors = $register;
        type Elements = $register;

        #[inline(always)]
        unsafe fn factors<const SIGNED: bool>(source: *const u8) -> $register {
            // SAFETY: as said at the impl.
            unsafe {
                let bytes = $splat(source.cast::<i32>().read_unaligned());
                if SIGNED { $xor(bytes, $splat(SIGNS)) } else { bytes }
            }
        }
        #[inline(always)]
        unsafe fn excess() -> $register {
            // SAFETY: as said at the impl.
            unsafe { $splat(SIGNS) }
        }
        #[inline(always)]
        unsafe fn elements(source: *const i8) -> $register {
            // SAFETY: as said at the impl.
            unsafe { $load(source.cast()) }
        }
        #[inline(always)]
        unsafe fn elements_first(source: *const i8, count: usize) -> $register {
            // SAFETY: as said at the impl; four bytes are a lane.
            unsafe { $first(source.cast(), count) }
        }
        #[inline(always)]
        fn add_dots(self, factors: $register, elements: $register) -> Self {
            // SAFETY: as said at the impl.
            Self(unsafe { $dots(self.0, factors, elements) })
        }
    };
}

/// Products of pairs of 16 bits: the bytes of even place and those of odd place.
#[cfg(target_arch = "x86_64")]
macro_rules! dots_of_pairs {
    ($register:ident, $pairs:ident, $add:ident, $splat:ident, $and:ident, $left:ident, $right:ident, $logical:ident, $load:ident, $first:ident) => {
        type Factors = [$register; 2];
        type Elements = [$register; 2];

        #[inline(always)]
        unsafe fn factors<const SIGNED: bool>(source: *const u8) -> [$register; 2] {
            // SAFETY: as said at the impl.
            unsafe {
                let bytes = $splat(source.cast::<i32>().read_unaligned());
                if SIGNED {
                    [$right::<8>($left::<8>(bytes)), $right::<8>(bytes)]
                } else {
                    [$and(bytes, $splat(0x00ff_00ff)), $logical::<8>(bytes)]
                }
            }
        }
        #[inline(always)]
        unsafe fn excess() -> [$register; 2] {
            // SAFETY: as said at the impl.
            unsafe { [$splat(0); 2] }
        }
        #[inline(always)]
        unsafe fn elements(source: *const i8) -> [$register; 2] {
            // SAFETY: as said at the impl.
            unsafe {
                let bytes = $load(source.cast());
                [$right::<8>($left::<8>(bytes)), $right::<8>(bytes)]
            }
        }
        #[inline(always)]
        unsafe fn elements_first(source: *const i8, count: usize) -> [$register; 2] {
            // SAFETY: as said at the impl; four bytes are a lane.
            unsafe {
                let bytes = $first(source.cast(), count);
                [$right::<8>($left::<8>(bytes)), $right::<8>(bytes)]
            }
        }
        #[inline(always)]
        fn add_dots(self, factors: [$register; 2], elements: [$register; 2]) -> Self {
            // SAFETY: as said at the impl.
            unsafe {
                let even = $pairs(factors[0], elements[0]);
                let odd = $pairs(factors[1], elements[1]);
                Self($add($add(self.0, even), odd))
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{DotVector, Limits, SIGNS};

    /// The mask of the first `count` lanes, `count` at most 16.
    #[inline(always)]
    fn first(count: usize) -> __mmask16 {
        debug_assert!(count <= 16);
        ((1u32 << count) - 1) as __mmask16
    }

    /// # Safety
    /// As for [`DotVector::load_first`].
    #[inline(always)]
    unsafe fn load_16(source: *const i32, count: usize) -> __m512i {
        // SAFETY: the caller grants the instruction set and the lanes below `count`.
        unsafe { _mm512_maskz_loadu_epi32(first(count), source) }
    }

    /// # Safety
    /// As for [`DotVector::store_first`].
    #[inline(always)]
    unsafe fn store_16(target: *mut i32, count: usize, lanes: __m512i) {
        // SAFETY: the caller grants the instruction set and the lanes below `count`.
        unsafe { _mm512_mask_storeu_epi32(target, first(count), lanes) }
    }

    /// The lanes below `count`, at most 8, as a mask of AVX2.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[inline(always)]
    unsafe fn first_of_8(count: usize) -> __m256i {
        // SAFETY: the caller grants the instruction set.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
        }
    }

    /// # Safety
    /// As for [`DotVector::load_first`].
    #[inline(always)]
    unsafe fn load_8(source: *const i32, count: usize) -> __m256i {
        // SAFETY: the caller grants the instruction set and the lanes below `count`.
        unsafe { _mm256_maskload_epi32(source, first_of_8(count)) }
    }

    /// # Safety
    /// As for [`DotVector::store_first`].
    #[inline(always)]
    unsafe fn store_8(target: *mut i32, count: usize, lanes: __m256i) {
        // SAFETY: the caller grants the instruction set and the lanes below `count`.
        unsafe { _mm256_maskstore_epi32(target, first_of_8(count), lanes) }
    }

    /// # Safety
    /// As for [`DotVector::store_bytes`].
    #[inline(always)]
    unsafe fn bytes_16(
        lanes: __m512i,
        target: *mut u8,
        count: usize,
        (scale, single): (*const f32, bool),
        Limits { zero, low, high }: Limits,
    ) {
        // SAFETY: the caller grants the instruction set and the elements below `count`, or the first of `scale`.
        unsafe {
            let mask = first(count);
            let scale = if single { _mm512_set1_ps(*scale) } else { _mm512_maskz_loadu_ps(mask, scale) };
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(lanes), scale);
            let rounded = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled);
            let moved = _mm512_add_ps(rounded, _mm512_set1_ps(zero));
            let limited = _mm512_min_ps(_mm512_max_ps(moved, _mm512_set1_ps(low)), _mm512_set1_ps(high));
            let numbers = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(scaled, scaled);
            let integers = _mm512_maskz_cvtps_epi32(numbers, limited);
            if count == 16 {
                _mm_storeu_si128(target.cast(), _mm512_cvtepi32_epi8(integers));
            } else {
                _mm512_mask_cvtepi32_storeu_epi8(target.cast(), mask, integers);
            }
        }
    }

    /// # Safety
    /// As for [`DotVector::store_bytes`].
    #[inline(always)]
    unsafe fn bytes_8(
        lanes: __m256i,
        target: *mut u8,
        count: usize,
        (scale, single): (*const f32, bool),
        Limits { zero, low, high }: Limits,
    ) {
        // SAFETY: the caller grants the instruction set and the elements below `count`, or the first of `scale`.
        unsafe {
            let mask = first_of_8(count);
            let scale = if single { _mm256_set1_ps(*scale) } else { _mm256_maskload_ps(scale, mask) };
            let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(lanes), scale);
            let rounded = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled);
            let moved = _mm256_add_ps(rounded, _mm256_set1_ps(zero));
            let limited = _mm256_min_ps(_mm256_max_ps(moved, _mm256_set1_ps(low)), _mm256_set1_ps(high));
            let numbers = _mm256_cmp_ps::<_CMP_ORD_Q>(scaled, scaled);
            let integers = _mm256_cvtps_epi32(_mm256_and_ps(limited, numbers));
            let lowest = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
                -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            let halves = _mm256_shuffle_epi8(integers, lowest);
            let bytes = _mm_or_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
            if count == 8 {
                _mm_storel_epi64(target.cast(), bytes);
            } else {
                let mut held = [0u8; 16];
                _mm_storeu_si128(held.as_mut_ptr().cast(), bytes);
                std::ptr::copy_nonoverlapping(held.as_ptr(), target, count);
            }
        }
    }

    /// # Safety
    /// As for [`DotVector::load_first`].
    #[inline(always)]
    unsafe fn load_4(source: *const i32, count: usize) -> __m128i {
        let mut lanes = [0i32; 4];
        // SAFETY: the caller grants the lanes below `count`, at most 4.
        unsafe {
            std::ptr::copy_nonoverlapping(source.cast::<u8>(), lanes.as_mut_ptr().cast(), 4 * count);
            _mm_loadu_si128(lanes.as_ptr().cast())
        }
    }

    /// # Safety
    /// As for [`DotVector::store_first`].
    #[inline(always)]
    unsafe fn store_4(target: *mut i32, count: usize, lanes: __m128i) {
        let mut held = [0i32; 4];
        // SAFETY: the caller grants the lanes below `count`, at most 4.
        unsafe {
            _mm_storeu_si128(held.as_mut_ptr().cast(), lanes);
            std::ptr::copy_nonoverlapping(held.as_ptr().cast::<u8>(), target.cast(), 4 * count);
        }
    }

    /// # Safety
    /// As for [`DotVector::store_bytes`].
    #[inline(always)]
    unsafe fn bytes_4(
        lanes: __m128i,
        target: *mut u8,
        count: usize,
        (scale, single): (*const f32, bool),
        Limits { zero, low, high }: Limits,
    ) {
        // SAFETY: the caller grants the elements below `count`, at most 4, or the first of `scale`; SSE2 is part of the architecture.
        unsafe {
            let scale =
                if single { _mm_set1_ps(*scale) } else { _mm_castsi128_ps(load_4(scale.cast(), count)) };
            let scaled = _mm_mul_ps(_mm_cvtepi32_ps(lanes), scale);
            // Rounded by the conversion, which beyond these is not one; the limits are far below.
            let near = _mm_min_ps(_mm_max_ps(scaled, _mm_set1_ps(-1e9)), _mm_set1_ps(1e9));
            let moved = _mm_add_ps(_mm_cvtepi32_ps(_mm_cvtps_epi32(near)), _mm_set1_ps(zero));
            let limited = _mm_min_ps(_mm_max_ps(moved, _mm_set1_ps(low)), _mm_set1_ps(high));
            let numbers = _mm_castps_si128(_mm_cmpord_ps(scaled, scaled));
            let lowest =
                _mm_and_si128(_mm_and_si128(_mm_cvttps_epi32(limited), numbers), _mm_set1_epi32(0xff));
            let halves = _mm_packs_epi32(lowest, lowest);
            let bytes = _mm_cvtsi128_si32(_mm_packus_epi16(halves, halves)).to_ne_bytes();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, count);
        }
    }

    sums!(DotSse2, "Sums of SSE2, which every processor of the architecture has.", __m128i, 4, 4, 0,
    { _mm_setzero_si128 _mm_loadu_si128 _mm_storeu_si128 _mm_add_epi32 _mm_sub_epi32 load_4 store_4 bytes_4 }, {
        dots_of_pairs!(
            __m128i, _mm_madd_epi16, _mm_add_epi32, _mm_set1_epi32, _mm_and_si128, _mm_slli_epi16, _mm_srai_epi16,
            _mm_srli_epi16, _mm_loadu_si128, load_4
        );
    });

    sums!(DotAvx2, "Sums of AVX2.", __m256i, 8, 8, 0,
    { _mm256_setzero_si256 _mm256_loadu_si256 _mm256_storeu_si256 _mm256_add_epi32 _mm256_sub_epi32 load_8 store_8 bytes_8 }, {
        dots_of_pairs!(
            __m256i, _mm256_madd_epi16, _mm256_add_epi32, _mm256_set1_epi32, _mm256_and_si256, _mm256_slli_epi16,
            _mm256_srai_epi16, _mm256_srli_epi16, _mm256_loadu_si256, load_8
        );
    });

    sums!(DotAvxVnni, "Sums of AVX2 with AVX-VNNI.", __m256i, 8, 8, 128,
    { _mm256_setzero_si256 _mm256_loadu_si256 _mm256_storeu_si256 _mm256_add_epi32 _mm256_sub_epi32 load_8 store_8 bytes_8 }, {
        dots_at_once!(
            __m256i, _mm256_dpbusd_avx_epi32, _mm256_set1_epi32, _mm256_xor_si256, _mm256_loadu_si256, load_8
        );
    });

    sums!(DotAvx512, "Sums of AVX-512.", __m512i, 16, 8, 0,
    { _mm512_setzero_si512 _mm512_loadu_si512 _mm512_storeu_si512 _mm512_add_epi32 _mm512_sub_epi32 load_16 store_16 bytes_16 }, {
        dots_of_pairs!(
            __m512i, _mm512_madd_epi16, _mm512_add_epi32, _mm512_set1_epi32, _mm512_and_si512, _mm512_slli_epi16,
            _mm512_srai_epi16, _mm512_srli_epi16, _mm512_loadu_si512, load_16
        );
    });

    sums!(DotVnni, "Sums of AVX-512 with VNNI.", __m512i, 16, 16, 128,
    { _mm512_setzero_si512 _mm512_loadu_si512 _mm512_storeu_si512 _mm512_add_epi32 _mm512_sub_epi32 load_16 store_16 bytes_16 }, {
        dots_at_once!(
            __m512i, _mm512_dpbusd_epi32, _mm512_set1_epi32, _mm512_xor_si512, _mm512_loadu_si512, load_16
        );
    });
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use DotLanes as DotBaseline;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{DotAvx2, DotAvx512, DotAvxVnni, DotSse2 as DotBaseline, DotVnni};
