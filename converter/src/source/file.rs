//! A file that is read in places, by several threads at once.

use crate::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An open file, its path and its length.
pub struct SourceFile {
    path: PathBuf,
    file: File,
    len: u64,
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
            file,
            len,
        })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a length in bytes, not a container"
    )]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` from byte `offset` on.
    ///
    /// # Errors
    /// What the system says; a file that has become shorter.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        read_exact_at(&self.file, out, offset).map_err(|e| Error::io(&self.path, e))
    }
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
