//! What the end-to-end tests share: tiny models in memory.

pub mod models;

use kinglet::config::{
    Activation, FeedForward, LayerConfig, ModelConfig, NormKind, Residual, Rope,
};
use kinglet::eval::{EvalOptions, evaluate};
use kinglet::format::names::expected_weights;
use kinglet::{Model, Tokenizer};
use kinglet_convert::checkpoint::{Checkpoint, Origin, Weight};
use kinglet_convert::recipe::Recipe;
use kinglet_kernels::kv::KvKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A tokenizer of single bytes, for models of at least 256 tokens.
pub const BYTE_TOKENIZER: &str = include_str!("fixtures/byte_tokenizer.json");

/// The mean divergence of a file's predictions for a text from those of a reference's, in nats.
pub fn divergence(path: &Path, reference: &Path, text: &str) -> f64 {
    let (model, reference) = (Model::open(path).unwrap(), Model::open(reference).unwrap());
    let tokenizer = Tokenizer::of(model.file()).unwrap();
    let tokens = tokenizer.encode(text, false).unwrap();
    let options = EvalOptions {
        window: 64,
        windows: None,
        kv: KvKind::F32,
    };
    let evaluation = evaluate(&model, Some(&reference), &tokens, options, |_, _| ()).unwrap();
    evaluation.against_reference.unwrap().kl_mean
}

/// Plain floats as a weight.
pub struct Floats {
    /// One or two dimensions.
    pub shape: Vec<usize>,
    /// The values, in row-major order.
    pub values: Vec<f32>,
}

impl Weight for Floats {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), kinglet_convert::Error> {
        let cols = self.shape.get(1).copied().unwrap_or(1);
        out.copy_from_slice(&self.values[rows.start * cols..rows.end * cols]);
        Ok(())
    }
}

/// A decoder of two layers and 256 tokens with pseudo-random weights.
pub fn tiny_config() -> ModelConfig {
    ModelConfig {
        architecture: "llama".to_owned(),
        vocab_size: 256,
        hidden_size: 32,
        intermediate_size: 48,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        max_positions: 128,
        layers: vec![
            LayerConfig {
                window: None,
                rope: 0
            };
            2
        ],
        norm: NormKind::Rms,
        norm_eps: 1e-5,
        residual: Residual::PreNorm,
        post_norms: false,
        qk_norms: false,
        qkv_biases: false,
        biases: false,
        feed_forward: FeedForward::Gated,
        activation: Activation::Silu,
        attention_scale: 8f32.powf(-0.5),
        embedding_scale: 1.0,
        ropes: vec![Rope {
            theta: 10_000.0,
            dims: 8,
            scaling: None,
        }],
        tied_head: true,
        logit_softcap: None,
        attention_softcap: None,
        bos_token: None,
        eos_tokens: vec![0],
        encoder: None,
    }
}

/// A checkpoint of that configuration.
pub fn checkpoint(config: ModelConfig) -> Checkpoint {
    let mut state = 1u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let weights = expected_weights(&config).into_iter().map(|(name, shape)| {
        let values = (0..shape.iter().product()).map(|_| random()).collect();
        let weight: Arc<dyn Weight> = Arc::new(Floats { shape, values });
        (name, weight)
    });
    Checkpoint {
        weights: weights.collect(),
        config,
        tokenizer_json: BYTE_TOKENIZER.as_bytes().to_vec(),
        chat_template: Some(
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}".to_owned(),
        ),
        origin: Origin {
            name: "tiny".to_owned(),
            ..Origin::default()
        },
    }
}

/// The recipe that makes all matrices of a kind.
pub fn recipe(kind: &str) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.quantize.kind = kind.to_owned();
    recipe.quantize.embed = Some(kind.to_owned());
    recipe
}

/// Writes a checkpoint with all matrices of a kind.
///
/// # Panics
/// If that fails.
pub fn write(checkpoint: &Checkpoint, path: &Path, kind: &str) {
    kinglet_convert::write(checkpoint, path, &recipe(kind), &|_, _| ())
        .expect("a sound checkpoint");
}
