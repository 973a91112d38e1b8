//! The most that `sdot` does.

use crate::roofline::PeakLoop;
use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

/// Independent sums: latency times throughput of the instruction, and some.
const SUMS: usize = 16;

pub(crate) const PEAK: PeakLoop = PeakLoop {
    macs_per_round: SUMS * 16,
    run: rounds,
};

/// # Safety
/// The CPU must have the features.
#[target_feature(enable = "dotprod")]
unsafe fn rounds(count: usize) {
    let (codes, x) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(5)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..count {
        for sum in &mut sums {
            // SAFETY: registers only. By assembly, since the compiler would fold equal terms.
            unsafe {
                asm!(
                    "sdot {sum:v}.4s, {codes:v}.16b, {x:v}.4b[0]",
                    sum = inout(vreg) *sum, codes = in(vreg) codes, x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
    }
    black_box(sums);
}
