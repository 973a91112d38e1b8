//! Dot products one by one.

use super::lanes::Array;
use crate::generic::dots::{BYTES, Dots, LEVELS, LONG, Multipliers, SHORT, STEP, words_at};
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
        let mut floats = [0.0f32; LANES];
        // SAFETY: 16 floats, 16 words.
        unsafe {
            x.store(floats.as_mut_ptr());
            let words = floats.map(|x| x as i16);
            to.as_mut_ptr()
                .cast::<[i16; LANES]>()
                .write_unaligned(words);
        }
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
