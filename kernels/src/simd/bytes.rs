//! Up to 16 bytes in a vector that every processor of the architecture has.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128i, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_loadl_epi64, _mm_loadu_si128, _mm_max_epu8,
    _mm_set1_epi8, _mm_storel_epi64, _mm_storeu_si128, _mm_unpackhi_epi8, _mm_unpackhi_epi16,
    _mm_unpacklo_epi8, _mm_unpacklo_epi16, _mm_xor_si128,
};

/// Unsigned bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(Register);

#[cfg(target_arch = "x86_64")]
type Register = __m128i;
#[cfg(not(target_arch = "x86_64"))]
type Register = [u8; 16];

#[cfg(target_arch = "x86_64")]
impl Bytes {
    #[inline(always)]
    pub(crate) fn splat(byte: u8) -> Bytes {
        // SAFETY: SSE2 is part of the architecture.
        Bytes(unsafe { _mm_set1_epi8(byte.cast_signed()) })
    }

    /// The first `COUNT` bytes at `source`, 4, 8 or 16.
    ///
    /// # Safety
    /// They are valid for reads.
    #[inline(always)]
    pub(crate) unsafe fn load<const COUNT: usize>(source: *const u8) -> Bytes {
        const { assert!(COUNT == 4 || COUNT == 8 || COUNT == 16) };
        // SAFETY: SSE2 is part of the architecture; the caller grants the bytes.
        Bytes(unsafe {
            match COUNT {
                4 => _mm_cvtsi32_si128(source.cast::<i32>().read_unaligned()),
                8 => _mm_loadl_epi64(source.cast()),
                _sixteen => _mm_loadu_si128(source.cast()),
            }
        })
    }

    /// Writes the first `COUNT` bytes to `target`.
    ///
    /// # Safety
    /// They are valid for writes.
    #[inline(always)]
    pub(crate) unsafe fn store<const COUNT: usize>(self, target: *mut u8) {
        // SAFETY: SSE2 is part of the architecture; the caller grants the bytes.
        unsafe {
            match COUNT {
                4 => target.cast::<i32>().write_unaligned(_mm_cvtsi128_si32(self.0)),
                8 => _mm_storel_epi64(target.cast(), self.0),
                _sixteen => _mm_storeu_si128(target.cast(), self.0),
            }
        }
    }

    #[inline(always)]
    pub(crate) fn max(self, other: Bytes) -> Bytes {
        // SAFETY: SSE2 is part of the architecture.
        Bytes(unsafe { _mm_max_epu8(self.0, other.0) })
    }

    #[inline(always)]
    pub(crate) fn xor(self, other: Bytes) -> Bytes {
        // SAFETY: SSE2 is part of the architecture.
        Bytes(unsafe { _mm_xor_si128(self.0, other.0) })
    }

    /// The first bytes of the four, then their second ones, and so on.
    #[inline(always)]
    pub(crate) fn interleaved([a, b, c, d]: [Bytes; 4]) -> [Bytes; 4] {
        // SAFETY: SSE2 is part of the architecture.
        unsafe {
            let [low, high] = [_mm_unpacklo_epi8(a.0, b.0), _mm_unpackhi_epi8(a.0, b.0)];
            let [other_low, other_high] = [_mm_unpacklo_epi8(c.0, d.0), _mm_unpackhi_epi8(c.0, d.0)];
            [
                Bytes(_mm_unpacklo_epi16(low, other_low)),
                Bytes(_mm_unpackhi_epi16(low, other_low)),
                Bytes(_mm_unpacklo_epi16(high, other_high)),
                Bytes(_mm_unpackhi_epi16(high, other_high)),
            ]
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Bytes {
    #[inline(always)]
    pub(crate) fn splat(byte: u8) -> Bytes {
        Bytes([byte; 16])
    }

    /// The first `COUNT` bytes at `source`, 4, 8 or 16.
    ///
    /// # Safety
    /// They are valid for reads.
    #[inline(always)]
    pub(crate) unsafe fn load<const COUNT: usize>(source: *const u8) -> Bytes {
        const { assert!(COUNT == 4 || COUNT == 8 || COUNT == 16) };
        let mut bytes = [0; 16];
        // SAFETY: the caller grants the bytes, of which there are at most 16.
        unsafe { std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), COUNT) };
        Bytes(bytes)
    }

    /// Writes the first `COUNT` bytes to `target`.
    ///
    /// # Safety
    /// They are valid for writes.
    #[inline(always)]
    pub(crate) unsafe fn store<const COUNT: usize>(self, target: *mut u8) {
        // SAFETY: the caller grants the bytes, of which there are at most 16.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), target, COUNT) };
    }

    #[inline(always)]
    pub(crate) fn max(self, other: Bytes) -> Bytes {
        Bytes(std::array::from_fn(|lane| self.0[lane].max(other.0[lane])))
    }

    #[inline(always)]
    pub(crate) fn xor(self, other: Bytes) -> Bytes {
        Bytes(std::array::from_fn(|lane| self.0[lane] ^ other.0[lane]))
    }

    /// The first bytes of the four, then their second ones, and so on.
    #[inline(always)]
    pub(crate) fn interleaved(of: [Bytes; 4]) -> [Bytes; 4] {
        std::array::from_fn(|quarter| Bytes(std::array::from_fn(|at| of[at % 4].0[4 * quarter + at / 4])))
    }
}
