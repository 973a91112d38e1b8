//! Asking memory early for weights that stream.
//!
//! Lines are asked for in the order in which they lie in memory, scales and codes alike, and one
//! panel after the other, however a kernel reads them: memory then delivers a quarter more than when
//! it is asked for two panels side by side, or for scales between codes.

use super::prefetch;
use crate::matmul::Block;
use crate::packing::PANEL;

/// Bytes from what is read last to what is asked for: time for memory to answer, and a fraction of L1.
const DISTANCE: usize = 8 << 10;

/// Asks for as many lines as are read from `at` on, ahead of them.
#[inline(always)]
pub(super) fn ask(at: *const u8, lines: usize) {
    for line in 0..lines {
        prefetch(at.wrapping_add(DISTANCE + line * 64));
    }
}

/// Runs ahead of a kernel that goes through panels 32 columns at a time. Without `STREAMS` it does nothing.
pub(super) struct Ahead<const STREAMS: bool> {
    at: *const u8,
    /// Bytes that 32 columns take up, with their share of the scales.
    step: usize,
    /// Lines that so many bytes may touch: the scales make them start within a line.
    lines: usize,
}

impl<const STREAMS: bool> Ahead<STREAMS> {
    /// Ahead of `panels` panels from `first` on, which are read side by side; 32 columns of each have
    /// `lines` lines of codes.
    ///
    /// # Safety
    /// The block must have these panels.
    #[inline(always)]
    pub unsafe fn new(block: &Block, first: usize, panels: usize, lines: usize) -> Self {
        // SAFETY: as the caller promises.
        let last = unsafe { block.panel(first + panels - 1) };
        let planes = if block.minimums == 0 { 1 } else { 2 };
        let scales = (planes * PANEL * size_of::<u16>()) >> block.parts.trailing_zeros();
        Ahead {
            at: last.wrapping_add(block.codes),
            step: panels * (lines * 64 + scales),
            lines: panels * (lines + 1),
        }
    }

    /// Asks for the next 32 columns.
    #[inline(always)]
    pub fn ask(&mut self) {
        if STREAMS {
            ask(self.at, self.lines);
            self.at = self.at.wrapping_add(self.step);
        }
    }
}
