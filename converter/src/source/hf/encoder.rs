//! BERT, DistilBERT, RoBERTa and XLM-RoBERTa: `config.json` as a [`ModelConfig`], the names of their tensors, and
//! what sentence-transformers keeps beside (`modules.json`).

use super::safetensors::Shards;
use crate::Error;
use crate::source::folder::Folder;
use kinglet::config::{
    Activation, Classifier, EncoderConfig, FeedForward, HeadActivation, LayerConfig, ModelConfig,
    NormKind, Pooling, Residual, Scores,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What [`parse`] supports, by `model_type`.
pub const SUPPORTED: [&str; 4] = ["bert", "distilbert", "roberta", "xlm-roberta"];

/// The most layers that are counted out; the runtime's own limit is lower.
const MAX_LAYERS: usize = 1 << 16;

/// The fields of `config.json` that matter; DistilBERT has names of its own.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "activation")]
    hidden_act: String,
    max_position_embeddings: usize,
    #[serde(default = "default_types")]
    type_vocab_size: usize,
    #[serde(default = "default_eps")]
    layer_norm_eps: f32,
    position_embedding_type: Option<String>,
    pad_token_id: Option<usize>,
    #[serde(default)]
    is_decoder: bool,
    id2label: Option<BTreeMap<String, String>>,
    num_labels: Option<usize>,
    problem_type: Option<String>,
    /// What sentence-transformers does with the scores of pairs: now, and in its older versions.
    #[serde(default)]
    sentence_transformers: CrossEncoder,
    sbert_ce_default_activation_function: Option<String>,
}

#[derive(Default, Deserialize)]
struct CrossEncoder {
    activation_fn: Option<String>,
}

fn default_types() -> usize {
    2
}

fn default_eps() -> f32 {
    1e-12
}

/// Reads `config.json`; how texts become vectors is left to [`read_pooling`].
///
/// # Errors
/// A sentence that names the field, what was expected and what was found.
pub fn parse(config: Value) -> Result<ModelConfig, String> {
    let config: Config = serde_json::from_value(config).map_err(|e| e.to_string())?;
    config.model()
}

