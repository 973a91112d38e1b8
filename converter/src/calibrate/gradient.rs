//! How much each linear layer's output matters: gradients of the model's own predictions.
//!
//! The divergence of a quantized model from the original is, to second order, the error of its
//! outputs measured by the Fisher information: the mean square of the gradient of `log p(token)`,
//! tokens drawn from the model's own distribution. One backward pass gives it for every layer.

use super::attention::{self, Heads};
use super::block::{Block, Context, norm};
use super::dense::{Dense, Moments};
use super::{Calibration, STAGES};
use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::quantize::gptq::Factor;
use half::bf16;
use kinglet::config::Activation;
use kinglet::format::names::layer;
use kinglet::sampler::SplitMix64;
use kinglet_kernels::activations::QuantizedRows;
use std::collections::BTreeMap;

/// How much outputs matter, and to which tokens.
pub struct Sensitivity {
    /// [`Sensitivity::importance`] of the linear layers.
    layers: BTreeMap<String, Vec<f32>>,
    /// [`Sensitivity::input_loss`] of the linear layers and of the head.
    input_losses: BTreeMap<String, f64>,
    /// For each layer and stage of [`STAGES`], each token's part: weights of mean 1.
    pub token_weights: Vec<[Vec<f32>; 4]>,
    /// Second moments of the gradient at the embedding.
    pub embed: Moments,
    /// Second moments of the head's input.
    pub head: Moments,
    /// Mean over tokens of the sum over the vocabulary of `p·(1 - p)`: what a squared error of the
    /// logits costs.
    pub head_gain: f64,
}

impl Sensitivity {
    /// Second moments of a vocabulary matrix's inputs, in terms of what its errors cost: as the
    /// embedding, as the head, or both.
    pub fn vocabulary(&self, name: &str, tied: bool) -> Moments {
        let mut moments = Moments::new(self.head.size());
        if name == "embed" {
            moments.add_scaled(&self.embed, 1.0);
        }
        if name == "head" || tied {
            moments.add_scaled(&self.head, self.head_gain as f32);
        }
        moments
    }

    /// What a squared error in each column of the matrix `name` costs, summed over its outputs, when
    /// later columns make up for it.
    pub fn importance(&self, name: &str, tied: bool) -> Vec<f32> {
        if name == "embed" || name == "head" {
            let moments = self.vocabulary(name, tied);
            let factor = Factor::new(&moments, IMPORTANCE_GROUP);
            return factor.map_or_else(|| moments.diagonal(), |factor| factor.by_column());
        }
        self.layers.get(name).cloned().unwrap_or_default()
    }

    /// The divergence, in nats, that comes of taking the inputs of the linear layer `name`, or of
    /// the `head`, as INT8.
    pub fn input_loss(&self, name: &str) -> f64 {
        self.input_losses.get(name).copied().unwrap_or_default()
    }
}

/// The order of columns, which the importance depends on a little, is that of this group.
const IMPORTANCE_GROUP: usize = 32;

/// A single token's weight in a layer is at most this many times the mean: beyond, a few tokens
/// would decide alone.
const LARGEST_WEIGHT: f32 = 30.0;

/// Logits that are held at once: 64 MB.
const LOGITS: usize = 16 << 20;

