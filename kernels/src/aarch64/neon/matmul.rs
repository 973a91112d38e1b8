//! Matmul with `smlal` (signed bytes into 16-bit sums), the activations broadcast four at a time.
//!
//! No sum overflows its 16 bits: over 32 columns a lane takes 8 `q4` products of at most 15 · 127,
//! 15 240 in all, and twice that after one pairwise addition; two `q8` products are at most
//! 2 · 128 · 127 = 32 512, and then go on to 32 bits.

use crate::aarch64::quarters::gemm::{self, PairDot, Sums, Weights};
use crate::aarch64::quarters::gemv::{self, PanelDot, line};
use crate::aarch64::quarters::{LINE, float::float, nibbles};
use crate::matmul::{Block, MatmulKernels, Micro, Tiles};
use std::arch::aarch64::*;

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
unsafe fn q4_one<const MINIMUM: bool>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises.
    unsafe { gemv::q4::<Smlal, 2, MINIMUM>(block, out) }
}

/// # Safety
/// As [`Micro`], with one token.
unsafe fn q8_one(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises.
    unsafe { gemv::q8::<Smlal, 2>(block, out) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
unsafe fn q4<const PAIRS: usize, const N: usize, const MINIMUM: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe { gemm::q4::<Smlal, PAIRS, N, MINIMUM>(block, out, stride) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
unsafe fn q8<const PAIRS: usize, const N: usize>(block: &Block, out: *mut f32, stride: usize) {
    // SAFETY: the caller's promises.
    unsafe { gemm::q8::<Smlal, PAIRS, N>(block, out, stride) }
}

/// Dot products by `smlal`.
struct Smlal;

/// 32 activations: 4 in every 32-bit lane, then the next 4.
type Broadcast = [int8x16_t; 8];

/// Sums of the first two rows of a quarter and of the others, 4 columns of each side by side.
type Columns = [int16x8_t; 2];

/// # Safety
/// `codes` must be good for 32 activations.
#[inline(always)]
unsafe fn broadcast(codes: *const i8) -> Broadcast {
    // SAFETY: as the caller promises.
    unsafe {
        let [a, b] = [vld1q_s8(codes), vld1q_s8(codes.add(16))].map(|x| vreinterpretq_s32_s8(x));
        [
            vdupq_laneq_s32::<0>(a),
            vdupq_laneq_s32::<1>(a),
            vdupq_laneq_s32::<2>(a),
            vdupq_laneq_s32::<3>(a),
            vdupq_laneq_s32::<0>(b),
            vdupq_laneq_s32::<1>(b),
            vdupq_laneq_s32::<2>(b),
            vdupq_laneq_s32::<3>(b),
        ]
        .map(|x| vreinterpretq_s8_s32(x))
    }
}

/// # Safety
/// None beyond NEON, which is part of AArch64.
#[inline(always)]
unsafe fn multiply(codes: int8x16_t, x: int8x16_t) -> Columns {
    // SAFETY: registers only.
    unsafe {
        [
            vmull_s8(vget_low_s8(codes), vget_low_s8(x)),
            vmull_high_s8(codes, x),
        ]
    }
}

/// # Safety
/// None beyond NEON, which is part of AArch64.
#[inline(always)]
unsafe fn multiply_add(sums: Columns, codes: int8x16_t, x: int8x16_t) -> Columns {
    // SAFETY: registers only.
    unsafe {
        [
            vmlal_s8(sums[0], vget_low_s8(codes), vget_low_s8(x)),
            vmlal_high_s8(sums[1], codes, x),
        ]
    }
}

/// `start` plus the row sums of 32 columns of `q4` codes.
///
/// # Safety
/// None beyond NEON, which is part of AArch64.
#[inline(always)]
unsafe fn q4_sums(start: int32x4_t, sums: Columns) -> int32x4_t {
    // SAFETY: registers only.
    unsafe { vpadalq_s16(start, vpaddq_s16(sums[0], sums[1])) }
}

/// The row sums of 32 columns of `q8` codes.
///
/// # Safety
/// None beyond NEON, which is part of AArch64.
#[inline(always)]
unsafe fn q8_sums(weights: &Weights, x: &Broadcast) -> int32x4_t {
    // SAFETY: registers only.
    unsafe {
        let pair = |i: usize| {
            let first = multiply(weights[2 * i], x[2 * i]);
            multiply_add(first, weights[2 * i + 1], x[2 * i + 1])
        };
        let [low, high] = pair(0);
        let (mut low, mut high) = (vpaddlq_s16(low), vpaddlq_s16(high));
        for i in 1..4 {
            let next = pair(i);
            low = vpadalq_s16(low, next[0]);
            high = vpadalq_s16(high, next[1]);
        }
        vpaddq_s32(low, high)
    }
}

impl PanelDot for Smlal {
    type X = Broadcast;

    #[inline(always)]
    unsafe fn x(codes: *const i8) -> Broadcast {
        // SAFETY: as the caller promises.
        unsafe { broadcast(codes) }
    }

    #[inline(always)]
    unsafe fn q4(codes: *const u8, x: Broadcast, start: int32x4_t) -> [int32x4_t; 4] {
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums = line(codes, 0).map(|codes| {
                let (low, high) = nibbles(codes);
                multiply_add(multiply(low, x[0]), high, x[1])
            });
            for i in 1..4 {
                for (sums, codes) in sums.iter_mut().zip(line(codes, i)) {
                    let (low, high) = nibbles(codes);
                    *sums = multiply_add(*sums, low, x[2 * i]);
                    *sums = multiply_add(*sums, high, x[2 * i + 1]);
                }
            }
            sums.map(|sums| q4_sums(start, sums))
        }
    }

    #[inline(always)]
    unsafe fn q8(codes: *const u8, x: Broadcast) -> [int32x4_t; 4] {
        // SAFETY: as the caller promises.
        unsafe {
            std::array::from_fn(|q| {
                let weights = gemm::q8_columns(codes.add(q * (LINE / 4)));
                q8_sums(&weights, &x)
            })
        }
    }
}

impl PairDot for Smlal {
    type Pair = [Broadcast; 2];

    #[inline(always)]
    unsafe fn pair(first: *const i8, second: *const i8) -> Self::Pair {
        // SAFETY: as the caller promises.
        unsafe { [broadcast(first), broadcast(second)] }
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
    unsafe fn q4(start: Sums, weights: &Weights, pair: &Self::Pair) -> Sums {
        // SAFETY: registers only.
        let one = |start: int32x4_t, x: &Broadcast| unsafe {
            let mut sums = multiply(weights[0], x[0]);
            for i in 1..8 {
                sums = multiply_add(sums, weights[i], x[i]);
            }
            q4_sums(start, sums)
        };
        [one(start[0], &pair[0]), one(start[1], &pair[1])]
    }

    #[inline(always)]
    unsafe fn q8(weights: &Weights, pair: &Self::Pair) -> Sums {
        // SAFETY: registers only.
        unsafe { [q8_sums(weights, &pair[0]), q8_sums(weights, &pair[1])] }
    }
}