impl Config {
    fn model(&self) -> Result<ModelConfig, String> {
        if self.num_hidden_layers == 0 || self.num_hidden_layers > MAX_LAYERS {
            return Err(format!("num_hidden_layers is {}", self.num_hidden_layers));
        }
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
            return Err(format!(
                "hidden_size {} is not a multiple of num_attention_heads {heads}",
                self.hidden_size
            ));
        }
        if let Some(kind) = self.position_embedding_type.as_ref()
            && kind != "absolute"
        {
            return Err(format!(
                "position_embedding_type {kind:?} is not supported: expected absolute"
            ));
        }
        if self.is_decoder {
            return Err("is_decoder is set: expected an encoder".to_owned());
        }
        let head_dim = self.hidden_size / heads;
        // RoBERTa counts positions from the one after the padding token's.
        let first = match self.model_type.as_str() {
            "roberta" | "xlm-roberta" => self.pad_token_id.unwrap_or(1).saturating_add(1),
            _ => 0,
        };
        let positions = self.max_position_embeddings.saturating_sub(first);
        let distilled = self.model_type == "distilbert";
        let model = ModelConfig {
            architecture: self.model_type.clone(),
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            heads,
            kv_heads: heads,
            head_dim,
            max_positions: positions,
            layers: vec![
                LayerConfig {
                    window: None,
                    rope: 0
                };
                self.num_hidden_layers
            ],
            norm: NormKind::Layer,
            norm_eps: if distilled {
                1e-12
            } else {
                self.layer_norm_eps
            },
            residual: Residual::PostNorm,
            post_norms: false,
            qk_norms: false,
            qkv_biases: false,
            biases: true,
            feed_forward: FeedForward::Plain,
            activation: self.activation()?,
            attention_scale: (head_dim as f32).powf(-0.5),
            embedding_scale: 1.0,
            ropes: vec![],
            tied_head: false,
            logit_softcap: None,
            attention_softcap: None,
            bos_token: None,
            eos_tokens: vec![],
            encoder: Some(EncoderConfig {
                first_position: Some(first),
                token_types: if distilled { 0 } else { self.type_vocab_size },
                embedding_norm: true,
                max_tokens: positions,
                pooling: Pooling::Mean,
                normalize: false,
                classifier: self.classifier()?,
            }),
        };
        kinglet::format::validate::config(&model)?;
        Ok(model)
    }

    fn activation(&self) -> Result<Activation, String> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "silu" | "swish" => Ok(Activation::Silu),
            other => Err(format!(
                "hidden_act {other:?} is not supported: expected gelu, gelu_new or silu"
            )),
        }
    }

    /// The head of a `…ForSequenceClassification`.
    fn classifier(&self) -> Result<Option<Classifier>, String> {
        let classifies = |name: &String| name.ends_with("ForSequenceClassification");
        if !self.architectures.iter().any(classifies) {
            return Ok(None);
        }
        let named = self.id2label.iter().flatten().map(|(index, label)| {
            let parsed = index.parse::<usize>();
            let parsed = parsed.map_err(|_| format!("id2label has the key {index:?}"))?;
            Ok((parsed, label.clone()))
        });
        let named: BTreeMap<usize, String> = named.collect::<Result<_, String>>()?;
        // What transformers takes where the configuration does not say.
        let count = if named.is_empty() {
            self.num_labels.unwrap_or(2)
        } else {
            named.len()
        };
        if count > MAX_LAYERS {
            return Err(format!("num_labels is {count}"));
        }
        let own = self.sentence_transformers.activation_fn.as_ref();
        let own = own.or(self.sbert_ce_default_activation_function.as_ref());
        let label = |index: usize| {
            let label = named.get(&index).cloned();
            label.unwrap_or_else(|| format!("LABEL_{index}"))
        };
        let mut labels: Vec<String> = (0..count).map(label).collect();
        // Scores are told by label.
        for index in 1..count {
            if labels[..index].contains(&labels[index]) {
                labels[index] = format!("{} ({index})", labels[index]);
            }
        }
        Ok(Some(Classifier {
            labels,
            activation: match self.model_type.as_str() {
                "distilbert" => HeadActivation::Relu,
                _ => HeadActivation::Tanh,
            },
            scores: match self.problem_type.as_deref() {
                _ if own.is_some_and(|name| name.ends_with(".Identity")) => Scores::Raw,
                Some("regression") => Scores::Raw,
                Some("multi_label_classification") => Scores::Sigmoid,
                None if count == 1 => Scores::Sigmoid,
                _ => Scores::Softmax,
            },
        }))
    }
}

