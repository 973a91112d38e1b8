//! Kernels for x86-64.

mod ahead;
pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512vnni;
pub(crate) mod avxvnni;
mod ymm;

/// Asks for a line that will be read. Any address will do: prefetching never faults.
#[inline(always)]
fn prefetch(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which SSE has.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

/// Asks for a line that is needed later than those of [`prefetch`], into L2.
#[inline(always)]
fn prefetch_l2(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint, which SSE has.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
}

/// Asks for a line that will be written.
#[inline(always)]
fn prefetch_write(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    // SAFETY: a hint, which CPUs without it ignore.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.cast()) };
}
