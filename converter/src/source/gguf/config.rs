//! Metadata as a [`ModelConfig`].

use super::reader::Contents;
use kinglet::config::{
    Activation, FeedForward, LayerConfig, ModelConfig, NormKind, Residual, Rope, RopeScaling,
};

/// What [`parse`] supports.
const SUPPORTED: [&str; 5] = ["llama", "qwen2", "qwen3", "gemma3", "phi3"];

/// The most layers that are counted out; the runtime's own limit is lower.
const MAX_LAYERS: usize = 1 << 16;

/// Every sixth layer of Gemma 3 sees the whole context.
const GEMMA_PATTERN: usize = 6;

/// Layers of the one Gemma 3 (27B) whose attention is scaled by the width over the heads.
const GEMMA_27B_LAYERS: usize = 62;

/// Factors on rotary frequencies that stand in tensors of their own.
#[derive(Default)]
pub struct RopeFactors {
    /// `rope_freqs` (Llama 3).
    pub all: Option<Vec<f32>>,
    /// `rope_factors_short` (Phi-3).
    pub short: Option<Vec<f32>>,
    /// `rope_factors_long` (Phi-3).
    pub long: Option<Vec<f32>>,
}

/// Reads the configuration; the special tokens are left to [`super::tokenizer`].
///
/// # Errors
/// A sentence that names the key, what was expected and what was found.
pub fn parse(contents: &Contents, factors: RopeFactors) -> Result<ModelConfig, String> {
    let name = contents
        .text("general.architecture")?
        .ok_or("metadata general.architecture is missing")?;
    if !SUPPORTED.contains(&name) {
        return Err(format!(
            "metadata general.architecture is {name:?}: expected one of {}",
            SUPPORTED.join(", ")
        ));
    }
    let key = |rest: &str| format!("{name}.{rest}");
    let required = |rest: &str| contents.required_count(&key(rest));
    let gemma = name == "gemma3";
    let layers = required("block_count")?;
    if layers == 0 || layers > MAX_LAYERS {
        return Err(format!(
            "metadata {name}.block_count is {layers}: expected 1 to {MAX_LAYERS}"
        ));
    }
    let hidden = required("embedding_length")?;
    let heads = required("attention.head_count")?;
    if heads == 0 {
        return Err(format!(
            "metadata {name}.attention.head_count is 0: expected 1 or more"
        ));
    }
    let kv_heads = contents
        .count(&key("attention.head_count_kv"))?
        .unwrap_or(heads);
    let head_dim = contents
        .count(&key("attention.key_length"))?
        .unwrap_or(hidden / heads);
    // The rows of LLaMA's heads alternate between two halves.
    if name == "llama" && !head_dim.is_multiple_of(2) {
        return Err(format!("heads of {head_dim}: expected an even length"));
    }
    let values = contents
        .count(&key("attention.value_length"))?
        .unwrap_or(head_dim);
    if values != head_dim {
        return Err(format!(
            "keys of {head_dim} and values of {values}: expected the same length"
        ));
    }
    let embedding = contents.tensors.get("token_embd.weight");
    let embedding = embedding.ok_or("tensor token_embd.weight is missing")?;
    let vocab = embedding.dimensions.get(1).copied().unwrap_or(0);
    let eps = contents.float(&key("attention.layer_norm_rms_epsilon"))?;
    let scaled = if gemma && layers == GEMMA_27B_LAYERS {
        hidden / heads
    } else {
        head_dim
    };
    let window = contents
        .count(&key("attention.sliding_window"))?
        .filter(|&w| w > 0);
    let slides = |layer: usize| match name {
        "gemma3" => !(layer + 1).is_multiple_of(GEMMA_PATTERN),
        "phi3" | "llama" => true,
        _ => false,
    };
    let layer = |layer| LayerConfig {
        window: window.filter(|_| slides(layer)),
        rope: usize::from(gemma && slides(layer)),
    };
    let config = ModelConfig {
        architecture: name.to_owned(),
        vocab_size: vocab,
        hidden_size: hidden,
        intermediate_size: required("feed_forward_length")?,
        heads,
        kv_heads,
        head_dim,
        max_positions: required("context_length")?,
        layers: (0..layers).map(layer).collect(),
        norm: NormKind::Rms,
        norm_eps: eps.ok_or_else(|| {
            format!("metadata {name}.attention.layer_norm_rms_epsilon is missing")
        })?,
        residual: Residual::PreNorm,
        post_norms: gemma,
        qk_norms: gemma || name == "qwen3",
        qkv_biases: name == "qwen2" || contents.tensors.contains_key("blk.0.attn_q.bias"),
        biases: false,
        feed_forward: FeedForward::Gated,
        activation: if gemma {
            Activation::GeluTanh
        } else {
            Activation::Silu
        },
        attention_scale: (scaled as f32).powf(-0.5),
        embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
        ropes: ropes(contents, name, head_dim, factors)?,
        tied_head: !contents.tensors.contains_key("output.weight"),
        logit_softcap: contents.float(&key("final_logit_softcapping"))?,
        attention_softcap: contents.float(&key("attn_logit_softcapping"))?,
        bos_token: None,
        eos_tokens: vec![],
        encoder: None,
    };
    kinglet::format::validate::config(&config)?;
    Ok(config)
}

