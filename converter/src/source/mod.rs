//! Where models come from: a Hugging Face folder or a GGUF file.

pub mod file;
pub mod folder;
pub mod gguf;
pub mod hf;
mod tokenizer;

use crate::Error;
use crate::checkpoint::Checkpoint;
use std::path::Path;

/// Opens a Hugging Face folder or a GGUF file; weights are read later, as they are needed.
///
/// # Errors
/// A source that cannot be read or that no decoder of ours can run.
pub fn open(path: &Path) -> Result<Checkpoint, Error> {
    if path.is_dir() {
        hf::open(path)
    } else if path.extension().is_some_and(|name| name == "safetensors") {
        let reason = "weights alone: convert the folder that they are in, with config.json and tokenizer.json";
        Err(Error::source(path, reason))
    } else {
        gguf::open(path)
    }
}
