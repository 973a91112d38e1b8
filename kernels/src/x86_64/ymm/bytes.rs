//! Keys and values of a step, in two vectors.

use crate::generic::dots::LEVELS;
use std::arch::x86_64::*;

/// Reads 64 bytes.
///
/// # Safety
/// Needs AVX2; `from` must be good for 64 bytes.
#[inline(always)]
pub(in crate::x86_64) unsafe fn load_bytes(from: *const i8) -> [__m256i; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        [
            _mm256_loadu_si256(from.cast()),
            _mm256_loadu_si256(from.add(32).cast()),
        ]
    }
}

/// Reads what the nibbles of a step of 64 bytes are codes of.
///
/// # Safety
/// As [`load_bytes`].
#[inline(always)]
pub(in crate::x86_64) unsafe fn load_levels(from: *const i8, step: usize) -> [__m256i; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let [a, b] = load_bytes(from);
        [levels(a, step), levels(b, step)]
    }
}

/// What the low nibbles of bytes (step 0) or the high ones (step 1) are codes of.
///
/// # Safety
/// Needs AVX2.
#[inline(always)]
unsafe fn levels(bytes: __m256i, step: usize) -> __m256i {
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
