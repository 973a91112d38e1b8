//! Dot products by `smlal` (signed bytes into 16-bit sums), the activations broadcast four at a
//! time.
//!
//! No sum overflows its 16 bits: over 32 columns a lane takes 8 products of codes in -16..=15, at
//! most 8 · 16 · 127 = 16 256 in all, and twice that, 32 512, after one pairwise addition; two
//! products of any codes are at most 2 · 128 · 127 = 32 512, and then go on to 32 bits.

use crate::aarch64::quarters::Weights;
use crate::aarch64::quarters::gemm::{Floats, PairDot, Sums, Tokens};
use crate::aarch64::quarters::gemv::PanelDot;
use std::arch::aarch64::*;
use std::arch::asm;

/// A line of `q4` codes, its first products by `$op` into sums that are `$dir`.
macro_rules! q4_line {
    ($op:literal, $dir:ident, $sums:ident, $codes:ident, $x:ident, $even:expr, $odd:expr) => {
        asm!(
                    "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{codes}], #64",
                    "dup v20.4s, {x:v}.s[{even}]",
                    "dup v21.4s, {x:v}.s[{odd}]",
                    "and v22.16b, v16.16b, {low:v}.16b",
                    concat!($op, " {a0:v}.8h, v22.8b, v20.8b"),
                    concat!($op, "2 {b0:v}.8h, v22.16b, v20.16b"),
                    "ushr v16.16b, v16.16b, #4",
                    "smlal {a0:v}.8h, v16.8b, v21.8b",
                    "smlal2 {b0:v}.8h, v16.16b, v21.16b",
                    "and v23.16b, v17.16b, {low:v}.16b",
                    concat!($op, " {a1:v}.8h, v23.8b, v20.8b"),
                    concat!($op, "2 {b1:v}.8h, v23.16b, v20.16b"),
                    "ushr v17.16b, v17.16b, #4",
                    "smlal {a1:v}.8h, v17.8b, v21.8b",
                    "smlal2 {b1:v}.8h, v17.16b, v21.16b",
                    "and v22.16b, v18.16b, {low:v}.16b",
                    concat!($op, " {a2:v}.8h, v22.8b, v20.8b"),
                    concat!($op, "2 {b2:v}.8h, v22.16b, v20.16b"),
                    "ushr v18.16b, v18.16b, #4",
                    "smlal {a2:v}.8h, v18.8b, v21.8b",
                    "smlal2 {b2:v}.8h, v18.16b, v21.16b",
                    "and v23.16b, v19.16b, {low:v}.16b",
                    concat!($op, " {a3:v}.8h, v23.8b, v20.8b"),
                    concat!($op, "2 {b3:v}.8h, v23.16b, v20.16b"),
                    "ushr v19.16b, v19.16b, #4",
                    "smlal {a3:v}.8h, v19.8b, v21.8b",
                    "smlal2 {b3:v}.8h, v19.16b, v21.16b",
                    codes = inout(reg) *$codes, low = in(vreg) vdupq_n_u8(15), x = in(vreg) $x,
                    even = const $even, odd = const $odd,
                    a0 = $dir(vreg) $sums[0].0, b0 = $dir(vreg) $sums[0].1,
                    a1 = $dir(vreg) $sums[1].0, b1 = $dir(vreg) $sums[1].1,
                    a2 = $dir(vreg) $sums[2].0, b2 = $dir(vreg) $sums[2].1,
                    a3 = $dir(vreg) $sums[3].0, b3 = $dir(vreg) $sums[3].1,
                    out("v16") _, out("v17") _, out("v18") _, out("v19") _,
                    out("v20") _, out("v21") _, out("v22") _, out("v23") _,
                    options(pure, readonly, nostack, preserves_flags)
        )
    };
}

/// Dot products by `smlal`.
pub(super) struct Smlal;

/// The sums of a quarter in 16 bits: of its first two rows, of the others, 4 columns of each side by
/// side.
type Columns = (int16x8_t, int16x8_t);

/// The same in 32 bits, 2 columns of each.
type Wide = (int32x4_t, int32x4_t);

/// A line of `q4` codes: its 8 columns are lanes `EVEN` and `ODD` of `x`.
///
/// # Safety
/// `codes` must be good for a line.
#[inline(always)]
unsafe fn q4_line<const EVEN: i32, const ODD: i32>(
    sums: &mut [Columns; 4],
    codes: &mut *const u8,
    x: int8x16_t,
) {
    // SAFETY: as the caller promises.
    unsafe { q4_line!("smlal", inout, sums, codes, x, EVEN, ODD) }
}

