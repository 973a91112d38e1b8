//! A Hugging Face folder as a source: `config.json`, `tokenizer.json`, safetensors weights.

mod config;
mod encoder;
mod rope;
mod safetensors;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vocab;
mod weights;

pub use safetensors::parse_header;

use super::folder::Folder;
use super::tokenizer::check;
use crate::Error;
use crate::checkpoint::{Checkpoint, Origin};
use std::path::Path;

/// Opens a folder; weights are read later, as they are needed.
///
/// # Errors
/// Files that are missing or damaged, that contradict each other, or an architecture that we
/// cannot run.
pub fn open(folder: &Path) -> Result<Checkpoint, Error> {
    from_folder(&Folder::on_disk(folder))
}

/// Opens a folder that may be in memory.
///
/// # Errors
/// As [`open`].
pub fn from_folder(folder: &Folder) -> Result<Checkpoint, Error> {
    let config_path = folder.path().join("config.json");
    let config = folder.read("config.json")?.ok_or_else(|| {
        Error::source(
            folder.path(),
            "config.json is missing: is this the folder of a Hugging Face model?",
        )
    })?;
    let generation = folder.read("generation_config.json")?;
    let mut config = config::parse(&config, generation.as_deref())
        .map_err(|reason| Error::source(&config_path, reason))?;
    let tokenizer = tokenizer::read(folder)?;
    let path = folder.path().join("tokenizer.json");
    check(&path, &tokenizer.json, config.vocab_size)?;
    encoder::read_pooling(folder, &mut config)?;
    config.bos_token = tokenizer
        .bos_token
        .filter(|&token| (token as usize) < config.vocab_size && config.encoder.is_none());
    config
        .eos_tokens
        .retain(|&token| (token as usize) < config.vocab_size);
    let shards = safetensors::open(folder)?;
    Ok(Checkpoint {
        weights: weights::find(folder.path(), &config, &shards)?,
        config,
        tokenizer_json: tokenizer.json,
        chat_template: tokenizer.chat_template,
        origin: Origin::of(folder.path(), &shards.files)?,
    })
}
