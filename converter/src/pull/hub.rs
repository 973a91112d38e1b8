//! Models on the Hugging Face hub.

use crate::Error;
use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Repo, RepoType};
use std::path::{Path, PathBuf};

/// Files beside the weights that a conversion reads.
const SMALL: [&str; 12] = [
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "sentence_distilbert_config.json",
    "sentence_roberta_config.json",
    "sentence_xlm-roberta_config.json",
    "vocab.txt",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// Fetches the repository `OWNER/NAME` or `OWNER/NAME@REVISION` into `cache`: its safetensors
/// weights with all that belongs to them. Interrupted downloads go on where they stopped.
///
/// # Errors
/// A repository that cannot be reached, or that has no safetensors weights.
pub fn pull(repository: &str, cache: &Path) -> Result<PathBuf, Error> {
    let failed = |error: ApiError| Error::Pull {
        name: repository.to_owned(),
        reason: format!("the Hugging Face hub: {error}"),
    };
    let (name, revision) = repository.split_once('@').unwrap_or((repository, "main"));
    let api = ApiBuilder::from_env()
        .with_cache_dir(cache.to_owned())
        .with_progress(true)
        .build()
        .map_err(failed)?;
    let repo = Repo::with_revision(name.to_owned(), RepoType::Model, revision.to_owned());
    let repo = api.repo(repo);
    let files = repo.info().map_err(failed)?.siblings;
    let wanted = |file: &str| {
        SMALL.contains(&file)
            || file.starts_with("model")
                && (file.ends_with(".safetensors") || file.ends_with(".safetensors.index.json"))
    };
    let mut folder = None;
    let mut weights = false;
    for file in files.iter().map(|file| file.rfilename.as_str()) {
        if wanted(file) {
            let path = repo.get(file).map_err(failed)?;
            weights |= file.ends_with(".safetensors");
            if !file.contains('/') {
                folder = path.parent().map(Path::to_owned);
            }
        }
    }
    folder.filter(|_| weights).ok_or_else(|| Error::Pull {
        name: repository.to_owned(),
        reason: "the repository has no model*.safetensors: choose one with safetensors weights"
            .to_owned(),
    })
}
