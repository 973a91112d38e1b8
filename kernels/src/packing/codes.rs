//! Quantized weights in plain row order: what quantizers write and what packing reads.

use super::layout::{Kind, Layout, PANEL, PackingError};
use crate::activations::ACTIVATION_GROUP;
use half::f16;

/// Codes, scales and minimums of a quantized matrix, or of some of its rows, in row-major order.
///
/// `codes` is `[rows][padded_cols]`: `q8` holds -128..=127, the others 0 to `2^bits - 1`. `scales`,
/// and for kinds with minimum `minimums`, are `[rows][groups]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    layout: Layout,
    /// The integers, `[rows][padded_cols]`.
    pub codes: Vec<i8>,
    /// Scales, `[rows][groups]`.
    pub scales: Vec<f16>,
    /// Minimums, `[rows][groups]`, empty for symmetric kinds.
    pub minimums: Vec<f16>,
}

impl Codes {
    /// All-zero weights of that layout.
    ///
    /// # Panics
    /// If the kind is not quantized.
    pub fn zeros(layout: Layout) -> Codes {
        assert!(
            layout.kind().is_quantized(),
            "{} has no codes",
            layout.kind()
        );
        let scales = vec![f16::ZERO; layout.rows() * layout.groups()];
        let minimums = if layout.minimums_offset().is_some() {
            scales.clone()
        } else {
            vec![]
        };
        let codes = vec![layout.kind().zero_code(); layout.rows() * layout.padded_cols()];
        Codes {
            layout,
            codes,
            scales,
            minimums,
        }
    }

    /// Kind and shape.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The weight at a row and column.
    pub fn weight(&self, row: usize, col: usize) -> f32 {
        let group_len = self.layout.padded_cols() / self.layout.groups();
        let at = row * self.layout.groups() + col / group_len;
        let code = self.codes[row * self.layout.padded_cols() + col];
        let scale = self.scales[at].to_f32();
        match self.minimums.get(at) {
            Some(minimum) => scale * f32::from(code) + minimum.to_f32(),
            None => scale * f32::from(code - self.layout.kind().zero_code()),
        }
    }

    /// Packs the rows into panels. `out` must be `layout.bytes()` long.
    ///
    /// # Errors
    /// `out` of another length.
    pub fn pack_into(&self, out: &mut [u8]) -> Result<(), PackingError> {
        self.layout.check_len(out.len())?;
        out.fill(0);
        let layout = &self.layout;
        for (row, codes) in self.codes.chunks_exact(layout.padded_cols()).enumerate() {
            let panel = &mut out[row / PANEL * layout.panel_bytes()..][..layout.panel_bytes()];
            let lane = row % PANEL;
            let groups = row * layout.groups()..(row + 1) * layout.groups();
            put_plane(panel, lane, &self.scales[groups.clone()]);
            if let Some(offset) = layout.minimums_offset() {
                put_plane(&mut panel[offset..], lane, &self.minimums[groups]);
            }
            let packed = &mut panel[layout.codes_offset()..];
            for (k, &code) in codes.iter().enumerate() {
                let mut rest = code as u8;
                for place in places(layout.kind(), lane, k) {
                    packed[place.byte] |= (rest & place.mask) << place.shift;
                    rest = rest.checked_shr(place.bits).unwrap_or(0);
                }
            }
        }
        Ok(())
    }

    /// The inverse of [`Codes::pack_into`].
    ///
    /// # Errors
    /// `packed` of another length than the layout's.
    ///
    /// # Panics
    /// If the kind is not quantized.
    pub fn unpack(layout: Layout, packed: &[u8]) -> Result<Codes, PackingError> {
        layout.check_len(packed.len())?;
        let mut plain = Codes::zeros(layout);
        for row in 0..layout.rows() {
            let panel = &packed[row / PANEL * layout.panel_bytes()..][..layout.panel_bytes()];
            let lane = row % PANEL;
            let groups = row * layout.groups()..(row + 1) * layout.groups();
            take_plane(panel, lane, &mut plain.scales[groups.clone()]);
            if let Some(offset) = layout.minimums_offset() {
                take_plane(&panel[offset..], lane, &mut plain.minimums[groups]);
            }
            let codes = &mut plain.codes[row * layout.padded_cols()..][..layout.padded_cols()];
            unpack_codes(&layout, &panel[layout.codes_offset()..], lane, codes);
        }
        Ok(plain)
    }
}

/// One row's codes out of a panel's plane of codes.
pub(super) fn unpack_codes(layout: &Layout, packed: &[u8], lane: usize, codes: &mut [i8]) {
    // Four columns lie side by side.
    for (quad, codes) in codes.chunks_mut(4).enumerate() {
        let (mut values, mut low) = ([0; 4], 0);
        for place in places(layout.kind(), lane, quad * 4) {
            for (value, byte) in values.iter_mut().zip(&packed[place.byte..][..4]) {
                *value |= ((byte >> place.shift) & place.mask) << low;
            }
            low += place.bits;
        }
        for (code, value) in codes.iter_mut().zip(values) {
            *code = value as i8;
        }
    }
}

/// Where some bits of a code are.
struct Place {
    byte: usize,
    shift: u32,
    bits: u32,
    mask: u8,
}

/// Where the bits of the code of column `k` are, lowest first. The planes of
/// [`ACTIVATION_GROUP`] columns stand one behind the other; one of `w` bits is `w` lines long, each
/// with four columns of every row for each of its `8 / w` shifts.
fn places(kind: Kind, lane: usize, k: usize) -> impl Iterator<Item = Place> {
    let (part, quad) = (k / ACTIVATION_GROUP, k % ACTIVATION_GROUP / 4);
    let mut line = part * kind.code_bits();
    kind.planes().iter().map(move |&width| {
        let (row, shift) = (quad / (8 / width), quad % (8 / width) * width);
        let byte = (line + row) * (4 * PANEL) + lane * 4 + k % 4;
        line += width;
        Place {
            byte,
            shift: shift as u32,
            bits: width as u32,
            mask: u8::MAX >> (8 - width),
        }
    })
}

fn put_plane(plane: &mut [u8], lane: usize, values: &[f16]) {
    for (row, value) in plane.chunks_exact_mut(PANEL * 2).zip(values) {
        row[lane * 2..][..2].copy_from_slice(&value.to_le_bytes());
    }
}

/// One row's scales (or minimums) out of their plane.
pub(super) fn take_plane(plane: &[u8], lane: usize, values: &mut [f16]) {
    for (row, value) in plane.chunks_exact(PANEL * 2).zip(values) {
        *value = f16::from_le_bytes([row[lane * 2], row[lane * 2 + 1]]);
    }
}
