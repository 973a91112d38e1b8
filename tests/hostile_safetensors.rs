//! Damaged and lying Hugging Face folders: an error that names what is wrong, never a panic.

use kinglet_convert::checkpoint::Checkpoint;
use kinglet_convert::recipe::Recipe;
use kinglet_convert::source::{file::SourceFile, folder::Folder, hf};
use kinglet_tests::models::folder::{HfFolder, SINGLE, shard_bytes};
use kinglet_tests::models::read_some;
use serde_json::{Value, json};
use std::path::Path;

const INDEX: &str = "model.safetensors.index.json";

fn open(folder: &HfFolder) -> Result<Checkpoint, String> {
    hf::from_folder(&folder.folder()).map_err(|e| e.to_string())
}

/// The message starts with the path, and names all of these.
#[track_caller]
fn refused_as(path: &str, folder: &HfFolder, names: &[&str]) {
    let message = open(folder).err().expect("a refusal");
    assert!(message.starts_with(&format!("{path}: ")), "{message}");
    for name in names {
        assert!(message.contains(name), "no {name:?} in: {message}");
    }
}

/// The same for a change of the sound folder.
#[track_caller]
fn refused(path: &str, change: impl Fn(&mut HfFolder), names: &[&str]) {
    let mut folder = HfFolder::sound();
    change(&mut folder);
    refused_as(path, &folder, names);
}

/// The same for a field of `config.json`.
#[track_caller]
fn refused_config(field: &str, value: Value, names: &[&str]) {
    let change = |folder: &mut HfFolder| folder.config[field] = value.clone();
    refused("m/config.json", change, names);
}

/// The same for the files with those bytes as the only shard.
#[track_caller]
fn refused_shard(bytes: Vec<u8>, names: &[&str]) {
    let mut folder = HfFolder::sound();
    folder.files.insert(SINGLE.to_owned(), bytes);
    refused_as("m/model.safetensors", &folder, names);
}

/// Converts to f16, by way of the disk.
fn convert(folder: &HfFolder) -> Result<(), String> {
    let on_disk = tempfile::tempdir().unwrap();
    for (name, bytes) in folder.files() {
        std::fs::write(on_disk.path().join(name), bytes).unwrap();
    }
    let mut recipe = Recipe::default();
    recipe.quantize.kind = "f16".to_owned();
    let path = on_disk.path().join("m.kgl");
    kinglet_convert::convert(on_disk.path(), &path, &recipe, &|_, _| ())
        .map_err(|e| e.to_string())?;
    kinglet::Model::open(&path).map_err(|e| e.to_string())?;
    Ok(())
}

#[test]
fn sound_folders_convert() {
    convert(&HfFolder::sound()).unwrap();
    convert(&HfFolder::sharded()).unwrap();
    let mut extra = HfFolder::sound();
    let shard = extra.shards.get_mut(SINGLE).unwrap();
    let mut tensor = shard[0].clone();
    tensor.0 = "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned();
    shard.push(tensor);
    convert(&extra).unwrap();
    // A copy of the embedding beside a tied head.
    let mut tied = HfFolder::sound();
    tied.config["tie_word_embeddings"] = json!(true);
    convert(&tied).unwrap();
}

#[test]
fn missing_files_are_named() {
    let missing = |name: &str, names: &[&str]| {
        refused("m", |folder| folder.missing.push(name.to_owned()), names);
    };
    missing("config.json", &["config.json is missing"]);
    missing(
        "tokenizer.json",
        &["tokenizer.json is missing", "save_pretrained"],
    );
    missing(SINGLE, &["model.safetensors nor", INDEX]);
    let mut sharded = HfFolder::sharded();
    sharded.missing.push("model-2.safetensors".to_owned());
    let index = format!("m/{INDEX}");
    refused_as(
        &index,
        &sharded,
        &["model-2.safetensors is missing", "fetch it"],
    );
    let on_disk = tempfile::tempdir().unwrap();
    let error = hf::open(on_disk.path()).err().unwrap().to_string();
    assert!(error.contains("config.json is missing"), "{error}");
    std::fs::create_dir(on_disk.path().join("config.json")).unwrap();
    let error = hf::open(on_disk.path()).err().unwrap().to_string();
    assert!(error.contains("config.json: "), "{error}");
}

