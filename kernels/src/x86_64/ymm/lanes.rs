//! Sixteen floats in two 256-bit vectors.

use crate::generic::lanes::Lanes;
use crate::x86_64::prefetch;
use std::arch::x86_64::*;

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Ymm(__m256, __m256);

impl Ymm {
    /// Integers as floats.
    ///
    /// # Safety
    /// Needs AVX.
    #[inline(always)]
    pub(in crate::x86_64) unsafe fn of_integers(low: __m256i, high: __m256i) -> Ymm {
        // SAFETY: the caller has AVX.
        unsafe { Ymm(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)) }
    }

    /// Lanes that hold integers of 16 bits as such.
    ///
    /// # Safety
    /// Needs AVX2.
    #[inline(always)]
    pub(in crate::x86_64) unsafe fn to_words(self) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            // Packing works within 128-bit halves: 0-3, 8-11, 4-7, 12-15, then put in order.
            _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high))
        }
    }
}

/// Sum of 8 lanes, halves to halves.
///
/// # Safety
/// Needs AVX.
#[inline(always)]
pub(crate) unsafe fn sum(x: __m256) -> f32 {
    // SAFETY: the caller has AVX.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
    }
}

/// Largest of 8 lanes, halves to halves.
///
/// # Safety
/// Needs AVX.
#[inline(always)]
pub(crate) unsafe fn largest(x: __m256) -> f32 {
    // SAFETY: the caller has AVX.
    unsafe {
        let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
    }
}

/// [`Lanes::ldexp`] of 8 lanes.
///
/// # Safety
/// Needs AVX2.
#[inline(always)]
unsafe fn ldexp(x: __m256, n: __m256) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(n));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), exponent))
    }
}

// SAFETY of every block below: the trait demands AVX2 and FMA of the caller, and memory that
// is good for 16 elements.
impl Lanes for Ymm {
    #[inline(always)]
    fn prefetch(line: *const u8) {
        prefetch(line);
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        // SAFETY: as above.
        unsafe {
            let words = self.to_words();
            let bytes = _mm_packs_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(to.cast(), bytes);
        }
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.cast(), self.to_words()) };
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Ymm(
                _mm256_fmadd_ps(self.0, b.0, c.0),
                _mm256_fmadd_ps(self.1, b.1, c.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: as above.
        unsafe {
            let mask = _mm256_set1_ps(-0.0);
            Ymm(
                _mm256_andnot_ps(mask, self.0),
                _mm256_andnot_ps(mask, self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let mask = _mm256_set1_ps(-0.0);
            let magnitude = self.abs();
            Ymm(
                _mm256_or_ps(magnitude.0, _mm256_and_ps(mask, sign.0)),
                _mm256_or_ps(magnitude.1, _mm256_and_ps(mask, sign.1)),
            )
        }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: as above.
        unsafe {
            Ymm(
                _mm256_round_ps::<NEAREST>(self.0),
                _mm256_round_ps::<NEAREST>(self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn ldexp(self, n: Self) -> Self {
        // SAFETY: as above.
        unsafe { Ymm(ldexp(self.0, n.0), ldexp(self.1, n.1)) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe { sum(_mm256_add_ps(self.0, self.1)) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: as above.
        unsafe { largest(_mm256_max_ps(self.0, self.1)) }
    }

    #[inline(always)]
    unsafe fn exceeds(self, b: f32) -> bool {
        // SAFETY: as above.
        unsafe {
            let b = _mm256_set1_ps(b);
            let above = |x| _mm256_cmp_ps::<_CMP_GT_OQ>(x, b);
            _mm256_movemask_ps(_mm256_or_ps(above(self.0), above(self.1))) != 0
        }
    }
}
