//! Activations to INT8, as [`crate::activations::QuantizedRows`] defines it.

use super::lanes::{LANES, Lanes, load_part};
use crate::activations::ACTIVATION_GROUP;

/// Magnitudes below this quantize to zero: 127 divided by them could overflow.
const SMALLEST: f32 = 1e-30;

/// Quantizes one row: `codes`, `scales` and `sums` are as long as the padded row says.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn quantize_row<L: Lanes>(
    x: &[f32],
    codes: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    assert!(x.len() <= codes.len() && codes.len().is_multiple_of(ACTIVATION_GROUP));
    let groups = codes
        .chunks_exact_mut(ACTIVATION_GROUP)
        .zip(scales)
        .zip(sums);
    for (group, ((codes, scale), sum)) in groups.enumerate() {
        let from = group * ACTIVATION_GROUP;
        // SAFETY: `half` reads at most what is left of `x`; codes has 32 bytes.
        unsafe {
            let (a, b) = (half::<L>(x, from), half::<L>(x, from + LANES));
            let largest = a.abs().max(b.abs()).largest();
            let usable = (SMALLEST..=f32::MAX).contains(&largest);
            let inverse = L::splat(if usable { 127.0 / largest } else { 0.0 });
            *scale = if usable { largest / 127.0 } else { 0.0 };
            let (a, b) = (a.mul(inverse).round(), b.mul(inverse).round());
            *sum = if usable { a.add(b).sum() as i32 } else { 0 };
            if usable {
                a.store_i8(codes.as_mut_ptr());
                b.store_i8(codes.as_mut_ptr().add(LANES));
            } else {
                codes.fill(0);
            }
        }
    }
}

/// 16 floats of `x` from `from` on, zeros behind its end.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn half<L: Lanes>(x: &[f32], from: usize) -> L {
    let from = from.min(x.len());
    let rest = x.len() - from;
    // SAFETY: `rest` floats from `from` on.
    unsafe {
        let start = x.as_ptr().add(from);
        if rest >= LANES {
            L::load(start)
        } else {
            load_part(start, rest)
        }
    }
}
