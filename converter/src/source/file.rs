//! A file that is read in places, by several threads at once.

use crate::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An open file, its path and its length.
pub struct SourceFile {
    path: PathBuf,
    bytes: Bytes,
    len: u64,
}

/// Where the bytes are.
enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

impl SourceFile {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> Result<SourceFile, Error> {
        let open = || {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        let (file, len) = open().map_err(|e| Error::io(path, e))?;
        Ok(SourceFile {
            path: path.to_owned(),
            bytes: Bytes::File(file),
            len,
        })
    }

    /// Bytes in memory that stand for a file; `path` is for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> SourceFile {
        SourceFile {
            path: path.to_owned(),
            len: bytes.len() as u64,
            bytes: Bytes::Memory(bytes),
        }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `out` from byte `offset` on.
    ///
    /// # Errors
    /// What the system says; a file that has become shorter.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let read = match &self.bytes {
            Bytes::File(file) => read_exact_at(file, out, offset),
            Bytes::Memory(bytes) => copy_at(bytes, out, offset),
        };
        read.map_err(|e| Error::io(&self.path, e))
    }
}

fn copy_at(bytes: &[u8], out: &mut [u8], offset: u64) -> io::Result<()> {
    let start = usize::try_from(offset).ok();
    let range = start.and_then(|start| bytes.get(start..)?.get(..out.len()));
    out.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
    Ok(())
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                out = &mut out[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}
