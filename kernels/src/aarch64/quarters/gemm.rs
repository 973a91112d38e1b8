//! Several tokens against one quarter of a panel at a time.
//!
//! Tokens go in pairs. What a pair contributes to 32 columns is arranged once for all quarters of
//! the block, in the order in which they read it, so that one pointer walks through it. The buffer
//! holds a few hundred columns; between two fills the accumulators rest in the output.

use super::columns::q4_columns;
use super::kinds::{Q4, Q8, Quantized, Split};
use super::{LINE, QUARTER, QUARTERS, Weights, four_halves, unroll};
use crate::activations::ACTIVATION_GROUP;
use crate::matmul::Block;
use crate::packing::PANEL;
use std::arch::aarch64::*;
use std::mem::MaybeUninit;

/// Parts (of 32 columns) that are arranged at once: with the most tokens, they stay in L1.
const CHUNK: usize = 16;

/// The sums of 4 rows and 2 tokens: by default 4 rows of the first, 4 rows of the second.
pub(in crate::aarch64) type Sums = [int32x4_t; 2];

/// Floats that stand as [`Sums`] do.
pub(in crate::aarch64) type Floats = [float32x4_t; 2];

/// How an ISA takes the dot products of 32 columns of 4 rows with 2 tokens. Factors of the tokens
/// come as `[first, first, second, second]`.
///
/// # Safety
/// Every method needs the implementing ISA, and pointers that are good for 32 columns. Those to
/// pairs move on behind them.
pub(in crate::aarch64) trait PairDot {
    /// 32 activations of two tokens.
    type Pair: Copy;

    /// Arranges the activations of two tokens.
    unsafe fn pair(first: *const i8, second: *const i8) -> Self::Pair;
    /// `start` plus the sums of codes in -16..=15 with a [`PairDot::Pair`] at `pair`.
    unsafe fn q4(start: Sums, weights: &Weights, pair: &mut *const u8) -> Sums;
    /// The sums of any codes with a [`PairDot::Pair`] at `pair`.
    unsafe fn q8(weights: &Weights, pair: &mut *const u8) -> Sums;

    /// From 4 columns of each row after the other to the order of the ISA.
    #[inline(always)]
    unsafe fn order(columns: Weights) -> Weights {
        columns
    }

    /// Loads `q4` codes, in 0..=15, of the quarter that starts at `codes`.
    #[inline(always)]
    unsafe fn q4_weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { q4_columns(codes) }
    }

    /// A factor of each token in the places of its sums.
    #[inline(always)]
    unsafe fn by_token(factors: int32x4_t) -> Sums {
        // SAFETY: registers only.
        unsafe { [vdupq_laneq_s32::<0>(factors), vdupq_laneq_s32::<2>(factors)] }
    }

    /// A factor of each row in the places of its sums.
    #[inline(always)]
    unsafe fn by_row(factors: float32x4_t) -> Floats {
        [factors, factors]
    }

    /// Factors of rows by factors of tokens.
    #[inline(always)]
    unsafe fn outer(rows: Floats, tokens: float32x4_t) -> Floats {
        // SAFETY: registers only.
        unsafe {
            [
                vmulq_laneq_f32::<0>(rows[0], tokens),
                vmulq_laneq_f32::<2>(rows[1], tokens),
            ]
        }
    }

    /// `fma(rows, tokens, acc)`
    #[inline(always)]
    unsafe fn outer_fma(acc: Floats, rows: Floats, tokens: float32x4_t) -> Floats {
        // SAFETY: registers only.
        unsafe {
            [
                vfmaq_laneq_f32::<0>(acc[0], rows[0], tokens),
                vfmaq_laneq_f32::<2>(acc[1], rows[1], tokens),
            ]
        }
    }

    /// From the order of sums to 4 rows of each token, and back.
    #[inline(always)]
    unsafe fn reorder(floats: Floats) -> Floats {
        floats
    }
}

