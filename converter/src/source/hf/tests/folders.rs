//! Folders as they lie on a disk: whole, sharded, lacking something.

use super::super::{open, safetensors};
use super::config;
use crate::source::folder::Folder;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Writes a safetensors file of F32 tensors, each of two zeros.
fn shard(path: &Path, names: &[&str]) {
    let tensor = |index: usize| {
        json!({
            "dtype": "F32", "shape": [2], "data_offsets": [8 * index, 8 * index + 8],
        })
    };
    let entries = names
        .iter()
        .enumerate()
        .map(|(index, name)| ((*name).to_owned(), tensor(index)));
    let header = Value::Object(entries.collect()).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 8 * names.len(), 0);
    fs::write(path, bytes).unwrap();
}

/// Two shards, and an index of these places.
fn sharded(places: Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    shard(&folder.path().join("a.safetensors"), &["x", "y"]);
    shard(&folder.path().join("b.safetensors"), &["z"]);
    let index = json!({"metadata": {"total_size": 24}, "weight_map": places});
    let path = folder.path().join("model.safetensors.index.json");
    fs::write(path, index.to_string()).unwrap();
    folder
}

#[test]
fn shards_are_found_by_their_index() {
    let places = json!({"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"});
    let folder = sharded(places);
    let shards = safetensors::open(&Folder::on_disk(folder.path())).unwrap();
    assert_eq!(shards.files.len(), 2);
    let place = |name: &str| {
        let tensor = &shards.tensors[name];
        tensor
            .file
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let names: Vec<&String> = shards.tensors.keys().collect();
    assert_eq!(names, ["x", "y", "z"]);
    assert_eq!(
        [place("x"), place("y"), place("z")],
        ["a.safetensors", "a.safetensors", "b.safetensors"]
    );
    assert_eq!(shards.tensors["y"].offset, shards.tensors["x"].offset + 8);
}

#[test]
fn an_index_that_lies_is_refused() {
    let cases: [(Value, &[&str]); 5] = [
        (json!({"x": "c.safetensors"}), &["c.safetensors", "missing"]),
        (
            json!({"x": "b.safetensors", "y": "a.safetensors"}),
            &["x", "b.safetensors", "a.safetensors"],
        ),
        (json!({"w": "a.safetensors"}), &["w", "no shard"]),
        (
            json!({"x": "../a.safetensors"}),
            &["../a.safetensors", "in this folder"],
        ),
        (json!({"x": 3}), &["index.json", "string"]),
    ];
    for (places, names) in cases {
        let folder = sharded(places.clone());
        let message = safetensors::open(&Folder::on_disk(folder.path()))
            .err()
            .map(|e| e.to_string());
        let message = message.unwrap_or_else(|| panic!("{places} opened"));
        for name in names {
            assert!(message.contains(name), "no {name:?} in: {message}");
        }
    }
}

#[test]
fn a_folder_that_lacks_a_file_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let lacks = |name: &str| {
        let message = open(folder.path()).err().expect("a refusal").to_string();
        assert!(message.contains(name), "no {name:?} in: {message}");
    };
    lacks("config.json");
    let config = config("llama", json!({})).to_string();
    fs::write(folder.path().join("config.json"), config).unwrap();
    lacks("tokenizer.json");
    let tokenizer = include_str!("../../../../../tests/fixtures/byte_tokenizer.json");
    fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    lacks("model.safetensors");
    shard(&folder.path().join("model.safetensors"), &["x"]);
    lacks("embed_tokens.weight");
    shard(
        &folder.path().join("model.safetensors"),
        &["model.embed_tokens.weight"],
    );
    lacks("shape [2]");
}
