//! Sixteen floats in one 512-bit vector.

use crate::generic::lanes::Lanes;
use crate::x86_64::prefetch;
use std::arch::x86_64::*;

/// One vector.
#[derive(Clone, Copy)]
pub(crate) struct Zmm(__m512);

impl Zmm {
    /// Integers as floats.
    ///
    /// # Safety
    /// Needs AVX-512.
    #[inline(always)]
    pub(super) unsafe fn of_integers(x: __m512i) -> Zmm {
        // SAFETY: the caller has AVX-512.
        Zmm(unsafe { _mm512_cvtepi32_ps(x) })
    }
}

// SAFETY of every block below: the trait demands AVX-512 F, BW, VL and DQ of the caller, and memory
// that is good for 16 elements.
impl Lanes for Zmm {
    const WIDE: bool = true;

    #[inline(always)]
    fn prefetch(line: *const u8) {
        prefetch(line);
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) };
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16) {
        // SAFETY: as above.
        unsafe {
            let words = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(self.0));
            _mm256_storeu_si256(to.cast(), words);
        }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_mul_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_div_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_max_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_min_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    unsafe fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let mask = _mm512_set1_ps(-0.0);
            let sign = _mm512_and_ps(mask, sign.0);
            Zmm(_mm512_or_ps(_mm512_andnot_ps(mask, self.0), sign))
        }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: as above.
        Zmm(unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(self.0) })
    }

    #[inline(always)]
    unsafe fn ldexp(self, n: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(n.0));
            let bits = _mm512_add_epi32(_mm512_castps_si512(self.0), exponent);
            Zmm(_mm512_castsi512_ps(bits))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            crate::x86_64::ymm::sum(_mm256_add_ps(_mm512_castps512_ps256(self.0), high))
        }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            crate::x86_64::ymm::largest(_mm256_max_ps(_mm512_castps512_ps256(self.0), high))
        }
    }

    #[inline(always)]
    unsafe fn exceeds(self, b: f32) -> bool {
        // SAFETY: as above.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_set1_ps(b)) != 0 }
    }
}
