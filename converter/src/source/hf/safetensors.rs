//! The weights of a folder: one safetensors file, or shards with an index.

use crate::Error;
use crate::source::file::SourceFile;
use crate::source::folder::Folder;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor in a shard.
#[derive(Clone)]
pub struct Tensor {
    /// The shard.
    pub file: Arc<SourceFile>,
    /// Its name there.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Shape, as stored.
    pub shape: Vec<usize>,
    /// First byte in the file.
    pub offset: u64,
}

/// Every tensor of a folder.
#[derive(Default)]
pub struct Shards {
    /// By name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The files, in name order.
    pub files: Vec<Arc<SourceFile>>,
}

/// `model.safetensors.index.json`
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`, and reads their
/// headers.
///
/// # Errors
/// Files that are missing or damaged, or an index that contradicts them.
pub fn open(folder: &Folder) -> Result<Shards, Error> {
    let mut shards = Shards::default();
    if let Some(single) = folder.open("model.safetensors")? {
        shards.add(single)?;
        return Ok(shards);
    }
    const INDEX: &str = "model.safetensors.index.json";
    let index = folder.path().join(INDEX);
    let text = folder.read(INDEX)?.ok_or_else(|| {
        Error::source(
            folder.path(),
            "found neither model.safetensors nor model.safetensors.index.json: \
             is this the folder of a Hugging Face model with safetensors weights?",
        )
    })?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    let parsed: Index = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| Error::source(&index, e.to_string()))?;
    let names: BTreeSet<&String> = parsed.weight_map.values().collect();
    for name in names {
        // A name, not a path: the index of a stranger must not reach out of the folder.
        if name.is_empty() || name.contains(['/', '\\', ':', '\0']) || name.starts_with("..") {
            let reason = format!("shard {name:?}: expected the name of a file in this folder");
            return Err(Error::source(&index, reason));
        }
        let shard = folder.open(name)?.ok_or_else(|| {
            let reason = format!("shard {name} is missing: fetch it, or the whole folder, again");
            Error::source(&index, reason)
        })?;
        shards.add(shard)?;
    }
    for (tensor, shard) in &parsed.weight_map {
        let found = shards.tensors.get(tensor);
        let found = found.and_then(|tensor| tensor.file.path().file_name());
        if found != Some(shard.as_ref()) {
            let reason = format!(
                "the index places it in {shard}, but {}",
                match found {
                    Some(other) => format!("it is in {}", other.display()),
                    None => "no shard has it".to_owned(),
                }
            );
            return Err(Error::tensor(&index, tensor, reason));
        }
    }
    Ok(shards)
}

impl Shards {
    fn add(&mut self, file: SourceFile) -> Result<(), Error> {
        let file = Arc::new(file);
        let path = file.path();
        let mut start = [0; 8];
        if file.len() < 8 {
            return Err(Error::source(path, "too short for a safetensors file"));
        }
        file.read_at(0, &mut start)?;
        let header_len = u64::from_le_bytes(start);
        if header_len > MAX_HEADER.min(file.len() - 8) {
            let reason = format!(
                "the header says {header_len} bytes, but the file has {}: \
                 is it cut short, or another format?",
                file.len()
            );
            return Err(Error::source(path, reason));
        }
        let mut header = vec![0; header_len as usize];
        file.read_at(8, &mut header)?;
        let metadata = parse_header(&header, file.len() - 8 - header_len)
            .map_err(|reason| Error::source(path, reason))?;
        for (name, info) in metadata.tensors() {
            let tensor = Tensor {
                file: file.clone(),
                name: name.clone(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: 8 + header_len + info.data_offsets.0 as u64,
            };
            if let Some(other) = self.tensors.insert(name.clone(), tensor) {
                let reason = format!("also in {}", other.file.path().display());
                return Err(Error::tensor(path, name, reason));
            }
        }
        self.files.push(file.clone());
        Ok(())
    }
}

/// Parses a header, of a file with `data` bytes after it.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_header(header: &[u8], data: u64) -> Result<Metadata, String> {
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|e| format!("the safetensors header: {e}"))?;
    let tensors = metadata.tensors();
    let end = tensors
        .values()
        .map(|info| info.data_offsets.1 as u64)
        .max();
    let end = end.unwrap_or(0);
    if end != data {
        return Err(format!(
            "its tensors take {end} bytes, but {data} follow the header: the file is cut short \
             or damaged, fetch it again"
        ));
    }
    Ok(metadata)
}
