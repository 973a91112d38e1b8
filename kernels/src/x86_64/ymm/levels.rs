//! INT4 values.

use crate::generic::dots::LEVELS;
use std::arch::x86_64::*;

/// What the low nibbles of bytes (step 0) or the high ones (step 1) are codes of.
///
/// # Safety
/// Needs AVX2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn levels(bytes: __m256i, step: usize) -> __m256i {
    // SAFETY: the caller has AVX2; there are 16 levels.
    unsafe {
        let codes = match step {
            0 => bytes,
            _ => _mm256_srli_epi16::<4>(bytes),
        };
        let codes = _mm256_and_si256(codes, _mm256_set1_epi8(15));
        let levels = _mm256_broadcastsi128_si256(_mm_loadu_si128(LEVELS.as_ptr().cast()));
        _mm256_shuffle_epi8(levels, codes)
    }
}
