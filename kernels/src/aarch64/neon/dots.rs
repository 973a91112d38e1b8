//! Dot products by `smlal`, with multipliers of 16 bits.

use super::lanes::Quads;
use crate::generic::dots::{Dots, Multipliers, words_at};
use std::arch::aarch64::*;

/// One lane each, of four sums that belong together.
#[derive(Clone, Copy)]
pub(crate) struct Smlal([int32x4_t; 16]);

// SAFETY of every block below: NEON is part of AArch64; the trait demands memory that is good for 64
// bytes.
impl Dots for Smlal {
    const QUERIES: usize = 1;
    type Floats = Quads;
    type Bytes = [int16x8_t; 8];

    #[inline(always)]
    fn at(step: usize) -> usize {
        words_at(step)
    }

    #[inline(always)]
    unsafe fn put(x: Quads, to: &mut Multipliers) {
        for (i, words) in x.to_words().into_iter().enumerate() {
            // SAFETY: as above; 16 words.
            unsafe { vst1_s16(to.as_mut_ptr().add(8 * i).cast(), words) };
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Smlal([unsafe { vdupq_n_s32(0) }; 16])
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
