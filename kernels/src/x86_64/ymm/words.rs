//! Dot products of codes of 16 bits.

use super::{Ymm, load_bytes};
use crate::generic::dots::{Dots, WORD, four_bytes};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// How an ISA adds products of pairs.
///
/// # Safety
/// Its function needs the ISA.
pub(crate) trait AddPairs: Copy {
    /// Adds to each lane the products of its two codes with two multipliers.
    unsafe fn add(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i;
}

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Words<P>([__m256i; 2], PhantomData<P>);

// SAFETY of every block below: the trait demands the ISA of `P`, which has AVX2, of the caller, and memory
// that is good for 64 bytes.
impl<P: AddPairs> Dots for Words<P> {
    const QUERIES: usize = 6;
    const LARGEST: f32 = WORD;
    const ELEMENTS: usize = 2;
    type Floats = Ymm;
    type Bytes = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Words([unsafe { _mm256_setzero_si256() }; 2], PhantomData)
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { load_bytes(from) }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, codes: [__m256i; 2]) -> Self {
        let Words([a, b], _) = self;
        // SAFETY: as above.
        unsafe {
            let x = _mm256_set1_epi32(four_bytes(multipliers));
            Words(
                [P::add(a, codes[0], x), P::add(b, codes[1], x)],
                PhantomData,
            )
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Ymm {
        // SAFETY: as above.
        unsafe { Ymm::of_integers(self.0[0], self.0[1]) }
    }
}
