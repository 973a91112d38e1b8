//! From the tensor names of `transformers` to ours.

use super::encoder;
use super::safetensors::{Shards, Tensor};
use crate::Error;
use crate::checkpoint::Weight;
use half::{bf16, f16};
use kinglet::config::ModelConfig;
use kinglet::format::names::expected_weights;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Rows of a tensor, as floats when they are read.
struct Rows {
    tensor: Tensor,
    /// First row.
    first: usize,
    shape: Vec<usize>,
    /// Added to each value: Gemma stores the weights of its norms minus one.
    plus: f32,
}

impl Weight for Rows {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let cols = self.shape.get(1).copied().unwrap_or(1);
        let size = self.tensor.dtype.bitsize() / 8;
        let offset = (self.first + rows.start) * cols * size;
        let mut bytes = vec![0; out.len() * size];
        self.tensor
            .file
            .read_at(self.tensor.offset + offset as u64, &mut bytes)?;
        match self.tensor.dtype {
            Dtype::F32 => decode(&bytes, out, f32::from_le_bytes),
            Dtype::F16 => decode(&bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            _ => decode(&bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        }
        if self.plus != 0.0 {
            out.iter_mut().for_each(|x| *x += self.plus);
        }
        Ok(())
    }
}

fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = value(*bytes);
    }
}

/// Where a weight of ours is: tensor, and which of the parts that are stacked there.
struct Place {
    tensor: String,
    first: usize,
    /// Rows of the whole tensor.
    rows: usize,
}

/// Finds every weight that the configuration needs; tensors that it does not need (a copy of a tied
/// head, the vision part of Gemma 3) stay unread.
///
/// # Errors
/// A tensor that is missing, or whose shape or type is not as expected.
pub fn find(
    folder: &Path,
    config: &ModelConfig,
    shards: &Shards,
) -> Result<BTreeMap<String, Arc<dyn Weight>>, Error> {
    // Gemma 3 with vision keeps its text model under a prefix.
    let prefix = ["", "language_model.", "model.language_model."]
        .into_iter()
        .find(|prefix| {
            shards
                .tensors
                .contains_key(&format!("{prefix}model.embed_tokens.weight"))
                || prefix.ends_with("language_model.")
                    && shards
                        .tensors
                        .contains_key(&format!("{prefix}embed_tokens.weight"))
        })
        .unwrap_or("");
    let gemma = config.architecture.starts_with("gemma");
    let mut weights: BTreeMap<String, Arc<dyn Weight>> = BTreeMap::new();
    for (name, shape) in expected_weights(config) {
        let place = place(config, &name, &shape, shards, prefix);
        let tensor = shards.tensors.get(&place.tensor).ok_or_else(|| {
            let reason = match name.as_str() {
                "head" => "missing from the weights: is tie_word_embeddings of config.json right?",
                _ => "missing from the weights",
            };
            Error::tensor(folder, &place.tensor, reason)
        })?;
        let mut expected = shape.clone();
        expected[0] = place.rows;
        let fail = |reason: String| Error::tensor(tensor.file.path(), &tensor.name, reason);
        if tensor.shape != expected {
            return Err(fail(format!(
                "shape {:?}, but config.json makes it {expected:?}",
                tensor.shape
            )));
        }
        if !matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(fail(format!(
                "type {:?}: expected F32, F16 or BF16; \
                 convert from the model that was not quantized",
                tensor.dtype
            )));
        }
        let rows = Rows {
            tensor: tensor.clone(),
            first: place.first,
            plus: if gemma && name.ends_with("norm") {
                1.0
            } else {
                0.0
            },
            shape,
        };
        weights.insert(name, Arc::new(rows));
    }
    Ok(weights)
}

fn place(
    config: &ModelConfig,
    name: &str,
    shape: &[usize],
    shards: &Shards,
    prefix: &str,
) -> Place {
    let whole = |tensor: String| Place {
        tensor,
        first: 0,
        rows: shape[0],
    };
    // Some checkpoints are of the inner model alone, whose names lack the first part.
    let alone = shards
        .tensors
        .contains_key(&format!("{prefix}embed_tokens.weight"));
    let model = format!("{prefix}{}", if alone { "" } else { "model." });
    if config.encoder.is_some() {
        return whole(encoder::tensor(config, name, shards));
    }
    match name {
        "embed" => return whole(format!("{model}embed_tokens.weight")),
        "norm" => return whole(format!("{model}norm.weight")),
        "head" => return whole(format!("{prefix}lm_head.weight")),
        _ => {}
    }
    let mut parts = name.splitn(3, '.').skip(1);
    let layer = parts.next().unwrap_or_default();
    let part = parts.next().unwrap_or_default();
    let of_layer = |rest: &str| format!("{model}layers.{layer}.{rest}");
    let (queries, keys) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    // Phi-3 stacks query, key and value, and gate and up.
    let stacked = |rest: &str, first: usize, rows: usize| {
        let tensor = of_layer(rest);
        let there = shards.tensors.contains_key(&tensor);
        there.then_some(Place {
            tensor,
            first,
            rows,
        })
    };
    const QKV: &str = "self_attn.qkv_proj.weight";
    const GATE_UP: &str = "mlp.gate_up_proj.weight";
    let intermediate = config.intermediate_size;
    let fused = match part {
        "q" => stacked(QKV, 0, queries + 2 * keys),
        "k" => stacked(QKV, queries, queries + 2 * keys),
        "v" => stacked(QKV, queries + keys, queries + 2 * keys),
        "gate" => stacked(GATE_UP, 0, 2 * intermediate),
        "up" => stacked(GATE_UP, intermediate, 2 * intermediate),
        _ => None,
    };
    fused.unwrap_or_else(|| {
        let rest = match part {
            "attn_norm" => "input_layernorm.weight",
            "attn_post_norm" => "post_attention_layernorm.weight",
            "ffn_norm" if config.post_norms => "pre_feedforward_layernorm.weight",
            "ffn_norm" => "post_attention_layernorm.weight",
            "ffn_post_norm" => "post_feedforward_layernorm.weight",
            "q" => "self_attn.q_proj.weight",
            "k" => "self_attn.k_proj.weight",
            "v" => "self_attn.v_proj.weight",
            "o" => "self_attn.o_proj.weight",
            "q_bias" => "self_attn.q_proj.bias",
            "k_bias" => "self_attn.k_proj.bias",
            "v_bias" => "self_attn.v_proj.bias",
            "q_norm" => "self_attn.q_norm.weight",
            "k_norm" => "self_attn.k_norm.weight",
            "gate" => "mlp.gate_proj.weight",
            "up" => "mlp.up_proj.weight",
            _ => "mlp.down_proj.weight",
        };
        whole(of_layer(rest))
    })
}
