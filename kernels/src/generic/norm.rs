//! RMSNorm, LayerNorm and softmax of one row.

use super::lanes::{LANES, Lanes, lanes_at, map_lanes};
use super::math::exp;

/// Sum of `map` over the row, lane by lane, then across lanes.
///
/// # Safety
/// The ISA of `L`. `map` must take the zeros behind the row's end to zero.
#[inline(always)]
unsafe fn sum_of<L: Lanes>(x: &[f32], map: impl Fn(L, L) -> L) -> f32 {
    // SAFETY: the caller has the ISA.
    unsafe {
        let mut sum = L::splat(0.0);
        for i in (0..x.len()).step_by(LANES) {
            sum = map(lanes_at(x, i), sum);
        }
        sum.sum()
    }
}

/// RMSNorm (Zhang and Sennrich 2019) of one row, in place.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn rms_norm<L: Lanes>(x: &mut [f32], weight: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len(), "RMSNorm row against weight");
    // SAFETY: the caller has the ISA.
    unsafe {
        let squares = sum_of::<L>(
            x,
            #[inline(always)]
            |x, sum| x.fma(x, sum),
        );
        let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
        map_lanes::<L>(
            x,
            #[inline(always)]
            |x, i| x.mul(L::splat(scale)).mul(lanes_at(weight, i)),
        );
    }
}

/// LayerNorm (Ba et al. 2016) of one row, in place.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn layer_norm<L: Lanes>(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len(), "LayerNorm row against weight");
    assert_eq!(x.len(), bias.len(), "LayerNorm row against bias");
    // SAFETY: the caller has the ISA.
    unsafe {
        let mean = sum_of::<L>(
            x,
            #[inline(always)]
            |x, sum| sum.add(x),
        ) / x.len() as f32;
        map_lanes::<L>(
            x,
            #[inline(always)]
            |x, _| x.sub(L::splat(mean)),
        );
        let squares = sum_of::<L>(
            x,
            #[inline(always)]
            |x, sum| x.fma(x, sum),
        );
        let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
        map_lanes::<L>(
            x,
            #[inline(always)]
            |x, i| {
                x.mul(L::splat(scale))
                    .fma(lanes_at(weight, i), lanes_at(bias, i))
            },
        );
    }
}

/// Softmax of one row, in place.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn softmax<L: Lanes>(x: &mut [f32]) {
    // SAFETY: the caller has the ISA.
    unsafe {
        let mut largest = L::splat(f32::NEG_INFINITY);
        let whole = x.len() / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            largest = lanes_at::<L>(x, i).max(largest);
        }
        let rest = x[whole..]
            .iter()
            .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let largest = L::splat(rest).max(largest).largest();
        map_lanes::<L>(
            x,
            #[inline(always)]
            |x, _| exp(x.sub(L::splat(largest))),
        );
        let sum = sum_of::<L>(
            x,
            #[inline(always)]
            |x, sum| sum.add(x),
        );
        map_lanes::<L>(
            x,
            #[inline(always)]
            |x, _| x.div(L::splat(sum)),
        );
    }
}
