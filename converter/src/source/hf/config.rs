//! `config.json` as a [`ModelConfig`].

use super::encoder;
use super::rope::{Context, RopeParameters};
use kinglet::config::{
    Activation, FeedForward, LayerConfig, ModelConfig, NormKind, Residual, Rope,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The fields of `config.json` that matter, over all architectures.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f32,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    tie_word_embeddings: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    query_pre_attn_scalar: Option<f32>,
    final_logit_softcapping: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    rope_theta: Option<f32>,
    rope_local_base_freq: Option<f32>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    #[serde(default)]
    eos_token_id: Value,
}

fn default_eps() -> f32 {
    1e-6
}

/// The most layers that are counted out; the runtime's own limit is lower.
const MAX_LAYERS: usize = 1 << 16;

/// What [`parse`] supports.
const SUPPORTED: &str = "llama, mistral, qwen2, qwen3, gemma3, gemma3_text, phi3";

/// Reads `config.json`, and the end tokens of `generation_config.json` where there is one. The
/// token before every text is left to the tokenizer's files.
///
/// # Errors
/// A sentence that names the field, what was expected and what was found.
pub fn parse(config: &[u8], generation: Option<&[u8]>) -> Result<ModelConfig, String> {
    let mut value: Value = serde_json::from_slice(config).map_err(|e| e.to_string())?;
    if !value.is_object() {
        return Err("expected a JSON object".to_owned());
    }
    if let Some(quantized) = value.get("quantization_config").filter(|q| !q.is_null()) {
        let method = quantized["quant_method"].as_str().unwrap_or("unknown");
        return Err(format!(
            "quantization_config: the weights are quantized already (quant_method {method:?}): \
             convert from the model that was not quantized"
        ));
    }
    let outer_eos = value["eos_token_id"].clone();
    if value["model_type"] == "gemma3" {
        value = value["text_config"].take();
    }
    let found = value["model_type"].as_str().unwrap_or("none").to_owned();
    if encoder::SUPPORTED.contains(&found.as_str()) {
        return encoder::parse(value);
    }
    if !SUPPORTED.split(", ").any(|known| known == found) {
        return Err(format!(
            "model_type {found:?} is not supported: expected one of {SUPPORTED}, {}",
            encoder::SUPPORTED.join(", ")
        ));
    }
    refuse_others(&value)?;
    if let (Some(config), Value::Object(defaults)) = (value.as_object_mut(), defaults(&found)) {
        for (key, default) in defaults {
            config.entry(key).or_insert(default);
        }
    }
    let mut config: Config = serde_path_to_error::deserialize(value).map_err(|e| e.to_string())?;
    if let Some(generation) = generation {
        let generation: Value = serde_json::from_slice(generation)
            .map_err(|e| format!("generation_config.json: {e}"))?;
        let eos = &generation["eos_token_id"];
        tokens(eos).map_err(|e| format!("generation_config.json: {e}"))?;
        if !eos.is_null() {
            config.eos_token_id = eos.clone();
        }
    }
    if config.eos_token_id.is_null() {
        config.eos_token_id = outer_eos;
    }
    config.model()
}

/// What no decoder of ours runs, whatever the architecture.
fn refuse_others(config: &Value) -> Result<(), String> {
    if config["use_bidirectional_attention"] == true {
        return Err(
            "use_bidirectional_attention is true: an encoder, expected a decoder".to_owned(),
        );
    }
    for key in ["attention_bias", "mlp_bias"] {
        if config[key] == true {
            return Err(format!("{key} is true: not supported, expected false"));
        }
    }
    Ok(())
}

