//! Writes the seeds of the fuzz targets: `cargo run --release -p kinglet-tests --example fuzz_seeds`.

use kinglet::config::{
    Classifier, EncoderConfig, FeedForward, HeadActivation, ModelConfig, NormKind, Pooling,
    Residual, Scores,
};
use kinglet_convert::recipe::Recipe;
use kinglet_tests::models::folder::{HfFolder, SINGLE, shard_parts};
use kinglet_tests::models::gguf::{Gguf, Tensor, Value, text, texts};
use kinglet_tests::models::{FOLDER_SEPARATOR, KGL_SEPARATOR};
use kinglet_tests::{checkpoint, recipe, tiny_config};
use serde_json::{Value as Json, json};
use std::path::Path;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let save = |target: &str, name: &str, bytes: Vec<u8>| {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder).expect("a folder for the seeds");
        std::fs::write(folder.join(name), bytes).expect("a seed");
    };
    for kind in ["f32", "f16", "q8", "q4"] {
        save("kgl", kind, kgl_parts(&kgl(kind, tiny())));
    }
    let mut gemma = tiny();
    (gemma.post_norms, gemma.qk_norms, gemma.qkv_biases) = (true, true, true);
    (gemma.tied_head, gemma.logit_softcap) = (false, Some(30.0));
    gemma.layers[0].window = Some(2);
    save("kgl", "options", kgl_parts(&kgl("q8", gemma)));
    save("kgl", "encoder", kgl_parts(&kgl("q8", encoder())));
    let corrected = |recipe: &mut Recipe| {
        recipe.quantize.low_rank = 2;
        recipe.quantize.bias_correction = true;
    };
    save(
        "kgl",
        "corrected",
        kgl_parts(&kgl_by("q4", tiny(), corrected)),
    );
    save("kgl", "whole", [&[0], &kgl("q4", tiny())[..]].concat());

    save("gguf", "gpt2", Gguf::sound().bytes());
    save("gguf", "llama", Gguf::sentence_piece().bytes());
    save("gguf", "qwen3", qwen3().bytes());
    save("gguf", "k-quants", k_quants().bytes());

    let sound = HfFolder::sound();
    save("safetensors", "llama", folder(&sound, false));
    save("safetensors", "index", folder(&sound, true));
    let mut scaled = HfFolder::sound();
    scaled.config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0});
    scaled.config["layer_types"] = json!(["sliding_attention"]);
    scaled.config["sliding_window"] = json!(8);
    save("safetensors", "yarn", folder(&scaled, false));
    let mut mapped = HfFolder::sound();
    let tokenizer = include_str!("../fixtures/encoders/xlm-roberta/tokenizer.json");
    let tokenizer: Json = serde_json::from_str(tokenizer).expect("JSON");
    mapped.tokenizer["normalizer"] = tokenizer["normalizer"].clone();
    save("safetensors", "charsmap", folder(&mapped, false));
}

/// One layer and eight tokens.
fn tiny() -> ModelConfig {
    let mut config = tiny_config();
    config.vocab_size = 8;
    config.hidden_size = 8;
    config.intermediate_size = 8;
    (config.heads, config.kv_heads, config.head_dim) = (2, 1, 4);
    config.ropes[0].dims = 4;
    config.layers.truncate(1);
    config
}

/// A post-norm encoder with learned positions and a classification head.
fn encoder() -> ModelConfig {
    let mut config = tiny();
    config.ropes.clear();
    (config.norm, config.residual) = (NormKind::Layer, Residual::PostNorm);
    (config.biases, config.feed_forward) = (true, FeedForward::Plain);
    config.tied_head = false;
    config.encoder = Some(EncoderConfig {
        first_position: Some(1),
        token_types: 2,
        embedding_norm: true,
        max_tokens: 8,
        pooling: Pooling::Mean,
        normalize: true,
        classifier: Some(Classifier {
            labels: vec!["a".to_owned(), "b".to_owned()],
            activation: HeadActivation::Tanh,
            scores: Scores::Softmax,
        }),
    });
    config
}

fn kgl(kind: &str, config: ModelConfig) -> Vec<u8> {
    kgl_by(kind, config, |_| ())
}

