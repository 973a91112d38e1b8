//! Gradients against differences of the forward pass.

use super::Calibration;
use super::block::Block;
use crate::Error;
use crate::checkpoint::{Checkpoint, Origin, Weight};
use kinglet::config::{
    Activation, FeedForward, LayerConfig, ModelConfig, NormKind, Residual, Rope,
};
use kinglet::format::names::expected_weights;
use kinglet::model::RopeTable;
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::pool::ThreadPool;
use std::ops::Range;
use std::sync::Arc;

struct Floats {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Weight for Floats {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let cols = self.shape.get(1).copied().unwrap_or(1);
        out.copy_from_slice(&self.values[rows.start * cols..rows.end * cols]);
        Ok(())
    }
}

fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// One layer with everything that a block may have, or with nothing of it.
fn config(everything: bool, activation: Activation) -> ModelConfig {
    ModelConfig {
        architecture: "test".to_owned(),
        vocab_size: 16,
        hidden_size: 12,
        intermediate_size: 20,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        max_positions: 64,
        layers: vec![LayerConfig {
            window: everything.then_some(3),
            rope: 0,
        }],
        norm: NormKind::Rms,
        norm_eps: 1e-5,
        residual: Residual::PreNorm,
        post_norms: everything,
        qk_norms: everything,
        qkv_biases: everything,
        biases: false,
        feed_forward: FeedForward::Gated,
        activation,
        attention_scale: 0.4,
        embedding_scale: 1.0,
        ropes: vec![Rope {
            theta: 100.0,
            dims: 4,
            scaling: None,
        }],
        tied_head: true,
        logit_softcap: None,
        attention_softcap: everything.then_some(2.0),
        bos_token: None,
        eos_tokens: vec![0],
        encoder: None,
    }
}

fn checkpoint(config: ModelConfig) -> Checkpoint {
    let mut random = random(1);
    let weights = expected_weights(&config).into_iter().map(|(name, shape)| {
        let values = (0..shape.iter().product()).map(|_| random()).collect();
        let weight: Arc<dyn Weight> = Arc::new(Floats { shape, values });
        (name, weight)
    });
    Checkpoint {
        weights: weights.collect(),
        config,
        tokenizer_json: vec![],
        chat_template: None,
        origin: Origin::default(),
    }
}

fn check(everything: bool, activation: Activation) {
    let checkpoint = checkpoint(config(everything, activation));
    let config = &checkpoint.config;
    let window = 7;
    let calibration = Calibration {
        engine: Engine::new(Isa::detect(), ThreadPool::new(1)),
        ropes: vec![RopeTable::new(&config.ropes[0], window)],
        tokens: vec![0; 2 * window],
        window,
    };
    let context = calibration.context(config);
    let block = Block::read(&checkpoint, 0).unwrap();
    let mut random = random(2);
    let mut draw = |count: usize| (0..count).map(|_| random()).collect::<Vec<f32>>();
    let x = draw(2 * window * config.hidden_size);
    let direction = draw(x.len());
    let mut gradient = draw(x.len());
    // What is differentiated: the sum of outputs times the gradient from above.
    let above: Vec<f64> = gradient.iter().map(|&g| f64::from(g)).collect();
    let value = |step: f32| -> f64 {
        let mut x: Vec<f32> = x
            .iter()
            .zip(&direction)
            .map(|(x, d)| x + step * d)
            .collect();
        block.forward(&context, &mut x);
        x.iter().zip(&above).map(|(&x, g)| f64::from(x) * g).sum()
    };
    let step = 1e-3;
    let expected = (value(step) - value(-step)) / f64::from(2.0 * step);
    block.backward(&context, &x, &mut gradient);
    let along = gradient.iter().zip(&direction);
    let found: f64 = along.map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
    let size: f64 = gradient
        .iter()
        .map(|&g| f64::from(g * g))
        .sum::<f64>()
        .sqrt();
    // The forward pass in f32 is good to some 1e-5 of its value, the difference to that over the
    // step; the third derivative adds a part of 1e-6.
    assert!(
        (found - expected).abs() < 1e-2 * (1.0 + size),
        "{found} {expected} {activation:?}"
    );
}

#[test]
fn gradients_are_those_of_the_forward_pass() {
    for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
        check(false, activation);
        check(true, activation);
    }
}
