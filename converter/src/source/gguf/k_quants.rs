//! The "k-quants": blocks of 256 with scales of their own for each 16 or 32.

use super::types::f16_at;

/// `Q2_K`: scales (4 bits each, with minimums), 2-bit codes, scale of scales and of minimums.
pub fn q2(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let (scale, minimum) = (
            d * f32::from(scales[i] & 15),
            dmin * f32::from(scales[i] >> 4),
        );
        let (from, shift) = plane_of_two_bits(i);
        for (out, code) in out.iter_mut().zip(&codes[from..]) {
            *out = scale * f32::from(code >> shift & 3) - minimum;
        }
    }
}

/// `Q3_K`: high bits, 2-bit codes, 6-bit scales, scale of scales.
pub fn q3(block: &[u8], out: &mut [f32]) {
    let (high, codes, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16_at(block, 108);
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let low = if i < 8 {
            packed[i] & 15
        } else {
            packed[i - 8] >> 4
        };
        let top = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        let scale = d * (f32::from(low | top << 4) - 32.0);
        let (from, shift) = plane_of_two_bits(i);
        let mask = 1u8 << (i / 2);
        for (l, out) in out.iter_mut().enumerate() {
            let code = f32::from(codes[from + l] >> shift & 3);
            let high = high[i % 2 * 16 + l] & mask;
            *out = scale * (code - if high == 0 { 4.0 } else { 0.0 });
        }
    }
}

/// `Q4_K`: scale of scales and of minimums, 6-bit scales and minimums, 4-bit codes.
pub fn q4(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[4..16], &block[16..144]);
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(block, scales, i);
        let codes = &codes[i / 2 * 32..];
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code >> (i % 2 * 4) & 15) - minimum;
        }
    }
}

/// `Q5_K`: as `Q4_K`, with a plane of fifth bits.
pub fn q5(block: &[u8], out: &mut [f32]) {
    let (scales, high, codes) = (&block[4..16], &block[16..48], &block[48..176]);
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(block, scales, i);
        let codes = &codes[i / 2 * 32..];
        for (l, out) in out.iter_mut().enumerate() {
            let code = codes[l] >> (i % 2 * 4) & 15 | (high[l] >> i & 1) << 4;
            *out = scale * f32::from(code) - minimum;
        }
    }
}

/// `Q6_K`: low nibbles, high 2-bit planes, 8-bit scales, scale of scales.
pub fn q6(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = f16_at(block, 208);
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[i] as i8);
        // Each half of 128 has four rows of 32: nibbles of two rows share a byte.
        let (half, row, from) = (i / 8, i % 8 / 2, i % 2 * 16);
        let low = &low[half * 64 + row % 2 * 32 + from..];
        let high = &high[half * 32 + from..];
        for (l, out) in out.iter_mut().enumerate() {
            let nibble = low[l] >> (row / 2 * 4) & 15;
            let top = high[l] >> (row * 2) & 3;
            *out = scale * (f32::from(nibble | top << 4) - 32.0);
        }
    }
}

/// Where the 2-bit codes of the `i`-th 16 stand: first byte and shift.
fn plane_of_two_bits(i: usize) -> (usize, usize) {
    (i / 8 * 32 + i % 2 * 16, i % 8 / 2 * 2)
}

/// The 6-bit scale and minimum of the `i`-th 32, times their own scales.
fn scale_and_minimum(block: &[u8], packed: &[u8], i: usize) -> (f32, f32) {
    let (scale, minimum) = if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        (
            packed[i + 4] & 15 | packed[i - 4] >> 6 << 4,
            packed[i + 4] >> 4 | packed[i] >> 6 << 4,
        )
    };
    (
        f16_at(block, 0) * f32::from(scale),
        f16_at(block, 2) * f32::from(minimum),
    )
}
