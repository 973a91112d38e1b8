//! Elementary functions on lanes, from basic operations alone, so that they give the same bits
//! everywhere.

use super::lanes::{Lanes, ROUNDER};
use std::f32::consts::LN_2;

/// `exp(x)`, relative error below 2e-7 for -87 < x < 88, clamped to the ends of that range.
///
/// Cody-Waite reduction `x = n · ln 2 + r`, then a polynomial in r (Cephes `expf`).
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe {
        // In this order, what is not a number stays.
        let x = L::splat(88.0).min(L::splat(-87.0).max(x));
        let rounder = L::splat(ROUNDER);
        let biased = x.fma(L::splat(std::f32::consts::LOG2_E), rounder);
        let n = biased.sub(rounder);
        let r = n.fma(L::splat(-0.693_359_4), x);
        let r = n.fma(L::splat(2.121_944_4e-4), r);
        let mut p = L::splat(1.987_569_1e-4);
        for c in [
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            0.166_666_65,
            0.5,
        ] {
            p = p.fma(r, L::splat(c));
        }
        let p = p.fma(r.mul(r), r).add(L::splat(1.0));
        // Not `p` itself, which may not be a number.
        p.mul(L::splat(1.0).ldexp(biased))
    }
}

/// The largest `x` of [`exp2`].
pub(crate) const EXP2_LARGEST: f32 = 8.0;

/// 2 to the power of `x`, which may be up to [`EXP2_LARGEST`], relative error below 2e-7; of what is below -126, or not
/// a number, that of -126. It takes fewer operations than [`exp`].
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn exp2<L: Lanes>(x: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe {
        let x = x.max(L::splat(-126.0));
        let rounder = L::splat(ROUNDER);
        let biased = x.add(rounder);
        let r = x.sub(biased.sub(rounder));
        // The first two terms of the series, then coefficients for the least largest relative error on
        // -0.5..=0.5.
        let mut p = L::splat(1.330_060_5e-3);
        for c in [9.669_691e-3, 5.550_558_5e-2, 0.240_222_83, LN_2, 1.0] {
            p = p.fma(r, L::splat(c));
        }
        p.ldexp(biased)
    }
}

/// `x / (1 + exp(-y))`
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn times_sigmoid<L: Lanes>(x: L, y: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe {
        let e = exp(L::splat(0.0).sub(y));
        x.div(e.add(L::splat(1.0)))
    }
}

/// `x · sigmoid(x)`
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn silu<L: Lanes>(x: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe { times_sigmoid(x, x) }
}

/// GELU by the tanh approximation (Hendrycks and Gimpel 2016), as `x · sigmoid(2 u)`.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn gelu_tanh<L: Lanes>(x: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe {
        let cubic = x.mul(x).fma(L::splat(0.044_715), L::splat(1.0)).mul(x);
        times_sigmoid(x, cubic.mul(L::splat(2.0 * 0.797_884_6)))
    }
}

/// GELU with the error function, absolute error below 1e-6 · (1 + |x|).
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn gelu<L: Lanes>(x: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe {
        let erf = erf(x.mul(L::splat(std::f32::consts::FRAC_1_SQRT_2)));
        x.mul(L::splat(0.5)).mul(erf.add(L::splat(1.0)))
    }
}

/// The error function (Abramowitz and Stegun 7.1.26), absolute error below 5e-7.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn erf<L: Lanes>(x: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe {
        let one = L::splat(1.0);
        let magnitude = x.abs();
        let t = one.div(magnitude.fma(L::splat(0.327_591_1), one));
        let mut p = L::splat(1.061_405_4);
        for c in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
            p = p.fma(t, L::splat(c));
        }
        let tail = p
            .mul(t)
            .mul(exp(L::splat(0.0).sub(magnitude.mul(magnitude))));
        one.sub(tail).copy_sign(x)
    }
}

/// `tanh(x)`, absolute error below 2e-7.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn tanh<L: Lanes>(x: L) -> L {
    // SAFETY: the caller has the ISA.
    unsafe {
        let one = L::splat(1.0);
        let e = exp(x.abs().mul(L::splat(-2.0)));
        one.sub(e).div(one.add(e)).copy_sign(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::lanes::LANES;
    use crate::scalar::lanes::Array;

    /// The largest relative error of `f` against `reference`, from one power of two to another.
    fn error(
        f: unsafe fn(Array) -> Array,
        reference: fn(f64) -> f64,
        range: std::ops::Range<i32>,
    ) -> f64 {
        let steps = 100_000;
        let width = f64::from(range.end - range.start) / f64::from(steps);
        let errors = (0..steps).map(|step| {
            let x = (f64::from(range.start) + width * f64::from(step)) as f32;
            let mut y = [0.0; LANES];
            // SAFETY: the scalar lanes need no ISA; 16 floats.
            unsafe { f(Array::splat(x)).store(y.as_mut_ptr()) };
            (f64::from(y[0]) / reference(f64::from(x)) - 1.0).abs()
        });
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        // Whatever it carries.
        for bits in [0x7FC0_0000, 0x7FC0_0001, 0x7FC0_0180, 0xFFFF_FFFF] {
            let x = f32::from_bits(bits);
            let mut y = [0.0; LANES];
            // SAFETY: the scalar lanes need no ISA; 16 floats.
            unsafe { exp(Array::splat(x)).store(y.as_mut_ptr()) };
            assert!(y[0].is_nan(), "{bits:x}");
        }
    }

    /// The bounds are those of the documentation.
    #[test]
    fn exponentials_are_as_close_as_they_say() {
        assert!(error(exp, f64::exp, -87..88) < 2e-7);
        assert!(error(exp2, f64::exp2, -126..EXP2_LARGEST as i32) < 2e-7);
    }
}
