//! Storing keys and values.

use super::SPAN;
use super::rotation::rotate;
use crate::generic::dots::{BYTES, LEVELS, STEP, WORD, word_range};
use crate::generic::lanes::{LANES, Lanes, lanes_at};
use crate::generic::math::EXP2_LARGEST;
use crate::generic::quantize::{SMALLEST, largest_magnitude};
use crate::kv::{ChunkStore, CodeChunk, HeadChunk, KEY_BLOCK};

/// Stores the key and the value of one position of a chunk.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn kv_store<L: Lanes>(
    chunk: &mut HeadChunk,
    position: usize,
    key: &[f32],
    value: &[f32],
) {
    let (key_width, value_width) = (chunk.key_width, chunk.value_width);
    let rotated = chunk.rotated;
    // SAFETY: the caller has the ISA.
    unsafe {
        match &mut chunk.store {
            ChunkStore::F32 { keys, values } => {
                let in_block = position % KEY_BLOCK;
                scatter(
                    key,
                    &mut keys[(position - in_block) * key_width + in_block..],
                );
                values[position * value_width..][..value.len()].copy_from_slice(value);
            }
            ChunkStore::Q16(store) => {
                store_key::<L, 2>(store, key_width, position, key);
                store_value::<L, 2>(store, value_width, position, value);
            }
            ChunkStore::Q8(store) => {
                store_key::<L, 1>(store, key_width, position, key);
                store_value::<L, 1>(store, value_width, position, value);
            }
            ChunkStore::K8V4(store) => {
                let in_eight = position % (2 * STEP);
                let values = &mut store.values[(position - in_eight) * value_width..];
                let (in_four, shift) = (in_eight % STEP, in_eight / STEP * 4);
                let mut value = value.to_vec();
                rotate(&mut value, rotated);
                let scale = quantize::<L, 1>(
                    &value,
                    BYTE,
                    #[inline(always)]
                    |from, codes| {
                        for (d, &code) in (from..).zip(codes) {
                            let byte = &mut values[d * STEP + in_four];
                            let other = *byte as u8 & !(15 << shift);
                            *byte = (other | NEAREST[usize::from(code as u8)] << shift) as i8;
                        }
                    },
                );
                // Attention rotates once more, which is `rotated` times the way back.
                store.value_scales[position] = scale / rotated as f32;
                store_key::<L, 1>(store, key_width, position, key);
            }
        }
    }
}

/// Vectors with larger elements become zero: the sum over a span of values times weights of attention, which are
/// up to 2 to the power of [`EXP2_LARGEST`], might not be finite.
const LARGEST: f32 = f32::MAX / ((1 << EXP2_LARGEST as usize) * SPAN) as f32;

/// The largest magnitude of INT8 codes.
const BYTE: f32 = 127.0;

/// Where an element of a lane lies in a line, with codes of `W` bytes.
#[inline(always)]
fn in_line<L: Lanes, const W: usize>(lane: usize, element: usize) -> usize {
    if W == 2 && L::HALVES {
        (element * LANES + lane) * W
    } else {
        lane * STEP + element * W
    }
}

/// Stores a key with codes of `W` bytes.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn store_key<L: Lanes, const W: usize>(
    store: &mut CodeChunk,
    key_width: usize,
    position: usize,
    key: &[f32],
) {
    let in_block = position % KEY_BLOCK;
    let block = (position - in_block) * key_width;
    let block = &mut store.keys[block..][..KEY_BLOCK * key_width];
    let range = if W == 1 { BYTE } else { word_range(key.len()) };
    // SAFETY: the caller has the ISA.
    let scale = unsafe {
        quantize::<L, W>(
            key,
            range,
            #[inline(always)]
            |from, bytes| {
                let lines = block.chunks_exact_mut(KEY_BLOCK * STEP);
                let lines = lines.skip(from * W / STEP);
                for (line, bytes) in lines.zip(bytes.chunks_exact(STEP)) {
                    for (element, bytes) in bytes.chunks_exact(W).enumerate() {
                        line[in_line::<L, W>(in_block, element)..][..W].copy_from_slice(bytes);
                    }
                }
            },
        )
    };
    store.key_scales[position] = scale;
}

/// Stores a value with codes of `W` bytes.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn store_value<L: Lanes, const W: usize>(
    store: &mut CodeChunk,
    value_width: usize,
    position: usize,
    value: &[f32],
) {
    let in_four = position % (STEP / W);
    let values = &mut store.values[(position - in_four) * value_width..];
    let range = if W == 1 { BYTE } else { WORD };
    // SAFETY: the caller has the ISA.
    let scale = unsafe {
        quantize::<L, W>(
            value,
            range,
            #[inline(always)]
            |from, bytes| {
                let line = &mut values[from * STEP..][..BYTES];
                for (lane, bytes) in bytes.chunks_exact(W).enumerate() {
                    line[in_line::<L, W>(lane, in_four)..][..W].copy_from_slice(bytes);
                }
            },
        )
    };
    store.value_scales[position] = scale;
}

/// For each INT8 code, as an unsigned byte, the INT4 code of the nearest level.
const NEAREST: [u8; 256] = {
    let mut nearest = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let code = byte as u8 as i8 as i32;
        let mut level = 1;
        while level < LEVELS.len() {
            let best = LEVELS[nearest[byte] as usize] as i32;
            if (LEVELS[level] as i32 - code).abs() < (best - code).abs() {
                nearest[byte] = level as u8;
            }
            level += 1;
        }
        byte += 1;
    }
    nearest
};

/// Puts the dimensions of a key into a block.
fn scatter(key: &[f32], block: &mut [f32]) {
    debug_assert!(block.len() > (key.len() - 1) * KEY_BLOCK);
    for (place, &x) in block.iter_mut().step_by(KEY_BLOCK).zip(key) {
        *place = x;
    }
}

/// Quantizes a vector to codes of `W` bytes and magnitudes up to `range`, 16 at a time, and returns the scale.
/// A vector with elements that are not finite, or beyond [`LARGEST`], becomes zero.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn quantize<L: Lanes, const W: usize>(
    x: &[f32],
    range: f32,
    mut put: impl FnMut(usize, &[i8]),
) -> f32 {
    // SAFETY: the caller has the ISA.
    let (largest, finite) = unsafe { largest_magnitude::<L>(x) };
    let usable = finite && (SMALLEST..LARGEST).contains(&largest);
    let inverse = if usable { range / largest } else { 0.0 };
    for from in (0..x.len()).step_by(LANES) {
        let mut codes = [0i8; 2 * LANES];
        if usable {
            // SAFETY: the caller has the ISA; 16 codes of one or two bytes.
            unsafe {
                let part = lanes_at::<L>(x, from).mul(L::splat(inverse)).round();
                match W {
                    1 => part.store_i8(codes.as_mut_ptr()),
                    _ => part.store_i16(codes.as_mut_ptr().cast()),
                }
            }
        }
        put(from, &codes[..W * LANES]);
    }
    if usable { largest / range } else { 0.0 }
}
