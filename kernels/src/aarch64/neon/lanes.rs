//! Sixteen floats in four 128-bit vectors.

use crate::generic::lanes::Lanes;
use std::arch::aarch64::*;

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Quads([float32x4_t; 4]);

impl Quads {
    /// Integers as floats.
    #[inline(always)]
    pub(in crate::aarch64) fn of_integers(x: [int32x4_t; 4]) -> Quads {
        // SAFETY: NEON is part of AArch64.
        Quads(x.map(|x| unsafe { vcvtq_f32_s32(x) }))
    }

    /// Lanes that hold integers of 16 bits as such.
    #[inline(always)]
    pub(super) fn to_words(self) -> [int16x4_t; 4] {
        // SAFETY: NEON is part of AArch64.
        self.0.map(|x| unsafe { vmovn_s32(vcvtq_s32_f32(x)) })
    }

    #[inline(always)]
    fn map(self, op: impl Fn(float32x4_t) -> float32x4_t) -> Self {
        Quads(self.0.map(op))
    }

    #[inline(always)]
    fn zip(self, b: Self, op: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (self.0, b.0);
        Quads([op(a0, b0), op(a1, b1), op(a2, b2), op(a3, b3)])
    }

    /// Halves to halves with `op`, 16 → 8 → 4 → 2 → 1.
    #[inline(always)]
    fn tree(self, op: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> f32 {
        let [a, b, c, d] = self.0;
        let x = op(op(a, c), op(b, d));
        // SAFETY: NEON is part of AArch64.
        unsafe {
            let x = op(x, vextq_f32::<2>(x, x));
            vgetq_lane_f32::<0>(op(x, vextq_f32::<1>(x, x)))
        }
    }
}

/// `if a > b { a } else { b }`: the instruction for the maximum treats NaN and zeros otherwise.
#[inline(always)]
fn greater(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

// SAFETY of every block below: NEON is part of AArch64; the trait demands memory that is good for 16
// elements.
impl Lanes for Quads {
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: as above.
        Quads([unsafe { vdupq_n_f32(x) }; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe {
            Quads([
                vld1q_f32(from),
                vld1q_f32(from.add(4)),
                vld1q_f32(from.add(8)),
                vld1q_f32(from.add(12)),
            ])
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        for (i, x) in self.0.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { vst1q_f32(to.add(4 * i), x) };
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        // SAFETY: as above.
        unsafe {
            let [a, b, c, d] = self.to_words();
            let low = vmovn_s16(vcombine_s16(a, b));
            vst1q_s8(to, vmovn_high_s16(low, vcombine_s16(c, d)));
        }
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16) {
        for (i, words) in self.to_words().into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { vst1_s16(to.add(4 * i), words) };
        }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: as above.
        self.zip(b, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: as above.
        self.zip(b, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: as above.
        self.zip(b, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: as above.
        self.zip(b, |a, b| unsafe { vdivq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        let (a, b, c) = (self.0, b.0, c.0);
        // SAFETY: as above.
        unsafe {
            Quads([
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ])
        }
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, greater)
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: as above.
        self.zip(b, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: as above.
        self.map(|a| unsafe { vabsq_f32(a) })
    }

    #[inline(always)]
    unsafe fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: as above.
        self.zip(sign, |a, sign| unsafe {
            vbslq_f32(vdupq_n_u32(1 << 31), sign, a)
        })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: as above.
        self.map(|a| unsafe { vrndnq_f32(a) })
    }

    #[inline(always)]
    unsafe fn ldexp(self, n: Self) -> Self {
        // SAFETY: as above.
        self.zip(n, |a, n| unsafe {
            let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(n));
            vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), exponent))
        })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        self.tree(|a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.tree(greater)
    }

    #[inline(always)]
    unsafe fn exceeds(self, b: f32) -> bool {
        // SAFETY: as above.
        unsafe {
            let b = vdupq_n_f32(b);
            let [a0, a1, a2, a3] = self.0.map(|a| vcgtq_f32(a, b));
            vmaxvq_u32(vorrq_u32(vorrq_u32(a0, a1), vorrq_u32(a2, a3))) != 0
        }
    }
}
