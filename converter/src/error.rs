//! Everything that can go wrong in a conversion.

use std::path::PathBuf;

/// An error of the converter. Each variant names the file, tensor or flag, what was expected, what
/// was found, and what to do.
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
    /// A source that is damaged, contradicts itself, or lacks something.
    #[error("{}: {reason}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, and what to do.
        reason: String,
    },
    /// A tensor of a source that is damaged, missing or of the wrong shape.
    #[error("{}: tensor {tensor}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor, by its name in the source.
        tensor: String,
        /// What was expected, what was found, and what to do.
        reason: String,
    },
    /// A setting that makes no sense.
    #[error("--{flag}: {reason}")]
    Setting {
        /// The flag, or the key of a recipe, that sets it.
        flag: &'static str,
        /// What was found, and what was expected.
        reason: String,
    },
    /// A model that cannot be fetched.
    #[error("{name}: {reason}")]
    Pull {
        /// The model.
        name: String,
        /// What happened, and what to do.
        reason: String,
    },
    /// A weight that is NaN or infinite.
    #[error("weight {name}, row {row}: found {found}: the checkpoint is damaged")]
    NotFinite {
        /// The weight.
        name: String,
        /// Its row.
        row: usize,
        /// What stands there.
        found: f32,
    },
    /// A weight too large for half precision.
    #[error("weight {name}, row {row}: {found} is beyond f16: choose --quant f32, q8 or q4")]
    BeyondF16 {
        /// The weight.
        name: String,
        /// Its row.
        row: usize,
        /// What stands there.
        found: f32,
    },
    /// What the runtime says of the model or of the file to write.
    #[error(transparent)]
    Runtime(#[from] kinglet::Error),
}

impl Error {
    /// An input/output error of a file.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::Io {
            path: path.into(),
            source,
        }
    }

    /// A source that cannot be used.
    pub fn source(path: impl Into<PathBuf>, reason: impl Into<String>) -> Error {
        Error::Source {
            path: path.into(),
            reason: reason.into(),
        }
    }

    /// A tensor that cannot be used.
    pub fn tensor(
        path: impl Into<PathBuf>,
        tensor: impl Into<String>,
        reason: impl Into<String>,
    ) -> Error {
        Error::Tensor {
            path: path.into(),
            tensor: tensor.into(),
            reason: reason.into(),
        }
    }
}
