//! Dot products of signed codes with integers, in sixteen lanes: what attention over INT16 and INT8 keys, and
//! INT16, INT8 or INT4 values, is written over, once for all ISAs.

use super::lanes::{LANES, Lanes};
use crate::kv::CHUNK;

/// Bytes that one step takes: [`STEP`] for each of 16 lanes.
pub(crate) const BYTES: usize = 64;

/// Bytes of a lane that one step takes: as many elements of a dot product, or two of 16 bits.
pub(crate) const STEP: usize = 4;

/// What one of the high digit is worth in ones of the low digit.
pub(crate) const BASE: f32 = 128.0;

/// The largest magnitude of a long multiplier. Two digits of base [`BASE`] can hold it, each a byte.
pub(crate) const LONG: f32 = 127.0 * BASE;

/// The largest magnitude of a short multiplier, a byte.
pub(crate) const SHORT: f32 = 127.0;

/// [`word_range`] of attention's weights and the values that they multiply.
pub(crate) const WORD: f32 = 5792.0;

const _: () = assert!(5792 * 5792 * CHUNK as i64 <= i32::MAX as i64);

/// The largest magnitude that `terms` codes of 16 bits and their multipliers can all have, so that the sum of
/// the products stays within 32 bits.
#[inline(always)]
pub(crate) fn word_range(terms: usize) -> f32 {
    let range = (f64::from(i32::MAX) / terms as f64).sqrt().floor();
    range.min(f64::from(i16::MAX)) as f32
}

/// What the 16 codes of INT4 values stand for: with the ends and zero, the levels of least error for
/// normally distributed elements of which the largest of 64 is 127 (Lloyd 1982). NF4 (Dettmers et al.
/// 2023), whose levels are equally frequent, has 5 % more.
pub(crate) const LEVELS: [i8; 16] = [
    -127, -95, -73, -55, -39, -26, -13, 0, 11, 21, 33, 46, 60, 77, 98, 127,
];

/// Sixteen multipliers, as the ISA takes them: of 16 bits, all high digits and all low ones, or bytes at
/// the start.
/// Aligned as far as an allocation is anyway: what is read at once is within a cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
pub(crate) struct Multipliers([i8; 2 * LANES]);

impl Multipliers {
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut i8 {
        self.0.as_mut_ptr()
    }
}

/// Where the four of a step start in many [`Multipliers`], as 16 bits each.
#[inline(always)]
pub(crate) fn words_at(step: usize) -> usize {
    step * STEP * 2
}

/// Where the high digits of a step start in many [`Multipliers`]; the low ones are 16 behind. Or where
/// the bytes of short ones do.
#[inline(always)]
fn digits_at(step: usize) -> usize {
    let steps = LANES / STEP;
    step / steps * size_of::<Multipliers>() + step % steps * STEP
}

/// Sixteen i32 lanes that products add up in; sums wrap. An ISA has three of them: with long multipliers for
/// a cache that is INT8, with short ones where values are INT4, which round more than these, and for codes of
/// 16 bits, whose multipliers are of 16 bits as well.
///
/// # Safety
/// Every method needs the ISA of its implementation; `multipliers` must be where [`Dots::at`] says, of
/// an aligned array of [`Multipliers`].
pub(crate) trait Dots: Copy {
    /// Queries that have sums in registers at once.
    const QUERIES: usize;

    /// The largest magnitude of a multiplier.
    const LARGEST: f32;

    /// Elements that a lane takes in one step.
    const ELEMENTS: usize = STEP;

    /// Steps of values that [`BYTES`] hold: two of INT4, else one.
    const STEPS: usize = 1;

    /// Whether [`Dots::signed_zero`] needs the sum of the multipliers.
    const NEEDS_TOTAL: bool = false;

    /// The same lanes as floats.
    type Floats: Lanes;

    /// [`BYTES`] with codes of -127..=127, or of up to [`word_range`], in registers.
    type Bytes: Copy;

    /// The largest magnitude of multipliers of so many codes: sums stay within 32 bits.
    #[inline(always)]
    fn range(terms: usize) -> f32 {
        if Self::ELEMENTS == 2 {
            return word_range(terms);
        }
        // Less than the largest only beyond 1024 terms (long multipliers).
        Self::LARGEST.min((i32::MAX as usize / (128 * terms)) as f32)
    }

    /// Where the multipliers of a step start, in bytes from the first of many [`Multipliers`].
    #[inline(always)]
    fn at(step: usize) -> usize {
        match Self::ELEMENTS {
            2 => step * STEP,
            _ => digits_at(step),
        }
    }

