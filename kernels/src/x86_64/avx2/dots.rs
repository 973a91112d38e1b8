//! Dot products by `vpmaddwd`, with multipliers of 16 bits and codes of 8 or 16, and by `vpmaddubsw`, with bytes.

use crate::generic::dots::{Dots, LONG, Multipliers, SHORT, four_bytes, words_at};
use crate::generic::lanes::Lanes;
use crate::x86_64::ymm::{self, AddPairs, Ymm, load_bytes, load_levels};
use std::arch::x86_64::*;

/// Four lanes each, of two sums that belong together.
#[derive(Clone, Copy)]
pub(crate) struct Long([__m256i; 4]);

// SAFETY of every block below: the trait demands AVX2 of the caller, and memory that is good for 64
// bytes.
impl Dots for Long {
    const QUERIES: usize = 2;
    const LARGEST: f32 = LONG;
    type Floats = Ymm;
    type Bytes = [__m256i; 4];

    #[inline(always)]
    fn at(step: usize) -> usize {
        words_at(step)
    }

    #[inline(always)]
    unsafe fn put(x: Ymm, to: &mut Multipliers) {
        // SAFETY: as above.
        unsafe { x.store_i16(to.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Long([unsafe { _mm256_setzero_si256() }; 4])
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

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Short([__m256i; 2]);

impl Short {
    /// Adds products of unsigned bytes of up to 127 with signed ones.
    ///
    /// # Safety
    /// Needs AVX2.
    #[inline(always)]
    unsafe fn add(mut self, unsigned: [__m256i; 2], signed: [__m256i; 2]) -> Self {
        // SAFETY: the caller has AVX2. Two products are within 16 bits.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            for (i, sum) in self.0.iter_mut().enumerate() {
                let pairs = _mm256_maddubs_epi16(unsigned[i], signed[i]);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        self
    }
}

// SAFETY of every block below: as above.
impl Dots for Short {
    const QUERIES: usize = 3;
    const LARGEST: f32 = SHORT;
    const STEPS: usize = 2;
    type Floats = Ymm;
    type Bytes = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Short([unsafe { _mm256_setzero_si256() }; 2])
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { load_bytes(from) }
    }

    #[inline(always)]
    unsafe fn load_values(from: *const i8, step: usize) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { load_levels(from, step) }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, values: [__m256i; 2]) -> Self {
        // SAFETY: as above.
        unsafe { self.add([_mm256_set1_epi32(four_bytes(multipliers)); 2], values) }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Ymm {
        // SAFETY: as above.
        unsafe { Ymm::of_integers(self.0[0], self.0[1]) }
    }

    #[inline(always)]
    unsafe fn signed_dot(self, multipliers: *const i8, keys: [__m256i; 2]) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = _mm256_set1_epi32(four_bytes(multipliers));
            let [a, b] = keys;
            let keys = [_mm256_sign_epi8(a, x), _mm256_sign_epi8(b, x)];
            self.add([_mm256_abs_epi8(x); 2], keys)
        }
    }
}

/// Codes of 16 bits.
pub(crate) type Words = ymm::Words<Maddwd>;

/// Products by `vpmaddwd`.
#[derive(Clone, Copy)]
pub(crate) struct Maddwd;

impl AddPairs for Maddwd {
    #[inline(always)]
    unsafe fn add(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the trait demands AVX2 of the caller.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(codes, x)) }
    }
}
