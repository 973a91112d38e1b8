//! Configurations as published models write them; folders in a file of their own.

mod folders;

use super::config::parse;
use kinglet::config::{Activation, ModelConfig, RopeScaling};
use serde_json::{Map, Value, json};

/// A small configuration with some keys set, or taken away where the value is null.
fn config(model_type: &str, changes: Value) -> Value {
    let mut config = json!({
        "model_type": model_type,
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": false,
    });
    let object = config.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        object.insert(key.clone(), value.clone());
    }
    object.retain(|_, value| !value.is_null());
    config
}

#[track_caller]
fn parsed(config: &Value) -> ModelConfig {
    parse(config.to_string().as_bytes(), None).unwrap()
}

/// The message names all of these.
#[track_caller]
fn refused(config: &Value, names: &[&str]) {
    let message = parse(config.to_string().as_bytes(), None).unwrap_err();
    for name in names {
        assert!(message.contains(name), "no {name:?} in: {message}");
    }
}

fn windows(config: &ModelConfig) -> Vec<Option<usize>> {
    config.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn llama_is_plain() {
    let model = parsed(&config("llama", json!({"eos_token_id": 2})));
    assert_eq!((model.heads, model.kv_heads, model.head_dim), (4, 2, 16));
    assert_eq!(model.attention_scale, 0.25);
    assert_eq!(model.activation, Activation::Silu);
    assert_eq!(model.eos_tokens, [2]);
    assert_eq!(windows(&model), [None; 8]);
    assert_eq!(model.ropes.len(), 1);
    assert_eq!((model.ropes[0].theta, model.ropes[0].dims), (1e4, 16));
    assert_eq!(model.ropes[0].scaling, None);
    assert!(!model.post_norms && !model.qk_norms && !model.qkv_biases && !model.tied_head);
}

#[test]
fn what_is_left_out_is_as_in_transformers() {
    let model = parsed(&config("llama", json!({"num_key_value_heads": null})));
    assert_eq!(model.kv_heads, 4);
    assert_eq!(parsed(&config("qwen3", json!({}))).head_dim, 128);
    let mistral = parsed(&config("mistral", json!({})));
    assert_eq!(windows(&mistral), [Some(4096); 8]);
    let mut without = config("mistral", json!({}));
    without["sliding_window"] = Value::Null;
    assert_eq!(windows(&parsed(&without)), [None; 8]);
    let phi3 = parsed(&config("phi3", json!({"rms_norm_eps": null})));
    assert_eq!(phi3.norm_eps, 1e-5);
}

#[test]
fn qwen_has_biases_or_norms_and_windows_on_request() {
    let qwen2 = parsed(&config("qwen2", json!({})));
    assert!(qwen2.qkv_biases && !qwen2.qk_norms);
    let qwen3 = parsed(&config("qwen3", json!({"head_dim": 32})));
    assert!(!qwen3.qkv_biases && qwen3.qk_norms);
    assert_eq!(qwen3.head_dim, 32);

    let set = json!({"use_sliding_window": true, "sliding_window": 9, "max_window_layers": 6});
    let mut expected = [None; 8];
    expected[6..].fill(Some(9));
    assert_eq!(windows(&parsed(&config("qwen2", set.clone()))), expected);
    // Kinds of layers come with a window that is not in use, too.
    let mut unused = config("qwen3", set);
    unused["use_sliding_window"] = json!(false);
    unused["layer_types"] = json!(vec!["sliding_attention"; 8]);
    assert_eq!(windows(&parsed(&unused)), [None; 8]);
}

#[test]
fn gemma3_alternates_windows_and_ropes() {
    let old = json!({
        "head_dim": 32, "query_pre_attn_scalar": 64, "sliding_window": 9,
        "rope_theta": 1e6, "rope_local_base_freq": 2e4, "tie_word_embeddings": null,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window_pattern": 4,
    });
    let old = parsed(&config("gemma3_text", old));
    let kinds = [
        "sliding_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
    ];
    let new = json!({
        "head_dim": 32, "query_pre_attn_scalar": 64, "sliding_window": 9,
        "layer_types": ([kinds, kinds].concat()), "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": true,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        },
    });
    assert_eq!(old, parsed(&config("gemma3_text", new)));

    let layers: Vec<_> = old.layers.iter().map(|l| (l.window, l.rope)).collect();
    let period = [(Some(9), 1), (Some(9), 1), (Some(9), 1), (None, 0)];
    assert_eq!(layers, [period, period].concat());
    assert_eq!((old.ropes[0].theta, old.ropes[1].theta), (1e6, 2e4));
    let scaling = Some(RopeScaling::Linear { factor: 8.0 });
    assert_eq!(
        (&old.ropes[0].scaling, &old.ropes[1].scaling),
        (&scaling, &None)
    );
    assert!(old.post_norms && old.qk_norms && old.tied_head);
    assert_eq!((old.embedding_scale, old.attention_scale), (8.0, 0.125));
    assert_eq!(old.activation, Activation::GeluTanh);
}