/// The first line, lanes 0 and 1 of `x`: its products are the first of each sum.
///
/// # Safety
/// As [`q4_line`].
#[inline(always)]
unsafe fn first_q4_line(codes: &mut *const u8, x: int8x16_t) -> [Columns; 4] {
    // SAFETY: as the caller promises; the assembly writes every sum.
    unsafe {
        let mut sums: [Columns; 4] = [(vdupq_n_s16(0), vdupq_n_s16(0)); 4];
        q4_line!("smull", out, sums, codes, x, 0, 1);
        sums
    }
}

/// Two lines of `q8` codes: their 8 columns are lanes `EVEN` and `ODD` of `x`.
///
/// # Safety
/// `codes` must be good for two lines.
#[inline(always)]
unsafe fn q8_lines<const EVEN: i32, const ODD: i32>(
    sums: &mut [Wide; 4],
    codes: &mut *const u8,
    x: int8x16_t,
) {
    // SAFETY: as the caller promises.
    unsafe {
        asm!(
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{codes}], #64",
            "ld1 {{v20.16b, v21.16b, v22.16b, v23.16b}}, [{codes}], #64",
            "dup {x0:v}.4s, {x:v}.s[{even}]",
            "dup {x1:v}.4s, {x:v}.s[{odd}]",
            "smull {t0:v}.8h, v16.8b, {x0:v}.8b",
            "smull2 {t1:v}.8h, v16.16b, {x0:v}.16b",
            "smlal {t0:v}.8h, v20.8b, {x1:v}.8b",
            "smlal2 {t1:v}.8h, v20.16b, {x1:v}.16b",
            "sadalp {a0:v}.4s, {t0:v}.8h",
            "sadalp {b0:v}.4s, {t1:v}.8h",
            "smull {t0:v}.8h, v17.8b, {x0:v}.8b",
            "smull2 {t1:v}.8h, v17.16b, {x0:v}.16b",
            "smlal {t0:v}.8h, v21.8b, {x1:v}.8b",
            "smlal2 {t1:v}.8h, v21.16b, {x1:v}.16b",
            "sadalp {a1:v}.4s, {t0:v}.8h",
            "sadalp {b1:v}.4s, {t1:v}.8h",
            "smull {t0:v}.8h, v18.8b, {x0:v}.8b",
            "smull2 {t1:v}.8h, v18.16b, {x0:v}.16b",
            "smlal {t0:v}.8h, v22.8b, {x1:v}.8b",
            "smlal2 {t1:v}.8h, v22.16b, {x1:v}.16b",
            "sadalp {a2:v}.4s, {t0:v}.8h",
            "sadalp {b2:v}.4s, {t1:v}.8h",
            "smull {t0:v}.8h, v19.8b, {x0:v}.8b",
            "smull2 {t1:v}.8h, v19.16b, {x0:v}.16b",
            "smlal {t0:v}.8h, v23.8b, {x1:v}.8b",
            "smlal2 {t1:v}.8h, v23.16b, {x1:v}.16b",
            "sadalp {a3:v}.4s, {t0:v}.8h",
            "sadalp {b3:v}.4s, {t1:v}.8h",
            codes = inout(reg) *codes, x = in(vreg) x, even = const EVEN, odd = const ODD,
            a0 = inout(vreg) sums[0].0, b0 = inout(vreg) sums[0].1, a1 = inout(vreg) sums[1].0,
            b1 = inout(vreg) sums[1].1, a2 = inout(vreg) sums[2].0, b2 = inout(vreg) sums[2].1,
            a3 = inout(vreg) sums[3].0, b3 = inout(vreg) sums[3].1,
            x0 = out(vreg) _, x1 = out(vreg) _, t0 = out(vreg) _, t1 = out(vreg) _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
}

impl PanelDot for Smlal {
    type X = [int8x16_t; 2];
    type Spread = Broadcast;

    #[inline(always)]
    unsafe fn x(codes: *const i8) -> Self::X {
        // SAFETY: as the caller promises.
        unsafe { [vld1q_s8(codes), vld1q_s8(codes.add(16))] }
    }

    #[inline(always)]
    unsafe fn spread(codes: *const i8) -> Self::Spread {
        // SAFETY: as the caller promises.
        unsafe { broadcast(codes) }
    }

    #[inline(always)]
    unsafe fn q4(codes: &mut *const u8, x: Self::X, start: int32x4_t) -> [int32x4_t; 4] {
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums = first_q4_line(codes, x[0]);
            q4_line::<2, 3>(&mut sums, codes, x[0]);
            q4_line::<0, 1>(&mut sums, codes, x[1]);
            q4_line::<2, 3>(&mut sums, codes, x[1]);
            sums.map(|(a, b)| vpadalq_s16(start, vpaddq_s16(a, b)))
        }
    }

    #[inline(always)]
    unsafe fn q8(codes: &mut *const u8, x: Self::X) -> [int32x4_t; 4] {
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums: [Wide; 4] = [(vdupq_n_s32(0), vdupq_n_s32(0)); 4];
            for x in x {
                q8_lines::<0, 1>(&mut sums, codes, x);
                q8_lines::<2, 3>(&mut sums, codes, x);
            }
            sums.map(|(a, b)| vpaddq_s32(a, b))
        }
    }

    #[inline(always)]
    unsafe fn narrow(weights: &Weights, x: &Self::Spread) -> int32x4_t {
        // SAFETY: as the caller promises.
        unsafe { q4_token(vdupq_n_s32(0), weights, &mut x.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn wide(weights: &Weights, x: &Self::Spread) -> int32x4_t {
        // SAFETY: as the caller promises.
        unsafe { q8_token(weights, &mut x.as_ptr().cast()) }
    }
}

/// 32 activations: 4 in every 32-bit lane, then the next 4.
type Broadcast = [int8x16_t; 8];

/// # Safety
/// `codes` must be good for 32 activations.
#[inline(always)]
unsafe fn broadcast(codes: *const i8) -> Broadcast {
    // SAFETY: as the caller promises.
    unsafe {
        let [a, b] = Smlal::x(codes).map(|x| vreinterpretq_s32_s8(x));
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

/// `start` plus the sums of codes in -16..=15 with the [`Broadcast`] at `x`, which moves on behind it.
///
/// # Safety
/// `x` must be good for it.
#[inline(always)]
unsafe fn q4_token(start: int32x4_t, weights: &Weights, x: &mut *const u8) -> int32x4_t {
    let mut sum = start;
    // SAFETY: as the caller promises.
    unsafe {
        asm!(
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{x}], #64",
            "ld1 {{v20.16b, v21.16b, v22.16b, v23.16b}}, [{x}], #64",
            "smull {a:v}.8h, {w0:v}.8b, v16.8b",
            "smull2 {b:v}.8h, {w0:v}.16b, v16.16b",
            "smlal {a:v}.8h, {w1:v}.8b, v17.8b",
            "smlal2 {b:v}.8h, {w1:v}.16b, v17.16b",
            "smlal {a:v}.8h, {w2:v}.8b, v18.8b",
            "smlal2 {b:v}.8h, {w2:v}.16b, v18.16b",
            "smlal {a:v}.8h, {w3:v}.8b, v19.8b",
            "smlal2 {b:v}.8h, {w3:v}.16b, v19.16b",
            "smlal {a:v}.8h, {w4:v}.8b, v20.8b",
            "smlal2 {b:v}.8h, {w4:v}.16b, v20.16b",
            "smlal {a:v}.8h, {w5:v}.8b, v21.8b",
            "smlal2 {b:v}.8h, {w5:v}.16b, v21.16b",
            "smlal {a:v}.8h, {w6:v}.8b, v22.8b",
            "smlal2 {b:v}.8h, {w6:v}.16b, v22.16b",
            "smlal {a:v}.8h, {w7:v}.8b, v23.8b",
            "smlal2 {b:v}.8h, {w7:v}.16b, v23.16b",
            "addp {a:v}.8h, {a:v}.8h, {b:v}.8h",
            "sadalp {sum:v}.4s, {a:v}.8h",
            x = inout(reg) *x, sum = inout(vreg) sum, a = out(vreg) _, b = out(vreg) _,
            w0 = in(vreg) weights[0], w1 = in(vreg) weights[1], w2 = in(vreg) weights[2],
            w3 = in(vreg) weights[3], w4 = in(vreg) weights[4], w5 = in(vreg) weights[5],
            w6 = in(vreg) weights[6], w7 = in(vreg) weights[7],
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    sum
}

/// The sums of any codes with the [`Broadcast`] at `x`, which moves on behind it.
///
/// # Safety
/// `x` must be good for it.
#[inline(always)]
unsafe fn q8_token(weights: &Weights, x: &mut *const u8) -> int32x4_t {
    let sum;
    // SAFETY: as the caller promises.
    unsafe {
        asm!(
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{x}], #64",
            "ld1 {{v20.16b, v21.16b, v22.16b, v23.16b}}, [{x}], #64",
            "smull {t0:v}.8h, {w0:v}.8b, v16.8b",
            "smull2 {t1:v}.8h, {w0:v}.16b, v16.16b",
            "smlal {t0:v}.8h, {w1:v}.8b, v17.8b",
            "smlal2 {t1:v}.8h, {w1:v}.16b, v17.16b",
            "saddlp {a:v}.4s, {t0:v}.8h",
            "saddlp {b:v}.4s, {t1:v}.8h",
            "smull {t0:v}.8h, {w2:v}.8b, v18.8b",
            "smull2 {t1:v}.8h, {w2:v}.16b, v18.16b",
            "smlal {t0:v}.8h, {w3:v}.8b, v19.8b",
            "smlal2 {t1:v}.8h, {w3:v}.16b, v19.16b",
            "sadalp {a:v}.4s, {t0:v}.8h",
            "sadalp {b:v}.4s, {t1:v}.8h",
            "smull {t0:v}.8h, {w4:v}.8b, v20.8b",
            "smull2 {t1:v}.8h, {w4:v}.16b, v20.16b",
            "smlal {t0:v}.8h, {w5:v}.8b, v21.8b",
            "smlal2 {t1:v}.8h, {w5:v}.16b, v21.16b",
            "sadalp {a:v}.4s, {t0:v}.8h",
            "sadalp {b:v}.4s, {t1:v}.8h",
            "smull {t0:v}.8h, {w6:v}.8b, v22.8b",
            "smull2 {t1:v}.8h, {w6:v}.16b, v22.16b",
            "smlal {t0:v}.8h, {w7:v}.8b, v23.8b",
            "smlal2 {t1:v}.8h, {w7:v}.16b, v23.16b",
            "sadalp {a:v}.4s, {t0:v}.8h",
            "sadalp {b:v}.4s, {t1:v}.8h",
            "addp {a:v}.4s, {a:v}.4s, {b:v}.4s",
            x = inout(reg) *x, a = out(vreg) sum, b = out(vreg) _,
            t0 = out(vreg) _, t1 = out(vreg) _,
            w0 = in(vreg) weights[0], w1 = in(vreg) weights[1], w2 = in(vreg) weights[2],
            w3 = in(vreg) weights[3], w4 = in(vreg) weights[4], w5 = in(vreg) weights[5],
            w6 = in(vreg) weights[6], w7 = in(vreg) weights[7],
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    sum
}

impl PairDot for Smlal {
    type Pair = [Broadcast; 2];
    const CHUNK: usize = 16;

    #[inline(always)]
    unsafe fn pair(first: *const i8, second: *const i8) -> Self::Pair {
        // SAFETY: as the caller promises.
        unsafe { [broadcast(first), broadcast(second)] }
    }

    #[inline(always)]
    unsafe fn narrow(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        // SAFETY: as the caller promises.
        unsafe {
            let start = (*tokens.factors).start;
            let first = q4_token(start[0], weights, &mut tokens.codes);
            let second = q4_token(start[1], weights, &mut tokens.codes);
            accumulate(acc, scales, [first, second], tokens);
        }
    }

    #[inline(always)]
    unsafe fn wide(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        // SAFETY: as the caller promises; with any codes, the sums start at zero.
        unsafe {
            let first = q8_token(weights, &mut tokens.codes);
            let second = q8_token(weights, &mut tokens.codes);
            accumulate(acc, scales, [first, second], tokens);
        }
    }
}

/// `acc = fma(scales · scale_x, sums, acc)`; the factors of the `tokens` move on.
///
/// # Safety
/// The factors must be good for one pair.
#[inline(always)]
unsafe fn accumulate(acc: &mut Floats, scales: Floats, sums: Sums, tokens: &mut Tokens) {
    // SAFETY: as the caller promises.
    unsafe {
        let scale = (*tokens.factors).scale;
        let (first, second) = (
            vmulq_laneq_f32::<0>(scales[0], scale),
            vmulq_laneq_f32::<2>(scales[1], scale),
        );
        acc[0] = vfmaq_f32(acc[0], first, vcvtq_f32_s32(sums[0]));
        acc[1] = vfmaq_f32(acc[1], second, vcvtq_f32_s32(sums[1]));
        tokens.factors = tokens.factors.add(1);
    }
}