/// Runs the calibration forward and backward; `progress` is told each weight once per direction.
///
/// # Errors
/// A weight that cannot be read.
pub fn measure(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    progress: &dyn Fn(usize),
) -> Result<Sensitivity, Error> {
    let context = calibration.context(&checkpoint.config);
    let layers = context.config.layers.len();
    let mut x = calibration.embed(checkpoint)?;
    // Half the memory; what the way back starts from need not be exact.
    let mut inputs = vec![];
    for index in 0..layers {
        let block = Block::read(checkpoint, index)?;
        inputs.push(x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<bf16>>());
        block.forward(&context, &mut x);
        progress(block.weights());
    }
    let mut top = head_gradient(checkpoint, calibration, &context, &x, progress)?;
    let mut sensitivity = Sensitivity {
        layers: BTreeMap::new(),
        input_losses: BTreeMap::from([("head".to_owned(), top.input_loss)]),
        token_weights: vec![],
        embed: Moments::new(context.config.hidden_size),
        head: top.moments,
        head_gain: top.gain,
    };
    let gradient = &mut top.gradient;
    for index in (0..layers).rev() {
        let mut block = Block::read(checkpoint, index)?;
        let input: Vec<f32> = inputs[index].iter().map(|x| x.to_f32()).collect();
        inputs.truncate(index);
        let stages = block.backward(&context, &input, gradient);
        for (parts, stage) in STAGES.iter().zip(&stages) {
            let lost = rounding(&context, &stage.input, &stage.squares);
            for (part, lost) in parts.iter().zip(lost) {
                let loss = 0.5 * output_error(&lost, &block.dense_mut(part).weights);
                sensitivity.input_losses.insert(layer(index, part), loss);
            }
        }
        let weights = stages.map(|Stage { input, squares }| {
            let (gains, weights) = token_weights(&squares);
            (input, gains, weights)
        });
        for (parts, (input, gains, weights)) in STAGES.iter().zip(&weights) {
            let mut moments = Moments::new(input.len() / weights.len());
            moments.add(input, Some(weights));
            let factor = Factor::new(&moments, IMPORTANCE_GROUP);
            let columns = factor.map_or_else(|| moments.diagonal(), |factor| factor.by_column());
            for (part, &gain) in parts.iter().zip(gains) {
                let scaled = columns.iter().map(|c| c * gain as f32).collect();
                sensitivity.layers.insert(layer(index, part), scaled);
            }
        }
        sensitivity
            .token_weights
            .insert(0, weights.map(|(_, _, weights)| weights));
        progress(block.weights());
    }
    let scale = context.config.embedding_scale;
    gradient.iter_mut().for_each(|g| *g *= scale);
    sensitivity.embed.add(gradient, None);
    Ok(sensitivity)
}

/// Mean squares of the gradient of each of a stage's layers, and the weights of tokens for all of
/// them: equal ones where there is no gradient, as before a layer of zeros.
fn token_weights(squares: &[Vec<f32>]) -> (Vec<f64>, Vec<f32>) {
    let tokens = squares[0].len();
    let mean = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>() / tokens as f64;
    let gains: Vec<f64> = squares.iter().map(|squares| mean(squares)).collect();
    let mut weights = vec![0.0; tokens];
    for (squares, &gain) in squares.iter().zip(&gains) {
        let of_layer = gain as f32;
        if of_layer == 0.0 {
            continue;
        }
        for (weight, square) in weights.iter_mut().zip(squares) {
            *weight += square / of_layer / squares.len() as f32 * tokens as f32;
        }
    }
    let largest = LARGEST_WEIGHT * mean(&weights) as f32;
    weights.iter_mut().for_each(|w| *w = w.min(largest));
    let total = mean(&weights) as f32;
    if total == 0.0 {
        weights.fill(1.0);
    } else {
        weights.iter_mut().for_each(|w| *w /= total);
    }
    (gains, weights)
}

/// What one stage of a block shows.
pub(super) struct Stage {
    /// The input of its layers.
    input: Vec<f32>,
    /// For each of its layers the mean square over outputs of each token's gradient.
    squares: Vec<Vec<f32>>,
}

/// What the head says.
struct Top {
    /// Gradient at the residual stream after the last block.
    gradient: Vec<f32>,
    moments: Moments,
    gain: f64,
    /// [`Sensitivity::input_loss`] of the head.
    input_loss: f64,
}

