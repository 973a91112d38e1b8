//! The most that `smlal`, its products added up in 16 bits, does.

use crate::roofline::PeakLoop;
use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

/// Independent sums: latency times throughput of the instruction, and some.
const SUMS: usize = 16;

pub(crate) const PEAK: PeakLoop = PeakLoop {
    macs_per_round: SUMS * 8,
    run: rounds,
};

/// # Safety
/// The CPU must have the features.
#[target_feature(enable = "neon")]
unsafe fn rounds(count: usize) {
    let (codes, x) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(5)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..count {
        for sum in &mut sums {
            // SAFETY: registers only. By assembly, since the compiler would fold equal terms.
            unsafe {
                asm!(
                    "smlal {sum:v}.8h, {codes:v}.8b, {x:v}.8b",
                    sum = inout(vreg) *sum, codes = in(vreg) codes, x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
    }
    black_box(sums);
}