    /// Integers of 0..=[`Dots::LARGEST`] as multipliers of [`Dots::dot`]: as wide as codes, unless they are
    /// long.
    #[inline(always)]
    unsafe fn put(x: Self::Floats, to: &mut Multipliers) {
        // SAFETY: the same promises; 16 bytes or words.
        unsafe {
            match Self::ELEMENTS {
                2 => x.store_i16(to.as_mut_ptr().cast()),
                _ => x.store_i8(to.as_mut_ptr()),
            }
        }
    }

    /// Sums of nothing.
    unsafe fn zero() -> Self;

    /// Reads bytes; `from` must be good for [`BYTES`], codes of 16 bits in the order of [`Lanes::HALVES`].
    unsafe fn load(from: *const i8) -> Self::Bytes;

    /// Reads a step of [`Dots::STEPS`]; `from` as in [`Dots::load`]. INT4 values of the first one are in
    /// the low nibbles, and read as the [`LEVELS`] that they are codes of.
    #[inline(always)]
    unsafe fn load_values(from: *const i8, _step: usize) -> Self::Bytes {
        // SAFETY: the same promises.
        unsafe { Self::load(from) }
    }

    /// Adds to each lane the products of its codes with the multipliers of a step, which are at [`Dots::at`].
    unsafe fn dot(self, multipliers: *const i8, bytes: Self::Bytes) -> Self;

    /// Rounded to nearest even.
    unsafe fn to_floats(self) -> Self::Floats;

    // The same for multipliers of either sign. An ISA without products of two signed bytes moves the
    // codes to the unsigned range, and takes out at the start what that adds, or moves signs.

    /// Integers of magnitudes up to [`Dots::LARGEST`] as multipliers of [`Dots::signed_dot`]. Returns
    /// their digits.
    #[inline(always)]
    unsafe fn signed_put(x: Self::Floats, to: &mut Multipliers) -> [Self::Floats; 2] {
        // SAFETY: the same promises.
        unsafe {
            Self::put(x, to);
            [Self::Floats::splat(0.0), x]
        }
    }

    /// Sums of nothing for multipliers whose digits add up to `total`.
    #[inline(always)]
    unsafe fn signed_zero(_total: [i32; 2]) -> Self {
        // SAFETY: the same promises.
        unsafe { Self::zero() }
    }

    /// Reads bytes for [`Dots::signed_dot`].
    #[inline(always)]
    unsafe fn signed_load(from: *const i8) -> Self::Bytes {
        // SAFETY: the same promises.
        unsafe { Self::load(from) }
    }

    /// As [`Dots::dot`].
    #[inline(always)]
    unsafe fn signed_dot(self, multipliers: *const i8, bytes: Self::Bytes) -> Self {
        // SAFETY: the same promises.
        unsafe { self.dot(multipliers, bytes) }
    }
}

/// The four high digits of a step, and the four low ones.
///
/// # Safety
/// `multipliers` as [`Dots`] demands, at [`digits_at`].
#[inline(always)]
pub(crate) unsafe fn digits(multipliers: *const i8) -> [i32; 2] {
    // SAFETY: as the caller promises.
    unsafe { [four_bytes(multipliers), four_bytes(multipliers.add(LANES))] }
}

/// Integers of 0..=[`LONG`] as two digits of 0..=127.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn put_digits<L: Lanes>(x: L, to: &mut Multipliers) {
    // SAFETY: the caller has the ISA.
    unsafe {
        // Down to the integer below: what is 0 to 127/128 above it is at most 63.5/128 from this.
        let middle = L::splat(-63.5 / BASE);
        put_two(x.fma(L::splat(1.0 / BASE), middle).round(), x, to);
    }
}

/// Integers of magnitudes up to [`LONG`] as two digits of -127..=127.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn put_signed_digits<L: Lanes>(x: L, to: &mut Multipliers) -> [L; 2] {
    // SAFETY: the caller has the ISA.
    unsafe { put_two(x.mul(L::splat(1.0 / BASE)).round(), x, to) }
}

/// The four bytes of a step.
///
/// # Safety
/// `multipliers` as [`Dots`] demands, at [`digits_at`].
#[inline(always)]
pub(crate) unsafe fn four_bytes(multipliers: *const i8) -> i32 {
    // SAFETY: as the caller promises.
    unsafe { multipliers.cast::<i32>().read_unaligned() }
}

/// High digits, and low ones for the rest of `x`.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn put_two<L: Lanes>(high: L, x: L, to: &mut Multipliers) -> [L; 2] {
    // SAFETY: the caller has the ISA; 16 bytes each.
    unsafe {
        let low = high.fma(L::splat(-BASE), x);
        high.store_i8(to.as_mut_ptr());
        low.store_i8(to.as_mut_ptr().add(LANES));
        [high, low]
    }
}
