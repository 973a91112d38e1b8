//! Dot products by `smlal`, with multipliers of 16 bits and codes of 8 or 16, and by `smull` and `sadalp`, with bytes.

use super::lanes::Quads;
use crate::generic::dots::{Dots, LEVELS, LONG, Multipliers, SHORT, WORD, four_bytes, words_at};
use crate::generic::lanes::Lanes;
use std::arch::aarch64::*;

/// One lane each, of four sums that belong together.
#[derive(Clone, Copy)]
pub(crate) struct Long([int32x4_t; 16]);

// SAFETY of every block below: NEON is part of AArch64; the trait demands memory that is good for 64
// bytes.
impl Dots for Long {
    const QUERIES: usize = 1;
    const LARGEST: f32 = LONG;
    type Floats = Quads;
    type Bytes = [int16x8_t; 8];

    #[inline(always)]
    fn at(step: usize) -> usize {
        words_at(step)
    }

    #[inline(always)]
    unsafe fn put(x: Quads, to: &mut Multipliers) {
        // SAFETY: as above; 16 words.
        unsafe { x.store_i16(to.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Long([unsafe { vdupq_n_s32(0) }; 16])
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [int16x8_t; 8] {
        // SAFETY: as above.
        std::array::from_fn(|i| unsafe { vmovl_s8(vld1_s8(from.add(8 * i))) })
    }

    #[inline(always)]
    unsafe fn dot(mut self, multipliers: *const i8, bytes: [int16x8_t; 8]) -> Self {
        // SAFETY: as above; a step has 8 bytes of multipliers.
        unsafe {
            let x = vld1q_dup_s64(multipliers.cast());
            let x = vreinterpretq_s16_s64(x);
            for (sums, bytes) in self.0.chunks_exact_mut(2).zip(bytes) {
                sums[0] = vmlal_s16(sums[0], vget_low_s16(bytes), vget_low_s16(x));
                sums[1] = vmlal_high_s16(sums[1], bytes, x);
            }
        }
        self
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Quads {
        // SAFETY: as above.
        Quads::of_integers(std::array::from_fn(|i| unsafe {
            let lanes = &self.0[4 * i..][..4];
            vpaddq_s32(
                vpaddq_s32(lanes[0], lanes[1]),
                vpaddq_s32(lanes[2], lanes[3]),
            )
        }))
    }
}

/// What the low nibbles (step 0) or the high ones (step 1) are codes of.
#[inline(always)]
fn levels(bytes: int8x16_t, step: usize) -> int8x16_t {
    // SAFETY: NEON is part of AArch64; there are 16 levels.
    unsafe {
        let bytes = vreinterpretq_u8_s8(bytes);
        let codes = match step {
            0 => vandq_u8(bytes, vdupq_n_u8(15)),
            _ => vshrq_n_u8::<4>(bytes),
        };
        vqtbl1q_s8(vld1q_s8(LEVELS.as_ptr()), codes)
    }
}

/// One lane each, of two sums that belong together.
#[derive(Clone, Copy)]
pub(crate) struct Short([int32x4_t; 8]);

// SAFETY of every block below: as above.
impl Dots for Short {
    const QUERIES: usize = 2;
    const LARGEST: f32 = SHORT;
    const STEPS: usize = 2;
    type Floats = Quads;
    type Bytes = [int8x16_t; 4];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Short([unsafe { vdupq_n_s32(0) }; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [int8x16_t; 4] {
        // SAFETY: as above.
        std::array::from_fn(|i| unsafe { vld1q_s8(from.add(16 * i)) })
    }

    #[inline(always)]
    unsafe fn load_values(from: *const i8, step: usize) -> [int8x16_t; 4] {
        // SAFETY: as above.
        let [a, b, c, d] = unsafe { Self::load(from) };
        [
            levels(a, step),
            levels(b, step),
            levels(c, step),
            levels(d, step),
        ]
    }

    #[inline(always)]
    unsafe fn dot(mut self, multipliers: *const i8, values: [int8x16_t; 4]) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(multipliers)));
            for (sums, values) in self.0.chunks_exact_mut(2).zip(values) {
                sums[0] = vpadalq_s16(sums[0], vmull_s8(vget_low_s8(values), vget_low_s8(x)));
                sums[1] = vpadalq_s16(sums[1], vmull_high_s8(values, x));
            }
        }
        self
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Quads {
        // SAFETY: as above.
        Quads::of_integers(std::array::from_fn(|i| unsafe {
            vpaddq_s32(self.0[2 * i], self.0[2 * i + 1])
        }))
    }
}

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15, of codes of 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct Words([int32x4_t; 4]);

// SAFETY of every block below: as above.
impl Dots for Words {
    const QUERIES: usize = 6;
    const LARGEST: f32 = WORD;
    const ELEMENTS: usize = 2;
    type Floats = Quads;
    type Bytes = [int16x8_t; 4];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Words([unsafe { vdupq_n_s32(0) }; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [int16x8_t; 4] {
        // SAFETY: as above.
        std::array::from_fn(|i| unsafe { vld1q_s16(from.add(16 * i).cast()) })
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, codes: [int16x8_t; 4]) -> Self {
        let ([mut s0, mut s1, mut s2, mut s3], [a, b, c, d]) = (self.0, codes);
        // SAFETY: as above. The halves of a line are the lanes' first elements and their second ones.
        unsafe {
            let x = vreinterpret_s16_s32(vdup_n_s32(four_bytes(multipliers)));
            s0 = vmlal_lane_s16::<0>(s0, vget_low_s16(a), x);
            s1 = vmlal_high_lane_s16::<0>(s1, a, x);
            s2 = vmlal_lane_s16::<0>(s2, vget_low_s16(b), x);
            s3 = vmlal_high_lane_s16::<0>(s3, b, x);
            s0 = vmlal_lane_s16::<1>(s0, vget_low_s16(c), x);
            s1 = vmlal_high_lane_s16::<1>(s1, c, x);
            s2 = vmlal_lane_s16::<1>(s2, vget_low_s16(d), x);
            s3 = vmlal_high_lane_s16::<1>(s3, d, x);
        }
        Words([s0, s1, s2, s3])
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Quads {
        Quads::of_integers(self.0)
    }
}