fn head_gradient(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    context: &Context,
    x: &[f32],
    progress: &dyn Fn(usize),
) -> Result<Top, Error> {
    let config = context.config;
    let hidden = config.hidden_size;
    let name = if config.tied_head { "embed" } else { "head" };
    let head = Dense {
        inputs: hidden,
        weights: checkpoint.read(name)?,
        bias: None,
    };
    let weight = checkpoint.read("norm")?;
    let normed = norm(context, x, &weight);
    let mut moments = Moments::new(hidden);
    moments.add(&normed, None);
    let mut gradient = vec![0.0; x.len()];
    let mut random = SplitMix64(calibration.tokens().len() as u64);
    let mut gain = 0.0;
    let rows = (LOGITS / config.vocab_size).max(1);
    for (normed, gradient) in normed
        .chunks(rows * hidden)
        .zip(gradient.chunks_mut(rows * hidden))
    {
        let mut logits = head.forward(normed);
        for logits in logits.chunks_exact_mut(config.vocab_size) {
            gain += prediction_gradient(logits, config.logit_softcap, &mut random);
        }
        head.backward(&logits, gradient);
    }
    progress(2 * head.weights.len());
    let tokens = calibration.tokens();
    let gain = gain / tokens.len() as f64;
    // The rows that matter are those of likely tokens, and the text has those.
    let rows = tokens
        .iter()
        .flat_map(|&t| &head.weights[t as usize * hidden..][..hidden]);
    let rows: Vec<f32> = rows.copied().collect();
    let lost = &rounding(context, &normed, &[vec![1.0; tokens.len()]])[0];
    Ok(Top {
        gradient: norm_backward(context, x, &weight, &gradient),
        moments,
        gain,
        input_loss: 0.5 * gain * output_error(lost, &rows) / tokens.len() as f64,
    })
}

/// Rows of inputs that are rounded at a time.
const ROUNDED_ROWS: usize = 1024;

/// What taking `input` as INT8 loses: for each of the layers that take it, and each column, the mean
/// over tokens of the squared loss times the token's `squares`.
pub(crate) fn rounding(context: &Context, input: &[f32], squares: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let tokens = squares[0].len();
    let cols = input.len() / tokens;
    let mut means = vec![vec![0.0; cols]; squares.len()];
    let (mut codes, mut lost) = (QuantizedRows::default(), vec![]);
    for (index, rows) in input.chunks(ROUNDED_ROWS * cols).enumerate() {
        context.engine.quantize(rows, cols, &mut codes);
        lost.resize(rows.len(), 0.0);
        codes.residual(rows, cols, &mut lost);
        for (row, lost) in lost.chunks_exact(cols).enumerate() {
            for (means, squares) in means.iter_mut().zip(squares) {
                let square = squares[index * ROUNDED_ROWS + row] / tokens as f32;
                for (mean, x) in means.iter_mut().zip(lost) {
                    *mean += f64::from(square * x * x);
                }
            }
        }
    }
    means
}

/// The squared error of a layer's outputs from the mean squared error of each of its inputs, which
/// are taken to be independent.
fn output_error(inputs: &[f64], weights: &[f32]) -> f64 {
    let row = |row: &[f32]| -> f64 {
        let columns = row.iter().zip(inputs);
        columns.map(|(&w, x)| f64::from(w) * f64::from(w) * x).sum()
    };
    weights.chunks_exact(inputs.len()).map(row).sum()
}

/// Replaces logits by the gradient of `-log p` of a token drawn from them; returns what its square is on average,
/// `Σ p·(1 - p)` without softcap.
fn prediction_gradient(logits: &mut [f32], softcap: Option<f32>, random: &mut SplitMix64) -> f64 {
    let raw = softcap.map(|cap| {
        logits.iter_mut().for_each(|x| *x = (*x / cap).tanh());
        let slopes: Vec<f32> = logits.iter().map(|t| 1.0 - t * t).collect();
        logits.iter_mut().for_each(|x| *x *= cap);
        slopes
    });
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let total: f64 = logits.iter().map(|&x| f64::from(x)).sum();
    let mut target = random.unit() * total;
    let mut drawn = logits.len() - 1;
    for (token, &p) in logits.iter().enumerate() {
        target -= f64::from(p);
        if target < 0.0 {
            drawn = token;
            break;
        }
    }
    let mut squares = 0.0;
    for (token, p) in logits.iter_mut().enumerate() {
        *p = (f64::from(*p) / total) as f32;
        let slope = raw.as_ref().map_or(1.0, |slopes| slopes[token]);
        squares += f64::from(*p * (1.0 - *p) * slope * slope);
    }
    logits[drawn] -= 1.0;
    if let Some(slopes) = raw {
        logits.iter_mut().zip(slopes).for_each(|(g, s)| *g *= s);
    }
    squares
}

