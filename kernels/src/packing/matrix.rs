//! A view of packed bytes as a matrix, and the packing of plain floats.

use super::codes::{take_plane, unpack_codes};
use super::layout::{Kind, Layout, PANEL, PackingError};
use half::f16;

/// A packed matrix in borrowed memory, typically a mapped file. Length and alignment are checked.
#[derive(Clone, Copy, Debug)]
pub struct PackedMatrix<'a> {
    layout: Layout,
    bytes: &'a [u8],
}

impl<'a> PackedMatrix<'a> {
    /// Views `bytes` as a matrix of that layout.
    ///
    /// # Errors
    /// Bytes of another length than the layout's, or that do not start on a 64-byte boundary.
    pub fn new(layout: Layout, bytes: &'a [u8]) -> Result<PackedMatrix<'a>, PackingError> {
        layout.check_len(bytes.len())?;
        if !bytes.as_ptr().addr().is_multiple_of(64) {
            return Err(PackingError::Alignment);
        }
        Ok(PackedMatrix { layout, bytes })
    }

    /// Kind and shape.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The bytes of panel `index`.
    pub fn panel(&self, index: usize) -> &'a [u8] {
        &self.bytes[index * self.layout.panel_bytes()..][..self.layout.panel_bytes()]
    }

    /// The bytes of consecutive panels.
    pub fn panels(&self, panels: std::ops::Range<usize>) -> &'a [u8] {
        &self.bytes
            [panels.start * self.layout.panel_bytes()..panels.end * self.layout.panel_bytes()]
    }

    /// Writes row `row` as floats into `out` (`cols` long): an embedding lookup.
    ///
    /// # Panics
    /// If `row` or the length of `out` is out of range.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let layout = &self.layout;
        assert!(
            row < layout.rows() && out.len() == layout.cols(),
            "row or length out of range"
        );
        let (panel, lane) = (self.panel(row / PANEL), row % PANEL);
        match layout.kind() {
            Kind::F32 => {
                for (value, k) in out.iter_mut().zip(panel.chunks_exact(4 * PANEL)) {
                    *value = f32::from_le_bytes(k[lane * 4..][..4].try_into().expect("4 bytes"));
                }
            }
            Kind::F16 => {
                for (value, k) in out.iter_mut().zip(panel.chunks_exact(2 * PANEL)) {
                    *value = f16::from_le_bytes([k[lane * 2], k[lane * 2 + 1]]).to_f32();
                }
            }
            kind => {
                let group = kind.group().expect("a quantized kind").len();
                self.quantized_row(panel, lane, group, kind.zero_code(), out);
            }
        }
    }

    fn quantized_row(&self, panel: &[u8], lane: usize, group: usize, zero: i8, out: &mut [f32]) {
        let layout = &self.layout;
        let mut codes = vec![0; layout.padded_cols()];
        let mut scales = vec![f16::ZERO; layout.groups()];
        let mut minimums = vec![f16::ZERO; layout.groups()];
        unpack_codes(layout, &panel[layout.codes_offset()..], lane, &mut codes);
        take_plane(panel, lane, &mut scales);
        if let Some(offset) = layout.minimums_offset() {
            take_plane(&panel[offset..], lane, &mut minimums);
        }
        for (g, (values, codes)) in out.chunks_mut(group).zip(codes.chunks(group)).enumerate() {
            let (scale, minimum) = (scales[g].to_f32(), minimums[g].to_f32());
            for (value, &code) in values.iter_mut().zip(codes) {
                *value = scale * f32::from(code - zero) + minimum;
            }
        }
    }
}

/// Packs `rows` of plain floats (`[rows][cols]`) as `f16` or `f32`. `out` must be
/// `layout.bytes()` long.
///
/// # Errors
/// `out` or `weights` of another length than the layout's.
///
/// # Panics
/// If the kind is quantized.
pub fn pack_floats(layout: &Layout, weights: &[f32], out: &mut [u8]) -> Result<(), PackingError> {
    layout.check_len(out.len())?;
    assert_eq!(
        weights.len(),
        layout.rows() * layout.cols(),
        "weights against layout"
    );
    out.fill(0);
    for (row, weights) in weights.chunks_exact(layout.cols()).enumerate() {
        let panel = &mut out[row / PANEL * layout.panel_bytes()..][..layout.panel_bytes()];
        let lane = row % PANEL;
        for (k, &w) in weights.iter().enumerate() {
            let at = k * PANEL + lane;
            match layout.kind() {
                Kind::F32 => panel[at * 4..][..4].copy_from_slice(&w.to_le_bytes()),
                Kind::F16 => {
                    panel[at * 2..][..2].copy_from_slice(&f16::from_f32(w).to_le_bytes());
                }
                kind => panic!("{kind} is packed from codes"),
            }
        }
    }
    Ok(())
}

impl Layout {
    /// Whether a buffer of `found` bytes has this layout's size.
    pub(super) fn check_len(&self, found: usize) -> Result<(), PackingError> {
        if found == self.bytes() {
            return Ok(());
        }
        Err(PackingError::Length {
            kind: self.kind(),
            rows: self.rows(),
            cols: self.cols(),
            expected: self.bytes(),
            found,
        })
    }
}
