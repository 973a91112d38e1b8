//! Shared pieces of the benches.

use kinglet_kernels::packing::{Codes, Kind, Layout, PackedMatrix, pack_floats};

/// A packed matrix in memory of its own, at the alignment that kernels need.
pub struct Matrix {
    layout: Layout,
    bytes: Vec<u8>,
    start: usize,
}

impl Matrix {
    /// The matrix as kernels take it.
    pub fn matrix(&self) -> PackedMatrix<'_> {
        let bytes = &self.bytes[self.start..self.start + self.layout.bytes()];
        PackedMatrix::new(self.layout, bytes).expect("sized and aligned when made")
    }

    /// Kind and shape.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// A matrix with varied codes; its values do not matter to speed.
pub fn random_matrix(kind: Kind, rows: usize, cols: usize) -> Matrix {
    let layout = Layout::new(kind, rows, cols).expect("a sensible shape");
    let mut bytes = vec![0; layout.bytes() + 63];
    let start = bytes.as_ptr().align_offset(64);
    let packed = &mut bytes[start..start + layout.bytes()];
    if kind.is_quantized() {
        let mut codes = Codes::zeros(layout);
        for (i, code) in codes.codes.iter_mut().enumerate() {
            *code = (i * 7 % 16) as i8;
        }
        codes.scales.fill(half::f16::from_f32(0.01));
        codes.pack_into(packed).expect("sized above");
    } else {
        let weights: Vec<f32> = (0..rows * cols).map(|i| (i % 17) as f32 * 0.01).collect();
        pack_floats(&layout, &weights, packed).expect("sized above");
    }
    Matrix {
        layout,
        bytes,
        start,
    }
}
