//! Linear layers, and several of them on one input.

use crate::error::Error;
use crate::format::{Activations, MatrixHandle, ModelFile};
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

    fn takes_twice(&self) -> bool {
        self.weights.activations() == Activations::Q8x2
    }

    fn job<'a>(&'a self, file: &'a ModelFile, out: &'a mut [f32]) -> MatmulJob<'a> {
        MatmulJob {
            weights: file.view(&self.weights),
            bias: self.bias.as_deref(),
            out,
        }
    }

    /// Row `row` of the weights as floats: an embedding lookup.
    pub fn row(&self, file: &ModelFile, row: usize, out: &mut [f32]) {
        file.view(&self.weights).row(row, out);
    }
}

/// Memory for the inputs of linear layers.
#[derive(Default)]
pub struct Inputs {
    quantized: QuantizedRows,
    /// For [`Activations::Q8x2`]: the input, and below it as many rows of what its codes lose.
    twice: Vec<f32>,
    quantized_twice: QuantizedRows,
    /// The products of both.
    products: Vec<f32>,
}

impl Inputs {
    /// Fills `twice` and its codes from `x`, whose codes are there.
    fn take_twice(&mut self, engine: &Engine, x: &[f32], cols: usize) {
        self.twice.clear();
        self.twice.extend_from_slice(x);
        self.twice.resize(2 * x.len(), 0.0);
        let residual = &mut self.twice[x.len()..];
        self.quantized.residual(x, cols, residual);
        engine.quantize(&self.twice, cols, &mut self.quantized_twice);
    }
}

/// Applies several layers to one input `x` (`[row][inputs]`), in one parallel pass; each output is
/// `[row][outputs]`. The input is quantized once, if any of the weights needs it; layers that take
/// it as the sum of two INT8 follow in a pass of their own.
pub fn forward<const N: usize>(
    engine: &Engine,
    file: &ModelFile,
    x: &[f32],
    inputs: &mut Inputs,
    layers: [(&Linear, &mut [f32]); N],
) {
    let cols = layers[0].0.weights.layout().cols();
    let quantized = layers
        .iter()
        .any(|(layer, _)| layer.weights.layout().kind().is_quantized());
    if quantized {
        engine.quantize(x, cols, &mut inputs.quantized);
    }
    let once = |inputs: &Inputs, jobs: &mut [MatmulJob]| {
        let input = MatmulInput {
            rows: x,
            cols,
            quantized: quantized.then_some(&inputs.quantized),
        };
        engine.matmul(input, jobs);
    };
    if !layers.iter().any(|(layer, _)| layer.takes_twice()) {
        once(inputs, &mut layers.map(|(layer, out)| layer.job(file, out)));
        return;
    }
    let (twice, others): (Vec<_>, Vec<_>) = layers
        .into_iter()
        .partition(|(layer, _)| layer.takes_twice());
    let others = others.into_iter().map(|(layer, out)| layer.job(file, out));
    once(inputs, &mut others.collect::<Vec<_>>());
    inputs.take_twice(engine, x, cols);
    forward_twice(engine, file, cols, inputs, twice);
}

/// `out = codes · weightsᵀ + rest · weightsᵀ + bias`, in this order. Both products are rows of one
/// matmul, so that the weights are read once.
fn forward_twice(
    engine: &Engine,
    file: &ModelFile,
    cols: usize,
    inputs: &mut Inputs,
    layers: Vec<(&Linear, &mut [f32])>,
) {
    let floats = layers.iter().map(|(_, out)| 2 * out.len()).sum();
    inputs.products.resize(floats, 0.0);
    let mut rest = &mut inputs.products[..];
    let mut jobs = Vec::with_capacity(layers.len());
    for (layer, out) in &layers {
        let (products, others) = rest.split_at_mut(2 * out.len());
        rest = others;
        jobs.push(MatmulJob {
            bias: None,
            ..layer.job(file, products)
        });
    }
    let input = MatmulInput {
        rows: &inputs.twice,
        cols,
        quantized: Some(&inputs.quantized_twice),
    };
    engine.matmul(input, &mut jobs);
    for ((layer, out), job) in layers.into_iter().zip(jobs) {
        let (codes, rest) = job.out.split_at(out.len());
        out.copy_from_slice(codes);
        engine.add(out, rest);
        if let Some(bias) = &layer.bias {
            for row in out.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(out, b)| *out += b);
            }
        }
    }
}
