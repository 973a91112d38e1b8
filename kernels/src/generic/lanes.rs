//! Sixteen floats as one value: what every float loop is written over, once for all ISAs.

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Floats of this size have ulps of one: added to less than 2^22, it leaves the nearest integer, ties to even, in the
/// low bits.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// Sixteen f32 lanes. Each operation is exactly specified (IEEE 754, round to nearest even), so that
/// a loop over it gives the same bits with every implementation.
///
/// # Safety
/// Every method needs the ISA of its implementation; loads and stores need memory that is good for
/// 16 elements.
pub(crate) trait Lanes: Copy {
    /// Whether the 16 lanes are one register, and so many values fit the registers.
    const WIDE: bool = false;

    /// Whether dot products take the two INT16 of a lane from the halves of a line, each with one of every
    /// lane, and not from the lane.
    const HALVES: bool = false;

    /// Asks for a line that will be read: any address will do.
    fn prefetch(_line: *const u8) {}

    /// All lanes the same.
    unsafe fn splat(x: f32) -> Self;
    /// Reads 16 floats.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes 16 floats.
    unsafe fn store(self, to: *mut f32);
    /// Writes lanes that hold integers in -128..=127 as signed bytes.
    unsafe fn store_i8(self, to: *mut i8);
    /// Writes lanes that hold integers in -32768..=32767 as signed words.
    unsafe fn store_i16(self, to: *mut i16);
    /// `self + b`
    unsafe fn add(self, b: Self) -> Self;
    /// `self - b`
    unsafe fn sub(self, b: Self) -> Self;
    /// `self · b`
    unsafe fn mul(self, b: Self) -> Self;
    /// `self / b`
    unsafe fn div(self, b: Self) -> Self;
    /// `self · b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// `if self > b { self } else { b }`
    unsafe fn max(self, b: Self) -> Self;
    /// `if self < b { self } else { b }`
    unsafe fn min(self, b: Self) -> Self;
    /// Magnitude.
    unsafe fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    unsafe fn copy_sign(self, sign: Self) -> Self;
    /// To an integer, ties to even; for magnitudes below 2^22, and what is not a number stays so.
    unsafe fn round(self) -> Self;
    /// `self · 2ⁿ`, where lanes of `n` hold integers plus [`ROUNDER`]; neither `self` nor the result may be zero,
    /// subnormal or not finite.
    unsafe fn ldexp(self, n: Self) -> Self;
    /// Sum of the lanes: halves added to halves, 16 → 8 → 4 → 2 → 1.
    unsafe fn sum(self) -> f32;
    /// Largest lane, by [`Lanes::max`] in the order of [`Lanes::sum`].
    unsafe fn largest(self) -> f32;
    /// Whether any lane is above `b`.
    unsafe fn exceeds(self, b: f32) -> bool;
}

/// Reads the first `len` floats, zeros behind them.
///
/// # Safety
/// The ISA of `L`; `from` good for `len` floats, at most 16.
#[inline(always)]
pub(crate) unsafe fn load_part<L: Lanes>(from: *const f32, len: usize) -> L {
    let mut lanes = [0.0f32; LANES];
    // SAFETY: `len` floats on both sides, which do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), len);
        L::load(lanes.as_ptr())
    }
}

/// Writes the first `len` lanes.
///
/// # Safety
/// The ISA of `L`; `to` good for `len` floats, at most 16.
#[inline(always)]
pub(crate) unsafe fn store_part<L: Lanes>(value: L, to: *mut f32, len: usize) {
    let mut lanes = [0.0f32; LANES];
    // SAFETY: `len` floats on both sides, which do not overlap.
    unsafe {
        value.store(lanes.as_mut_ptr());
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, len);
    }
}

/// Replaces each element of `x` by `map(element, index of the first lane)`, 16 at a time.
///
/// `map` must be `#[inline(always)]`: a closure does not have its caller's target features, so that,
/// on its own, each of its operations would be a call.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn map_lanes<L: Lanes>(x: &mut [f32], map: impl Fn(L, usize) -> L) {
    let whole = x.len() / LANES * LANES;
    let base = x.as_mut_ptr();
    // SAFETY: every access is within `x`.
    unsafe {
        let mut i = 0;
        while i < whole {
            map(L::load(base.add(i)), i).store(base.add(i));
            i += LANES;
        }
        let rest = x.len() - whole;
        if rest > 0 {
            let value = map(load_part(base.add(whole), rest), whole);
            store_part(value, base.add(whole), rest);
        }
    }
}

/// The 16 lanes of `x` from `i` on, zeros behind its end.
///
/// # Safety
/// The ISA of `L`; `i` at most the length of `x`.
#[inline(always)]
pub(crate) unsafe fn lanes_at<L: Lanes>(x: &[f32], i: usize) -> L {
    debug_assert!(i <= x.len());
    // SAFETY: within `x`, by the branch.
    unsafe {
        if i + LANES <= x.len() {
            L::load(x.as_ptr().add(i))
        } else {
            load_part(x.as_ptr().add(i), x.len() - i)
        }
    }
}
