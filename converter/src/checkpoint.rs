//! A model on its way through the converter: configuration, tokenizer and lazily read weights.

use crate::Error;
use crate::sha256::hex;
use crate::source::file::SourceFile;
use kinglet::config::ModelConfig;
use kinglet_kernels::packing::{Codes, Kind};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What every source produces, every pass transforms and the packer writes. A copy shares the weights.
#[derive(Clone)]
pub struct Checkpoint {
    /// The model as data.
    pub config: ModelConfig,
    /// `tokenizer.json`.
    pub tokenizer_json: Vec<u8>,
    /// The chat template (Jinja), if the model has one.
    pub chat_template: Option<String>,
    /// Weights under the names of [`kinglet::format`].
    pub weights: BTreeMap<String, Arc<dyn Weight>>,
    /// Where the weights came from.
    pub origin: Origin,
}

impl Checkpoint {
    /// The weight `name`: a tied head is the embedding.
    ///
    /// # Errors
    /// There is none.
    pub fn weight(&self, name: &str) -> Result<&dyn Weight, Error> {
        self.find(name).map(AsRef::as_ref)
    }

    fn find(&self, name: &str) -> Result<&Arc<dyn Weight>, Error> {
        let found = self.weights.get(name);
        let tied = || self.weights.get("embed").filter(|_| name == "head");
        found.or_else(tied).ok_or_else(|| {
            let reason = format!("the model lacks the weight {name}");
            Error::source(&self.origin.name, reason)
        })
    }

    /// Puts what `pass` makes of the weight `name` in its place; a head that was the embedding then
    /// stands beside it.
    ///
    /// # Errors
    /// There is none.
    pub fn replace<W: Weight + 'static>(
        &mut self,
        name: &str,
        pass: impl FnOnce(Arc<dyn Weight>) -> W,
    ) -> Result<(), Error> {
        let weight = pass(self.find(name)?.clone());
        self.weights.insert(name.to_owned(), Arc::new(weight));
        Ok(())
    }

    /// All of the weight `name`.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, Error> {
        let weight = self.weight(name)?;
        let shape = weight.shape();
        let mut values = vec![0.0; shape.iter().product()];
        weight.read_rows(0..shape[0], &mut values)?;
        Ok(values)
    }
}

/// Where a checkpoint came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Name of the folder or file, without its path.
    pub name: String,
    /// SHA-256 of the file of weights (of the concatenation, for shards in name order), hex.
    pub sha256: String,
    /// Bytes of the weights in the source, as stored.
    pub bytes: u64,
}

impl Origin {
    /// The origin of a checkpoint at `path` whose weights are in these files.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(path: &Path, files: &[Arc<SourceFile>]) -> Result<Origin, Error> {
        let mut hash = Sha256::new();
        let longest = files.iter().map(|file| file.len()).max().unwrap_or(0);
        let mut buffer = vec![0; longest.min(1 << 20) as usize];
        for file in files {
            let mut offset = 0;
            while offset < file.len() {
                let step = (file.len() - offset).min(buffer.len() as u64);
                let part = &mut buffer[..step as usize];
                file.read_at(offset, part)?;
                hash.update(part);
                offset += step;
            }
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Origin {
            name: name.to_string_lossy().into_owned(),
            sha256: hex(hash.finalize()),
            bytes: files.iter().map(|file| file.len()).sum(),
        })
    }
}

/// A matrix (`[outputs, inputs]`) or a vector (`[length]`) that is read when it is needed.
pub trait Weight: Send + Sync {
    /// Logical shape, one or two dimensions.
    fn shape(&self) -> &[usize];

    /// Reads rows as floats, `out` being `rows.len() · columns` long; a vector is one column.
    ///
    /// # Errors
    /// What the source meets when reading.
    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error>;

    /// The grid that the weights already lie on, if it is one of ours (GGUF Q4_0, Q4_1, Q8_0).
    fn grid(&self) -> Option<Kind> {
        None
    }

    /// Reads rows as codes of [`Weight::grid`], bit for bit; `None` where there is no grid.
    ///
    /// # Errors
    /// What the source meets when reading.
    fn read_codes(&self, rows: Range<usize>) -> Result<Option<Codes>, Error> {
        let _ = rows;
        Ok(None)
    }
}
