//! One token against several panels at once.

use super::columns::split_columns;
use super::{LINE, QUARTER, QUARTERS, Weights, group_halves, unroll};
use crate::activations::ACTIVATION_GROUP;
use crate::matmul::Block;
use crate::packing::PANEL;
use std::arch::aarch64::*;

/// How an ISA takes the dot products of 32 columns of the 16 rows of a panel with one token.
///
/// # Safety
/// Every method needs the implementing ISA, and pointers that are good for 32 columns. Those to
/// codes move on to the next columns.
pub(in crate::aarch64) trait PanelDot {
    /// 32 activations.
    type X: Copy;
    /// 32 activations, for codes in registers.
    type Spread: Copy;

    /// Loads the activations.
    unsafe fn x(codes: *const i8) -> Self::X;
    /// The same, for codes in registers.
    unsafe fn spread(codes: *const i8) -> Self::Spread;
    /// `start` plus the row sums for `q4` codes in 0..=15.
    unsafe fn q4(codes: &mut *const u8, x: Self::X, start: int32x4_t) -> [int32x4_t; QUARTERS];
    /// The row sums for `q8` codes.
    unsafe fn q8(codes: &mut *const u8, x: Self::X) -> [int32x4_t; QUARTERS];
    /// The row sums of a quarter, 4 columns of each row after the other, of codes in -16..=15.
    unsafe fn narrow(weights: &Weights, x: &Self::Spread) -> int32x4_t;
    /// The same of any codes.
    unsafe fn wide(weights: &Weights, x: &Self::Spread) -> int32x4_t;
}

/// `q4`, `P` panels at a time.
///
/// # Safety
/// As [`crate::matmul::Micro`], with one token, and the ISA of `D`.
#[inline(always)]
pub(in crate::aarch64) unsafe fn q4<D: PanelDot, const P: usize, const MINIMUM: bool>(
    block: &Block,
    out: *mut f32,
) {
    // SAFETY: the caller's promises hold for each run of panels within the block.
    unsafe {
        let mut p = 0;
        while p + P <= block.count {
            q4_panels::<D, P, MINIMUM>(block, p, out.add(p * PANEL));
            p += P;
        }
        while p < block.count {
            q4_panels::<D, 1, MINIMUM>(block, p, out.add(p * PANEL));
            p += 1;
        }
    }
}

/// # Safety
/// As [`q4`], and `first + P` panels in the block.
#[inline(always)]
unsafe fn q4_panels<D: PanelDot, const P: usize, const MINIMUM: bool>(
    block: &Block,
    first: usize,
    out: *mut f32,
) {
    // SAFETY: every address lies in a panel (`groups` groups, `parts` parts each) or in the token
    // (at least as many columns), as `Block` promises; the ISA is the caller's.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); QUARTERS]; P];
        let mut codes: [*const u8; P] =
            std::array::from_fn(|p| block.panel(first + p).add(block.codes));
        for part in 0..block.groups * block.parts {
            let x = D::x(block.x_codes.add(part * ACTIVATION_GROUP));
            let x_scale = *block.x_scales.add(part);
            let x_sum = *block.x_sums.add(part);
            let start = vdupq_n_s32(if MINIMUM { 0 } else { -8 * x_sum });
            unroll!(p < P, {
                let panel = block.panel(first + p);
                let sums = D::q4(&mut codes[p], x, start);
                let scales = group_halves(panel, block.group_of(part));
                accumulate(&mut acc[p], scales, x_scale, sums);
                if MINIMUM {
                    let minimums = group_halves(panel.add(block.minimums), block.group_of(part));
                    let x = x_scale * x_sum as f32;
                    for (acc, minimum) in acc[p].iter_mut().zip(minimums) {
                        *acc = vfmaq_n_f32(*acc, minimum, x);
                    }
                }
            });
        }
        store(&acc, out);
    }
}

/// `q8`, `P` panels at a time.
///
/// # Safety
/// As [`q4`].
#[inline(always)]
pub(in crate::aarch64) unsafe fn q8<D: PanelDot, const P: usize>(block: &Block, out: *mut f32) {
    // SAFETY: the caller's promises.
    unsafe { signed::<D, Q8, P>(block, out) }
}

/// Codes of `LOW + HIGH` bits in two planes, `P` panels at a time.
///
/// # Safety
/// As [`q4`].
#[inline(always)]
pub(in crate::aarch64) unsafe fn split<
    D: PanelDot,
    const LOW: i32,
    const HIGH: i32,
    const P: usize,
>(
    block: &Block,
    out: *mut f32,
) {
    // SAFETY: the caller's promises.
    unsafe { signed::<D, Split<LOW, HIGH>, P>(block, out) }
}