fn kgl_by(kind: &str, config: ModelConfig, change: impl FnOnce(&mut Recipe)) -> Vec<u8> {
    let mut recipe = recipe(kind);
    change(&mut recipe);
    let mut checkpoint = checkpoint(config);
    checkpoint.tokenizer_json = HfFolder::sound().tokenizer.to_string().into_bytes();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.kgl");
    kinglet_convert::write(&checkpoint, &path, &recipe, &|_, _| ()).expect("a sound checkpoint");
    std::fs::read(path).expect("the file")
}

/// The file as the target puts it together.
fn kgl_parts(file: &[u8]) -> Vec<u8> {
    let (length, rest) = file.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut entries: Json = serde_json::from_slice(header).expect("JSON");
    let metadata = entries
        .as_object_mut()
        .and_then(|e| e.remove("__metadata__"));
    let document = metadata.expect("metadata")["header"].take();
    let entries = entries.to_string();
    [
        &[1],
        document.as_str().expect("a document").as_bytes(),
        KGL_SEPARATOR,
        &entries.as_bytes()[1..entries.len() - 1],
        KGL_SEPARATOR,
        data,
    ]
    .concat()
}

fn qwen3() -> Gguf {
    let mut file = Gguf::sound();
    for (key, _) in &mut file.metadata {
        *key = key.replace("llama.", "qwen3.");
    }
    file.set("general.architecture", text("qwen3"));
    file.set("qwen3.rope.freq_base", Value::F32(1e6));
    // Others have an expression to compile, which takes longer than all the rest.
    file.set("tokenizer.ggml.pre", text("smollm"));
    file.set("tokenizer.chat_template", text("{{ messages }}"));
    file.tensors
        .push(Tensor::new("blk.0.attn_q_norm.weight", 0, &[16]));
    file.tensors
        .push(Tensor::new("blk.0.attn_k_norm.weight", 0, &[16]));
    file
}

/// Rows of 256, so that every type of block serves.
fn k_quants() -> Gguf {
    let mut file = Gguf::sound();
    file.set("llama.embedding_length", Value::U32(256));
    file.set("llama.attention.head_count", Value::U32(1));
    file.set("llama.attention.key_length", Value::U32(2));
    file.set("llama.attention.value_length", Value::U32(2));
    file.set("llama.feed_forward_length", Value::U32(1));
    file.set("tokenizer.ggml.tokens", texts(&["a", "b"]));
    file.set("tokenizer.ggml.token_type", Value::I32s(vec![1, 1]));
    file.set("tokenizer.ggml.merges", texts(&[]));
    file.remove("tokenizer.ggml.bos_token_id");
    file.remove("tokenizer.ggml.eos_token_id");
    file.tensors = vec![
        Tensor::new("token_embd.weight", 10, &[256, 2]),
        Tensor::new("output_norm.weight", 30, &[256]),
        Tensor::new("blk.0.attn_norm.weight", 1, &[256]),
        Tensor::new("blk.0.ffn_norm.weight", 1, &[256]),
        Tensor::new("blk.0.attn_q.weight", 11, &[256, 2]),
        Tensor::new("blk.0.attn_k.weight", 12, &[256, 2]),
        Tensor::new("blk.0.attn_v.weight", 13, &[256, 2]),
        Tensor::new("blk.0.attn_output.weight", 1, &[2, 256]),
        Tensor::new("blk.0.ffn_gate.weight", 14, &[256, 1]),
        Tensor::new("blk.0.ffn_up.weight", 8, &[256, 1]),
        Tensor::new("blk.0.ffn_down.weight", 30, &[1, 256]),
        Tensor::new("rope_freqs.weight", 0, &[1]),
    ];
    file
}

fn folder(folder: &HfFolder, index: bool) -> Vec<u8> {
    let shard = &folder.shards[SINGLE];
    let (header, data) = shard_parts(shard);
    let places = shard
        .iter()
        .map(|(name, _)| (name.clone(), json!("a.safetensors")));
    let places: serde_json::Map<String, Json> = places.collect();
    let index = match index {
        true => json!({"weight_map": places}).to_string(),
        false => String::new(),
    };
    let settings = json!({"chat_template": "{{ messages }}"}).to_string();
    [
        folder.config.to_string().as_bytes(),
        folder.tokenizer.to_string().as_bytes(),
        settings.as_bytes(),
        index.as_bytes(),
        &header,
        &data,
    ]
    .join(FOLDER_SEPARATOR)
}
