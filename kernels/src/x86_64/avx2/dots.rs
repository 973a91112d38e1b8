//! Dot products by `vpmaddwd`, with multipliers of 16 bits.

use crate::generic::dots::{Dots, Multipliers, words_at};
use crate::x86_64::ymm::Ymm;
use std::arch::x86_64::*;

/// Four lanes each, of two sums that belong together.
#[derive(Clone, Copy)]
pub(crate) struct Maddwd([__m256i; 4]);

// SAFETY of every block below: the trait demands AVX2 of the caller, and memory that is good for 64
// bytes.
impl Dots for Maddwd {
    const QUERIES: usize = 2;
    type Floats = Ymm;
    type Bytes = [__m256i; 4];

    #[inline(always)]
    fn at(step: usize) -> usize {
        words_at(step)
    }

    #[inline(always)]
    unsafe fn put(x: Ymm, to: &mut Multipliers) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x.to_words()) };
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Maddwd([unsafe { _mm256_setzero_si256() }; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [__m256i; 4] {
        std::array::from_fn(
            #[inline(always)]
            // SAFETY: as above.
            |i| unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.add(16 * i).cast())) },
        )
    }

    #[inline(always)]
    unsafe fn dot(mut self, multipliers: *const i8, bytes: [__m256i; 4]) -> Self {
        for (sum, bytes) in self.0.iter_mut().zip(bytes) {
            // SAFETY: as above; a step has 8 bytes of multipliers.
            unsafe {
                let x = _mm_loadl_epi64(multipliers.cast());
                let products = _mm256_madd_epi16(bytes, _mm256_broadcastq_epi64(x));
                *sum = _mm256_add_epi32(*sum, products);
            }
        }
        self
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Ymm {
        let [a, b, c, d] = self.0;
        // SAFETY: as above. Adding works within 128-bit halves: lanes 0, 1, 4, 5, then 2, 3, 6, 7.
        unsafe {
            Ymm::of_integers(
                _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(a, b)),
                _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(c, d)),
            )
        }
    }
}
