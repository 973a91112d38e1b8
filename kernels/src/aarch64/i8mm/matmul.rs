//! Matmul with `smmla`: 2 rows by 2 tokens of 8 signed bytes each. A single token would leave half
//! of it unused, and takes `sdot`.
//!
//! A line has 4 columns of each row (`q4`: in each nibble). Two lines zip to 8 columns of a pair of
//! rows, columns 0..4 and 8..12 of 16, then 4..8 and 12..16; the activations follow that order.

use crate::aarch64::dotprod::Sdot;
use crate::aarch64::quarters::gemm::{self, Factors, Floats, PairDot, Sums, Tokens};
use crate::aarch64::quarters::{LINE, Weights, float::float, gemv, nibbles};
use crate::matmul::{Block, MatmulKernels, Micro, Tiles};
use std::arch::aarch64::*;
use std::arch::asm;
use std::mem::offset_of;

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
            q4::<5, 9, false>,
            q4::<5, 10, false>,
            q4::<6, 11, false>,
            q4::<6, 12, false>,
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
            q8::<5, 9>,
            q8::<5, 10>,
            q8::<6, 11>,
            q8::<6, 12>,
        ],
    },
    q3: split::<2, 1>(),
    q5: split::<4, 1>(),
    q6: split::<4, 2>(),
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
    many: None,
};

/// # Safety
/// As [`Micro`], with one token.
#[target_feature(enable = "dotprod,i8mm")]
unsafe fn q4_one<const MINIMUM: bool>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemv::q4::<Sdot, 2, MINIMUM>(block, out) }
}

/// # Safety
/// As [`Micro`], with one token.
#[target_feature(enable = "dotprod,i8mm")]
unsafe fn q8_one(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemv::q8::<Sdot, 2>(block, out) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "dotprod,i8mm")]
unsafe fn q4<const PAIRS: usize, const N: usize, const MINIMUM: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemm::q4::<Smmla, PAIRS, N, MINIMUM>(block, out, stride) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "dotprod,i8mm")]
unsafe fn q8<const PAIRS: usize, const N: usize>(block: &Block, out: *mut f32, stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemm::q8::<Smmla, PAIRS, N>(block, out, stride) }
}

/// Kernels for codes of `LOW + HIGH` bits in two planes.
const fn split<const LOW: i32, const HIGH: i32>() -> Tiles {
    Tiles {
        by_tokens: &[
            split_one::<LOW, HIGH> as Micro,
            split_tile::<LOW, HIGH, 1, 2>,
            split_tile::<LOW, HIGH, 2, 3>,
            split_tile::<LOW, HIGH, 2, 4>,
            split_tile::<LOW, HIGH, 3, 5>,
            split_tile::<LOW, HIGH, 3, 6>,
            split_tile::<LOW, HIGH, 4, 7>,
            split_tile::<LOW, HIGH, 4, 8>,
        ],
    }
}

/// # Safety
/// As [`Micro`], with one token.
#[target_feature(enable = "dotprod,i8mm")]
unsafe fn split_one<const LOW: i32, const HIGH: i32>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemv::split::<Sdot, LOW, HIGH, 1>(block, out) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "dotprod,i8mm")]
unsafe fn split_tile<const LOW: i32, const HIGH: i32, const PAIRS: usize, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemm::split::<Smmla, LOW, HIGH, PAIRS, N>(block, out, stride) }
}

/// Products of 2 tokens by 2 rows: sums as `[token][row]`.
struct Smmla;

/// The 32-bit lanes of two vectors in turn: the low ones, the high ones.
///
/// # Safety
/// None beyond NEON, which is part of AArch64.
#[inline(always)]
unsafe fn zip(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
    // SAFETY: registers only.
    unsafe {
        let (a, b) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b));
        [
            vreinterpretq_u8_u32(vzip1q_u32(a, b)),
            vreinterpretq_u8_u32(vzip2q_u32(a, b)),
        ]
    }
}

/// The even 32-bit lanes of two vectors, and the odd ones.
///
/// # Safety
/// None beyond NEON, which is part of AArch64.
#[inline(always)]
unsafe fn unzip(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: registers only.
    unsafe {
        let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
        [
            vreinterpretq_s8_s32(vuzp1q_s32(a, b)),
            vreinterpretq_s8_s32(vuzp2q_s32(a, b)),
        ]
    }
}

/// Weights are, for 16 columns at a time: rows 0 and 1 in both halves of the order above, then rows
/// 2 and 3.
impl PairDot for Smmla {
    type Pair = [int8x16_t; 4];

    #[inline(always)]
    unsafe fn pair(first: *const i8, second: *const i8) -> Self::Pair {
        // SAFETY: as the caller promises.
        unsafe {
            let [a, b] = unzip(vld1q_s8(first), vld1q_s8(second));
            let [c, d] = unzip(vld1q_s8(first.add(16)), vld1q_s8(second.add(16)));
            [a, b, c, d]
        }
    }

