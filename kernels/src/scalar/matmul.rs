//! The matmul as it is defined, one output at a time.

use crate::activations::ACTIVATION_GROUP;
use crate::matmul::{Block, MatmulKernels, Micro, Tiles};
use crate::packing::PANEL;
use half::f16;

pub(crate) static MATMUL: MatmulKernels = MatmulKernels {
    q4: Tiles {
        by_tokens: &[q4::<false> as Micro],
    },
    q4_minimum: Tiles {
        by_tokens: &[q4::<true> as Micro],
    },
    q8: Tiles {
        by_tokens: &[q8 as Micro],
    },
    q3: Tiles {
        by_tokens: &[split::<2, 1> as Micro],
    },
    q5: Tiles {
        by_tokens: &[split::<4, 1> as Micro],
    },
    q6: Tiles {
        by_tokens: &[split::<4, 2> as Micro],
    },
    f16: Tiles {
        by_tokens: &[float::<f16> as Micro],
    },
    f32: Tiles {
        by_tokens: &[float::<f32> as Micro],
    },
    many: None,
};

/// One token of quantized activations.
struct Token<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
}

/// # Safety
/// The block must be of a quantized kind.
unsafe fn token(block: &Block) -> Token<'_> {
    // SAFETY: a block of a quantized kind has at least one token of these lengths.
    unsafe {
        Token {
            codes: std::slice::from_raw_parts(block.x_codes, block.x_stride),
            scales: std::slice::from_raw_parts(block.x_scales, block.x_groups()),
            sums: std::slice::from_raw_parts(block.x_sums, block.x_groups()),
        }
    }
}

/// # Safety
/// As [`Micro`].
unsafe fn panel(block: &Block, index: usize) -> &[u8] {
    // SAFETY: `index` is below `count`, and a panel has `panel_bytes` bytes.
    unsafe { std::slice::from_raw_parts(block.panel(index), block.panel_bytes) }
}

fn half_at(plane: &[u8], group: usize, row: usize) -> f32 {
    let at = (group * PANEL + row) * 2;
    f16::from_le_bytes([plane[at], plane[at + 1]]).to_f32()
}

/// # Safety
/// As [`Micro`].
unsafe fn q4<const MINIMUM: bool>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller promises a q4 block.
    let token = unsafe { token(block) };
    for p in 0..block.count {
        // SAFETY: `p` is below `count`.
        let panel = unsafe { panel(block, p) };
        for row in 0..PANEL {
            let code = |k: usize| {
                let byte = panel[block.codes + k / 8 * (4 * PANEL) + row * 4 + k % 4];
                i32::from(if k % 8 < 4 { byte & 15 } else { byte >> 4 })
            };
            let zero = if MINIMUM { 0 } else { 8 };
            let mut acc = 0.0f32;
            for g in 0..block.groups * block.parts {
                let columns = g * ACTIVATION_GROUP..(g + 1) * ACTIVATION_GROUP;
                let sum: i32 = columns
                    .map(|k| (code(k) - zero) * i32::from(token.codes[k]))
                    .sum();
                let scale = half_at(panel, g / block.parts, row) * token.scales[g];
                acc = scale.mul_add(sum as f32, acc);
                if MINIMUM {
                    let minimum = half_at(&panel[block.minimums..], g / block.parts, row);
                    acc = minimum.mul_add(token.scales[g] * token.sums[g] as f32, acc);
                }
            }
            // SAFETY: the caller's `out` has 16 floats per panel.
            unsafe { *out.add(p * PANEL + row) = acc };
        }
    }
}

/// # Safety
/// As [`Micro`].
unsafe fn q8(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller promises a q8 block.
    let token = unsafe { token(block) };
    for p in 0..block.count {
        // SAFETY: `p` is below `count`.
        let panel = unsafe { panel(block, p) };
        for row in 0..PANEL {
            let code = |k: usize| {
                i32::from(panel[block.codes + k / 4 * (4 * PANEL) + row * 4 + k % 4] as i8)
            };
            let mut acc = 0.0f32;
            for g in 0..block.groups * block.parts {
                let columns = g * ACTIVATION_GROUP..(g + 1) * ACTIVATION_GROUP;
                let sum: i32 = columns.map(|k| code(k) * i32::from(token.codes[k])).sum();
                let scale = half_at(panel, g / block.parts, row) * token.scales[g];
                acc = scale.mul_add(sum as f32, acc);
            }
            // SAFETY: the caller's `out` has 16 floats per panel.
            unsafe { *out.add(p * PANEL + row) = acc };
        }
    }
}

/// Codes of `LOW + HIGH` bits in two planes.
///
/// # Safety
/// As [`Micro`].
unsafe fn split<const LOW: usize, const HIGH: usize>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller promises a block of that kind.
    let token = unsafe { token(block) };
    let bits = LOW + HIGH;
    for p in 0..block.count {
        // SAFETY: `p` is below `count`.
        let panel = unsafe { panel(block, p) };
        for row in 0..PANEL {
            let plane = |line: usize, width: usize, k: usize| {
                let (quad, columns) = (k % ACTIVATION_GROUP / 4, 8 / width);
                let line = k / ACTIVATION_GROUP * bits + line + quad / columns;
                let byte = panel[block.codes + line * (4 * PANEL) + row * 4 + k % 4];
                i32::from(byte >> (quad % columns * width)) & ((1 << width) - 1)
            };
            let code = |k: usize| plane(0, LOW, k) | plane(LOW, HIGH, k) << LOW;
            let zero = 1 << (bits - 1);
            let mut acc = 0.0f32;
            for g in 0..block.groups * block.parts {
                let columns = g * ACTIVATION_GROUP..(g + 1) * ACTIVATION_GROUP;
                let sum: i32 = columns
                    .map(|k| (code(k) - zero) * i32::from(token.codes[k]))
                    .sum();
                let scale = half_at(panel, g / block.parts, row) * token.scales[g];
                acc = scale.mul_add(sum as f32, acc);
            }
            // SAFETY: the caller's `out` has 16 floats per panel.
            unsafe { *out.add(p * PANEL + row) = acc };
        }
    }
}

/// A float kind: how to read one weight.
trait Float: Copy {
    fn read(panel: &[u8], at: usize) -> f32;
}

impl Float for f32 {
    fn read(panel: &[u8], at: usize) -> f32 {
        f32::from_le_bytes(panel[at * 4..][..4].try_into().expect("4 bytes"))
    }
}

impl Float for f16 {
    fn read(panel: &[u8], at: usize) -> f32 {
        f16::from_le_bytes([panel[at * 2], panel[at * 2 + 1]]).to_f32()
    }
}

/// # Safety
/// As [`Micro`].
unsafe fn float<W: Float>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: a block has at least one token of `cols` floats.
    let x = unsafe { std::slice::from_raw_parts(block.x, block.cols) };
    for p in 0..block.count {
        // SAFETY: `p` is below `count`.
        let panel = unsafe { panel(block, p) };
        for row in 0..PANEL {
            let mut parts = [0.0f32; 4];
            for (k, &x) in x.iter().enumerate() {
                parts[k % 4] = W::read(panel, k * PANEL + row).mul_add(x, parts[k % 4]);
            }
            // SAFETY: the caller's `out` has 16 floats per panel.
            unsafe {
                *out.add(p * PANEL + row) = (parts[0] + parts[1]) + (parts[2] + parts[3]);
            }
        }
    }
}