impl Block {
    /// Takes the gradient at the block's output to that at its input `x`, in place.
    pub(super) fn backward(
        &self,
        context: &Context,
        x: &[f32],
        gradient: &mut [f32],
    ) -> [Stage; 4] {
        let config = context.config;
        // Forward once more, keeping what the way back needs.
        let normed = norm(context, x, &self.attn_norm);
        let heads = self.projections(context, &normed);
        let attended = {
            let (q, k, v) = (&heads.q, &heads.k, &heads.v);
            attention::forward(
                &self.attention_shape(config),
                context.window,
                Heads { q, k, v },
            )
        };
        let mut middle = x.to_vec();
        self.add_output(context, 1, &attended, &mut middle);
        let ffn_normed = norm(context, &middle, &self.ffn_norm);
        let gate = self.gate.forward(&ffn_normed);
        let up = self.up.forward(&ffn_normed);

        let mut activated = gate.clone();
        context
            .engine
            .activate_gated(config.activation.into(), &mut activated, &up);
        let d_down = self.output_gradient(context, 3, &activated, gradient);
        let mut d_activated = vec![0.0; activated.len()];
        self.down.backward(&d_down, &mut d_activated);
        let (d_gate, d_up) = gate_backward(config.activation, &gate, &up, &d_activated);
        let mut d_normed = vec![0.0; x.len()];
        self.gate.backward(&d_gate, &mut d_normed);
        self.up.backward(&d_up, &mut d_normed);
        let d_middle = norm_backward(context, &middle, &self.ffn_norm, &d_normed);
        context.engine.add(gradient, &d_middle);

        let d_o = self.output_gradient(context, 1, &attended, gradient);
        let mut d_attended = vec![0.0; attended.len()];
        self.o.backward(&d_o, &mut d_attended);
        let shape = self.attention_shape(config);
        let (q, k, v) = (&heads.q, &heads.k, &heads.v);
        let (mut d_q, mut d_k, d_v) =
            attention::backward(&shape, context.window, Heads { q, k, v }, &d_attended);
        self.rotate(context, &mut d_q, config.heads, -1.0);
        self.rotate(context, &mut d_k, config.kv_heads, -1.0);
        if let Some((q_norm, k_norm)) = &self.qk_norms {
            d_q = norm_backward(context, &heads.raw_q, q_norm, &d_q);
            d_k = norm_backward(context, &heads.raw_k, k_norm, &d_k);
        }
        let mut d_normed = vec![0.0; x.len()];
        self.q.backward(&d_q, &mut d_normed);
        self.k.backward(&d_k, &mut d_normed);
        self.v.backward(&d_v, &mut d_normed);
        let d_x = norm_backward(context, x, &self.attn_norm, &d_normed);
        context.engine.add(gradient, &d_x);

        let of = |layer: &Dense, gradient: &[f32]| mean_squares(gradient, layer.outputs());
        let stage = |input, squares| Stage { input, squares };
        [
            stage(
                normed,
                vec![of(&self.q, &d_q), of(&self.k, &d_k), of(&self.v, &d_v)],
            ),
            stage(attended, vec![of(&self.o, &d_o)]),
            stage(
                ffn_normed,
                vec![of(&self.gate, &d_gate), of(&self.up, &d_up)],
            ),
            stage(activated, vec![of(&self.down, &d_down)]),
        ]
    }

    /// The gradient at the output of `o` (`stage` 1) or `down` (`stage` 3), before the norm that may
    /// follow.
    fn output_gradient(
        &self,
        context: &Context,
        stage: usize,
        input: &[f32],
        gradient: &[f32],
    ) -> Vec<f32> {
        let (layer, post) = match stage {
            1 => (&self.o, &self.attn_post_norm),
            _ => (&self.down, &self.ffn_post_norm),
        };
        match post {
            None => gradient.to_vec(),
            Some(weight) => norm_backward(context, &layer.forward(input), weight, gradient),
        }
    }

