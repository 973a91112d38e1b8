//! Sixteen floats in an array.

use crate::generic::lanes::{LANES, Lanes};
use std::array::from_fn;

/// Plain floats.
#[derive(Clone, Copy)]
pub(crate) struct Array([f32; LANES]);

impl Array {
    fn zip(self, b: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        Array(from_fn(|i| op(self.0[i], b.0[i])))
    }

    fn tree(self, op: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] = op(lanes[i], lanes[i + half]);
            }
        }
        lanes[0]
    }
}

fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Lanes for Array {
    unsafe fn splat(x: f32) -> Self {
        Array([x; LANES])
    }

    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: good for 16 floats, as the trait demands.
        Array(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    unsafe fn store(self, to: *mut f32) {
        // SAFETY: good for 16 floats, as the trait demands.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    unsafe fn store_i8(self, to: *mut i8) {
        // SAFETY: good for 16 bytes, as the trait demands.
        unsafe {
            to.cast::<[i8; LANES]>()
                .write_unaligned(self.0.map(|x| x as i8))
        }
    }

    unsafe fn store_i16(self, to: *mut i16) {
        // SAFETY: good for 16 words, as the trait demands.
        unsafe {
            to.cast::<[i16; LANES]>()
                .write_unaligned(self.0.map(|x| x as i16))
        }
    }

    unsafe fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }

    unsafe fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }

    unsafe fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }

    unsafe fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }

    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Array(from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }

    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, greater)
    }

    unsafe fn min(self, b: Self) -> Self {
        self.zip(b, |a, b| if a < b { a } else { b })
    }

    unsafe fn abs(self) -> Self {
        Array(self.0.map(f32::abs))
    }

    unsafe fn copy_sign(self, sign: Self) -> Self {
        self.zip(sign, f32::copysign)
    }

    unsafe fn round(self) -> Self {
        Array(self.0.map(f32::round_ties_even))
    }

    unsafe fn ldexp(self, n: Self) -> Self {
        self.zip(n, |x, n| {
            f32::from_bits(x.to_bits().wrapping_add(n.to_bits() << 23))
        })
    }

    unsafe fn sum(self) -> f32 {
        self.tree(|a, b| a + b)
    }

    unsafe fn largest(self) -> f32 {
        self.tree(greater)
    }

    #[inline(always)]
    unsafe fn exceeds(self, b: f32) -> bool {
        self.0.iter().any(|&x| x > b)
    }
}
