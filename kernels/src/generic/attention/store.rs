//! Storing keys and values.

use super::rotation::rotate;
use crate::generic::dots::{LEVELS, STEP};
use crate::generic::lanes::{LANES, Lanes, lanes_at};
use crate::generic::quantize::{SMALLEST, largest_magnitude};
use crate::kv::{ChunkStore, HeadChunk, Int8Chunk, KEY_BLOCK};

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
    let in_block = position % KEY_BLOCK;
    let key_at = (position - in_block) * key_width + in_block;
    let rotated = chunk.rotated;
    // SAFETY: the caller has the ISA.
    unsafe {
        match &mut chunk.store {
            ChunkStore::F32 { keys, values } => {
                scatter(key, &mut keys[key_at..]);
                values[position * value_width..][..value.len()].copy_from_slice(value);
            }
            ChunkStore::F16 { keys, values } => {
                let keys = &mut keys[key_at..];
                let values = &mut values[position * value_width..];
                for from in (0..key.len()).step_by(LANES) {
                    let len = LANES.min(key.len() - from);
                    let mut halves = [0u16; LANES];
                    lanes_at::<L>(key, from).store_f16(halves.as_mut_ptr());
                    scatter(&halves[..len], &mut keys[from * KEY_BLOCK..]);
                    let row = &mut values[from..][..LANES];
                    lanes_at::<L>(value, from).store_f16(row.as_mut_ptr());
                }
            }
            ChunkStore::Q8(store) => {
                let in_four = position % STEP;
                let values = &mut store.values[(position - in_four) * value_width..];
                store.value_scales[position] = quantize::<L>(
                    value,
                    #[inline(always)]
                    |from, codes| {
                        for (d, &code) in (from..).zip(codes) {
                            values[d * STEP + in_four] = code;
                        }
                    },
                );
                store_key::<L>(store, key_width, position, key);
            }
            ChunkStore::K8V4(store) => {
                let in_eight = position % (2 * STEP);
                let values = &mut store.values[(position - in_eight) * value_width..];
                let (in_four, shift) = (in_eight % STEP, in_eight / STEP * 4);
                let mut value = value.to_vec();
                rotate(&mut value, rotated);
                let scale = quantize::<L>(
                    &value,
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
                store_key::<L>(store, key_width, position, key);
            }
        }
    }
}

/// Stores an INT8 key.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn store_key<L: Lanes>(
    store: &mut Int8Chunk,
    key_width: usize,
    position: usize,
    key: &[f32],
) {
    let in_block = position % KEY_BLOCK;
    let keys = &mut store.keys[(position - in_block) * key_width + in_block * STEP..];
    // SAFETY: the caller has the ISA.
    let scale = unsafe {
        quantize::<L>(
            key,
            #[inline(always)]
            |from, codes| {
                let fours = codes.chunks_exact(STEP).take((key_width - from) / STEP);
                for (four, codes) in (from / STEP..).zip(fours) {
                    keys[four * KEY_BLOCK * STEP..][..STEP].copy_from_slice(codes);
                }
            },
        )
    };
    store.key_scales[position] = scale;
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
fn scatter<E: Copy>(key: &[E], block: &mut [E]) {
    debug_assert!(block.len() > (key.len() - 1) * KEY_BLOCK);
    for (place, &x) in block.iter_mut().step_by(KEY_BLOCK).zip(key) {
        *place = x;
    }
}

/// Quantizes a vector to INT8, 16 codes at a time, and returns the scale. A vector with elements that
/// are not finite becomes zero.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn quantize<L: Lanes>(x: &[f32], mut put: impl FnMut(usize, &[i8; LANES])) -> f32 {
    // SAFETY: the caller has the ISA.
    let (largest, finite) = unsafe { largest_magnitude::<L>(x) };
    let usable = finite && largest >= SMALLEST;
    let inverse = if usable { 127.0 / largest } else { 0.0 };
    for from in (0..x.len()).step_by(LANES) {
        let mut codes = [0i8; LANES];
        if usable {
            // SAFETY: the caller has the ISA; 16 codes.
            unsafe {
                let part = lanes_at::<L>(x, from);
                part.mul(L::splat(inverse))
                    .round()
                    .store_i8(codes.as_mut_ptr());
            }
        }
        put(from, &codes);
    }
    if usable { largest / 127.0 } else { 0.0 }
}
