//! Linear layers, and several of them on one input.

use crate::error::Error;
use crate::format::{MatrixHandle, ModelFile};
use kinglet_kernels::activations::QuantizedRows;
use kinglet_kernels::{Engine, MatmulInput, MatmulJob};

/// A linear layer, `out = x · weightsᵀ + bias`.
///
/// Packed densely so far; a low-rank pair, or a correction beside the dense weights, is a field more
/// here and a matmul more in [`forward`].
pub struct Linear {
    weights: MatrixHandle,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// The matrix `name` and, if asked for, the bias `name_bias`.
    ///
    /// # Errors
    /// A tensor that the file lacks.
    pub fn open(file: &ModelFile, name: &str, bias: bool) -> Result<Linear, Error> {
        let weights = file.matrix_handle(name)?;
        let bias = bias.then(|| file.vector(&format!("{name}_bias")).map(<[f32]>::to_vec));
        Ok(Linear {
            weights,
            bias: bias.transpose()?,
        })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.weights.layout().rows()
    }

    /// Bytes that one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        self.weights.layout().bytes()
    }

    /// Weights, padding not counted.
    pub fn weights(&self) -> usize {
        self.weights.layout().rows() * self.weights.layout().cols()
    }

    /// Row `row` of the weights as floats: an embedding lookup.
    pub fn row(&self, file: &ModelFile, row: usize, out: &mut [f32]) {
        file.view(&self.weights).row(row, out);
    }
}

/// Applies several layers to one input `x` (`[row][inputs]`), in one parallel pass; each output is
/// `[row][outputs]`. The input is quantized once, if any of the weights needs it.
pub fn forward<const N: usize>(
    engine: &Engine,
    file: &ModelFile,
    x: &[f32],
    scratch: &mut QuantizedRows,
    layers: [(&Linear, &mut [f32]); N],
) {
    let cols = layers[0].0.weights.layout().cols();
    let quantized = layers
        .iter()
        .any(|(layer, _)| layer.weights.layout().kind().is_quantized());
    if quantized {
        engine.quantize(x, cols, scratch);
    }
    let input = MatmulInput {
        rows: x,
        cols,
        quantized: quantized.then_some(&*scratch),
    };
    let mut jobs = layers.map(|(layer, out)| MatmulJob {
        weights: file.view(&layer.weights),
        bias: layer.bias.as_deref(),
        out,
    });
    engine.matmul(input, &mut jobs);
}
