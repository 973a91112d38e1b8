//! Matmul with `sdot` (signed bytes, four products summed into 32 bits), the activations taken by
//! element: one register of 16 serves four steps without a broadcast.

use crate::aarch64::quarters::Weights;
use crate::aarch64::quarters::float::float;
use crate::aarch64::quarters::gemm::{self, Factors, Floats, PairDot, Tokens};
use crate::aarch64::quarters::gemv::{self, PanelDot};
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
#[target_feature(enable = "dotprod")]
unsafe fn split_one<const LOW: i32, const HIGH: i32>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemv::split::<Sdot, LOW, HIGH, 1>(block, out) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "dotprod")]
unsafe fn split_tile<const LOW: i32, const HIGH: i32, const PAIRS: usize, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises; the features are enabled here.
    unsafe { gemm::split::<Sdot, LOW, HIGH, PAIRS, N>(block, out, stride) }
}

/// Dot products by `sdot`.
pub(in crate::aarch64) struct Sdot;

/// A line of `q4` codes: its 8 columns are lanes `EVEN` and `ODD` of `x`.
///
/// # Safety
/// Needs the dot product; `codes` must be good for a line.
#[inline(always)]
unsafe fn q4_line<const EVEN: i32, const ODD: i32>(
    sums: &mut [int32x4_t; 4],
    codes: &mut *const u8,
    x: int8x16_t,
) {
    let [s0, s1, s2, s3] = sums;
    // SAFETY: as the caller promises.
    unsafe {
        asm!(
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{codes}], #64",
            "and v20.16b, v16.16b, {low:v}.16b",
            "and v21.16b, v17.16b, {low:v}.16b",
            "and v22.16b, v18.16b, {low:v}.16b",
            "and v23.16b, v19.16b, {low:v}.16b",
            "sdot {s0:v}.4s, v20.16b, {x:v}.4b[{even}]",
            "sdot {s1:v}.4s, v21.16b, {x:v}.4b[{even}]",
            "sdot {s2:v}.4s, v22.16b, {x:v}.4b[{even}]",
            "sdot {s3:v}.4s, v23.16b, {x:v}.4b[{even}]",
            "ushr v16.16b, v16.16b, #4",
            "ushr v17.16b, v17.16b, #4",
            "ushr v18.16b, v18.16b, #4",
            "ushr v19.16b, v19.16b, #4",
            "sdot {s0:v}.4s, v16.16b, {x:v}.4b[{odd}]",
            "sdot {s1:v}.4s, v17.16b, {x:v}.4b[{odd}]",
            "sdot {s2:v}.4s, v18.16b, {x:v}.4b[{odd}]",
            "sdot {s3:v}.4s, v19.16b, {x:v}.4b[{odd}]",
            codes = inout(reg) *codes, low = in(vreg) vdupq_n_u8(15), x = in(vreg) x,
            even = const EVEN, odd = const ODD,
            s0 = inout(vreg) *s0, s1 = inout(vreg) *s1,
            s2 = inout(vreg) *s2, s3 = inout(vreg) *s3,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
}

/// A line of `q8` codes: its 4 columns are lane `LANE` of `x`.
///
/// # Safety
/// Needs the dot product; `codes` must be good for a line.
#[inline(always)]
unsafe fn q8_line<const LANE: i32>(sums: &mut [int32x4_t; 4], codes: &mut *const u8, x: int8x16_t) {
    let [s0, s1, s2, s3] = sums;
    // SAFETY: as the caller promises.
    unsafe {
        asm!(
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{codes}], #64",
            "sdot {s0:v}.4s, v16.16b, {x:v}.4b[{lane}]",
            "sdot {s1:v}.4s, v17.16b, {x:v}.4b[{lane}]",
            "sdot {s2:v}.4s, v18.16b, {x:v}.4b[{lane}]",
            "sdot {s3:v}.4s, v19.16b, {x:v}.4b[{lane}]",
            codes = inout(reg) *codes, x = in(vreg) x, lane = const LANE,
            s0 = inout(vreg) *s0, s1 = inout(vreg) *s1,
            s2 = inout(vreg) *s2, s3 = inout(vreg) *s3,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
}

impl PanelDot for Sdot {
    type X = [int8x16_t; 2];
    type Spread = Self::X;

    #[inline(always)]
    unsafe fn x(codes: *const i8) -> Self::X {
        // SAFETY: as the caller promises.
        unsafe { [vld1q_s8(codes), vld1q_s8(codes.add(16))] }
    }

    #[inline(always)]
    unsafe fn spread(codes: *const i8) -> Self::Spread {
        // SAFETY: as the caller promises.
        unsafe { Self::x(codes) }
    }

    #[inline(always)]
    unsafe fn q4(codes: &mut *const u8, x: Self::X, start: int32x4_t) -> [int32x4_t; 4] {
        let mut sums = [start; 4];
        for x in x {
            // SAFETY: as the caller promises.
            unsafe {
                q4_line::<0, 1>(&mut sums, codes, x);
                q4_line::<2, 3>(&mut sums, codes, x);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn q8(codes: &mut *const u8, x: Self::X) -> [int32x4_t; 4] {
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums = [vdupq_n_s32(0); 4];
            for x in x {
                q8_line::<0>(&mut sums, codes, x);
                q8_line::<1>(&mut sums, codes, x);
                q8_line::<2>(&mut sums, codes, x);
                q8_line::<3>(&mut sums, codes, x);
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn narrow(weights: &Weights, x: &Self::Spread) -> int32x4_t {
        // SAFETY: as the caller promises.
        unsafe { <Self as PanelDot>::wide(weights, x) }
    }

    #[inline(always)]
    unsafe fn wide(weights: &Weights, x: &Self::Spread) -> int32x4_t {
        // `readonly`, though it reads registers alone: as such it keeps its place among the loads,
        // and one quarter's codes are done with before the next one's take their registers.
        // SAFETY: as the caller promises.
        unsafe {
            let mut sum = vdupq_n_s32(0);
            asm!(
                "sdot {sum:v}.4s, {w0:v}.16b, {x0:v}.4b[0]",
                "sdot {sum:v}.4s, {w1:v}.16b, {x0:v}.4b[1]",
                "sdot {sum:v}.4s, {w2:v}.16b, {x0:v}.4b[2]",
                "sdot {sum:v}.4s, {w3:v}.16b, {x0:v}.4b[3]",
                "sdot {sum:v}.4s, {w4:v}.16b, {x1:v}.4b[0]",
                "sdot {sum:v}.4s, {w5:v}.16b, {x1:v}.4b[1]",
                "sdot {sum:v}.4s, {w6:v}.16b, {x1:v}.4b[2]",
                "sdot {sum:v}.4s, {w7:v}.16b, {x1:v}.4b[3]",
                sum = inout(vreg) sum, x0 = in(vreg) x[0], x1 = in(vreg) x[1],
                w0 = in(vreg) weights[0], w1 = in(vreg) weights[1], w2 = in(vreg) weights[2],
                w3 = in(vreg) weights[3], w4 = in(vreg) weights[4], w5 = in(vreg) weights[5],
                w6 = in(vreg) weights[6], w7 = in(vreg) weights[7],
                options(pure, readonly, nostack, preserves_flags)
            );
            sum
        }
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
    unsafe fn narrow(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        // SAFETY: as the caller promises.
        unsafe { <Self as PairDot>::wide(acc, weights, scales, tokens) }
    }

    #[inline(always)]
    unsafe fn wide(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        const { assert!(size_of::<Factors>() == 64 && offset_of!(Factors, start) == 16) };
        // SAFETY: as the caller promises.
        unsafe {
            asm!(
                "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{codes}], #64",
                "ldp {a:q}, {b:q}, [{factors}, #16]",
                "sdot {a:v}.4s, {w0:v}.16b, v16.4b[0]",
                "sdot {b:v}.4s, {w0:v}.16b, v18.4b[0]",
                "sdot {a:v}.4s, {w1:v}.16b, v16.4b[1]",
                "sdot {b:v}.4s, {w1:v}.16b, v18.4b[1]",
                "sdot {a:v}.4s, {w2:v}.16b, v16.4b[2]",
                "sdot {b:v}.4s, {w2:v}.16b, v18.4b[2]",
                "sdot {a:v}.4s, {w3:v}.16b, v16.4b[3]",
                "sdot {b:v}.4s, {w3:v}.16b, v18.4b[3]",
                "ldr q16, [{factors}], #64",
                "sdot {a:v}.4s, {w4:v}.16b, v17.4b[0]",
                "sdot {b:v}.4s, {w4:v}.16b, v19.4b[0]",
                "sdot {a:v}.4s, {w5:v}.16b, v17.4b[1]",
                "sdot {b:v}.4s, {w5:v}.16b, v19.4b[1]",
                "sdot {a:v}.4s, {w6:v}.16b, v17.4b[2]",
                "sdot {b:v}.4s, {w6:v}.16b, v19.4b[2]",
                "sdot {a:v}.4s, {w7:v}.16b, v17.4b[3]",
                "sdot {b:v}.4s, {w7:v}.16b, v19.4b[3]",
                "fmul v17.4s, {scales:v}.4s, v16.s[0]",
                "fmul v18.4s, {scales:v}.4s, v16.s[2]",
                "scvtf {a:v}.4s, {a:v}.4s",
                "scvtf {b:v}.4s, {b:v}.4s",
                "fmla {first:v}.4s, v17.4s, {a:v}.4s",
                "fmla {second:v}.4s, v18.4s, {b:v}.4s",
                codes = inout(reg) tokens.codes, factors = inout(reg) tokens.factors,
                first = inout(vreg) acc[0], second = inout(vreg) acc[1],
                scales = in(vreg) scales[0], a = out(vreg) _, b = out(vreg) _,
                w0 = in(vreg) weights[0], w1 = in(vreg) weights[1], w2 = in(vreg) weights[2],
                w3 = in(vreg) weights[3], w4 = in(vreg) weights[4], w5 = in(vreg) weights[5],
                w6 = in(vreg) weights[6], w7 = in(vreg) weights[7],
                out("v16") _, out("v17") _, out("v18") _, out("v19") _,
                options(pure, readonly, nostack)
            );
        }
    }
}