/// What `transformers` takes where `config.json` is silent, as it is in the text models of Gemma 3
/// with vision.
fn defaults(model_type: &str) -> Value {
    match model_type {
        "gemma3" | "gemma3_text" => json!({
            "vocab_size": 262_208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131_072,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "hidden_activation": "gelu_pytorch_tanh",
        }),
        "mistral" => json!({"sliding_window": 4096}),
        "qwen3" => json!({"head_dim": 128}),
        "phi3" => json!({"original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5}),
        _ => Value::Null,
    }
}

impl Config {
    fn is_gemma(&self) -> bool {
        self.model_type.starts_with("gemma3")
    }

    fn model(&self) -> Result<ModelConfig, String> {
        if self.num_hidden_layers == 0 || self.num_hidden_layers > MAX_LAYERS {
            return Err(format!(
                "num_hidden_layers is {}: expected 1 to {MAX_LAYERS}",
                self.num_hidden_layers
            ));
        }
        if self.num_attention_heads == 0 {
            return Err("num_attention_heads is 0: expected 1 or more".to_owned());
        }
        let head_dim = self.hidden_size / self.num_attention_heads;
        let head_dim = self.head_dim.unwrap_or(head_dim);
        let gemma = self.is_gemma();
        let scalar = self.query_pre_attn_scalar.filter(|_| gemma);
        let (layers, ropes) = self.layers(head_dim)?;
        let model = ModelConfig {
            architecture: self.model_type.clone(),
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim,
            max_positions: self.max_position_embeddings,
            layers,
            norm: NormKind::Rms,
            norm_eps: self.rms_norm_eps,
            residual: Residual::PreNorm,
            post_norms: gemma,
            qk_norms: gemma || self.model_type == "qwen3",
            qkv_biases: self.model_type == "qwen2",
            biases: false,
            feed_forward: FeedForward::Gated,
            activation: self.activation()?,
            attention_scale: scalar.unwrap_or(head_dim as f32).powf(-0.5),
            embedding_scale: if gemma {
                (self.hidden_size as f32).sqrt()
            } else {
                1.0
            },
            ropes,
            tied_head: self.tie_word_embeddings.unwrap_or(gemma),
            logit_softcap: self.final_logit_softcapping,
            attention_softcap: self.attn_logit_softcapping,
            bos_token: None,
            eos_tokens: tokens(&self.eos_token_id)?,
            encoder: None,
        };
        kinglet::format::validate::config(&model)?;
        Ok(model)
    }

    fn activation(&self) -> Result<Activation, String> {
        let name = self.hidden_activation.as_ref().or(self.hidden_act.as_ref());
        match name.map_or("silu", String::as_str) {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Ok(Activation::GeluTanh),
            other => Err(format!(
                "hidden_act {other:?} is not supported: expected silu, gelu or gelu_pytorch_tanh"
            )),
        }
    }

    /// The sliding window of the layers that have one.
    fn window(&self) -> Option<usize> {
        let qwen = self.model_type.starts_with("qwen");
        let used = !qwen || self.use_sliding_window == Some(true);
        self.sliding_window.filter(|&window| used && window > 0)
    }

    /// Whether a layer has the sliding window.
    fn sliding(&self, layer: usize) -> bool {
        if let Some(types) = &self.layer_types {
            let kind = types.get(layer).map(String::as_str);
            return kind == Some("sliding_attention");
        }
        match self.model_type.as_str() {
            "qwen2" | "qwen3" => layer >= self.max_window_layers.unwrap_or(28),
            "mistral" | "phi3" => true,
            _ if self.is_gemma() => {
                let pattern = self.sliding_window_pattern.unwrap_or(6).max(1);
                !(layer + 1).is_multiple_of(pattern)
            }
            _ => false,
        }
    }

    /// Whether `layer_types`, if it is there, has a known type for each layer.
    fn check_layer_types(&self) -> Result<(), String> {
        let Some(types) = &self.layer_types else {
            return Ok(());
        };
        if types.len() != self.num_hidden_layers {
            return Err(format!(
                "layer_types has {} entries: expected {}, one for each of num_hidden_layers",
                types.len(),
                self.num_hidden_layers
            ));
        }
        const KNOWN: [&str; 2] = ["full_attention", "sliding_attention"];
        match types.iter().find(|kind| !KNOWN.contains(&kind.as_str())) {
            None => Ok(()),
            Some(other) => Err(format!(
                "layer_types has {other:?}: expected {}",
                KNOWN.join(" or ")
            )),
        }
    }

    fn layers(&self, head_dim: usize) -> Result<(Vec<LayerConfig>, Vec<Rope>), String> {
        self.check_layer_types()?;
        let kind = |layer| if self.sliding(layer) { 1 } else { 0 };
        let window = self.window();
        let layers = (0..self.num_hidden_layers).map(|layer| LayerConfig {
            window: window.filter(|_| kind(layer) == 1),
            rope: if self.is_gemma() { kind(layer) } else { 0 },
        });
        let ropes = if self.is_gemma() {
            vec![
                self.rope(head_dim, "full_attention", 1e6)?,
                self.rope(head_dim, "sliding_attention", 1e4)?,
            ]
        } else {
            vec![self.rope(head_dim, "full_attention", 1e4)?]
        };
        Ok((layers.collect(), ropes))
    }

    /// A rotary embedding. `rope_parameters` (transformers 5) holds one, or one for each kind of
    /// layer; `rope_theta`, `rope_scaling` and `rope_local_base_freq` are what came before.
    fn rope(&self, head_dim: usize, kind: &str, default: f32) -> Result<Rope, String> {
        let new = self.rope_parameters.as_ref();
        let of_kind = new.and_then(|new| new.get(kind)?.as_object());
        let local = kind == "sliding_attention";
        let parameters = of_kind
            .or(new)
            .or(self.rope_scaling.as_ref().filter(|_| !local));
        let empty = Map::new();
        let parameters = RopeParameters(parameters.unwrap_or(&empty));
        let old = if local {
            self.rope_local_base_freq
        } else {
            self.rope_theta
        };
        let theta = parameters.number("rope_theta")?.or(old).unwrap_or(default);
        let part = parameters.number("partial_rotary_factor")?;
        let part = part.or(self.partial_rotary_factor).unwrap_or(1.0);
        Ok(Rope {
            theta,
            dims: (head_dim as f32 * part) as usize,
            scaling: parameters.scaling(self.context())?,
        })
    }

    fn context(&self) -> Context {
        Context {
            positions: self.max_position_embeddings,
            original: self.original_max_position_embeddings,
            phi3: self.model_type == "phi3",
        }
    }
}

/// One token, a list of them, or none.
fn tokens(value: &Value) -> Result<Vec<u32>, String> {
    let token = |value: &Value| {
        let token = value.as_u64().and_then(|token| u32::try_from(token).ok());
        token.ok_or_else(|| format!("eos_token_id is {value}: expected a token or a list of them"))
    };
    match value {
        Value::Null => Ok(vec![]),
        Value::Array(values) => values.iter().map(token).collect(),
        value => Ok(vec![token(value)?]),
    }
}
