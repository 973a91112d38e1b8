//! The quantized kinds, as several tokens take them.

use super::columns::{q8_columns, split_columns};
use super::gemm::{Floats, PairDot, Tokens};
use super::{LINE, Q4_PART, Q8_PART, Weights};

/// A quantized kind: how a quarter of a part is multiplied.
///
/// # Safety
/// As [`PairDot`].
pub(super) trait Quantized<D: PairDot> {
    /// Bytes of 32 K of a panel.
    const PART: usize;
    const MINIMUM: bool;
    /// Where the sums start, as a multiple of Σx: less the zero of the codes as loaded.
    const START: i32 = 0;
    unsafe fn weights(codes: *const u8) -> Weights;
    /// As [`PairDot::narrow`].
    unsafe fn multiply(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens);
}

/// `q4`
pub(super) struct Q4<const MINIMUM: bool>;

impl<D: PairDot, const MINIMUM: bool> Quantized<D> for Q4<MINIMUM> {
    const PART: usize = Q4_PART;
    const MINIMUM: bool = MINIMUM;
    const START: i32 = if MINIMUM { 0 } else { -8 };

    #[inline(always)]
    unsafe fn weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { D::q4_weights(codes) }
    }

    #[inline(always)]
    unsafe fn multiply(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        // SAFETY: as the caller promises.
        unsafe { D::narrow(acc, weights, scales, tokens) }
    }
}

/// `q8`
pub(super) struct Q8;

impl<D: PairDot> Quantized<D> for Q8 {
    const PART: usize = Q8_PART;
    const MINIMUM: bool = false;

    #[inline(always)]
    unsafe fn weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { D::order(q8_columns(codes)) }
    }

    #[inline(always)]
    unsafe fn multiply(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        // SAFETY: as the caller promises.
        unsafe { D::wide(acc, weights, scales, tokens) }
    }
}

/// Codes of `LOW + HIGH` bits in two planes.
pub(super) struct Split<const LOW: i32, const HIGH: i32>;

impl<D: PairDot, const LOW: i32, const HIGH: i32> Quantized<D> for Split<LOW, HIGH> {
    const PART: usize = (LOW + HIGH) as usize * LINE;
    const MINIMUM: bool = false;

    #[inline(always)]
    unsafe fn weights(codes: *const u8) -> Weights {
        // SAFETY: as the caller promises.
        unsafe { D::order(split_columns::<LOW, HIGH>(codes)) }
    }

    #[inline(always)]
    unsafe fn multiply(acc: &mut Floats, weights: &Weights, scales: Floats, tokens: &mut Tokens) {
        // SAFETY: as the caller promises; 5 bits are within -16..=15.
        unsafe {
            if LOW + HIGH <= 5 {
                D::narrow(acc, weights, scales, tokens)
            } else {
                D::wide(acc, weights, scales, tokens)
            }
        }
    }
}