    #[inline(always)]
    unsafe fn q4_weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe {
            let line = |i: usize| vld1q_u8(codes.add(i * LINE));
            let [a, b] = zip(line(0), line(1));
            let [c, d] = zip(line(2), line(3));
            let [a, b, c, d] = [nibbles(a), nibbles(b), nibbles(c), nibbles(d)];
            [a.0, a.1, b.0, b.1, c.0, c.1, d.0, d.1]
        }
    }

    #[inline(always)]
    unsafe fn order(columns: Weights) -> Weights {
        // SAFETY: registers only.
        unsafe {
            let w = columns.map(|codes| vreinterpretq_u8_s8(codes));
            let ([a, b], [c, d]) = (zip(w[0], w[2]), zip(w[1], w[3]));
            let ([e, f], [g, h]) = (zip(w[4], w[6]), zip(w[5], w[7]));
            [a, c, b, d, e, g, f, h].map(|codes| vreinterpretq_s8_u8(codes))
        }
    }

    #[inline(always)]
    unsafe fn narrow(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        // SAFETY: as the caller promises.
        unsafe { Self::wide(acc, weights, scales, tokens) }
    }

    #[inline(always)]
    unsafe fn wide(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        const { assert!(size_of::<Factors>() == 64 && offset_of!(Factors, start) == 16) };
        // SAFETY: as the caller promises.
        unsafe {
            asm!(
                "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{codes}], #64",
                "ldp {a:q}, {b:q}, [{factors}, #16]",
                "smmla {a:v}.4s, v16.16b, {w0:v}.16b",
                "smmla {b:v}.4s, v16.16b, {w2:v}.16b",
                "ldr q16, [{factors}], #64",
                "smmla {a:v}.4s, v17.16b, {w1:v}.16b",
                "smmla {b:v}.4s, v17.16b, {w3:v}.16b",
                "fmul v17.4s, {s0:v}.4s, v16.4s",
                "fmul v16.4s, {s1:v}.4s, v16.4s",
                "smmla {a:v}.4s, v18.16b, {w4:v}.16b",
                "smmla {b:v}.4s, v18.16b, {w6:v}.16b",
                "smmla {a:v}.4s, v19.16b, {w5:v}.16b",
                "smmla {b:v}.4s, v19.16b, {w7:v}.16b",
                "scvtf {a:v}.4s, {a:v}.4s",
                "scvtf {b:v}.4s, {b:v}.4s",
                "fmla {first:v}.4s, v17.4s, {a:v}.4s",
                "fmla {second:v}.4s, v16.4s, {b:v}.4s",
                codes = inout(reg) tokens.codes, factors = inout(reg) tokens.factors,
                first = inout(vreg) acc[0], second = inout(vreg) acc[1],
                s0 = in(vreg) scales[0], s1 = in(vreg) scales[1],
                a = out(vreg) _, b = out(vreg) _,
                w0 = in(vreg) weights[0], w1 = in(vreg) weights[1], w2 = in(vreg) weights[2],
                w3 = in(vreg) weights[3], w4 = in(vreg) weights[4], w5 = in(vreg) weights[5],
                w6 = in(vreg) weights[6], w7 = in(vreg) weights[7],
                out("v16") _, out("v17") _, out("v18") _, out("v19") _,
                options(pure, readonly, nostack)
            );
        }
    }

    #[inline(always)]
    unsafe fn by_token(first: i32, second: i32) -> Sums {
        // SAFETY: registers only.
        unsafe { [vcombine_s32(vdup_n_s32(first), vdup_n_s32(second)); 2] }
    }

    #[inline(always)]
    unsafe fn by_row(factors: float32x4_t) -> Floats {
        // SAFETY: registers only.
        unsafe {
            let pairs = vreinterpretq_f64_f32(factors);
            [
                vreinterpretq_f32_f64(vdupq_laneq_f64::<0>(pairs)),
                vreinterpretq_f32_f64(vdupq_laneq_f64::<1>(pairs)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn outer_fma(acc: Floats, rows: Floats, tokens: float32x4_t) -> Floats {
        // SAFETY: registers only.
        unsafe {
            [
                vfmaq_f32(acc[0], rows[0], tokens),
                vfmaq_f32(acc[1], rows[1], tokens),
            ]
        }
    }

    #[inline(always)]
    unsafe fn reorder(floats: Floats) -> Floats {
        // SAFETY: registers only.
        unsafe {
            let (a, b) = (
                vreinterpretq_f64_f32(floats[0]),
                vreinterpretq_f64_f32(floats[1]),
            );
            [
                vreinterpretq_f32_f64(vzip1q_f64(a, b)),
                vreinterpretq_f32_f64(vzip2q_f64(a, b)),
            ]
        }
    }
}
