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

/// The most parts (of 32 columns) that are arranged at once.
const CHUNK: usize = 24;

/// The sums of 4 rows and 2 tokens: by default 4 rows of the first, 4 rows of the second.
pub(in crate::aarch64) type Sums = [int32x4_t; 2];

/// Floats that stand as [`Sums`] do.
pub(in crate::aarch64) type Floats = [float32x4_t; 2];

/// What two tokens bring to 32 columns beside their codes; assembly reads it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::aarch64) struct Factors {
    /// Scales, as `[first, first, second, second]`.
    pub scale: float32x4_t,
    /// Where the sums start.
    pub start: Sums,
    /// With minimum: scale · Σx, as the scales.
    pub minimum: float32x4_t,
}

/// Where the arranged tokens are read, pair after pair.
pub(in crate::aarch64) struct Tokens {
    /// At a [`PairDot::Pair`].
    pub codes: *const u8,
    pub factors: *const Factors,
}

/// How an ISA multiplies 32 columns of 4 rows with 2 tokens.
///
/// # Safety
/// Every method needs the implementing ISA, and pointers that are good for 32 columns.
pub(in crate::aarch64) trait PairDot {
    /// 32 activations of two tokens.
    type Pair: Copy;
    /// Parts that are arranged at once: with the most tokens, they stay in L1.
    const CHUNK: usize = CHUNK;

    /// Arranges the activations of two tokens.
    unsafe fn pair(first: *const i8, second: *const i8) -> Self::Pair;
    /// `acc = fma(scales · scale_x, start + Σ, acc)`, the sum of codes in -16..=15 with the
    /// `tokens`, which move on.
    unsafe fn narrow(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens);
    /// The same with any codes and sums that start at zero.
    unsafe fn wide(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens);

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

    /// A number of each token in the places of its sums.
    #[inline(always)]
    unsafe fn by_token(first: i32, second: i32) -> Sums {
        // SAFETY: registers only.
        unsafe { [vdupq_n_s32(first), vdupq_n_s32(second)] }
    }

    /// A factor of each row in the places of its sums.
    #[inline(always)]
    unsafe fn by_row(factors: float32x4_t) -> Floats {
        [factors, factors]
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
    const { assert!(PAIRS == N.div_ceil(2) && D::CHUNK <= CHUNK) };
    let parts = block.groups * block.parts;
    let mut chunk: Chunk<D::Pair, PAIRS> = Chunk {
        codes: [[const { MaybeUninit::uninit() }; PAIRS]; CHUNK],
        factors: [[const { MaybeUninit::uninit() }; PAIRS]; CHUNK],
    };
    let mut from = 0;
    while from < parts {
        let to = parts.min(from + D::CHUNK);
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
                let minimum = |n: usize| scale(n) * sum(n) as f32;
                let both = |a: f32, b: f32| vcombine_f32(vdup_n_f32(a), vdup_n_f32(b));
                chunk.codes[part - from][pair].write(D::pair(codes(first), codes(second)));
                chunk.factors[part - from][pair].write(Factors {
                    scale: both(scale(first), scale(second)),
                    start: D::by_token(K::START * sum(first), K::START * sum(second)),
                    minimum: if K::MINIMUM {
                        both(minimum(first), minimum(second))
                    } else {
                        vdupq_n_f32(0.0)
                    },
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
        let panel = block.panel(unit / QUARTERS);
        let scales = panel.add(unit % QUARTERS * QUARTER * 2);
        let codes = panel.add(block.codes + unit % QUARTERS * (LINE / QUARTERS));
        let mut tokens = Tokens {
            codes: chunk.codes.as_ptr().cast(),
            factors: chunk.factors.as_ptr().cast(),
        };
        for part in from..to {
            let at = block.group_of(part) * PANEL * 2;
            let weights = K::weights(codes.add(part * K::PART));
            let scales_w = D::by_row(four_halves(scales.add(at)));
            let minimums_w = if K::MINIMUM {
                D::by_row(four_halves(scales.add(block.minimums + at)))
            } else {
                scales_w
            };
            unroll!(pair < PAIRS, {
                let factors = tokens.factors;
                K::multiply(&mut acc[pair], &weights, scales_w, &mut tokens);
                if K::MINIMUM {
                    acc[pair] = D::outer_fma(acc[pair], minimums_w, (*factors).minimum);
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
