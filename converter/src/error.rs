//! Everything that can go wrong in a conversion.

use std::path::PathBuf;

/// An error of the converter. Each variant names the file, tensor or flag, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
