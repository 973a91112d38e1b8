//! Matmul with `sdot` (signed bytes, four products summed into 32 bits), the activations taken by
//! element: one register of 16 serves four steps without a broadcast.

use crate::aarch64::quarters::gemm::{self, PairDot, Sums, Weights};
use crate::aarch64::quarters::gemv::{self, PanelDot, line};
use crate::aarch64::quarters::{LINE, float::float, nibbles};
use crate::matmul::{Block, MatmulKernels, Micro, Tiles};
use std::arch::aarch64::*;
use std::arch::asm;

pub(crate) static MATMUL: MatmulKernels = MatmulKernels {
    q4: Tiles {
        by_tokens: &[
            q4_one::<false> as Micro,
            q4::<1, 2, false>,
            q4::<2, 3, false>,
            q4::<2, 4, false>,
            q4::<3, 5, false>,
            q4::<3, 6, false>,
            q4::<4, 7, false>,
            q4::<4, 8, false>,
        ],
    },
    q4_minimum: Tiles {
        by_tokens: &[
            q4_one::<true> as Micro,
            q4::<1, 2, true>,
            q4::<2, 3, true>,
            q4::<2, 4, true>,
            q4::<3, 5, true>,
            q4::<3, 6, true>,
            q4::<4, 7, true>,
            q4::<4, 8, true>,
        ],
    },
    q8: Tiles {
        by_tokens: &[
            q8_one as Micro,
            q8::<1, 2>,
            q8::<2, 3>,
            q8::<2, 4>,
            q8::<3, 5>,
            q8::<3, 6>,
            q8::<4, 7>,
            q8::<4, 8>,
        ],
    },
    f16: Tiles {
        by_tokens: &[
            float::<true, 2, 1> as Micro,
            float::<true, 1, 2>,
            float::<true, 1, 3>,
        ],
    },
    f32: Tiles {
        by_tokens: &[
            float::<false, 2, 1> as Micro,
            float::<false, 1, 2>,
            float::<false, 1, 3>,
        ],
    },
};

/// # Safety
/// As [`Micro`], with one token.
#[target_feature(enable = "dotprod")]
unsafe fn q4_one<const MINIMUM: bool>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemv::q4::<Sdot, 2, MINIMUM>(block, out) }
}

/// # Safety
/// As [`Micro`], with one token.
#[target_feature(enable = "dotprod")]
unsafe fn q8_one(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemv::q8::<Sdot, 2>(block, out) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "dotprod")]
unsafe fn q4<const PAIRS: usize, const N: usize, const MINIMUM: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemm::q4::<Sdot, PAIRS, N, MINIMUM>(block, out, stride) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "dotprod")]
unsafe fn q8<const PAIRS: usize, const N: usize>(block: &Block, out: *mut f32, stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemm::q8::<Sdot, PAIRS, N>(block, out, stride) }
}

/// Dot products by `sdot`.
pub(in crate::aarch64) struct Sdot;

/// Adds to each of 4 rows the products of its 4 codes with the activations 4 · `LANE` and on.
///
/// # Safety
/// Needs the dot product.
#[inline(always)]
unsafe fn sdot<const LANE: i32>(sum: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only. By assembly, since the intrinsic is not stable in Rust.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {codes:v}.16b, {x:v}.4b[{lane}]",
            sum = inout(vreg) sum, codes = in(vreg) codes, x = in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

impl PanelDot for Sdot {
    type X = [int8x16_t; 2];

    #[inline(always)]
    unsafe fn x(codes: *const i8) -> Self::X {
        // SAFETY: as the caller promises.
        unsafe { [vld1q_s8(codes), vld1q_s8(codes.add(16))] }
    }

    #[inline(always)]
    unsafe fn q4(codes: *const u8, x: Self::X, start: int32x4_t) -> [int32x4_t; 4] {
        /// Two lines, whose 16 columns are `x`.
        #[inline(always)]
        unsafe fn lines(sums: &mut [int32x4_t; 4], codes: *const u8, x: int8x16_t) {
            // SAFETY: as the caller of `q4` promises.
            unsafe {
                for (sum, codes) in sums.iter_mut().zip(line(codes, 0)) {
                    let (low, high) = nibbles(codes);
                    *sum = sdot::<1>(sdot::<0>(*sum, low, x), high, x);
                }
                for (sum, codes) in sums.iter_mut().zip(line(codes, 1)) {
                    let (low, high) = nibbles(codes);
                    *sum = sdot::<3>(sdot::<2>(*sum, low, x), high, x);
                }
            }
        }
        let mut sums = [start; 4];
        // SAFETY: as the caller promises.
        unsafe {
            lines(&mut sums, codes, x[0]);
            lines(&mut sums, codes.add(2 * LINE), x[1]);
        }
        sums
    }

    #[inline(always)]
    unsafe fn q8(codes: *const u8, x: Self::X) -> [int32x4_t; 4] {
        /// The line whose 4 columns are lane `LANE` of `x`.
        #[inline(always)]
        unsafe fn add<const LANE: i32>(sums: &mut [int32x4_t; 4], codes: *const u8, x: int8x16_t) {
            // SAFETY: as the caller of `q8` promises.
            unsafe {
                for (sum, codes) in sums.iter_mut().zip(line(codes, LANE as usize)) {
                    *sum = sdot::<LANE>(*sum, vreinterpretq_s8_u8(codes), x);
                }
            }
        }
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums = [vdupq_n_s32(0); 4];
            for (i, x) in x.into_iter().enumerate() {
                let codes = codes.add(i * 4 * LINE);
                add::<0>(&mut sums, codes, x);
                add::<1>(&mut sums, codes, x);
                add::<2>(&mut sums, codes, x);
                add::<3>(&mut sums, codes, x);
            }
            sums
        }
    }
}

/// Eight steps of 4 columns against 32 activations.
///
/// # Safety
/// Needs the dot product.
#[inline(always)]
unsafe fn columns(sum: int32x4_t, weights: &Weights, x: [int8x16_t; 2]) -> int32x4_t {
    // SAFETY: the caller has the dot product.
    unsafe {
        let sum = sdot::<1>(sdot::<0>(sum, weights[0], x[0]), weights[1], x[0]);
        let sum = sdot::<3>(sdot::<2>(sum, weights[2], x[0]), weights[3], x[0]);
        let sum = sdot::<1>(sdot::<0>(sum, weights[4], x[1]), weights[5], x[1]);
        sdot::<3>(sdot::<2>(sum, weights[6], x[1]), weights[7], x[1])
    }
}

impl PairDot for Sdot {
    type Pair = [[int8x16_t; 2]; 2];

    #[inline(always)]
    unsafe fn pair(first: *const i8, second: *const i8) -> Self::Pair {
        // SAFETY: as the caller promises.
        unsafe { [Self::x(first), Self::x(second)] }
    }

    #[inline(always)]
    unsafe fn q4_weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { gemm::q4_columns(codes) }
    }

    #[inline(always)]
    unsafe fn q8_weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { gemm::q8_columns(codes) }
    }

    #[inline(always)]
    unsafe fn q4(sums: Sums, weights: &Weights, pair: &Self::Pair) -> Sums {
        // SAFETY: the caller has the dot product.
        unsafe {
            [
                columns(sums[0], weights, pair[0]),
                columns(sums[1], weights, pair[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn q8(weights: &Weights, pair: &Self::Pair) -> Sums {
        // SAFETY: the caller has the dot product.
        unsafe { <Self as PairDot>::q4([vdupq_n_s32(0); 2], weights, pair) }
    }
}