#[test]
fn an_index_must_agree_with_its_shards() {
    let index_of = |change: &dyn Fn(&mut Value)| {
        let mut folder = HfFolder::sharded();
        let mut index: Value = serde_json::from_slice(&folder.files[INDEX]).unwrap();
        change(&mut index);
        folder
            .files
            .insert(INDEX.to_owned(), index.to_string().into());
        folder
    };
    let index = format!("m/{INDEX}");
    let place = |shard: &'static str| {
        index_of(&move |index| index["weight_map"]["lm_head.weight"] = json!(shard))
    };
    refused_as(
        &index,
        &place("model-2.safetensors"),
        &[
            "lm_head.weight",
            "in model-2.safetensors",
            "is in model-1.safetensors",
        ],
    );
    for outside in ["../x", "/etc/passwd", "..", "a/b", "a\\b", "C:x", "", "a\0"] {
        let named = format!("shard {outside:?}");
        refused_as(&index, &place(outside), &[&named, "in this folder"]);
    }
    let unknown = index_of(&|index| {
        index["weight_map"]["surprise"] = json!("model-1.safetensors");
    });
    refused_as(&index, &unknown, &["surprise", "no shard has it"]);
    let wrong = index_of(&|index| index["weight_map"]["lm_head.weight"] = json!(7));
    refused_as(&index, &wrong, &["weight_map", "expected a string"]);
    refused_as(
        &index,
        &index_of(&|index| *index = json!({})),
        &["weight_map"],
    );
    let empty = index_of(&|index| index["weight_map"] = json!({}));
    refused_as("m", &empty, &["model.embed_tokens.weight", "missing"]);
    // The same tensor in both shards.
    let mut doubled = HfFolder::sharded();
    let tensor = doubled.shards["model-1.safetensors"][0].clone();
    doubled
        .shards
        .get_mut("model-2.safetensors")
        .unwrap()
        .push(tensor);
    refused_as(
        "m/model-2.safetensors",
        &doubled,
        &["model.embed_tokens.weight", "also in m/model-1.safetensors"],
    );
}

#[test]
fn truncation_at_any_byte_is_an_error() {
    let bytes = shard_bytes(&HfFolder::sound().shards[SINGLE]);
    for len in 0..bytes.len() {
        refused_shard(bytes[..len].to_vec(), &[]);
    }
    refused_shard([&bytes[..], &[0; 8]].concat(), &["follow the header"]);
}

#[test]
fn any_byte_of_the_texts_may_be_anything() {
    let sound = HfFolder::sharded();
    let shard = "model-1.safetensors";
    for name in ["config.json", "tokenizer.json", INDEX, shard] {
        let mut files = sound.files();
        let len = match name {
            name if name == shard => {
                8 + u64::from_le_bytes(files[shard][..8].try_into().unwrap()) as usize
            }
            _ => files[name].len(),
        };
        for at in 0..len {
            let before = files[name][at];
            for value in [b'0', b'-', b'"', b'{', before ^ 1, 0xFF] {
                files.get_mut(name).unwrap()[at] = value;
                let folder = Folder::in_memory(Path::new("m"), files.clone());
                if let Ok(checkpoint) = hf::from_folder(&folder) {
                    read_some(&checkpoint);
                }
            }
            files.get_mut(name).unwrap()[at] = before;
        }
    }
}