/// `config.json` of Gemma 3 4B says little of its text model.
#[test]
fn gemma3_with_vision_leaves_much_to_defaults() {
    let config = json!({
        "model_type": "gemma3",
        "eos_token_id": [1, 106],
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        },
        "vision_config": {"model_type": "siglip_vision_model"},
    });
    let model = parsed(&config);
    assert_eq!((model.heads, model.kv_heads, model.head_dim), (8, 4, 256));
    assert_eq!((model.vocab_size, model.max_positions), (262_208, 131_072));
    assert_eq!((model.ropes[0].theta, model.ropes[1].theta), (1e6, 1e4));
    assert_eq!(model.layers[5].window, None);
    assert_eq!(model.layers[6].window, Some(1024));
    assert_eq!(model.attention_scale, 0.0625);
    assert_eq!(model.eos_tokens, [1, 106]);
    assert_eq!(model.activation, Activation::GeluTanh);
    assert!(model.tied_head);
}

/// The rotary embedding of a configuration with these parameters, in the new spelling and the old.
#[track_caller]
fn scaling(model_type: &str, parameters: Value, outer: Value) -> RopeScaling {
    let mut new = config(model_type, outer.clone());
    let mut old = new.clone();
    let mut scaling: Map<String, Value> = parameters.as_object().unwrap().clone();
    new["rope_parameters"] = parameters;
    new["rope_parameters"]["rope_theta"] = json!(5e5);
    old["rope_theta"] = json!(5e5);
    let kind = scaling.remove("rope_type").unwrap();
    scaling.insert("type".to_owned(), kind);
    old["rope_scaling"] = Value::Object(scaling);
    let (new, old) = (parsed(&new), parsed(&old));
    assert_eq!(new, old);
    assert_eq!(new.ropes[0].theta, 5e5);
    new.ropes[0].scaling.clone().unwrap()
}

#[test]
fn rope_scaling_in_both_spellings() {
    let linear = json!({"rope_type": "linear", "factor": 4});
    let expected = RopeScaling::Linear { factor: 4.0 };
    assert_eq!(scaling("llama", linear, json!({})), expected);

    let llama3 = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let expected = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_positions: 8192,
    };
    assert_eq!(scaling("llama", llama3, json!({})), expected);

    let yarn = json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512,
    });
    let expected = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_positions: 512,
        attention_factor: 0.1 * 4f32.ln() + 1.0,
    };
    assert_eq!(scaling("qwen3", yarn, json!({"head_dim": 16})), expected);
}

/// Phi-3 has had three names for it, and says beside it what the context was before.
#[test]
fn longrope_in_every_spelling() {
    for name in ["longrope", "su", "yarn"] {
        let parameters = json!({
            "rope_type": name, "short_factor": [1, 1, 1, 1, 1, 1], "long_factor": [1, 2, 3, 4, 5, 6],
        });
        let outer = json!({"partial_rotary_factor": 0.75, "original_max_position_embeddings": 128});
        let expected = RopeScaling::LongRope {
            short: vec![1.0; 6],
            long: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            original_positions: 128,
            // The context grew sixteenfold.
            attention_factor: (1.0 + 16f32.ln() / 128f32.ln()).sqrt(),
        };
        assert_eq!(scaling("phi3", parameters, outer), expected);
    }
}