/// The tensor of a weight of ours.
pub fn tensor(config: &ModelConfig, name: &str, shards: &Shards) -> String {
    let distilled = config.architecture == "distilbert";
    // The model itself, or the model inside one with a head.
    let family = if distilled {
        "distilbert."
    } else if ["roberta", "xlm-roberta"].contains(&config.architecture.as_str()) {
        "roberta."
    } else {
        "bert."
    };
    const WORDS: &str = "embeddings.word_embeddings.weight";
    let prefix = match shards.tensors.contains_key(WORDS) {
        true => "",
        false => family,
    };
    let (name, end) = match name.strip_suffix("_bias") {
        Some(name) => (name, "bias"),
        None => (name, "weight"),
    };
    let head = match (family, name) {
        ("bert.", "classifier_dense") => return format!("{prefix}pooler.dense.{end}"),
        ("distilbert.", "classifier_dense") => Some("pre_classifier"),
        ("roberta.", "classifier_dense") => Some("classifier.dense"),
        ("roberta.", "classifier") => Some("classifier.out_proj"),
        (_, "classifier") => Some("classifier"),
        _ => None,
    };
    if let Some(head) = head {
        return format!("{head}.{end}");
    }
    let place = match name
        .split_once('.')
        .and_then(|(_, rest)| rest.split_once('.'))
    {
        Some((layer, part)) if distilled => {
            let part = match part {
                "q" => "attention.q_lin",
                "k" => "attention.k_lin",
                "v" => "attention.v_lin",
                "o" => "attention.out_lin",
                "attn_norm" => "sa_layer_norm",
                "up" => "ffn.lin1",
                "down" => "ffn.lin2",
                _ => "output_layer_norm",
            };
            format!("transformer.layer.{layer}.{part}")
        }
        Some((layer, part)) => {
            let part = match part {
                "q" => "attention.self.query",
                "k" => "attention.self.key",
                "v" => "attention.self.value",
                "o" => "attention.output.dense",
                "attn_norm" => "attention.output.LayerNorm",
                "up" => "intermediate.dense",
                "down" => "output.dense",
                _ => "output.LayerNorm",
            };
            format!("encoder.layer.{layer}.{part}")
        }
        None => match name {
            "embed" => "embeddings.word_embeddings",
            "positions" => "embeddings.position_embeddings",
            "token_types" => "embeddings.token_type_embeddings",
            _ => "embeddings.LayerNorm",
        }
        .to_owned(),
    };
    // Checkpoints that came from TensorFlow name the parts of norms otherwise.
    let old = match end {
        "bias" => "beta",
        _ => "gamma",
    };
    let old = format!("{prefix}{place}.{old}");
    match shards.tensors.contains_key(&old) {
        true => old,
        false => format!("{prefix}{place}.{end}"),
    }
}

/// One line of `modules.json`.
#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Reads how texts become vectors from the files of sentence-transformers, where there are any.
///
/// # Errors
/// Files that are damaged, or a module or mode that is not supported.
pub fn read_pooling(folder: &Folder, config: &mut ModelConfig) -> Result<(), Error> {
    let Some(encoder) = &mut config.encoder else {
        return Ok(());
    };
    let modules_path = folder.path().join("modules.json");
    let Some(modules) = folder.read("modules.json")? else {
        return Ok(());
    };
    let modules: Vec<Module> = serde_json::from_slice(&modules)
        .map_err(|e| Error::source(&modules_path, e.to_string()))?;
    for module in &modules {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Pooling" => {
                if module.path.contains(['\\', ':']) || !is_inside(&module.path) {
                    let reason = format!("module {:?}: expected a folder in here", module.path);
                    return Err(Error::source(&modules_path, reason));
                }
                // A path may be empty: this folder.
                let name = Path::new(&module.path).join("config.json");
                let name = name.to_string_lossy().into_owned();
                let path = folder.path().join(&name);
                let text = folder.read(&name)?;
                let text = text.ok_or_else(|| Error::source(&path, "missing"))?;
                encoder.pooling = pooling(&text).map_err(|reason| Error::source(&path, reason))?;
            }
            "Normalize" => encoder.normalize = true,
            _ => {
                let reason = format!(
                    "module {:?} is not supported: expected Transformer, Pooling and Normalize",
                    module.kind
                );
                return Err(Error::source(&modules_path, reason));
            }
        }
    }
    for family in SUPPORTED {
        let name = format!("sentence_{family}_config.json");
        let Some(text) = folder.read(&name)? else {
            continue;
        };
        let path = folder.path().join(&name);
        let settings: Value =
            serde_json::from_slice(&text).map_err(|e| Error::source(&path, e.to_string()))?;
        let limit = settings["max_seq_length"].as_u64();
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        if limit == 0 {
            return Err(Error::source(
                &path,
                "max_seq_length is 0: expected 1 or more",
            ));
        }
        encoder.max_tokens = encoder.max_tokens.min(limit);
    }
    Ok(())
}

/// Whether a path of a stranger stays in its folder.
fn is_inside(path: &str) -> bool {
    let normal = |part| matches!(part, std::path::Component::Normal(_));
    Path::new(path).components().all(normal)
}