#[test]
fn headers_that_lie_are_refused() {
    for length in [1 << 20, 100_000_001, 1 << 40, u64::MAX] {
        let mut bytes = shard_bytes(&HfFolder::sound().shards[SINGLE]);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        let named = format!("says {length} bytes");
        refused_shard(bytes, &[&named, "cut short"]);
    }
    refused_shard(vec![], &["too short"]);
    refused_shard(b"\x04\0\0\0\0\0\0\0nope".to_vec(), &["header"]);
    let norm = |entry: Value, names: &[&str]| {
        refused(
            "m/model.safetensors",
            |folder| folder.tensor("model.norm.weight").entry = entry.clone(),
            names,
        );
    };
    let offsets =
        |start: u64, end: u64| json!({"dtype": "F32", "shape": [16], "data_offsets": [start, end]});
    // Overlapping, beyond the end, a hole before, backwards, near the end of the address space.
    norm(offsets(0, 64), &["header", "offset"]);
    norm(offsets(1 << 40, (1 << 40) + 64), &["header", "offset"]);
    norm(offsets(260, 324), &["header", "offset"]);
    norm(offsets(256, 192), &["header", "offset"]);
    norm(offsets(256, u64::MAX), &["header"]);
    norm(json!({"dtype": "F32", "shape": [-16]}), &["header", "-16"]);
    norm(
        json!({"dtype": "F32", "shape": [1u64 << 40, 1u64 << 40]}),
        &["header"],
    );
    norm(json!({"dtype": "Q4", "shape": [16]}), &["header", "Q4"]);
    norm(json!({"dtype": "F32"}), &["header", "shape"]);
    norm(json!({"dtype": "F32", "shape": [15]}), &["header"]);
}

#[test]
fn tensors_that_are_none_of_ours_are_named() {
    let path = "m/model.safetensors";
    for dtype in ["I32", "U32"] {
        refused(
            path,
            |folder| folder.tensor("model.norm.weight").entry["dtype"] = json!(dtype),
            &["model.norm.weight", dtype, "expected F32, F16 or BF16"],
        );
    }
    let name = "model.layers.0.self_attn.k_proj.weight";
    for shape in [json!([16, 8]), json!([128]), json!([8, 4, 4])] {
        refused(
            path,
            |folder| folder.tensor(name).entry["shape"] = shape.clone(),
            &[name, "shape", "config.json makes it [8, 16]"],
        );
    }
    for (index, (name, _)) in HfFolder::sound().shards[SINGLE].iter().enumerate() {
        refused(
            "m",
            |folder| {
                folder.shards.get_mut(SINGLE).unwrap().remove(index);
            },
            &[name, "missing from the weights"],
        );
    }
    refused_config("num_hidden_layers", json!(0), &["num_hidden_layers is 0"]);
    refused(
        "m",
        |folder| folder.config["num_hidden_layers"] = json!(2),
        &["model.layers.1.", "missing"],
    );
    refused(
        path,
        |folder| folder.config["vocab_size"] = json!(9),
        &["model.embed_tokens.weight", "[8, 16]", "[9, 16]"],
    );
    let mut untied = HfFolder::sound();
    untied
        .shards
        .get_mut(SINGLE)
        .unwrap()
        .retain(|t| t.0 != "lm_head.weight");
    refused_as("m", &untied, &["lm_head.weight", "tie_word_embeddings"]);
}

