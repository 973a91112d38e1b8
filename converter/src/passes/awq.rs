//! Scales of input channels folded into weights (AWQ, Lin et al. 2023; SmoothQuant, Xiao et al. 2022):
//! columns whose inputs are large are stored large, and so with smaller errors, and their inputs are
//! made as much smaller, so that the others of their group get finer steps.
//!
//! What stands before a layer divides its outputs by the scales: the weight of a norm, the rows of `up`
//! for `down`, the rows of `v` for `o`. Scales are `m^alpha`, `m` the root mean square of a channel in
//! the calibration; of a few exponents the one with the least error of the outputs is taken, that of
//! rounded inputs included.

use super::fold::{ScaledColumns, ScaledRows};
use crate::Error;
use crate::calibrate::{Block, Calibration, Context, NORMS, STAGES, norm, rounding};
use crate::checkpoint::Checkpoint;
use crate::quantize::{rtn, search};
use crate::recipe::{Kinds, Method};
use kinglet::config::ModelConfig;
use kinglet::format::names::layer;
use kinglet_kernels::packing::{Kind, Layout};
use rayon::prelude::*;

/// Exponents that are tried; 0 leaves a layer as it is.
const ALPHAS: [f32; 13] = [
    0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0,
];

/// Scales are within this factor of 1, so that those of groups stay normal numbers in half precision.
const LARGEST: f32 = 64.0;

/// Rows of a matrix, and tokens, whose errors are measured, spread evenly.
const SAMPLE: usize = 128;

/// Scales the input channels of a decoder's layers, and of its head where it is not the embedding, for
/// the kinds and the method that they will be quantized with; `progress` is told each weight once.
///
/// # Errors
/// A weight that is missing or cannot be read.
pub fn scale(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    kinds: &Kinds,
    method: Method,
    progress: &dyn Fn(usize),
) -> Result<Checkpoint, Error> {
    let config = &checkpoint.config;
    let context = calibration.context(config);
    let mut scaled = checkpoint.clone();
    let mut x = calibration.embed(checkpoint)?;
    for index in 0..config.layers.len() {
        let mut block = Block::read(checkpoint, index)?;
        let mut input = vec![];
        for (number, parts) in STAGES.iter().enumerate() {
            input = block.stage_input(&context, number, &x, &input);
            let cols = block.dense_mut(parts[0]).inputs;
            let weights = parts.iter().map(|part| {
                let weights = &block.dense_mut(part).weights;
                sampled(weights, cols)
            });
            let mut stage = Stage::new(&input, weights.collect(), kinds.layers, method, cols);
            if number == 1 {
                share(&mut stage.squares, config);
            }
            if let Some(scales) = stage.scales(&context) {
                fold(&mut scaled, index, number, scales)?;
            }
            block.add_output(&context, number, &input, &mut x);
        }
        progress(block.weights());
    }
    if !config.tied_head {
        let input = norm(&context, &x, &checkpoint.read("norm")?);
        let head = checkpoint.weight("head")?;
        let step = (calibration.tokens().len() / SAMPLE).max(1);
        let mut rows = vec![];
        for &token in calibration.tokens().iter().step_by(step) {
            let start = rows.len();
            rows.resize(start + config.hidden_size, 0.0);
            head.read_rows(token as usize..token as usize + 1, &mut rows[start..])?;
        }
        progress(head.shape().iter().product());
        let stage = Stage::new(&input, vec![rows], kinds.head, method, config.hidden_size);
        if let Some(scales) = stage.scales(&context) {
            divide(&mut scaled, "norm", &scales)?;
            multiply(&mut scaled, "head", &scales)?;
        }
    }
    Ok(scaled)
}

/// Rows of `cols`, spread evenly.
fn sampled(values: &[f32], cols: usize) -> Vec<f32> {
    let step = (values.len() / cols / SAMPLE).max(1);
    let rows = values.chunks_exact(cols).step_by(step);
    rows.flatten().copied().collect()
}

/// Query heads with the same keys and values have one scale for each of their channels: the mean.
fn share(squares: &mut [f32], config: &ModelConfig) {
    let heads = config.heads / config.kv_heads;
    for group in squares.chunks_exact_mut(heads * config.head_dim) {
        for channel in 0..config.head_dim {
            let of_heads = group.iter().skip(channel).step_by(config.head_dim);
            let mean = of_heads.sum::<f32>() / heads as f32;
            let of_heads = group.iter_mut().skip(channel).step_by(config.head_dim);
            of_heads.for_each(|square| *square = mean);
        }
    }
}

/// Puts the scales of a stage of [`STAGES`] into its layers, and their inverse into what is before.
fn fold(
    checkpoint: &mut Checkpoint,
    index: usize,
    stage: usize,
    scales: Vec<f32>,
) -> Result<(), Error> {
    for part in STAGES[stage] {
        multiply(checkpoint, &layer(index, part), &scales)?;
    }
    match NORMS[stage] {
        Some(norm) => divide(checkpoint, &layer(index, norm), &scales),
        None if stage == 1 => {
            let config = &checkpoint.config;
            let (size, biases) = (config.head_dim, config.qkv_biases);
            let groups = scales.chunks_exact(scales.len() / config.kv_heads);
            let of_values: Vec<f32> = groups.flat_map(|group| &group[..size]).copied().collect();
            if biases {
                divide(checkpoint, &layer(index, "v_bias"), &of_values)?;
            }
            divide(checkpoint, &layer(index, "v"), &of_values)
        }
        None => divide(checkpoint, &layer(index, "up"), &scales),
    }
}

