//! A GGUF file as a source.

use crate::Error;
use crate::checkpoint::Checkpoint;
use std::path::Path;

/// Opens the source.
///
/// # Errors
/// One that cannot be read or used.
pub fn open(path: &Path) -> Result<Checkpoint, Error> {
    Err(Error::source(path, "not supported yet"))
}