#[test]
fn configurations_of_wrong_types_are_named() {
    let path = "m/config.json";
    for text in ["", "{", "[]", "null", "7", "\"llama\"", "\u{feff}{}"] {
        let change = |folder: &mut HfFolder| {
            folder.files.insert("config.json".to_owned(), text.into());
        };
        refused(path, change, &[]);
    }
    for field in [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
    ] {
        for value in [
            json!("8"),
            json!(-8),
            json!(8.5),
            json!([8]),
            json!({}),
            json!(true),
        ] {
            refused_config(field, value, &[field]);
        }
        refused_config(field, json!(u64::MAX), &["18446744073709551615"]);
    }
    for field in [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
    ] {
        refused(
            path,
            |folder| {
                folder.config.as_object_mut().unwrap().remove(field);
            },
            &[field, "missing"],
        );
    }
    refused_config(
        "num_attention_heads",
        json!(0),
        &["num_attention_heads is 0"],
    );
    refused_config("num_key_value_heads", json!(3), &["kv_heads (3)"]);
    refused_config("rms_norm_eps", json!("small"), &["rms_norm_eps"]);
    refused_config("rms_norm_eps", json!(-1.0), &["norm_eps", "-1"]);
    refused_config("rope_theta", json!(1e300), &["rope theta", "inf"]);
    refused_config("rope_theta", json!(0), &["rope theta", "0"]);
    refused_config("tie_word_embeddings", json!("no"), &["tie_word_embeddings"]);
    refused_config(
        "hidden_act",
        json!("relu"),
        &["hidden_act", "relu", "expected silu"],
    );
    refused_config("head_dim", json!(3), &["rope dims are 3", "even"]);
    refused_config("head_dim", json!(1u64 << 60), &["head_dim"]);
    refused_config("partial_rotary_factor", json!(-1.0), &["rope dims are 0"]);
    refused_config(
        "rope_scaling",
        json!({"type": "linear"}),
        &["linear", "factor"],
    );
    refused_config(
        "rope_scaling",
        json!({"type": "ntk"}),
        &["ntk", "expected default"],
    );
    refused_config(
        "rope_scaling",
        json!({"type": "linear", "factor": "2"}),
        &["factor is \"2\"", "expected a number"],
    );
    refused_config("rope_scaling", json!([1]), &["rope_scaling"]);
    let longrope = json!({"type": "longrope", "short_factor": [1.0], "long_factor": [0.0]});
    refused_config(
        "rope_scaling",
        longrope,
        &["1 short and 1 long", "expected 4"],
    );
    refused_config("eos_token_id", json!("</s>"), &["eos_token_id", "</s>"]);
    refused_config("eos_token_id", json!([1, -1]), &["eos_token_id", "-1"]);
    refused_config("eos_token_id", json!(1u64 << 40), &["eos_token_id"]);
    refused_config("attention_bias", json!(true), &["attention_bias"]);
    refused_config(
        "layer_types",
        json!([]),
        &["layer_types has 0", "expected 1"],
    );
    refused_config(
        "layer_types",
        json!(["linear_attention"]),
        &["layer_types", "linear_attention", "full_attention"],
    );
    refused(
        path,
        |folder| {
            folder.files.insert(
                "generation_config.json".to_owned(),
                br#"{"eos_token_id": {}}"#.into(),
            );
        },
        &["generation_config.json", "eos_token_id"],
    );
}

#[test]
fn unknown_and_quantized_models_are_refused_by_name() {
    refused_config(
        "model_type",
        json!("mamba"),
        &["mamba", "expected one of llama"],
    );
    refused_config(
        "model_type",
        json!(null),
        &["model_type", "expected one of"],
    );
    refused_config(
        "model_type",
        json!("gemma3"),
        &["model_type", "expected one of"],
    );
    refused_config(
        "quantization_config",
        json!({"quant_method": "gptq", "bits": 4}),
        &["quantization_config", "gptq", "not quantized"],
    );
    refused_config("quantization_config", json!(7), &["quantization_config"]);
}