/// The mode of a pooling module: one of several flags, or (since sentence-transformers 5) a name.
fn pooling(config: &[u8]) -> Result<Pooling, String> {
    let config: Value = serde_json::from_slice(config).map_err(|e| e.to_string())?;
    let flags = config.as_object().into_iter().flatten();
    let flags = flags.filter(|(_, value)| **value == Value::Bool(true));
    let set = flags.filter_map(|(name, _)| name.strip_prefix("pooling_mode_"));
    let modes: Vec<&str> = set.chain(config["pooling_mode"].as_str()).collect();
    match modes[..] {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        _ => Err(format!(
            "pooling by {modes:?} is not supported: expected mean or cls"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bert() -> Value {
        json!({
            "model_type": "bert", "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "gelu",
            "max_position_embeddings": 40, "type_vocab_size": 2
        })
    }

    fn with(key: &str, value: Value) -> Result<ModelConfig, String> {
        let mut config = bert();
        config[key] = value;
        parse(config)
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let refused = |key, value, name: &str| {
            let reason = with(key, value).unwrap_err();
            assert!(reason.contains(name), "no {name:?} in {reason}");
        };
        refused("hidden_act", json!("relu"), "relu");
        refused(
            "position_embedding_type",
            json!("relative_key"),
            "relative_key",
        );
        refused("num_attention_heads", json!(5), "num_attention_heads 5");
        refused("num_attention_heads", json!(0), "num_attention_heads 0");
        refused("num_hidden_layers", json!(0), "num_hidden_layers is 0");
        refused("is_decoder", json!(true), "is_decoder");
        refused("max_position_embeddings", json!(0), "max_positions is 0");
        assert!(pooling(b"{\"pooling_mode_max_tokens\": true}").is_err());
        assert!(pooling(b"{}").is_err());
    }

    #[test]
    fn pooling_is_read_in_both_spellings() {
        let old = br#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
        assert_eq!(pooling(old), Ok(Pooling::Cls));
        let new =
            br#"{"embedding_dimension": 384, "pooling_mode": "mean", "include_prompt": true}"#;
        assert_eq!(pooling(new), Ok(Pooling::Mean));
    }

    #[test]
    fn classes_are_those_of_the_configuration() {
        let head = |labels: Value, problem: Value| {
            let mut config = bert();
            config["architectures"] = json!(["BertForSequenceClassification"]);
            config["id2label"] = labels;
            config["problem_type"] = problem;
            parse(config).unwrap().encoder.unwrap().classifier.unwrap()
        };
        let named = head(json!({"1": "good", "0": "bad"}), Value::Null);
        assert_eq!(named.labels, ["bad", "good"]);
        assert_eq!(named.scores, Scores::Softmax);
        let same = head(json!({"0": "x", "1": "y", "2": "x"}), Value::Null);
        assert_eq!(same.labels, ["x", "y", "x (2)"]);
        assert_eq!(
            head(Value::Null, Value::Null).labels,
            ["LABEL_0", "LABEL_1"]
        );
        assert_eq!(head(json!({"0": "x"}), Value::Null).scores, Scores::Sigmoid);
        assert_eq!(
            head(json!({"0": "x"}), json!("regression")).scores,
            Scores::Raw
        );
        let raw = |key: &str, value: Value| {
            let mut config = bert();
            config["architectures"] = json!(["BertForSequenceClassification"]);
            config["id2label"] = json!({"0": "x"});
            config[key] = value;
            parse(config)
                .unwrap()
                .encoder
                .unwrap()
                .classifier
                .unwrap()
                .scores
        };
        let identity = json!("torch.nn.modules.linear.Identity");
        let old = raw("sbert_ce_default_activation_function", identity.clone());
        let new = raw("sentence_transformers", json!({"activation_fn": identity}));
        assert_eq!((old, new), (Scores::Raw, Scores::Raw));
        assert!(
            with("hidden_act", json!("gelu"))
                .unwrap()
                .encoder
                .unwrap()
                .classifier
                .is_none()
        );
    }

    #[test]
    fn modules_stay_in_their_folder() {
        assert!(is_inside("1_Pooling") && is_inside(""));
        assert!(!is_inside("../x") && !is_inside("/etc") && !is_inside("a/../../b"));
    }
}
