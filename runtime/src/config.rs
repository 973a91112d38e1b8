//! The description of a decoder as data: what the forward pass reads instead of an architecture.

use serde::{Deserialize, Serialize};

/// Everything about a decoder-only transformer but its weights.
///
/// LLaMA, SmolLM2, Mistral, Qwen2, Qwen3, Gemma 3 and Phi-3 are values of this type. What a model
/// lacks (biases, q/k norms) shows by the absence of its tensors, listed in [`crate::format`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name of the architecture in `transformers` (`model_type`), for people.
    pub architecture: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Floats per head.
    pub head_dim: usize,
    /// Positions that the model was trained for.
    pub max_positions: usize,
    /// One entry per layer.
    pub layers: Vec<LayerConfig>,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f32,
    /// Norms of the block outputs beside those of the inputs (Gemma 3).
    pub post_norms: bool,
    /// RMSNorm of each query and key head before the rotary embedding (Qwen3, Gemma 3).
    pub qk_norms: bool,
    /// Biases of the query, key and value projections (Qwen2).
    pub qkv_biases: bool,
    /// Nonlinearity of the gate.
    pub activation: Activation,
    /// Factor on attention scores, typically `1 / sqrt(head_dim)`.
    pub attention_scale: f32,
    /// Factor on embedded tokens (Gemma: `sqrt(hidden_size)`), 1 for most.
    pub embedding_scale: f32,
    /// Rotary embeddings; layers name theirs by index.
    pub ropes: Vec<Rope>,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
    /// Soft cap of the logits, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_softcap: Option<f32>,
    /// Soft cap of the attention scores, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_softcap: Option<f32>,
    /// Token put before every text, if the model wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token: Option<u32>,
    /// Tokens that end an answer.
    pub eos_tokens: Vec<u32>,
}

/// One decoder block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerConfig {
    /// Sliding window: each query sees this many positions, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Index into [`ModelConfig::ropes`].
    pub rope: usize,
}

/// The nonlinearity of the feed-forward block; all architectures so far gate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(x)`
    Silu,
    /// GELU with the error function.
    Gelu,
    /// GELU with the tanh approximation.
    GeluTanh,
}

/// A rotary position embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// Leading dimensions of a head that rotate (all for most; even).
    pub dims: usize,
    /// Change of the frequencies for longer contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<RopeScaling>,
}

/// How rotary frequencies are stretched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RopeScaling {
    /// Every frequency divided by `factor` (position interpolation, Chen et al. 2023).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, smooth between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f32,
        /// Wavelengths above `original_positions / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_positions / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Context before stretching.
        original_positions: usize,
    },
    /// LongRoPE (Ding et al. 2024; Phi-3): a divisor per frequency, one set for contexts up to
    /// `original_positions` and one beyond, and a factor on cos and sin.
    LongRope {
        /// Divisors for short contexts, `dims / 2` of them.
        short: Vec<f32>,
        /// Divisors for long contexts, `dims / 2` of them.
        long: Vec<f32>,
        /// Context before stretching.
        original_positions: usize,
        /// Factor on cos and sin.
        attention_factor: f32,
    },
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// The divisor of low frequencies.
        factor: f32,
        /// Rotations above which a frequency is kept.
        beta_fast: f32,
        /// Rotations below which a frequency is divided.
        beta_slow: f32,
        /// Context before stretching.
        original_positions: usize,
        /// Factor on cos and sin.
        attention_factor: f32,
    },
}