/// A kind whose codes are multiplied as signed numbers, without an offset.
///
/// # Safety
/// As [`PanelDot`].
trait Signed<D: PanelDot> {
    /// 32 activations.
    type X: Copy;

    /// Loads the activations.
    unsafe fn x(codes: *const i8) -> Self::X;
    /// The row sums.
    unsafe fn sums(codes: &mut *const u8, x: &Self::X) -> [int32x4_t; QUARTERS];
}

/// `q8`
struct Q8;

impl<D: PanelDot> Signed<D> for Q8 {
    type X = D::X;

    #[inline(always)]
    unsafe fn x(codes: *const i8) -> Self::X {
        // SAFETY: as the caller promises.
        unsafe { D::x(codes) }
    }

    #[inline(always)]
    unsafe fn sums(codes: &mut *const u8, x: &Self::X) -> [int32x4_t; QUARTERS] {
        // SAFETY: as the caller promises.
        unsafe { D::q8(codes, *x) }
    }
}

/// Codes of `LOW + HIGH` bits in two planes.
struct Split<const LOW: i32, const HIGH: i32>;

impl<D: PanelDot, const LOW: i32, const HIGH: i32> Signed<D> for Split<LOW, HIGH> {
    type X = D::Spread;

    #[inline(always)]
    unsafe fn x(codes: *const i8) -> Self::X {
        // SAFETY: as the caller promises.
        unsafe { D::spread(codes) }
    }

    #[inline(always)]
    unsafe fn sums(codes: &mut *const u8, x: &Self::X) -> [int32x4_t; QUARTERS] {
        // SAFETY: as the caller promises, for each quarter of the lines; 5 bits are within -16..=15.
        unsafe {
            let mut sums = [vdupq_n_s32(0); QUARTERS];
            unroll!(q < QUARTERS, {
                let weights = split_columns::<LOW, HIGH>(codes.add(q * (LINE / QUARTERS)));
                sums[q] = if LOW + HIGH <= 5 {
                    D::narrow(&weights, x)
                } else {
                    D::wide(&weights, x)
                };
            });
            *codes = codes.add((LOW + HIGH) as usize * LINE);
            sums
        }
    }
}

/// # Safety
/// As [`q4`].
#[inline(always)]
unsafe fn signed<D: PanelDot, K: Signed<D>, const P: usize>(block: &Block, out: *mut f32) {
    // SAFETY: the caller's promises hold for each run of panels within the block.
    unsafe {
        let mut p = 0;
        while p + P <= block.count {
            signed_panels::<D, K, P>(block, p, out.add(p * PANEL));
            p += P;
        }
        while p < block.count {
            signed_panels::<D, K, 1>(block, p, out.add(p * PANEL));
            p += 1;
        }
    }
}

/// # Safety
/// As [`q4`], and `first + P` panels in the block.
#[inline(always)]
unsafe fn signed_panels<D: PanelDot, K: Signed<D>, const P: usize>(
    block: &Block,
    first: usize,
    out: *mut f32,
) {
    // SAFETY: as in `q4_panels`.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); QUARTERS]; P];
        let mut codes: [*const u8; P] =
            std::array::from_fn(|p| block.panel(first + p).add(block.codes));
        for part in 0..block.groups * block.parts {
            let x = K::x(block.x_codes.add(part * ACTIVATION_GROUP));
            let x_scale = *block.x_scales.add(part);
            unroll!(p < P, {
                let panel = block.panel(first + p);
                let sums = K::sums(&mut codes[p], &x);
                let scales = group_halves(panel, block.group_of(part));
                accumulate(&mut acc[p], scales, x_scale, sums);
            });
        }
        store(&acc, out);
    }
}

/// `acc = fma(scale_w · scale_x, sum, acc)`
///
/// # Safety
/// None beyond NEON, which is part of AArch64.
#[inline(always)]
unsafe fn accumulate(
    acc: &mut [float32x4_t; QUARTERS],
    scales: [float32x4_t; QUARTERS],
    x_scale: f32,
    sums: [int32x4_t; QUARTERS],
) {
    for q in 0..QUARTERS {
        // SAFETY: registers only.
        unsafe {
            let scale = vmulq_n_f32(scales[q], x_scale);
            acc[q] = vfmaq_f32(acc[q], scale, vcvtq_f32_s32(sums[q]));
        }
    }
}

/// # Safety
/// `out` must be good for 16 · `P` floats.
#[inline(always)]
unsafe fn store<const P: usize>(acc: &[[float32x4_t; QUARTERS]; P], out: *mut f32) {
    for (i, &acc) in acc.as_flattened().iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe { vst1q_f32(out.add(i * QUARTER), acc) };
    }
}
