//! The codes of a quarter in registers, 4 columns of each row after the other.

use super::{LINE, Weights, nibbles};
use std::arch::aarch64::*;

/// The `q4` codes of the quarter that starts at `codes`.
///
/// # Safety
/// `codes` must be good for 32 columns.
#[inline(always)]
pub(super) unsafe fn q4_columns(codes: *const u8) -> Weights {
    // SAFETY: as the caller promises.
    let line = |i: usize| unsafe { nibbles(vld1q_u8(codes.add(i * LINE))) };
    let [a, b, c, d] = [line(0), line(1), line(2), line(3)];
    [a.0, a.1, b.0, b.1, c.0, c.1, d.0, d.1]
}

/// The `q8` codes of the quarter that starts at `codes`.
///
/// # Safety
/// `codes` must be good for 32 columns.
#[inline(always)]
pub(super) unsafe fn q8_columns(codes: *const u8) -> Weights {
    // SAFETY: as the caller promises.
    let line = |i: usize| unsafe { vld1q_s8(codes.add(i * LINE).cast()) };
    std::array::from_fn(line)
}

/// The codes of `LOW + HIGH` bits in two planes, less their zero, of the quarter that starts at
/// `codes`.
///
/// # Safety
/// `codes` must be good for 32 columns.
#[inline(always)]
pub(super) unsafe fn split_columns<const LOW: i32, const HIGH: i32>(codes: *const u8) -> Weights {
    // The zero is the highest bit of a code alone: that bit flipped, the code as a signed number is
    // the difference.
    let highest = (0xff / ((1 << HIGH) - 1)) << (HIGH - 1);
    // The two fields meet at the top of a byte: one shift then drops what is left of other columns
    // and repeats the sign.
    // SAFETY: as the caller promises, for both planes.
    let column = |quad: usize| unsafe {
        let low = field::<LOW>(codes, quad, 0);
        let high = field::<HIGH>(codes.add(LOW as usize * LINE), quad, highest);
        let code = vreinterpretq_s8_u8(vsriq_n_u8::<HIGH>(high, low));
        vshlq_s8(code, vdupq_n_s8((LOW + HIGH - 8) as i8))
    };
    std::array::from_fn(column)
}

/// Columns `4 · quad` and on of a plane of `WIDTH` bits, in the highest bits of each byte, after
/// `flip` has been flipped in every byte of the plane.
///
/// # Safety
/// `plane` must be good for 32 columns; `quad` must be below 8.
#[inline(always)]
unsafe fn field<const WIDTH: i32>(plane: *const u8, quad: usize, flip: u8) -> uint8x16_t {
    let columns = 8 / WIDTH as usize;
    let above = 8 - (quad % columns + 1) as i32 * WIDTH;
    // SAFETY: a line holds `columns` quads, so this one lies in the plane.
    unsafe {
        let line = vld1q_u8(plane.add(quad / columns * LINE));
        vshlq_u8(veorq_u8(line, vdupq_n_u8(flip)), vdupq_n_s8(above as i8))
    }
}