    /// How many weights the linear layers have.
    pub fn weights(&self) -> usize {
        let layers = [
            &self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down,
        ];
        layers.iter().map(|layer| layer.weights.len()).sum()
    }
}

fn mean_squares(gradient: &[f32], outputs: usize) -> Vec<f32> {
    let rows = gradient.chunks_exact(outputs);
    let mean = |row: &[f32]| row.iter().map(|g| g * g).sum::<f32>() / outputs as f32;
    rows.map(mean).collect()
}

/// The gradient at the input `x` of an RMSNorm over rows of `weight.len()`.
fn norm_backward(context: &Context, x: &[f32], weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let size = weight.len();
    let mut out = vec![0.0; x.len()];
    let rows = x.chunks_exact(size).zip(gradient.chunks_exact(size));
    for (out, (x, gradient)) in out.chunks_exact_mut(size).zip(rows) {
        let square: f32 = x.iter().map(|x| x * x).sum();
        let inverse = 1.0 / (square / size as f32 + context.config.norm_eps).sqrt();
        let along = x.iter().zip(gradient).zip(weight);
        let along: f32 = along.map(|((x, g), w)| x * g * w).sum();
        let along = along * inverse.powi(3) / size as f32;
        for (i, out) in out.iter_mut().enumerate() {
            *out = gradient[i] * weight[i] * inverse - x[i] * along;
        }
    }
    out
}

/// Gradients of gate and up from that of `activation(gate) · up`.
fn gate_backward(
    kind: Activation,
    gate: &[f32],
    up: &[f32],
    gradient: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mut d_gate = Vec::with_capacity(gate.len());
    let mut d_up = Vec::with_capacity(gate.len());
    for ((&x, &up), &gradient) in gate.iter().zip(up).zip(gradient) {
        let (value, slope) = activation_slope(kind, x);
        d_gate.push(gradient * up * slope);
        d_up.push(gradient * value);
    }
    (d_gate, d_up)
}

/// Value and derivative of the nonlinearity.
fn activation_slope(kind: Activation, x: f32) -> (f32, f32) {
    match kind {
        Activation::Silu => {
            let sigmoid = 1.0 / (1.0 + (-x).exp());
            (x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid)))
        }
        Activation::Gelu => {
            let below = 0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2));
            let density = (-0.5 * x * x).exp() / (2.0 * std::f32::consts::PI).sqrt();
            (x * below, below + x * density)
        }
        Activation::GeluTanh => {
            let root = (2.0 / std::f32::consts::PI).sqrt();
            let tanh = (root * (x + 0.044_715 * x * x * x)).tanh();
            let inner = root * (1.0 + 3.0 * 0.044_715 * x * x);
            let slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner;
            (0.5 * x * (1.0 + tanh), slope)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_weigh_alike_where_there_is_no_gradient() {
        let none = vec![0.0; 4];
        let alone = token_weights(std::slice::from_ref(&none));
        assert_eq!(alone, (vec![0.0], vec![1.0; 4]));
        // A layer without gradient leaves the others as they are.
        let some = vec![1.0, 3.0, 2.0, 2.0];
        let (gains, weights) = token_weights(&[none, some.clone()]);
        assert_eq!(gains, [0.0, 2.0]);
        assert_eq!(weights, token_weights(&[some]).1);
        assert!((weights[1] - 1.5).abs() < 1e-6, "{weights:?}");
    }

    /// Of the gradient's squares over many draws.
    #[test]
    fn expected_squares_are_the_mean_of_those_drawn() {
        for softcap in [None, Some(2.0)] {
            let mut random = SplitMix64(7);
            let draws = 20_000;
            let (mut expected, mut found) = (0.0, 0.0);
            for _ in 0..draws {
                let mut logits = [0.5f32, -1.0, 2.0, 0.0];
                expected = prediction_gradient(&mut logits, softcap, &mut random);
                found += logits.iter().map(|g| f64::from(g * g)).sum::<f64>() / f64::from(draws);
            }
            // The mean of so many is within a few hundredths.
            assert!(
                (found / expected - 1.0).abs() < 0.03,
                "{softcap:?}: {found} {expected}"
            );
        }
    }
}
