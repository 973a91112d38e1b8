//! A Hugging Face folder that can be changed before it is opened.

use kinglet_convert::source::folder::Folder;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor of a shard.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its entry in the header.
    pub entry: Value,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A shard: tensors in the order of their data.
pub type Shard = Vec<(String, Tensor)>;

/// A folder.
#[derive(Clone, Debug)]
pub struct HfFolder {
    /// `config.json`
    pub config: Value,
    /// `tokenizer.json`
    pub tokenizer: Value,
    /// Shards by file name.
    pub shards: BTreeMap<String, Shard>,
    /// Other files, and those that replace the above.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Files that are left out.
    pub missing: Vec<String>,
}

/// The name of the only shard.
pub const SINGLE: &str = "model.safetensors";

fn tensor(dtype: &str, shape: &[usize]) -> Tensor {
    let size = if dtype == "F32" { 4 } else { 2 };
    let len = shape.iter().product::<usize>() * size;
    Tensor {
        entry: json!({"dtype": dtype, "shape": shape}),
        // Small positive numbers as f16, bf16 and f32 alike.
        data: (0..len).map(|i| 0x20 + (i * 7 % 23) as u8).collect(),
    }
}

/// The bytes of a shard; entries without offsets get the true ones.
pub fn shard_bytes(shard: &[(String, Tensor)]) -> Vec<u8> {
    let (header, data) = shard_parts(shard);
    [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat()
}

/// Header and data of a shard.
pub fn shard_parts(shard: &[(String, Tensor)]) -> (Vec<u8>, Vec<u8>) {
    let mut entries = serde_json::Map::new();
    let mut data = vec![];
    for (name, tensor) in shard {
        let mut entry = tensor.entry.clone();
        let end = data.len() + tensor.data.len();
        if entry["data_offsets"].is_null() {
            entry["data_offsets"] = json!([data.len(), end]);
        }
        entries.insert(name.clone(), entry);
        data.extend(&tensor.data);
    }
    let header = serde_json::to_vec(&entries).expect("plain data");
    (header, data)
}

impl HfFolder {
    /// A decoder of one layer with an untied head.
    pub fn sound() -> HfFolder {
        let layer = |name: &str| format!("model.layers.0.{name}.weight");
        let tensors = [
            ("model.embed_tokens.weight".to_owned(), "F16", vec![8, 16]),
            ("model.norm.weight".to_owned(), "F32", vec![16]),
            ("lm_head.weight".to_owned(), "BF16", vec![8, 16]),
            (layer("input_layernorm"), "F32", vec![16]),
            (layer("post_attention_layernorm"), "BF16", vec![16]),
            (layer("self_attn.q_proj"), "BF16", vec![16, 16]),
            (layer("self_attn.k_proj"), "F16", vec![8, 16]),
            (layer("self_attn.v_proj"), "F16", vec![8, 16]),
            (layer("self_attn.o_proj"), "F32", vec![16, 16]),
            (layer("mlp.gate_proj"), "F16", vec![12, 16]),
            (layer("mlp.up_proj"), "F16", vec![12, 16]),
            (layer("mlp.down_proj"), "F16", vec![16, 12]),
        ];
        let shard = tensors
            .into_iter()
            .map(|(name, dtype, shape)| (name, tensor(dtype, &shape)))
            .collect();
        HfFolder {
            config: json!({
                "model_type": "llama", "vocab_size": 8, "hidden_size": 16,
                "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
                "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0, "tie_word_embeddings": false, "eos_token_id": 2,
            }),
            tokenizer: json!({
                "version": "1.0",
                "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                    "trim_offsets": true, "use_regex": false},
                "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
                "model": {"type": "BPE", "merges": [["a", "b"]],
                    "vocab": {"a": 3, "b": 4, "ab": 5, "Ġ": 6, "c": 7}},
                "added_tokens": [
                    {"id": 1, "content": "<s>", "special": true, "single_word": false,
                        "lstrip": false, "rstrip": false, "normalized": false},
                    {"id": 2, "content": "</s>", "special": true, "single_word": false,
                        "lstrip": false, "rstrip": false, "normalized": false},
                ],
            }),
            shards: BTreeMap::from([(SINGLE.to_owned(), shard)]),
            files: BTreeMap::new(),
            missing: vec![],
        }
    }

    /// The same in two shards with their index.
    ///
    /// # Panics
    /// Never: the sound folder has one shard.
    pub fn sharded() -> HfFolder {
        let mut folder = HfFolder::sound();
        let all = folder.shards.remove(SINGLE).expect("one shard");
        let names = ["model-1.safetensors", "model-2.safetensors"];
        let mut places = serde_json::Map::new();
        for (shard, name) in all.chunks(all.len() / 2).zip(names) {
            places.extend(
                shard
                    .iter()
                    .map(|(tensor, _)| (tensor.clone(), json!(name))),
            );
            folder.shards.insert(name.to_owned(), shard.to_vec());
        }
        let index = json!({"metadata": {"total_size": 1}, "weight_map": places});
        folder.files.insert(
            "model.safetensors.index.json".to_owned(),
            index.to_string().into_bytes(),
        );
        folder
    }

    /// A tensor.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let all = self.shards.values_mut().flatten();
        let found = all.into_iter().find(|(found, _)| found == name);
        &mut found.expect("a tensor of the model").1
    }

    /// The files.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::from([
            ("config.json".to_owned(), self.config.to_string().into()),
            (
                "tokenizer.json".to_owned(),
                self.tokenizer.to_string().into(),
            ),
        ]);
        let shards = self.shards.iter();
        files.extend(shards.map(|(name, shard)| (name.clone(), shard_bytes(shard))));
        files.extend(self.files.clone());
        files.retain(|name, _| !self.missing.contains(name));
        files
    }

    /// The folder, in memory, as `m`.
    pub fn folder(&self) -> Folder {
        Folder::in_memory(Path::new("m"), self.files())
    }
}
