//! Dot products one by one.

use super::lanes::Array;
use crate::generic::dots::{BYTES, Dots, LEVELS, LONG, Multipliers, SHORT, STEP, WORD, words_at};
use crate::generic::lanes::{LANES, Lanes};

/// Plain integers, and values of which bytes hold so many steps; multipliers are 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct Sums<const STEPS: usize>([i32; LANES]);

pub(crate) type Long = Sums<1>;
pub(crate) type Short = Sums<2>;

impl<const STEPS: usize> Dots for Sums<STEPS> {
    const QUERIES: usize = 1;
    const LARGEST: f32 = if STEPS == 1 { LONG } else { SHORT };
    const STEPS: usize = STEPS;
    type Floats = Array;
    type Bytes = [i8; BYTES];

    fn at(step: usize) -> usize {
        words_at(step)
    }

    unsafe fn put(x: Array, to: &mut Multipliers) {
        // SAFETY: 16 words.
        unsafe { x.store_i16(to.as_mut_ptr().cast()) }
    }

    unsafe fn zero() -> Self {
        Sums([0; LANES])
    }

    unsafe fn load(from: *const i8) -> [i8; BYTES] {
        // SAFETY: good for so many bytes, as the trait demands.
        unsafe { from.cast::<[i8; BYTES]>().read_unaligned() }
    }

    unsafe fn load_values(from: *const i8, step: usize) -> [i8; BYTES] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { Self::load(from) };
        match STEPS {
            1 => bytes,
            _ => bytes.map(|byte| LEVELS[usize::from(byte as u8 >> (4 * step) & 15)]),
        }
    }

    unsafe fn dot(mut self, multipliers: *const i8, bytes: [i8; BYTES]) -> Self {
        // SAFETY: the multipliers of a step, as the trait demands.
        let multipliers = unsafe { multipliers.cast::<[i16; STEP]>().read_unaligned() };
        for (sum, bytes) in self.0.iter_mut().zip(bytes.chunks_exact(STEP)) {
            for (&byte, multiplier) in bytes.iter().zip(multipliers) {
                *sum = sum.wrapping_add(i32::from(byte) * i32::from(multiplier));
            }
        }
        self
    }

    unsafe fn to_floats(self) -> Array {
        let floats = self.0.map(|x| x as f32);
        // SAFETY: 16 floats.
        unsafe { Array::load(floats.as_ptr()) }
    }
}

/// Codes and multipliers of 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct Words([i32; LANES]);

impl Dots for Words {
    const QUERIES: usize = 1;
    const LARGEST: f32 = WORD;
    const ELEMENTS: usize = 2;
    type Floats = Array;
    type Bytes = [i16; BYTES / 2];

    unsafe fn zero() -> Self {
        Words([0; LANES])
    }

    unsafe fn load(from: *const i8) -> [i16; BYTES / 2] {
        // SAFETY: good for so many bytes, as the trait demands.
        unsafe { from.cast::<[i16; BYTES / 2]>().read_unaligned() }
    }

    unsafe fn dot(mut self, multipliers: *const i8, codes: [i16; BYTES / 2]) -> Self {
        // SAFETY: the multipliers of a step, as the trait demands.
        let multipliers = unsafe { multipliers.cast::<[i16; 2]>().read_unaligned() };
        for (sum, codes) in self.0.iter_mut().zip(codes.chunks_exact(2)) {
            for (&code, multiplier) in codes.iter().zip(multipliers) {
                *sum = sum.wrapping_add(i32::from(code) * i32::from(multiplier));
            }
        }
        self
    }

    unsafe fn to_floats(self) -> Array {
        // SAFETY: as for bytes.
        unsafe { Sums::<1>(self.0).to_floats() }
    }
}