#[test]
fn a_rope_that_cannot_run_is_refused_by_its_key() {
    let refused = |parameters: Value, names: &[&str]| {
        for key in ["rope_parameters", "rope_scaling"] {
            refused(&config("llama", json!({key: parameters})), names);
        }
    };
    refused(
        json!({"rope_type": "dynamic", "factor": 2.0}),
        &["rope_type", "dynamic", "llama3"],
    );
    refused(json!({"rope_type": 3}), &["rope_type", "3", "string"]);
    refused(json!({"rope_type": "linear"}), &["linear", "factor"]);
    refused(
        json!({"rope_type": "linear", "factor": "8"}),
        &["factor", "\"8\"", "number"],
    );
    refused(
        json!({"rope_type": "llama3", "factor": 8.0}),
        &["llama3", "low_freq_factor"],
    );
    refused(
        json!({"rope_type": "longrope", "short_factor": [1.0]}),
        &["long_factor"],
    );
    refused(
        json!({"rope_type": "yarn", "factor": 4.0, "truncate": false}),
        &["truncate"],
    );
    let few = json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]});
    refused(few, &["1 short", "expected 8"]);
}

#[test]
fn errors_name_the_key() {
    let llama = |changes| config("llama", changes);
    refused(
        &config("mamba", json!({})),
        &["model_type", "mamba", "qwen3"],
    );
    refused(&json!({"vocab_size": 3}), &["model_type", "none"]);
    refused(&json!([1]), &["object"]);
    refused(
        &llama(json!({"hidden_size": null})),
        &["hidden_size", "missing"],
    );
    refused(
        &llama(json!({"hidden_size": "64"})),
        &["hidden_size", "string"],
    );
    refused(&llama(json!({"hidden_size": -64})), &["hidden_size", "-64"]);
    refused(
        &llama(json!({"layer_types": [1]})),
        &["layer_types", "string"],
    );
    refused(
        &llama(json!({"layer_types": ["full_attention"]})),
        &["layer_types", "1", "8"],
    );
    refused(
        &llama(json!({"layer_types": vec!["linear_attention"; 8]})),
        &["linear_attention"],
    );
    refused(
        &llama(json!({"num_hidden_layers": 0})),
        &["num_hidden_layers"],
    );
    refused(
        &llama(json!({"num_hidden_layers": 1e9 as u64})),
        &["num_hidden_layers"],
    );
    refused(
        &llama(json!({"num_attention_heads": 0})),
        &["num_attention_heads"],
    );
    refused(
        &llama(json!({"num_key_value_heads": 3})),
        &["kv_heads", "3"],
    );
    refused(
        &llama(json!({"hidden_act": "relu2"})),
        &["hidden_act", "relu2"],
    );
    refused(
        &llama(json!({"eos_token_id": "</s>"})),
        &["eos_token_id", "</s>"],
    );
    for key in ["attention_bias", "mlp_bias"] {
        refused(&llama(json!({key: true})), &[key]);
    }
    let encoder = json!({"use_bidirectional_attention": true});
    refused(
        &config("gemma3_text", encoder),
        &["use_bidirectional_attention"],
    );
    assert!(parse(b"{", None).is_err());
}

#[test]
fn quantized_checkpoints_are_refused() {
    let quantization = json!({"quant_method": "gptq", "bits": 4});
    let names = ["quantization_config", "gptq"];
    let quantized = config("llama", json!({"quantization_config": quantization}));
    refused(&quantized, &names);
    let text = config("gemma3_text", json!({}));
    let quantized = json!({
        "model_type": "gemma3", "text_config": text, "quantization_config": quantization,
    });
    refused(&quantized, &names);
}

#[test]
fn generation_config_has_the_last_word_on_end_tokens() {
    let config = config("llama", json!({"eos_token_id": 2})).to_string();
    let eos = |generation: &str| {
        let model = parse(config.as_bytes(), Some(generation.as_bytes()));
        model.map(|model| model.eos_tokens)
    };
    assert_eq!(eos(r#"{"eos_token_id": [5, 6]}"#).unwrap(), [5, 6]);
    assert_eq!(eos(r#"{"temperature": 0.6}"#).unwrap(), [2]);
    assert!(eos("[").unwrap_err().contains("generation_config.json"));
}
