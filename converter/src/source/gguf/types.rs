//! The types of ggml tensors, and their blocks as floats.

use super::k_quants;
use half::{bf16, f16};

/// A type that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs)]
pub enum GgmlType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl GgmlType {
    /// The type of a number in a file.
    ///
    /// # Errors
    /// A type that cannot be read.
    pub fn from_number(number: u32) -> Result<GgmlType, String> {
        Ok(match number {
            0 => GgmlType::F32,
            1 => GgmlType::F16,
            2 => GgmlType::Q4_0,
            3 => GgmlType::Q4_1,
            6 => GgmlType::Q5_0,
            7 => GgmlType::Q5_1,
            8 => GgmlType::Q8_0,
            10 => GgmlType::Q2_K,
            11 => GgmlType::Q3_K,
            12 => GgmlType::Q4_K,
            13 => GgmlType::Q5_K,
            14 => GgmlType::Q6_K,
            30 => GgmlType::BF16,
            _ => {
                return Err(format!(
                    "type number {number} is not supported: expected F32, F16, BF16, Q4_0, Q4_1, \
                     Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K"
                ));
            }
        })
    }

    /// Elements and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            GgmlType::F32 => (1, 4),
            GgmlType::F16 | GgmlType::BF16 => (1, 2),
            GgmlType::Q4_0 => (32, 18),
            GgmlType::Q4_1 => (32, 20),
            GgmlType::Q5_0 => (32, 22),
            GgmlType::Q5_1 => (32, 24),
            GgmlType::Q8_0 => (32, 34),
            GgmlType::Q2_K => (256, 84),
            GgmlType::Q3_K => (256, 110),
            GgmlType::Q4_K => (256, 144),
            GgmlType::Q5_K => (256, 176),
            GgmlType::Q6_K => (256, 210),
        }
    }

    /// Whole blocks as floats. `out` has as many elements as the blocks.
    pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) {
        let (len, bytes) = self.block();
        let blocks = blocks.chunks_exact(bytes);
        for (block, out) in blocks.zip(out.chunks_exact_mut(len)) {
            match self {
                GgmlType::F32 => {
                    out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]])
                }
                GgmlType::F16 => out[0] = f16_at(block, 0),
                GgmlType::BF16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                GgmlType::Q4_0 => {
                    let d = f16_at(block, 0);
                    nibbles(&block[2..], |j, q| out[j] = d * (f32::from(q) - 8.0));
                }
                GgmlType::Q4_1 => {
                    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
                    nibbles(&block[4..], |j, q| out[j] = d * f32::from(q) + m);
                }
                GgmlType::Q5_0 => {
                    let d = f16_at(block, 0);
                    let high = u32_at(block, 2);
                    nibbles(&block[6..], |j, q| {
                        out[j] = d * (f32::from(q | bit(high, j) << 4) - 16.0);
                    });
                }
                GgmlType::Q5_1 => {
                    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
                    let high = u32_at(block, 4);
                    nibbles(&block[8..], |j, q| {
                        out[j] = d * f32::from(q | bit(high, j) << 4) + m;
                    });
                }
                GgmlType::Q8_0 => {
                    let d = f16_at(block, 0);
                    for (out, &q) in out.iter_mut().zip(&block[2..]) {
                        *out = d * f32::from(q as i8);
                    }
                }
                GgmlType::Q2_K => k_quants::q2(block, out),
                GgmlType::Q3_K => k_quants::q3(block, out),
                GgmlType::Q4_K => k_quants::q4(block, out),
                GgmlType::Q5_K => k_quants::q5(block, out),
                GgmlType::Q6_K => k_quants::q6(block, out),
            }
        }
    }
}

/// The 32 nibbles of 16 bytes: low ones first.
pub fn nibbles(bytes: &[u8], mut each: impl FnMut(usize, u8)) {
    for (j, &byte) in bytes.iter().enumerate() {
        each(j, byte & 15);
        each(j + bytes.len(), byte >> 4);
    }
}

/// The f16 at byte `at`.
pub fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn bit(bits: u32, at: usize) -> u8 {
    (bits >> at & 1) as u8
}