/// Factors of two tokens, as `[first, first, second, second]`.
#[derive(Clone, Copy)]
struct Factors {
    /// Scales.
    scale: float32x4_t,
    /// `q4`: -8 · Σx; with minimum: the bits of scale · Σx as a float.
    offset: int32x4_t,
}

/// The activations of a chunk, `[part][pair]`, in the order in which a quarter reads them.
struct Chunk<X, const PAIRS: usize> {
    codes: [[MaybeUninit<X>; PAIRS]; CHUNK],
    factors: [[MaybeUninit<Factors>; PAIRS]; CHUNK],
}

/// `q4` for `N` tokens in `PAIRS` pairs.
///
/// # Safety
/// As [`crate::matmul::Micro`], with `N` tokens, and the ISA of `D`.
#[inline(always)]
pub(in crate::aarch64) unsafe fn q4<
    D: PairDot,
    const PAIRS: usize,
    const N: usize,
    const MINIMUM: bool,
>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe { panels::<D, Q4<MINIMUM>, PAIRS, N>(block, out, stride) }
}

/// `q8` for `N` tokens in `PAIRS` pairs.
///
/// # Safety
/// As [`q4`].
#[inline(always)]
pub(in crate::aarch64) unsafe fn q8<D: PairDot, const PAIRS: usize, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe { panels::<D, Q8, PAIRS, N>(block, out, stride) }
}

/// Codes of `LOW + HIGH` bits in two planes, for `N` tokens in `PAIRS` pairs.
///
/// # Safety
/// As [`q4`].
#[inline(always)]
pub(in crate::aarch64) unsafe fn split<
    D: PairDot,
    const LOW: i32,
    const HIGH: i32,
    const PAIRS: usize,
    const N: usize,
>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe { panels::<D, Split<LOW, HIGH>, PAIRS, N>(block, out, stride) }
}

/// # Safety
/// As [`q4`].
#[inline(always)]
unsafe fn panels<D: PairDot, K: Quantized<D>, const PAIRS: usize, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    const { assert!(PAIRS == N.div_ceil(2)) };
    let parts = block.groups * block.parts;
    let mut chunk: Chunk<D::Pair, PAIRS> = Chunk {
        codes: [[const { MaybeUninit::uninit() }; PAIRS]; CHUNK],
        factors: [[const { MaybeUninit::uninit() }; PAIRS]; CHUNK],
    };
    let mut from = 0;
    while from < parts {
        let to = parts.min(from + CHUNK);
        // SAFETY: parts below those of the block; quarters below those of its panels.
        unsafe {
            arrange::<D, K, PAIRS, N>(block, from, to, &mut chunk);
            for unit in 0..block.count * QUARTERS {
                let out = out.add(unit * QUARTER);
                let mut acc = [[vdupq_n_f32(0.0); 2]; PAIRS];
                if from > 0 {
                    load::<D, PAIRS, N>(&mut acc, out, stride);
                }
                quarter::<D, K, PAIRS>(block, unit, from, to, &chunk, &mut acc);
                store::<D, PAIRS, N>(&acc, out, stride);
            }
        }
        from = to;
    }
}

/// Arranges parts `from..to`.
///
/// # Safety
/// The block must have `N` tokens of at least `to` parts, and `to - from` be at most [`CHUNK`].
#[inline(always)]
unsafe fn arrange<D: PairDot, K: Quantized<D>, const PAIRS: usize, const N: usize>(
    block: &Block,
    from: usize,
    to: usize,
    chunk: &mut Chunk<D::Pair, PAIRS>,
) {
    for part in from..to {
        for pair in 0..PAIRS {
            // An odd token goes with itself; what its double yields is not stored.
            let (first, second) = (2 * pair, (2 * pair + 1).min(N - 1));
            // SAFETY: tokens below `N`, parts below `to`.
            unsafe {
                let codes = |n: usize| {
                    block
                        .x_codes
                        .add(n * block.x_stride + part * ACTIVATION_GROUP)
                };
                let scale = |n: usize| *block.x_scales.add(n * block.x_groups() + part);
                let sum = |n: usize| *block.x_sums.add(n * block.x_groups() + part);
                let offset = |n: usize| vdup_n_s32(K::offset(scale(n), sum(n)));
                chunk.codes[part - from][pair].write(D::pair(codes(first), codes(second)));
                chunk.factors[part - from][pair].write(Factors {
                    scale: vcombine_f32(vdup_n_f32(scale(first)), vdup_n_f32(scale(second))),
                    offset: vcombine_s32(offset(first), offset(second)),
                });
            }
        }
    }
}

