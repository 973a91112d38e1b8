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
        origin: Origin::of(folder, &shards.files)?,
    })
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}
