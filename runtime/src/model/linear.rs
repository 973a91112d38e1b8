//! Linear layers, and several of them on one input.

use crate::error::Error;
use crate::format::{Activations, MatrixHandle, ModelFile, names};
use kinglet_kernels::activations::QuantizedRows;
use kinglet_kernels::{Engine, MatmulInput, MatmulJob};

/// A linear layer, `out = x · weightsᵀ + bias`, and a correction that is added where the file has one.
pub struct Linear {
    weights: MatrixHandle,
    bias: Option<Vec<f32>>,
    correction: Option<Correction>,
}

/// What quantization cost the weights, cut to a low rank (LQER, Zhang et al. 2024):
/// `(x · narrowᵀ) · widenᵀ`.
struct Correction {
    /// `[rank][inputs]`
    narrow: MatrixHandle,
    /// `[outputs][rank]`
    widen: MatrixHandle,
}

impl Correction {
    fn matrices(&self) -> [&MatrixHandle; 2] {
        [&self.narrow, &self.widen]
    }
}

impl Linear {
    /// The matrix `name`, with the bias and the correction that the file has for it.
    ///
    /// # Errors
    /// A tensor that the file lacks.
    pub fn open(file: &ModelFile, name: &str) -> Result<Linear, Error> {
        let bias = names::bias_name(name);
        let bias = file.has(&bias).then(|| file.vector(&bias));
        let [narrow, widen] = names::correction(name);
        let correction = if file.has(&narrow) {
            Some(Correction {
                narrow: file.matrix_handle(&narrow)?,
                widen: file.matrix_handle(&widen)?,
            })
        } else {
            None
        };
        Ok(Linear {
            weights: file.matrix_handle(name)?,
            bias: bias.transpose()?.map(<[f32]>::to_vec),
            correction,
        })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.weights.layout().rows()
    }

    /// The weights, and what corrects them.
    fn matrices(&self) -> impl Iterator<Item = &MatrixHandle> {
        let correction = self.correction.iter().flat_map(Correction::matrices);
        [&self.weights].into_iter().chain(correction)
    }

    /// Bytes that one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        self.matrices().map(|m| m.layout().bytes()).sum()
    }

    /// Weights, those of a correction among them, padding not counted.
    pub fn weights(&self) -> usize {
        self.matrices()
            .map(|m| m.layout().rows() * m.layout().cols())
            .sum()
    }

    /// Whether anything takes the input as INT8.
    fn takes_codes(&self) -> bool {
        let inner = self.correction.as_ref().map(|c| &c.narrow);
        let takers = [Some(&self.weights), inner];
        takers.into_iter().flatten().any(is_quantized)
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
    /// The products of both; then those of a correction.
    products: Vec<f32>,
    /// The input of corrections, narrowed to their rank.
    narrow: Vec<f32>,
    quantized_narrow: QuantizedRows,
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
/// it as the sum of two INT8 follow in a pass of their own, and corrections after everything else.
pub fn forward<const N: usize>(
    engine: &Engine,
    file: &ModelFile,
    x: &[f32],
    inputs: &mut Inputs,
    mut layers: [(&Linear, &mut [f32]); N],
) {
    let cols = layers[0].0.weights.layout().cols();
    let quantized = layers.iter().any(|(layer, _)| layer.takes_codes());
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
    let jobs = layers.each_mut();
    if jobs.iter().any(|(layer, _)| layer.takes_twice()) {
        let (twice, others): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .map(|(layer, out)| (*layer, &mut **out))
            .partition(|(layer, _)| layer.takes_twice());
        let others = others.into_iter().map(|(layer, out)| layer.job(file, out));
        once(inputs, &mut others.collect::<Vec<_>>());
        inputs.take_twice(engine, x, cols);
        forward_twice(engine, file, cols, inputs, twice);
    } else {
        once(inputs, &mut jobs.map(|(layer, out)| layer.job(file, out)));
    }
    let corrected = layers.into_iter();
    let corrected = corrected.filter_map(|(layer, out)| Some((layer.correction.as_ref()?, out)));
    let corrected: Vec<_> = corrected.collect();
    if !corrected.is_empty() {
        correct(engine, file, x, cols, inputs, corrected);
    }
}

/// `out += (x · narrowᵀ) · widenᵀ`. The input's codes are there if they are needed; it is narrowed
/// for all layers in one pass.
fn correct(
    engine: &Engine,
    file: &ModelFile,
    x: &[f32],
    cols: usize,
    inputs: &mut Inputs,
    layers: Vec<(&Correction, &mut [f32])>,
) {
    let rows = x.len() / cols;
    let rank = |correction: &Correction| correction.narrow.layout().rows();
    let floats = layers.iter().map(|(correction, _)| rows * rank(correction));
    inputs.narrow.resize(floats.sum(), 0.0);
    let mut rest = &mut inputs.narrow[..];
    let mut jobs = Vec::with_capacity(layers.len());
    for (correction, _) in &layers {
        let (out, others) = rest.split_at_mut(rows * rank(correction));
        rest = others;
        jobs.push(MatmulJob {
            weights: file.view(&correction.narrow),
            bias: None,
            out,
        });
    }
    let takes_codes = layers.iter().any(|(c, _)| is_quantized(&c.narrow));
    let input = MatmulInput {
        rows: x,
        cols,
        quantized: takes_codes.then_some(&inputs.quantized),
    };
    engine.matmul(input, &mut jobs);
    let mut rest = &inputs.narrow[..];
    for (correction, out) in layers {
        let (narrow, others) = rest.split_at(rows * rank(correction));
        rest = others;
        let quantized = is_quantized(&correction.widen);
        if quantized {
            engine.quantize(narrow, rank(correction), &mut inputs.quantized_narrow);
        }
        inputs.products.resize(out.len(), 0.0);
        let job = MatmulJob {
            weights: file.view(&correction.widen),
            bias: None,
            out: &mut inputs.products,
        };
        let input = MatmulInput {
            rows: narrow,
            cols: rank(correction),
            quantized: quantized.then_some(&inputs.quantized_narrow),
        };
        engine.matmul(input, &mut [job]);
        engine.add(out, &inputs.products);
    }
}

fn is_quantized(matrix: &MatrixHandle) -> bool {
    matrix.layout().kind().is_quantized()
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