/// Adds parts `from..to` of quarter `unit` (counted through the panels).
///
/// # Safety
/// The ISA of `D`; `unit` and `to` within the block; `chunk` arranged for these parts.
#[inline(always)]
unsafe fn quarter<D: PairDot, K: Quantized<D>, const PAIRS: usize>(
    block: &Block,
    unit: usize,
    from: usize,
    to: usize,
    chunk: &Chunk<D::Pair, PAIRS>,
    acc: &mut [Floats; PAIRS],
) {
    // SAFETY: every address lies in the unit's panel, as `Block` promises.
    unsafe {
        let shift = block.parts.trailing_zeros();
        let panel = block.panel(unit / QUARTERS);
        let scales = panel.add(unit % QUARTERS * QUARTER * 2);
        let codes = panel.add(block.codes + unit % QUARTERS * (LINE / QUARTERS));
        let mut pairs: *const u8 = chunk.codes.as_ptr().cast();
        for (part, factors) in (from..to).zip(&chunk.factors) {
            let at = (part >> shift) * PANEL * 2;
            let weights = K::weights(codes.add(part * K::PART));
            let scales_w = D::by_row(four_halves(scales.add(at)));
            let minimums_w = if K::MINIMUM {
                D::by_row(four_halves(scales.add(block.minimums + at)))
            } else {
                scales_w
            };
            unroll!(pair < PAIRS, {
                let tokens = factors[pair].assume_init();
                let sums = K::dot(&weights, tokens.offset, &mut pairs);
                let scale = D::outer(scales_w, tokens.scale);
                for i in 0..2 {
                    let acc = &mut acc[pair][i];
                    *acc = vfmaq_f32(*acc, scale[i], vcvtq_f32_s32(sums[i]));
                }
                if K::MINIMUM {
                    let tokens = vreinterpretq_f32_s32(tokens.offset);
                    acc[pair] = D::outer_fma(acc[pair], minimums_w, tokens);
                }
            });
        }
    }
}

/// # Safety
/// `out` must be good for 4 floats at each of `N` multiples of `stride`.
#[inline(always)]
unsafe fn load<D: PairDot, const PAIRS: usize, const N: usize>(
    acc: &mut [Floats; PAIRS],
    out: *const f32,
    stride: usize,
) {
    for (pair, acc) in acc.iter_mut().enumerate() {
        let (first, second) = (2 * pair, (2 * pair + 1).min(N - 1));
        // SAFETY: as the caller promises.
        unsafe {
            *acc = D::reorder([
                vld1q_f32(out.add(first * stride)),
                vld1q_f32(out.add(second * stride)),
            ]);
        }
    }
}

/// # Safety
/// `out` must be good for 4 floats at each of `N` multiples of `stride`.
#[inline(always)]
unsafe fn store<D: PairDot, const PAIRS: usize, const N: usize>(
    acc: &[Floats; PAIRS],
    out: *mut f32,
    stride: usize,
) {
    for (pair, &acc) in acc.iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe {
            let [first, second] = D::reorder(acc);
            vst1q_f32(out.add(2 * pair * stride), first);
            if 2 * pair + 1 < N {
                vst1q_f32(out.add((2 * pair + 1) * stride), second);
            }
        }
    }
}