fn ropes(
    contents: &Contents,
    name: &str,
    head_dim: usize,
    factors: RopeFactors,
) -> Result<Vec<Rope>, String> {
    let key = |rest: &str| format!("{name}.rope.{rest}");
    let gemma = name == "gemma3";
    let theta = contents.float(&key("freq_base"))?;
    let dims = contents.count(&key("dimension_count"))?.unwrap_or(head_dim);
    let context = contents.required_count(&format!("{name}.context_length"))?;
    let global = Rope {
        theta: theta.unwrap_or(if gemma { 1e6 } else { 1e4 }),
        dims,
        scaling: scaling(contents, name, context, factors)?,
    };
    if !gemma {
        return Ok(vec![global]);
    }
    let local = contents.float(&key("freq_base_swa"))?;
    let local = Rope {
        theta: local.unwrap_or(1e4),
        dims,
        scaling: None,
    };
    Ok(vec![global, local])
}

fn scaling(
    contents: &Contents,
    name: &str,
    context: usize,
    factors: RopeFactors,
) -> Result<Option<RopeScaling>, String> {
    let key = |rest: &str| format!("{name}.rope.scaling.{rest}");
    let original = contents.count(&key("original_context_length"))?;
    let original_positions = original.unwrap_or(context);
    if let Some(all) = factors.all {
        // The factors of Llama 3 come worked out, the same for every context.
        return Ok(Some(RopeScaling::LongRope {
            short: all.clone(),
            long: all,
            original_positions,
            attention_factor: 1.0,
        }));
    }
    if let (Some(short), Some(long)) = (factors.short, factors.long) {
        let grown = context as f32 / original_positions.max(1) as f32;
        let attention = if grown > 1.0 {
            (1.0 + grown.ln() / (original_positions as f32).ln()).sqrt()
        } else {
            1.0
        };
        return Ok(Some(RopeScaling::LongRope {
            short,
            long,
            original_positions,
            attention_factor: contents.float(&key("attn_factor"))?.unwrap_or(attention),
        }));
    }
    let factor = contents.float(&key("factor"))?.unwrap_or(1.0);
    match contents.text(&key("type"))?.unwrap_or("none") {
        "none" => Ok(None),
        "linear" if factor == 1.0 => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor })),
        "yarn" => {
            let attention = if factor > 1.0 {
                0.1 * factor.ln() + 1.0
            } else {
                1.0
            };
            let number = |rest: &str| contents.float(&key(rest));
            Ok(Some(RopeScaling::Yarn {
                factor,
                beta_fast: number("yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: number("yarn_beta_slow")?.unwrap_or(1.0),
                original_positions,
                attention_factor: number("attn_factor")?.unwrap_or(1.0) * attention,
            }))
        }
        other => Err(format!(
            "metadata {name}.rope.scaling.type is {other:?}: expected none, linear or yarn"
        )),
    }
}
