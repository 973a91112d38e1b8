//! Dot products by 512-bit `vpdpbusd` (unsigned × signed bytes), with multipliers of two digits.

use super::lanes::Zmm;
use crate::generic::dots::{Dots, Multipliers, digits, digits_at, put_digits, put_signed_digits};
use std::arch::x86_64::*;

/// All lanes, of products with high digits and with low ones.
#[derive(Clone, Copy)]
pub(crate) struct Dpbusd {
    high: __m512i,
    low: __m512i,
}

// SAFETY of every block below: the trait demands AVX-512 VNNI of the caller, and memory that is good for
// 64 bytes.
impl Dots for Dpbusd {
    const QUERIES: usize = 3;
    type Floats = Zmm;
    type Bytes = __m512i;

    #[inline(always)]
    fn at(step: usize) -> usize {
        digits_at(step)
    }

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
            Dpbusd {
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
            Dpbusd {
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
            Dpbusd {
                high: _mm512_dpbusd_epi32(self.high, bytes, high),
                low: _mm512_dpbusd_epi32(self.low, bytes, low),
            }
        }
    }
}
