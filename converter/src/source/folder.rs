//! A folder of files, on disk or in memory.

use super::file::SourceFile;
use crate::Error;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The longest JSON or template that is read at once: several times the largest `tokenizer.json`.
const LONGEST_TEXT: u64 = 1 << 28;

/// A folder; names of files may lead into folders in it (`1_Pooling/config.json`).
pub struct Folder {
    path: PathBuf,
    /// Files in memory; `None`: what the disk has.
    memory: Option<BTreeMap<String, Vec<u8>>>,
}

impl Folder {
    /// A folder on disk.
    pub fn on_disk(path: &Path) -> Folder {
        Folder {
            path: path.to_owned(),
            memory: None,
        }
    }

    /// Files in memory by name; `path` is for messages.
    pub fn in_memory(path: &Path, files: BTreeMap<String, Vec<u8>>) -> Folder {
        Folder {
            path: path.to_owned(),
            memory: Some(files),
        }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file, if it is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&self, name: &str) -> Result<Option<SourceFile>, Error> {
        let path = self.path.join(name);
        if let Some(files) = &self.memory {
            let bytes = files.get(name).cloned();
            return Ok(bytes.map(|bytes| SourceFile::from_bytes(&path, bytes)));
        }
        match SourceFile::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a text, if it is there.
    ///
    /// # Errors
    /// What the system says, or a file longer than any such text.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.open(name)? else {
            return Ok(None);
        };
        if file.len() > LONGEST_TEXT {
            let reason = format!("{} bytes: expected at most {LONGEST_TEXT}", file.len());
            return Err(Error::source(file.path(), reason));
        }
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes)?;
        Ok(Some(bytes))
    }
}
