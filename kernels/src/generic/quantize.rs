//! Activations to INT8, as [`crate::activations::QuantizedRows`] defines it.

use super::lanes::{LANES, Lanes, lanes_at, load_part};
use crate::activations::ACTIVATION_GROUP;

/// Magnitudes below this quantize to zero: an integer divided by them could overflow.
pub(super) const SMALLEST: f32 = 1e-30;

/// Groups whose scales are found together, so that their divisions are vectors.
const TOGETHER: usize = 16;

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
    let groups = scales.len();
    assert!(codes.len() == groups * ACTIVATION_GROUP && sums.len() == groups);
    assert!(x.len() <= codes.len());
    for first in (0..groups).step_by(TOGETHER) {
        let count = TOGETHER.min(groups - first);
        let mut largest = [0.0f32; TOGETHER];
        for (g, largest) in largest[..count].iter_mut().enumerate() {
            // SAFETY: the caller has the ISA.
            *largest = unsafe {
                let [a, b] = group_of::<L>(x, first + g);
                a.abs().max(b.abs()).largest()
            };
        }
        let mut inverses = [0.0f32; TOGETHER];
        for (largest, inverse) in largest.iter_mut().zip(&mut inverses) {
            let usable = (SMALLEST..=f32::MAX).contains(largest);
            *inverse = if usable { 127.0 / *largest } else { 0.0 };
            *largest = if usable { *largest / 127.0 } else { 0.0 };
        }
        scales[first..first + count].copy_from_slice(&largest[..count]);
        for (g, &inverse) in inverses[..count].iter().enumerate() {
            let group = first + g;
            let codes = &mut codes[group * ACTIVATION_GROUP..][..ACTIVATION_GROUP];
            // SAFETY: the caller has the ISA; 32 codes.
            unsafe {
                let inverse = L::splat(inverse);
                let [a, b] = group_of::<L>(x, group).map(
                    #[inline(always)]
                    |x| x.mul(inverse).round(),
                );
                let sum = a.add(b).sum();
                sums[group] = sum as i32;
                // The largest may have missed one, and zero times what is not finite is not a number.
                if sum.is_nan() {
                    codes.fill(0);
                    scales[group] = f32::NAN;
                    continue;
                }
                a.store_i8(codes.as_mut_ptr());
                b.store_i8(codes.as_mut_ptr().add(LANES));
            }
        }
    }
}

/// The two vectors of a group, zeros behind the row's end.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn group_of<L: Lanes>(x: &[f32], group: usize) -> [L; 2] {
    let from = group * ACTIVATION_GROUP;
    // SAFETY: the caller has the ISA; whole groups are within `x`.
    unsafe {
        if from + ACTIVATION_GROUP <= x.len() {
            let x = x.as_ptr().add(from);
            [L::load(x), L::load(x.add(LANES))]
        } else {
            [half(x, from), half(x, from + LANES)]
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

/// The largest magnitude of a vector, and whether all of it is finite.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(super) unsafe fn largest_magnitude<L: Lanes>(x: &[f32]) -> (f32, bool) {
    // SAFETY: the caller has the ISA.
    unsafe {
        let (mut largest, mut nothing) = (L::splat(0.0), L::splat(0.0));
        for i in (0..x.len()).step_by(LANES) {
            let part = lanes_at::<L>(x, i);
            largest = part.abs().max(largest);
            // Zero times what is not finite is not a number.
            nothing = part.fma(L::splat(0.0), nothing);
        }
        (largest.largest(), !nothing.sum().is_nan())
    }
}