#[test]
fn tokenizers_that_cannot_be_used_are_refused() {
    let path = "m/tokenizer.json";
    let changed = |change: &dyn Fn(&mut Value), names: &[&str]| {
        refused(path, |folder| change(&mut folder.tokenizer), names);
    };
    for text in ["", "{", "[]", "{}", "null"] {
        let change = |folder: &mut HfFolder| {
            folder
                .files
                .insert("tokenizer.json".to_owned(), text.into());
        };
        refused(path, change, &[]);
    }
    changed(
        &|t| t["model"]["vocab"]["z"] = json!(8),
        &["token 8", "only 8"],
    );
    changed(
        &|t| t["model"]["vocab"]["z"] = json!(u32::MAX),
        &["token 4294967295"],
    );
    changed(&|t| t["model"]["vocab"]["z"] = json!(-1), &["tokenizer"]);
    changed(
        &|t| {
            t["model"]["vocab"] = json!({});
            t["model"]["merges"] = json!([]);
        },
        &["no tokens"],
    );
    changed(
        &|t| t["model"]["merges"] = json!([["a", "z"]]),
        &["tokenizer", "\"az\", which the vocabulary lacks"],
    );
    changed(&|t| t["model"]["type"] = json!("Surprise"), &["tokenizer"]);
    // What the tokenizers crate would panic on.
    changed(
        &|t| t["model"]["continuing_subword_prefix"] = json!("long prefix"),
        &["continuing_subword_prefix", "long prefix"],
    );
    changed(
        &|t| t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        &["normalizer Precompiled"],
    );
    changed(
        &|t| {
            t["normalizer"] = json!({"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": 7}]});
        },
        &["normalizer Precompiled"],
    );
    changed(
        &|t| t["decoder"] = json!({"type": "Strip", "content": "a", "start": 0, "stop": 9}),
        &["decoder Strip", "stop is 9"],
    );
    let template = |piece: Value| json!({"type": "TemplateProcessing", "single": [piece], "pair": [], "special_tokens": {}});
    let special = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    changed(
        &|t| t["post_processor"] = template(special.clone()),
        &["post_processor", "<s>", "special_tokens"],
    );
    let second = json!({"Sequence": {"id": "B", "type_id": 0}});
    changed(
        &|t| t["post_processor"] = template(second.clone()),
        &["post_processor", "\"B\""],
    );
    let first = template(json!({"Sequence": {"id": "A", "type_id": 0}}));
    changed(
        &|t| t["post_processor"] = json!({"type": "Sequence", "processors": [first, first]}),
        &["post_processor", "2 templates"],
    );
    let settings = |folder: &mut HfFolder| {
        folder
            .files
            .insert("tokenizer_config.json".to_owned(), b"{".into());
    };
    refused("m/tokenizer_config.json", settings, &["EOF"]);
}

#[test]
fn limits_of_a_training_run_do_not_pad_or_cut() {
    let mut folder = HfFolder::sound();
    folder.tokenizer["padding"] = json!({"strategy": {"Fixed": 1u64 << 40}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
    folder.tokenizer["truncation"] = json!({"direction": "Right", "max_length": 1,
        "strategy": "LongestFirst", "stride": 0});
    let json = open(&folder).unwrap().tokenizer_json;
    let tokenizer = kinglet::Tokenizer::from_json(&json, Path::new("t")).unwrap();
    assert_eq!(tokenizer.encode("abab", true).unwrap(), [5, 5]);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let value = |name: &str, bytes: &[u8]| {
        let mut folder = HfFolder::sound();
        folder.tensor(name).data[..bytes.len()].copy_from_slice(bytes);
        convert(&folder).unwrap_err()
    };
    let name = "model.layers.0.self_attn.o_proj.weight";
    for float in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let message = value(name, &float.to_le_bytes());
        let named = format!("layers.0.o, row 0: found {float}");
        assert!(message.contains(&named), "{message}");
    }
    let message = value(name, &1e6f32.to_le_bytes());
    assert!(
        message.contains("layers.0.o, row 0: 1000000 is beyond f16"),
        "{message}"
    );
    assert!(message.contains("--quant f32"), "{message}");
    let message = value("model.norm.weight", &f32::NAN.to_le_bytes());
    assert!(message.contains("weight norm, row 0"), "{message}");
}

#[test]
fn a_text_beyond_any_limit_is_not_read() {
    let on_disk = tempfile::tempdir().unwrap();
    let path = on_disk.path().join("config.json");
    // Sparse: a length that takes no room on disk.
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let message = hf::open(on_disk.path()).err().unwrap().to_string();
    assert!(
        message.contains("config.json: 1099511627776 bytes"),
        "{message}"
    );
    assert_eq!(SourceFile::open(&path).unwrap().len(), 1 << 40);
}
