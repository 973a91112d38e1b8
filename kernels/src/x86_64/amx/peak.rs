//! The most that `tdpbssd` does.

use super::tiles::Configuration;
use crate::roofline::PeakLoop;
use std::arch::asm;

/// Independent sums, each of 16 by 16 outputs over 64 columns.
const SUMS: usize = 6;

pub(crate) const PEAK: PeakLoop = PeakLoop {
    macs_per_round: SUMS * 16 * 16 * 64,
    run: rounds,
};

static FULL: Configuration = Configuration::new([16; 8], [64; 8]);

/// # Safety
/// The CPU must have AMX-INT8, and the process be permitted to use it.
unsafe fn rounds(count: usize) {
    // SAFETY: registers only, which `ldtilecfg` has zeroed and `tilerelease` empties.
    unsafe {
        FULL.load();
        for _ in 0..count {
            asm!(
                "tdpbssd tmm0, tmm6, tmm7",
                "tdpbssd tmm1, tmm6, tmm7",
                "tdpbssd tmm2, tmm6, tmm7",
                "tdpbssd tmm3, tmm6, tmm7",
                "tdpbssd tmm4, tmm6, tmm7",
                "tdpbssd tmm5, tmm6, tmm7",
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
                out("tmm3") _, out("tmm4") _, out("tmm5") _,
                options(nomem, nostack, preserves_flags)
            );
        }
        asm!("tilerelease", options(nomem, nostack, preserves_flags));
    }
}
