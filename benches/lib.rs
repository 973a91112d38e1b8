//! Shared pieces of the benches.

use kinglet_kernels::activations::QuantizedRows;
use kinglet_kernels::packing::{Codes, Kind, Layout, PackedMatrix, pack_floats};
use kinglet_kernels::{Engine, MatmulInput, MatmulJob};

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

/// A matrix with an input, ready to be multiplied again and again.
pub struct Product {
    weights: Matrix,
    x: Vec<f32>,
    quantized: QuantizedRows,
    out: Vec<f32>,
}

impl Product {
    /// A matrix of `rows` x `cols` and `tokens` rows of input.
    pub fn new(
        engine: &Engine,
        kind: Kind,
        (rows, cols): (usize, usize),
        tokens: usize,
    ) -> Product {
        let weights = random_matrix(kind, rows, cols);
        let x: Vec<f32> = (0..tokens * cols).map(|i| (i as f32).sin()).collect();
        let mut quantized = QuantizedRows::default();
        engine.quantize(&x, cols, &mut quantized);
        let out = vec![0.0; tokens * rows];
        Product {
            weights,
            x,
            quantized,
            out,
        }
    }

    /// Bytes of the weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.layout().bytes()
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> usize {
        self.x.len() * self.weights.layout().rows()
    }

    /// Multiplies once.
    pub fn run(&mut self, engine: &Engine) {
        let input = MatmulInput {
            rows: &self.x,
            cols: self.weights.layout().cols(),
            quantized: Some(&self.quantized),
        };
        let mut job = [MatmulJob {
            weights: self.weights.matrix(),
            bias: None,
            out: &mut self.out,
        }];
        engine.matmul(input, &mut job);
        std::hint::black_box(self.out[0]);
    }
}
