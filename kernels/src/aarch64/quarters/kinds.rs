//! The quantized kinds, as several tokens take them.

use super::columns::{q8_columns, split_columns};
use super::gemm::{PairDot, Sums};
use super::{LINE, Q4_PART, Q8_PART, Weights};
use std::arch::aarch64::*;

/// A quantized kind: how a quarter of a part is multiplied.
///
/// # Safety
/// As [`PairDot`].
pub(super) trait Quantized<D: PairDot> {
    /// Bytes of 32 K of a panel.
    const PART: usize;
    const MINIMUM: bool;
    /// The offset in the factors of a token.
    fn offset(scale: f32, sum: i32) -> i32;
    unsafe fn weights(codes: *const u8) -> Weights;
    unsafe fn dot(weights: &Weights, offset: int32x4_t, pair: &mut *const u8) -> Sums;
}

/// `q4`
pub(super) struct Q4<const MINIMUM: bool>;

impl<D: PairDot, const MINIMUM: bool> Quantized<D> for Q4<MINIMUM> {
    const PART: usize = Q4_PART;
    const MINIMUM: bool = MINIMUM;

    #[inline(always)]
    fn offset(scale: f32, sum: i32) -> i32 {
        if MINIMUM {
            (scale * sum as f32).to_bits().cast_signed()
        } else {
            -8 * sum
        }
    }

    #[inline(always)]
    unsafe fn weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { D::q4_weights(codes) }
    }

    #[inline(always)]
    unsafe fn dot(weights: &Weights, offset: int32x4_t, pair: &mut *const u8) -> Sums {
        // SAFETY: as the caller promises.
        unsafe {
            let start = if MINIMUM {
                [vdupq_n_s32(0); 2]
            } else {
                D::by_token(offset)
            };
            D::q4(start, weights, pair)
        }
    }
}

/// `q8`
pub(super) struct Q8;

impl<D: PairDot> Quantized<D> for Q8 {
    const PART: usize = Q8_PART;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn offset(_scale: f32, _sum: i32) -> i32 {
        0
    }

    #[inline(always)]
    unsafe fn weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { D::order(q8_columns(codes)) }
    }

    #[inline(always)]
    unsafe fn dot(weights: &Weights, _offset: int32x4_t, pair: &mut *const u8) -> Sums {
        // SAFETY: as the caller promises.
        unsafe { D::q8(weights, pair) }
    }
}

/// Codes of `LOW + HIGH` bits in two planes.
pub(super) struct Split<const LOW: i32, const HIGH: i32>;

impl<D: PairDot, const LOW: i32, const HIGH: i32> Quantized<D> for Split<LOW, HIGH> {
    const PART: usize = (LOW + HIGH) as usize * LINE;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn offset(_scale: f32, _sum: i32) -> i32 {
        0
    }

    #[inline(always)]
    unsafe fn weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { D::order(split_columns::<LOW, HIGH>(codes)) }
    }

    #[inline(always)]
    unsafe fn dot(weights: &Weights, _offset: int32x4_t, pair: &mut *const u8) -> Sums {
        // SAFETY: as the caller promises; 5 bits are within -16..=15.
        unsafe {
            if LOW + HIGH <= 5 {
                D::q4([vdupq_n_s32(0); 2], weights, pair)
            } else {
                D::q8(weights, pair)
            }
        }
    }
}
