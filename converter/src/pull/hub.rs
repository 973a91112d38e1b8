//! Models on the Hugging Face hub.

use crate::Error;
use crate::sha256::hex;
use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
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

/// How often a connection that drops is made again.
const RETRIES: usize = 5;

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
        .with_retries(RETRIES)
        .build()
        .map_err(failed)?;
    let repo = Repo::with_revision(name.to_owned(), RepoType::Model, revision.to_owned());
    let cached = Cache::new(cache.to_owned()).repo(repo.clone());
    let repo = api.repo(repo);
    let files = repo.info().map_err(failed)?.siblings;
    let wanted = |file: &str| {
        SMALL.contains(&file)
            || file.starts_with("model")
                && !file.contains('/')
                && (file.ends_with(".safetensors") || file.ends_with(".safetensors.index.json"))
    };
    let mut folder = None;
    let mut weights = false;
    for file in files.iter().map(|file| file.rfilename.as_str()) {
        if wanted(file) {
            let was_there = cached.get(file).is_some();
            let path = repo.get(file).map_err(failed)?;
            if !was_there {
                check(repository, &path)?;
            }
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

/// Checks a file that has just been fetched: the hub's cache names large ones by their SHA-256.
fn check(repository: &str, path: &Path) -> Result<(), Error> {
    let at = |e| Error::io(path, e);
    let blob = fs::canonicalize(path).map_err(at)?;
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(&blob).map_err(at)?, &mut hash).map_err(at)?;
    let found = hex(hash.finalize());
    if found.eq_ignore_ascii_case(&name) {
        return Ok(());
    }
    // What is damaged must not be found by the next try.
    for file in [path, &blob] {
        fs::remove_file(file).map_err(|e| Error::io(file, e))?;
    }
    Err(Error::Pull {
        name: repository.to_owned(),
        reason: format!(
            "SHA-256 of {} is {found}, expected {name}: fetch it again",
            path.display()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_are_checked_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, contents: &str| {
            let path = folder.path().join(name);
            fs::write(&path, contents).unwrap();
            path
        };
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check("a/b", &file(sum, "abc")).unwrap();
        check("a/b", &file("0123456789abcdef", "small")).unwrap();
        let damaged = file(sum, "abd");
        let link = folder.path().join("model.safetensors");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&damaged, &link).unwrap();
        #[cfg(not(unix))]
        fs::copy(&damaged, &link).unwrap();
        let found = check("a/b", &link);
        if cfg!(unix) {
            let message = found.unwrap_err().to_string();
            assert!(message.contains("SHA-256"), "{message}");
            assert!(!link.is_symlink() && !damaged.exists());
        }
    }
}
