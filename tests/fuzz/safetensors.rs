//! A Hugging Face folder as a source: the header of a shard alone, and the whole folder.
//!
//! The input is parted by [`FOLDER_SEPARATOR`] into `config.json`, `tokenizer.json`,
//! `tokenizer_config.json`, the index (none: one shard), the header of the shard and its data; the
//! length of the header is made right.
#![no_main]

use kinglet::Tokenizer;
use kinglet_convert::source::folder::Folder;
use kinglet_convert::source::hf;
use kinglet_tests::models::{FOLDER_SEPARATOR, parted, read_some};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let [config, tokenizer, settings, index, header, data] = parted(bytes, FOLDER_SEPARATOR);
    let shard = [&(header.len() as u64).to_le_bytes(), header, data].concat();
    let _ = hf::parse_header(header, data.len() as u64);
    let mut files = BTreeMap::new();
    let mut add = |name: &str, bytes: &[u8]| {
        if !bytes.is_empty() {
            files.insert(name.to_owned(), bytes.to_vec());
        }
    };
    add("config.json", config);
    add("tokenizer.json", tokenizer);
    add("tokenizer_config.json", settings);
    add("model.safetensors.index.json", index);
    let name = match index {
        [] => "model.safetensors",
        _ => "a.safetensors",
    };
    add(name, &shard);
    let Ok(checkpoint) = hf::from_folder(&Folder::in_memory(Path::new("fuzz"), files)) else {
        return;
    };
    let json = &checkpoint.tokenizer_json;
    let tokenizer = Tokenizer::from_json(json, Path::new("fuzz")).expect("checked");
    let _ = tokenizer.encode("ab </s>a", true);
    let _ = tokenizer.decode(&[1, 3, 4, 5]);
    read_some(&checkpoint);
});
