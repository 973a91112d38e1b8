//! The most that 256-bit `vpdpbusd` does.

use crate::roofline::PeakLoop;
use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;

/// Independent sums: latency times throughput of the instruction, and some.
const SUMS: usize = 12;

pub(crate) const PEAK: PeakLoop = PeakLoop {
    macs_per_round: SUMS * 32,
    run: rounds,
};

/// # Safety
/// The CPU must have the features.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn rounds(count: usize) {
    let (codes, x) = (
        _mm256_set1_epi8(black_box(3)),
        _mm256_set1_epi8(black_box(5)),
    );
    let mut sums: [__m256i; SUMS] = [_mm256_set1_epi8(0); SUMS];
    for _ in 0..count {
        for sum in &mut sums {
            // SAFETY: registers only. By assembly, since the compiler would fold equal terms.
            unsafe {
                asm!(
                    "{{vex}} vpdpbusd {sum}, {codes}, {x}",
                    sum = inout(ymm_reg) *sum, codes = in(ymm_reg) codes, x = in(ymm_reg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
    }
    black_box(sums);
}
