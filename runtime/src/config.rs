//! The description of a model as data: what the forward pass reads instead of an architecture.

use kinglet_kernels::AttentionShape;
use serde::{Deserialize, Serialize};

/// Everything about a transformer but its weights.
///
/// LLaMA, SmolLM2, Mistral, Qwen2, Qwen3, Gemma 3 and Phi-3 (decoders), BERT, DistilBERT and RoBERTa
/// (encoders) are values of this type. What a model lacks (biases, q/k norms) shows by the absence of
/// its tensors, listed in [`crate::format`]. Fields that decoders leave at their default are not
/// written.
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
    /// Kind of every norm.
    #[serde(default, skip_serializing_if = "is_default")]
    pub norm: NormKind,
    /// Epsilon of every norm.
    pub norm_eps: f32,
    /// Where the norms of attention and feed-forward stand.
    #[serde(default, skip_serializing_if = "is_default")]
    pub residual: Residual,
    /// Norms of the block outputs beside those of the inputs (Gemma 3).
    pub post_norms: bool,
    /// RMSNorm of each query and key head before the rotary embedding (Qwen3, Gemma 3).
    pub qk_norms: bool,
    /// Biases of the query, key and value projections (Qwen2).
    pub qkv_biases: bool,
    /// Biases of all linear layers of a block (BERT).
    #[serde(default, skip_serializing_if = "is_default")]
    pub biases: bool,
    /// Whether the feed-forward block has a gate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub feed_forward: FeedForward,
    /// Nonlinearity of the gate, or of the feed-forward block that has none.
    pub activation: Activation,
    /// Factor on attention scores, typically `1 / sqrt(head_dim)`.
    pub attention_scale: f32,
    /// Factor on embedded tokens (Gemma: `sqrt(hidden_size)`), 1 for most.
    pub embedding_scale: f32,
    /// Rotary embeddings; layers name theirs by index. None where positions are learned.
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
    /// What an encoder has beside: without it, the model is a decoder with a causal mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderConfig>,
}

impl ModelConfig {
    /// What attention needs to know in a layer of this kind.
    pub fn attention_shape(&self, layer: &LayerConfig) -> AttentionShape {
        AttentionShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: self.attention_scale,
            window: layer.window,
            softcap: self.attention_softcap,
        }
    }
}

/// What makes a model an encoder: every token sees the whole text, and the text becomes a vector or
/// a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Where positions are learned: the row of the first one in their table (RoBERTa: 2), which has
    /// as many rows before the [`ModelConfig::max_positions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_position: Option<usize>,
    /// Rows of the table of token types (segments); 0: there is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub token_types: usize,
    /// LayerNorm of the embedded tokens.
    #[serde(default, skip_serializing_if = "is_default")]
    pub embedding_norm: bool,
    /// Tokens that a text may have, special ones included; at most the positions.
    pub max_tokens: usize,
    /// How the hidden states of a text become its embedding.
    pub pooling: Pooling,
    /// Whether embeddings have length 1.
    #[serde(default, skip_serializing_if = "is_default")]
    pub normalize: bool,
    /// The classification head, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Classifier>,
}

/// How the hidden states of a text become its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over all tokens, special ones included.
    Mean,
    /// The first token.
    Cls,
    /// They stay, one for each token.
    None,
}

/// A sequence classification head: `classifier · activation(classifier_dense · first token)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classifier {
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Nonlinearity between its two layers.
    pub activation: HeadActivation,
    /// How logits become scores.
    pub scores: Scores,
}

/// The nonlinearity of a classification head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadActivation {
    /// Hyperbolic tangent (BERT, RoBERTa).
    Tanh,
    /// `max(x, 0)` (DistilBERT).
    Relu,
}

/// How logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// One class of several: probabilities that sum to 1.
    Softmax,
    /// Each class for itself: a probability each.
    Sigmoid,
    /// The logits themselves (regression).
    Raw,
}

/// Kind of a norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// RMSNorm (Zhang and Sennrich 2019): a weight.
    #[default]
    Rms,
    /// LayerNorm (Ba et al. 2016): a weight and a bias.
    Layer,
}

/// Where the norms of attention and feed-forward stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residual {
    /// `x + f(norm(x))`, and a norm after the last block.
    #[default]
    PreNorm,
    /// `norm(x + f(x))`, and none after the last block (BERT).
    PostNorm,
}

/// The feed-forward block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForward {
    /// `down(activation(gate(x)) · up(x))`
    #[default]
    Gated,
    /// `down(activation(up(x)))`
    Plain,
}

/// Whether a field is left at what decoders have.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerConfig {
    /// Sliding window: each query sees this many positions, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Index into [`ModelConfig::ropes`]; 0 where there are none.
    pub rope: usize,
}

/// The nonlinearity of the feed-forward block.
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

impl From<Activation> for kinglet_kernels::Activation {
    fn from(activation: Activation) -> kinglet_kernels::Activation {
        match activation {
            Activation::Silu => kinglet_kernels::Activation::Silu,
            Activation::Gelu => kinglet_kernels::Activation::Gelu,
            Activation::GeluTanh => kinglet_kernels::Activation::GeluTanh,
        }
    }
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
