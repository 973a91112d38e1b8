//! Matmul with `vpmaddubsw` (unsigned × signed bytes, pairs summed with saturation to 16 bits).
//!
//! Neither sum saturates: a pair of `q4` products is at most 2 · 15 · 127 and eight pairs 30 480; a
//! pair of `q8` products is at most 2 · 128 · 127 = 32 512.

use super::super::ymm::matmul::{self as ymm, Dot};
use crate::matmul::{Block, MatmulKernels, Micro, Tiles};
use std::arch::x86_64::*;

pub(crate) static MATMUL: MatmulKernels = MatmulKernels {
    q4: Tiles {
        by_tokens: &[
            q4::<2, 1, false> as Micro,
            q4::<2, 2, false>,
            q4::<2, 3, false>,
            q4::<2, 4, false>,
            q4::<2, 5, false>,
        ],
    },
    q4_minimum: Tiles {
        by_tokens: &[
            q4::<2, 1, true> as Micro,
            q4::<2, 2, true>,
            q4::<2, 3, true>,
            q4::<2, 4, true>,
            q4::<2, 5, true>,
            q4::<2, 6, true>,
        ],
    },
    q8: Tiles {
        by_tokens: &[
            q8::<2, 1> as Micro,
            q8::<2, 2>,
            q8::<1, 3>,
            q8::<1, 4>,
            q8::<1, 5>,
            q8::<1, 6>,
            q8::<1, 7>,
            q8::<1, 8>,
        ],
    },
    q3: split::<2, 1>(),
    q5: split::<4, 1>(),
    q6: split::<4, 2>(),
    f16: Tiles {
        by_tokens: &[float::<true, 1> as Micro, float::<true, 2>],
    },
    f32: Tiles {
        by_tokens: &[float::<false, 1> as Micro, float::<false, 2>],
    },
    many: None,
};

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4<const H: usize, const N: usize, const MINIMUM: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe {
        if block.streams {
            q4_as::<H, N, MINIMUM, true>(block, out, stride);
        } else {
            q4_as::<H, N, MINIMUM, false>(block, out, stride);
        }
    }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4_as<const H: usize, const N: usize, const MINIMUM: bool, const STREAMS: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { ymm::q4::<MaddUbs, H, N, MINIMUM, STREAMS>(block, out, stride) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q8<const H: usize, const N: usize>(block: &Block, out: *mut f32, stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe {
        if block.streams {
            q8_as::<H, N, true>(block, out, stride);
        } else {
            q8_as::<H, N, false>(block, out, stride);
        }
    }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q8_as<const H: usize, const N: usize, const STREAMS: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { ymm::q8::<MaddUbs, H, N, STREAMS>(block, out, stride) }
}

/// Kernels for codes of `LOW + HIGH` bits in two planes.
const fn split<const LOW: usize, const HIGH: usize>() -> Tiles {
    Tiles {
        by_tokens: &[
            split_tile::<LOW, HIGH, 2, 1> as Micro,
            split_tile::<LOW, HIGH, 2, 2>,
            split_tile::<LOW, HIGH, 1, 3>,
            split_tile::<LOW, HIGH, 1, 4>,
            split_tile::<LOW, HIGH, 1, 5>,
            split_tile::<LOW, HIGH, 1, 6>,
            split_tile::<LOW, HIGH, 1, 7>,
            split_tile::<LOW, HIGH, 1, 8>,
        ],
    }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn split_tile<const LOW: usize, const HIGH: usize, const H: usize, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe {
        if block.streams {
            split_tile_as::<LOW, HIGH, H, N, true>(block, out, stride);
        } else {
            split_tile_as::<LOW, HIGH, H, N, false>(block, out, stride);
        }
    }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn split_tile_as<
    const LOW: usize,
    const HIGH: usize,
    const H: usize,
    const N: usize,
    const STREAMS: bool,
>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { ymm::split::<MaddUbs, LOW, HIGH, H, N, STREAMS>(block, out, stride) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn float<const HALF: bool, const N: usize>(block: &Block, out: *mut f32, stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { ymm::float::<HALF, N>(block, out, stride) }
}

/// Dot products by `vpmaddubsw`.
struct MaddUbs;

impl Dot for MaddUbs {
    /// Codes, and their absolute values.
    type Q8 = (__m256i, __m256i);
    const Q8_ZERO: i32 = 0;

    #[inline(always)]
    unsafe fn q4(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x)) }
    }

    #[inline(always)]
    unsafe fn q4_sums(sum: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_madd_epi16(sum, _mm256_set1_epi16(1)) }
    }

    #[inline(always)]
    unsafe fn q8_codes(codes: __m256i) -> Self::Q8 {
        // SAFETY: the caller has AVX2.
        unsafe { (codes, _mm256_abs_epi8(codes)) }
    }

    #[inline(always)]
    unsafe fn q8(sum: __m256i, (codes, absolute): Self::Q8, x: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            let pairs = _mm256_maddubs_epi16(absolute, _mm256_sign_epi8(x, codes));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}
