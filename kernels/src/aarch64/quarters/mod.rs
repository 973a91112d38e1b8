//! Matmul with 128-bit vectors: one holds 4 rows, a quarter of a panel.
//!
//! [`gemv`] takes one token through several panels, [`gemm`] several tokens through one quarter;
//! both are written once, over a trait that says how an ISA takes the dot products of 32 columns.
//! [`float`] is the same for every ISA.
//!
//! The innermost steps are assembly: `sdot` and `smmla` have no stable intrinsics, one load of four
//! vectors wants registers in a row, and a step as one block keeps the compiler from moving loads
//! ahead until accumulators no longer fit the registers.

mod columns;
pub(in crate::aarch64) mod float;
pub(in crate::aarch64) mod gemm;
pub(in crate::aarch64) mod gemv;
mod kinds;

use crate::packing::PANEL;
use std::arch::aarch64::*;
use std::arch::asm;

/// Does `body` for `index` from 0 to below `count` (at most 6), a copy for each: the compiler would
/// leave a loop of this size rolled up, and its accumulators in memory.
macro_rules! unroll {
    ($index:ident < $count:ident, $body:block) => {
        unroll!(@copies $index, $count, $body, 0 1 2 3 4 5);
        const { assert!($count <= 6) };
    };
    (@copies $index:ident, $count:ident, $body:block, $($copy:literal)*) => {
        $(if $copy < $count {
            let $index = $copy;
            $body
        })*
    };
}
use unroll;

/// Rows of one vector.
const QUARTER: usize = 4;

/// Vectors of one panel.
const QUARTERS: usize = PANEL / QUARTER;

/// Bytes of 4 K (`q8`), of 8 K (`q4`), or of 4 K for each field in a byte of a plane, of the 16 rows
/// of a panel.
pub(in crate::aarch64) const LINE: usize = 64;

/// Bytes of 32 K of a `q4` panel.
const Q4_PART: usize = 4 * LINE;

/// Bytes of 32 K of a `q8` panel.
const Q8_PART: usize = 8 * LINE;

/// 32 columns of 4 rows as signed bytes, in the order of the ISA.
pub(in crate::aarch64) type Weights = [int8x16_t; 8];

/// Four halves as floats.
///
/// # Safety
/// `from` must be good for 4 halves.
#[inline(always)]
unsafe fn four_halves(from: *const u8) -> float32x4_t {
    let floats;
    // SAFETY: as the caller promises. By assembly, since the type of a half is not stable in Rust.
    unsafe {
        let halves = vld1_u16(from.cast());
        asm!(
            "fcvtl {floats:v}.4s, {halves:v}.4h",
            floats = out(vreg) floats, halves = in(vreg) halves,
            options(pure, nomem, nostack)
        );
    }
    floats
}

/// Eight halves as floats.
///
/// # Safety
/// `from` must be good for 8 halves.
#[inline(always)]
unsafe fn eight_halves(from: *const u8) -> [float32x4_t; 2] {
    let (low, high);
    // SAFETY: as above.
    unsafe {
        let halves = vld1q_u16(from.cast());
        asm!(
            "fcvtl {low:v}.4s, {halves:v}.4h",
            low = out(vreg) low, halves = in(vreg) halves,
            options(pure, nomem, nostack)
        );
        asm!(
            "fcvtl2 {high:v}.4s, {halves:v}.8h",
            high = out(vreg) high, halves = in(vreg) halves,
            options(pure, nomem, nostack)
        );
    }
    [low, high]
}

/// The scales (or minimums) of the 16 rows of one group.
///
/// # Safety
/// `plane` must hold more than `group` groups.
#[inline(always)]
unsafe fn group_halves(plane: *const u8, group: usize) -> [float32x4_t; QUARTERS] {
    // SAFETY: a group of a plane has 16 halves.
    unsafe {
        let at = plane.add(group * PANEL * 2);
        let ([a, b], [c, d]) = (eight_halves(at), eight_halves(at.add(16)));
        [a, b, c, d]
    }
}

/// The codes in the low nibbles, and those in the high ones.
///
/// # Safety
/// None beyond NEON, which is part of AArch64.
#[inline(always)]
pub(in crate::aarch64) unsafe fn nibbles(codes: uint8x16_t) -> (int8x16_t, int8x16_t) {
    // SAFETY: registers only.
    unsafe {
        let low = vandq_u8(codes, vdupq_n_u8(15));
        let high = vshrq_n_u8::<4>(codes);
        (vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high))
    }
}
