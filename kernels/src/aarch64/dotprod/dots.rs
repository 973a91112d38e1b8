//! Dot products by `sdot`.

use crate::aarch64::neon::{self, Quads};
use crate::generic::dots::{
    Dots, LONG, Multipliers, SHORT, digits, four_bytes, put_digits, put_signed_digits,
};
use std::arch::aarch64::*;
use std::arch::asm;

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15, of products with high digits and with low ones.
#[derive(Clone, Copy)]
pub(crate) struct Long {
    high: [int32x4_t; 4],
    low: [int32x4_t; 4],
}

/// Adds products with one four of digits.
///
/// # Safety
/// Needs the dot product.
#[inline(always)]
unsafe fn sdot(sums: [int32x4_t; 4], bytes: [int8x16_t; 4], digits: i32) -> [int32x4_t; 4] {
    let ([mut s0, mut s1, mut s2, mut s3], [b0, b1, b2, b3]) = (sums, bytes);
    // SAFETY: registers only; the caller has the dot product. By assembly, since its intrinsic is not
    // stable.
    unsafe {
        asm!(
            "sdot {s0:v}.4s, {b0:v}.16b, {x:v}.16b",
            "sdot {s1:v}.4s, {b1:v}.16b, {x:v}.16b",
            "sdot {s2:v}.4s, {b2:v}.16b, {x:v}.16b",
            "sdot {s3:v}.4s, {b3:v}.16b, {x:v}.16b",
            s0 = inout(vreg) s0, s1 = inout(vreg) s1, s2 = inout(vreg) s2, s3 = inout(vreg) s3,
            b0 = in(vreg) b0, b1 = in(vreg) b1, b2 = in(vreg) b2, b3 = in(vreg) b3,
            x = in(vreg) vdupq_n_s32(digits),
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    [s0, s1, s2, s3]
}

// SAFETY of every block below: the trait demands the dot product of the caller, and memory that is
// good for 64 bytes.
impl Dots for Long {
    const QUERIES: usize = 3;
    const LARGEST: f32 = LONG;
    type Floats = Quads;
    type Bytes = [int8x16_t; 4];

    #[inline(always)]
    unsafe fn put(x: Quads, to: &mut Multipliers) {
        // SAFETY: as above.
        unsafe { put_digits(x, to) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        let zero = [unsafe { vdupq_n_s32(0) }; 4];
        Long {
            high: zero,
            low: zero,
        }
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [int8x16_t; 4] {
        // SAFETY: as above.
        unsafe { neon::Short::load(from) }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, bytes: [int8x16_t; 4]) -> Self {
        // SAFETY: as above.
        unsafe {
            let [high, low] = digits(multipliers);
            Long {
                high: sdot(self.high, bytes, high),
                low: sdot(self.low, bytes, low),
            }
        }
    }

    #[inline(always)]
    unsafe fn signed_put(x: Quads, to: &mut Multipliers) -> [Quads; 2] {
        // SAFETY: as above.
        unsafe { put_signed_digits(x, to) }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Quads {
        // SAFETY: as above.
        Quads::of_integers(std::array::from_fn(|i| unsafe {
            vaddq_s32(vshlq_n_s32::<7>(self.high[i]), self.low[i])
        }))
    }
}

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Short([int32x4_t; 4]);

// SAFETY of every block below: as above.
impl Dots for Short {
    const QUERIES: usize = 6;
    const LARGEST: f32 = SHORT;
    const STEPS: usize = 2;
    type Floats = Quads;
    type Bytes = [int8x16_t; 4];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Short([unsafe { vdupq_n_s32(0) }; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const i8) -> [int8x16_t; 4] {
        // SAFETY: as above.
        unsafe { Long::load(from) }
    }

    #[inline(always)]
    unsafe fn load_values(from: *const i8, step: usize) -> [int8x16_t; 4] {
        // SAFETY: as above.
        unsafe { neon::Short::load_values(from, step) }
    }

    #[inline(always)]
    unsafe fn dot(self, multipliers: *const i8, values: [int8x16_t; 4]) -> Self {
        // SAFETY: as above.
        Short(unsafe { sdot(self.0, values, four_bytes(multipliers)) })
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Quads {
        Quads::of_integers(self.0)
    }
}
