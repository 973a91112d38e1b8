//! Float kinds.

use super::{QUARTER, QUARTERS, eight_halves};
use crate::matmul::Block;
use crate::packing::PANEL;
use std::arch::aarch64::*;

/// Four columns of one token, and as many partial sums.
const COLUMNS: usize = 4;

/// Partial sums of `2 · H` quarters and `N` tokens.
type Parts<const H: usize, const N: usize> = [[[[float32x4_t; COLUMNS]; 2]; H]; N];

/// `f16` (`HALF`) and `f32` for `N` tokens, `H` halves of a panel (1 or 2) at a time.
///
/// # Safety
/// As [`crate::matmul::Micro`], with `N` tokens.
#[inline(always)]
pub(in crate::aarch64) unsafe fn float<const HALF: bool, const H: usize, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: column `k` below `cols` of a panel and of the `N` tokens, and the caller's `out`.
    unsafe {
        for unit in 0..block.count * QUARTERS / (2 * H) {
            let row = unit * H * 2 * QUARTER;
            let (panel, inside) = (block.panel(row / PANEL), row % PANEL);
            let mut acc: Parts<H, N> = [[[[vdupq_n_f32(0.0); COLUMNS]; 2]; H]; N];
            let whole = block.cols / COLUMNS * COLUMNS;
            let mut k = 0;
            while k < whole {
                let mut x = [vdupq_n_f32(0.0); N];
                for (n, x) in x.iter_mut().enumerate() {
                    *x = vld1q_f32(block.x.add(n * block.cols + k));
                }
                step::<HALF, H, N, 0>(panel, inside, k, &x, &mut acc);
                step::<HALF, H, N, 1>(panel, inside, k, &x, &mut acc);
                step::<HALF, H, N, 2>(panel, inside, k, &x, &mut acc);
                step::<HALF, H, N, 3>(panel, inside, k, &x, &mut acc);
                k += COLUMNS;
            }
            // At most three more columns; those behind the last are never read.
            let mut x = [vdupq_n_f32(0.0); N];
            for (n, x) in x.iter_mut().enumerate() {
                let mut rest = [0.0; COLUMNS];
                let from = block.x.add(n * block.cols + k);
                std::ptr::copy_nonoverlapping(from, rest.as_mut_ptr(), block.cols - k);
                *x = vld1q_f32(rest.as_ptr());
            }
            if k < block.cols {
                step::<HALF, H, N, 0>(panel, inside, k, &x, &mut acc);
            }
            if k + 1 < block.cols {
                step::<HALF, H, N, 1>(panel, inside, k, &x, &mut acc);
            }
            if k + 2 < block.cols {
                step::<HALF, H, N, 2>(panel, inside, k, &x, &mut acc);
            }
            for (n, acc) in acc.iter().enumerate() {
                for (q, p) in acc.as_flattened().iter().enumerate() {
                    let sum = vaddq_f32(vaddq_f32(p[0], p[1]), vaddq_f32(p[2], p[3]));
                    vst1q_f32(out.add(n * stride + row + q * QUARTER), sum);
                }
            }
        }
    }
}

/// Column `k + J` of the rows from `row` on, into partial sum `J`.
///
/// # Safety
/// The panel must have more than `k + J` columns.
#[inline(always)]
unsafe fn step<const HALF: bool, const H: usize, const N: usize, const J: i32>(
    panel: *const u8,
    row: usize,
    k: usize,
    x: &[float32x4_t; N],
    acc: &mut Parts<H, N>,
) {
    let k = k + J as usize;
    for h in 0..H {
        let at = k * PANEL + row + h * 2 * QUARTER;
        // SAFETY: as the caller promises.
        unsafe {
            let weights = if HALF {
                eight_halves(panel.add(at * 2))
            } else {
                let from = panel.cast::<f32>().add(at);
                [vld1q_f32(from), vld1q_f32(from.add(QUARTER))]
            };
            for n in 0..N {
                for (acc, weights) in acc[n][h].iter_mut().zip(weights) {
                    let acc = &mut acc[J as usize];
                    *acc = vfmaq_laneq_f32::<J>(*acc, weights, x[n]);
                }
            }
        }
    }
}