fn multiply(checkpoint: &mut Checkpoint, name: &str, scales: &[f32]) -> Result<(), Error> {
    let factors = scales.to_vec();
    checkpoint.replace(name, |inner| ScaledColumns { inner, factors })
}

fn divide(checkpoint: &mut Checkpoint, name: &str, scales: &[f32]) -> Result<(), Error> {
    let factors = scales.iter().map(|s| 1.0 / s).collect();
    checkpoint.replace(name, |inner| ScaledRows { inner, factors })
}

/// Layers with one input, and so with one set of scales.
struct Stage {
    kind: Kind,
    method: Method,
    /// Mean square of each channel of the input.
    squares: Vec<f32>,
    /// Some of its rows.
    input: Vec<f32>,
    /// Some rows of each layer.
    weights: Vec<Vec<f32>>,
}

impl Stage {
    fn new(
        input: &[f32],
        weights: Vec<Vec<f32>>,
        kind: Kind,
        method: Method,
        cols: usize,
    ) -> Stage {
        let mut squares = vec![0.0; cols];
        for row in input.chunks_exact(cols) {
            squares.iter_mut().zip(row).for_each(|(s, x)| *s += x * x);
        }
        let rows = (input.len() / cols) as f32;
        squares.iter_mut().for_each(|s| *s /= rows);
        Stage {
            kind,
            method,
            squares,
            input: sampled(input, cols),
            weights,
        }
    }

    /// The best scales; `None` where none are better than 1.
    fn scales(&self, context: &Context) -> Option<Vec<f32>> {
        if !self.kind.is_quantized() || !self.squares.iter().all(|s| s.is_finite()) {
            return None;
        }
        // Of the channels that say anything, the mean on a scale of logarithms.
        let logs = self.squares.iter().filter(|&&s| s > 0.0).map(|s| s.ln());
        let mean = logs.clone().sum::<f32>() / logs.count().max(1) as f32;
        let candidate = |alpha: &f32| {
            let scale = |square: &f32| {
                let log = square.max(f32::MIN_POSITIVE).ln();
                (0.5 * alpha * (log - mean)).exp()
            };
            let scales = self.squares.iter().map(scale);
            scales.map(|s| s.clamp(1.0 / LARGEST, LARGEST)).collect()
        };
        let candidates: Vec<Vec<f32>> = ALPHAS.iter().map(candidate).collect();
        let lost: Vec<Vec<f64>> = candidates
            .iter()
            .map(|s| self.rounded(context, s))
            .collect();
        let errors = candidates.into_par_iter().zip(lost).enumerate();
        let errors =
            errors.map(|(index, (scales, lost))| (self.error(&scales, &lost), index, scales));
        let best = errors.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        best.filter(|(_, index, _)| *index > 0)
            .map(|(_, _, scales)| scales)
    }

    /// What the scaled input loses in each channel as INT8, a mean square.
    fn rounded(&self, context: &Context, scales: &[f32]) -> Vec<f64> {
        let rows = self.input.chunks_exact(scales.len());
        let scaled = rows.flat_map(|row| row.iter().zip(scales).map(|(x, s)| x / s));
        let tokens = self.input.len() / scales.len();
        rounding(context, &scaled.collect::<Vec<f32>>(), &[vec![1.0; tokens]]).remove(0)
    }

    /// The squared error of the outputs of each layer in parts of their own squares, summed: errors of
    /// channels are taken to be independent. `lost` is the scaled input's.
    fn error(&self, scales: &[f32], lost: &[f64]) -> f64 {
        let squares = self.squares.iter().zip(scales);
        let squares: Vec<f32> = squares.map(|(square, s)| square / (s * s)).collect();
        let of_layer = |weights: &Vec<f32>| {
            let rows = weights.chunks_exact(scales.len());
            let scaled: Vec<f32> = rows
                .flat_map(|row| row.iter().zip(scales).map(|(w, s)| w * s))
                .collect();
            let rows = scaled.len() / scales.len();
            let layout = Layout::new(self.kind, rows, scales.len()).expect("rows of a matrix");
            let codes = match self.method {
                Method::Rtn => rtn::quantize(layout, &scaled),
                Method::Search => search::quantize(layout, &scaled, None),
                Method::Gptq => search::quantize(layout, &scaled, Some(&squares)),
            };
            let (mut error, mut energy) = (0.0, f64::MIN_POSITIVE);
            for (row, weights) in scaled.chunks_exact(scales.len()).enumerate() {
                for (col, &w) in weights.iter().enumerate() {
                    let square = f64::from(squares[col]);
                    let difference = f64::from(codes.weight(row, col) - w);
                    let w = f64::from(w) * f64::from(w);
                    error += square * difference * difference + lost[col] * w;
                    energy += square * w;
                }
            }
            error / energy
        };
        self.weights.iter().map(of_layer).sum()
    }
}
