//! Dot products by 512-bit `vpdpbusd` (unsigned × signed bytes) and `vpdpwssd` (words).

use super::lanes::Zmm;
use crate::generic::dots::{
    Dots, LEVELS, LONG, Multipliers, SHORT, WORD, digits, four_bytes, put_digits, put_signed_digits,
};
use std::arch::x86_64::*;

/// All lanes, of products with high digits and with low ones.
#[derive(Clone, Copy)]
pub(crate) struct Long {
    high: __m512i,
    low: __m512i,
}

// SAFETY of every block below: the trait demands AVX-512 VNNI of the caller, and memory that is good for
// 64 bytes.
impl Dots for Long {
    const QUERIES: usize = 3;
    const LARGEST: f32 = LONG;
    const NEEDS_TOTAL: bool = true;
    type Floats = Zmm;
    type Bytes = __m512i;

    #[inline(always)]
    unsafe fn put(x: Zmm, to: &mut Multipliers) {
        // SAFETY: as above.
        unsafe { put_digits(x, to) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        unsafe { Self::signed_zero([0; 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, bytes: __m512i) -> Self {
        // SAFETY: as above.
        unsafe {
            let [high, low] = digits(multipliers);
            let (high, low) = (_mm512_set1_epi32(high), _mm512_set1_epi32(low));
            Long {
                high: _mm512_dpbusd_epi32(self.high, high, bytes),
                low: _mm512_dpbusd_epi32(self.low, low, bytes),
            }
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Zmm {
        // SAFETY: as above.
        unsafe {
            Zmm::of_integers(_mm512_add_epi32(
                _mm512_slli_epi32::<7>(self.high),
                self.low,
            ))
        }
    }

    #[inline(always)]
    unsafe fn signed_put(x: Zmm, to: &mut Multipliers) -> [Zmm; 2] {
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
                high: _mm512_set1_epi32(high),
                low: _mm512_set1_epi32(low),
            }
        }
    }

    #[inline(always)]
    unsafe fn signed_load(from: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let offset = _mm512_set1_epi8(i8::MIN);
            _mm512_xor_si512(Self::load(from), offset)
        }
    }

    #[inline(always)]
    unsafe fn signed_dot(self, multipliers: *const i8, bytes: __m512i) -> Self {
        // SAFETY: as above.
        unsafe {
            let [high, low] = digits(multipliers);
            let (high, low) = (_mm512_set1_epi32(high), _mm512_set1_epi32(low));
            Long {
                high: _mm512_dpbusd_epi32(self.high, bytes, high),
                low: _mm512_dpbusd_epi32(self.low, bytes, low),
            }
        }
    }
}

/// All lanes.
#[derive(Clone, Copy)]
pub(crate) struct Short(__m512i);

// SAFETY of every block below: as above.
impl Dots for Short {
    const QUERIES: usize = 6;
    const LARGEST: f32 = SHORT;
    const STEPS: usize = 2;
    const NEEDS_TOTAL: bool = true;
    type Floats = Zmm;
    type Bytes = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        unsafe { Self::signed_zero([0; 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { Long::load(from) }
    }

    #[inline(always)]
    unsafe fn load_values(from: *const i8, step: usize) -> __m512i {
        // SAFETY: as above; there are 16 levels.
        unsafe {
            let bytes = Self::load(from);
            let codes = match step {
                0 => bytes,
                _ => _mm512_srli_epi16::<4>(bytes),
            };
            let codes = _mm512_and_si512(codes, _mm512_set1_epi8(15));
            let levels = _mm512_broadcast_i32x4(_mm_loadu_si128(LEVELS.as_ptr().cast()));
            _mm512_shuffle_epi8(levels, codes)
        }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, values: __m512i) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = _mm512_set1_epi32(four_bytes(multipliers));
            Short(_mm512_dpbusd_epi32(self.0, x, values))
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Zmm {
        // SAFETY: as above.
        unsafe { Zmm::of_integers(self.0) }
    }

    #[inline(always)]
    unsafe fn signed_zero(total: [i32; 2]) -> Self {
        // Bytes are read with 128 added.
        // SAFETY: as above.
        Short(unsafe { _mm512_set1_epi32(total[1].wrapping_mul(-128)) })
    }

    #[inline(always)]
    unsafe fn signed_load(from: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { Long::signed_load(from) }
    }

    #[inline(always)]
    unsafe fn signed_dot(self, multipliers: *const i8, keys: __m512i) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = _mm512_set1_epi32(four_bytes(multipliers));
            Short(_mm512_dpbusd_epi32(self.0, keys, x))
        }
    }
}

/// All lanes, of codes of 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct Words(__m512i);

// SAFETY of every block below: as above.
impl Dots for Words {
    const QUERIES: usize = 6;
    const LARGEST: f32 = WORD;
    const ELEMENTS: usize = 2;
    type Floats = Zmm;
    type Bytes = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Words(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { Long::load(from) }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, codes: __m512i) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = _mm512_set1_epi32(four_bytes(multipliers));
            Words(_mm512_dpwssd_epi32(self.0, codes, x))
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Zmm {
        // SAFETY: as above.
        unsafe { Zmm::of_integers(self.0) }
    }
}
