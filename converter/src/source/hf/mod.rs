//! A Hugging Face folder as a source: `config.json`, `tokenizer.json`, safetensors weights.

mod config;
mod safetensors;
#[cfg(test)]
mod tests;
mod tokenizer;
mod weights;

pub use safetensors::parse_header;

use crate::Error;
use crate::checkpoint::{Checkpoint, Origin};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Opens a folder; weights are read later, as they are needed.
///
/// # Errors
/// Files that are missing or damaged, that contradict each other, or an architecture that no
/// decoder of ours can run.
pub fn open(folder: &Path) -> Result<Checkpoint, Error> {
    let config_path = folder.join("config.json");
    let config = std::fs::read(&config_path).map_err(|e| Error::io(&config_path, e))?;
    let generation = read_optional(&folder.join("generation_config.json"))?;
    let mut config = config::parse(&config, generation.as_deref())
        .map_err(|reason| Error::source(&config_path, reason))?;
    let tokenizer = tokenizer::read(folder)?;
    config.bos_token = tokenizer
        .bos_token
        .filter(|&token| (token as usize) < config.vocab_size);
    config
        .eos_tokens
        .retain(|&token| (token as usize) < config.vocab_size);
    let shards = safetensors::open(folder)?;
    Ok(Checkpoint {
        weights: weights::find(folder, &config, &shards)?,
        config,
        tokenizer_json: tokenizer.json,
        chat_template: tokenizer.chat_template,
        origin: origin(folder, &shards)?,
    })
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

fn origin(folder: &Path, shards: &safetensors::Shards) -> Result<Origin, Error> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    for file in &shards.files {
        let mut offset = 0;
        while offset < file.len() {
            let step = (file.len() - offset).min(buffer.len() as u64);
            let part = &mut buffer[..step as usize];
            file.read_at(offset, part)?;
            hash.update(part);
            offset += step;
        }
        bytes += file.len();
    }
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    Ok(Origin {
        name: name.to_string_lossy().into_owned(),
        sha256: hash.finalize().iter().map(|b| format!("{b:02x}")).collect(),
        bytes,
    })
}
