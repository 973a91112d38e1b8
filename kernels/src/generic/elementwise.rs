//! Activations, sums, soft caps and the rotary embedding.

use super::lanes::{LANES, Lanes, lanes_at, map_lanes};
use super::math;
use crate::engine::Activation;

/// `activation(x)`
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn apply<L: Lanes>(activation: Activation, x: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe {
        match activation {
            Activation::Silu => math::silu(x),
            Activation::Gelu => math::gelu(x),
            Activation::GeluTanh => math::gelu_tanh(x),
        }
    }
}

/// `x = activation(x)`
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn activate<L: Lanes>(activation: Activation, x: &mut [f32]) {
    // SAFETY: the caller has the ISA.
    unsafe {
        map_lanes::<L>(
            x,
            #[inline(always)]
            |x, _| apply(activation, x),
        )
    }
}

/// `gate = activation(gate) · up`
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn activate_gated<L: Lanes>(
    activation: Activation,
    gate: &mut [f32],
    up: &[f32],
) {
    assert_eq!(gate.len(), up.len(), "gate against up");
    // SAFETY: the caller has the ISA.
    unsafe {
        map_lanes::<L>(
            gate,
            #[inline(always)]
            |x, i| apply(activation, x).mul(lanes_at(up, i)),
        )
    }
}

/// `x += y`
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn add<L: Lanes>(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "sum of unequal lengths");
    // SAFETY: the caller has the ISA.
    unsafe {
        map_lanes::<L>(
            x,
            #[inline(always)]
            |x, i| x.add(lanes_at(y, i)),
        )
    }
}

/// `x = cap · tanh(x / cap)`
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn softcap<L: Lanes>(x: &mut [f32], cap: f32) {
    // SAFETY: the caller has the ISA.
    unsafe {
        map_lanes::<L>(
            x,
            #[inline(always)]
            |x, _| math::tanh(x.div(L::splat(cap))).mul(L::splat(cap)),
        );
    }
}

/// Rotary embedding of one head, halves layout: `(a, b) = (a·cos - b·sin, b·cos + a·sin)`, `a` in
/// the first `cos.len()` floats of `x`, `b` in the next.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn rope<L: Lanes>(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let (first, rest) = x.split_at_mut(half);
    let second = &mut rest[..half];
    assert_eq!(half, sin.len(), "cosines against sines");
    let whole = half / LANES * LANES;
    // SAFETY: the caller has the ISA; the accesses are within slices of `half` floats.
    unsafe {
        for i in (0..whole).step_by(LANES) {
            let (a, b) = (lanes_at::<L>(first, i), lanes_at::<L>(second, i));
            let (cos, sin) = (lanes_at::<L>(cos, i), lanes_at::<L>(sin, i));
            a.mul(cos).sub(b.mul(sin)).store(first.as_mut_ptr().add(i));
            b.mul(cos).add(a.mul(sin)).store(second.as_mut_ptr().add(i));
        }
    }
    for i in whole..half {
        let (a, b) = (first[i], second[i]);
        first[i] = a * cos[i] - b * sin[i];
        second[i] = b * cos[i] + a * sin[i];
    }
}
