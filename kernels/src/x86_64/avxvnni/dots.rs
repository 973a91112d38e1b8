//! Dot products by 256-bit `vpdpbusd` (unsigned × signed bytes) and `vpdpwssd` (words).

use crate::generic::dots::{
    Dots, LONG, Multipliers, SHORT, digits, four_bytes, put_digits, put_signed_digits,
};
use crate::x86_64::ymm::{self, AddPairs, Ymm, load_bytes, load_levels};
use std::arch::x86_64::*;

/// Lanes 0 to 7 and 8 to 15, of products with high digits and with low ones.
#[derive(Clone, Copy)]
pub(crate) struct Long {
    high: [__m256i; 2],
    low: [__m256i; 2],
}

// SAFETY of every block below: the trait demands AVX-VNNI of the caller, and memory that is good for
// 64 bytes.
impl Dots for Long {
    const QUERIES: usize = 3;
    const LARGEST: f32 = LONG;
    const NEEDS_TOTAL: bool = true;
    type Floats = Ymm;
    type Bytes = [__m256i; 2];

    #[inline(always)]
    unsafe fn put(x: Ymm, to: &mut Multipliers) {
        // SAFETY: as above.
        unsafe { put_digits(x, to) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        unsafe { Self::signed_zero([0; 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { load_bytes(from) }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, bytes: [__m256i; 2]) -> Self {
        // SAFETY: as above.
        unsafe {
            let [high, low] = digits(multipliers);
            let (high, low) = (_mm256_set1_epi32(high), _mm256_set1_epi32(low));
            Long {
                high: [
                    _mm256_dpbusd_avx_epi32(self.high[0], high, bytes[0]),
                    _mm256_dpbusd_avx_epi32(self.high[1], high, bytes[1]),
                ],
                low: [
                    _mm256_dpbusd_avx_epi32(self.low[0], low, bytes[0]),
                    _mm256_dpbusd_avx_epi32(self.low[1], low, bytes[1]),
                ],
            }
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Ymm {
        // SAFETY: as above.
        unsafe {
            let [a, b] = [0, 1].map(
                #[inline(always)]
                |i| _mm256_add_epi32(_mm256_slli_epi32::<7>(self.high[i]), self.low[i]),
            );
            Ymm::of_integers(a, b)
        }
    }

    #[inline(always)]
    unsafe fn signed_put(x: Ymm, to: &mut Multipliers) -> [Ymm; 2] {
        // SAFETY: as above.
        unsafe { put_signed_digits(x, to) }
    }

    #[inline(always)]
    unsafe fn signed_zero(total: [i32; 2]) -> Self {
        // Bytes are read with 128 added.
        let [high, low] = total.map(|total| total.wrapping_mul(-128));
        // SAFETY: as above.
        unsafe {
            Long {
                high: [_mm256_set1_epi32(high); 2],
                low: [_mm256_set1_epi32(low); 2],
            }
        }
    }

    #[inline(always)]
    unsafe fn signed_load(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe {
            let offset = _mm256_set1_epi8(i8::MIN);
            let [a, b] = Self::load(from);
            [_mm256_xor_si256(a, offset), _mm256_xor_si256(b, offset)]
        }
    }

    #[inline(always)]
    unsafe fn signed_dot(self, multipliers: *const i8, bytes: [__m256i; 2]) -> Self {
        // SAFETY: as above.
        unsafe {
            let [high, low] = digits(multipliers);
            let (high, low) = (_mm256_set1_epi32(high), _mm256_set1_epi32(low));
            Long {
                high: [
                    _mm256_dpbusd_avx_epi32(self.high[0], bytes[0], high),
                    _mm256_dpbusd_avx_epi32(self.high[1], bytes[1], high),
                ],
                low: [
                    _mm256_dpbusd_avx_epi32(self.low[0], bytes[0], low),
                    _mm256_dpbusd_avx_epi32(self.low[1], bytes[1], low),
                ],
            }
        }
    }
}

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Short([__m256i; 2]);

// SAFETY of every block below: as above.
impl Dots for Short {
    const QUERIES: usize = 6;
    const LARGEST: f32 = SHORT;
    const STEPS: usize = 2;
    const NEEDS_TOTAL: bool = true;
    type Floats = Ymm;
    type Bytes = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        unsafe { Self::signed_zero([0; 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { Long::load(from) }
    }

    #[inline(always)]
    unsafe fn load_values(from: *const i8, step: usize) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { load_levels(from, step) }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, values: [__m256i; 2]) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = _mm256_set1_epi32(four_bytes(multipliers));
            Short([
                _mm256_dpbusd_avx_epi32(self.0[0], x, values[0]),
                _mm256_dpbusd_avx_epi32(self.0[1], x, values[1]),
            ])
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Ymm {
        // SAFETY: as above.
        unsafe { Ymm::of_integers(self.0[0], self.0[1]) }
    }

    #[inline(always)]
    unsafe fn signed_zero(total: [i32; 2]) -> Self {
        // Bytes are read with 128 added.
        // SAFETY: as above.
        Short([unsafe { _mm256_set1_epi32(total[1].wrapping_mul(-128)) }; 2])
    }

    #[inline(always)]
    unsafe fn signed_load(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { Long::signed_load(from) }
    }

    #[inline(always)]
    unsafe fn signed_dot(self, multipliers: *const i8, keys: [__m256i; 2]) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = _mm256_set1_epi32(four_bytes(multipliers));
            Short([
                _mm256_dpbusd_avx_epi32(self.0[0], keys[0], x),
                _mm256_dpbusd_avx_epi32(self.0[1], keys[1], x),
            ])
        }
    }
}

/// Codes of 16 bits.
pub(crate) type Words = ymm::Words<Dpwssd>;

/// Products by `vpdpwssd`.
#[derive(Clone, Copy)]
pub(crate) struct Dpwssd;

impl AddPairs for Dpwssd {
    #[inline(always)]
    unsafe fn add(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the trait demands AVX-VNNI of the caller.
        unsafe { _mm256_dpwssd_avx_epi32(sum, codes, x) }
    }
}
