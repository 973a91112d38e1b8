//! A GGUF file as a source.

mod config;
mod k_quants;
mod metadata;
mod reader;
#[cfg(test)]
mod tests;
mod tokenizer;
mod types;
mod weights;

pub use reader::{Contents, ParseError, parse};

use crate::Error;
use crate::checkpoint::{Checkpoint, Origin};
use crate::source::file::SourceFile;
use crate::source::tokenizer::check;
use config::RopeFactors;
use std::path::Path;
use std::sync::Arc;
use types::GgmlType;

/// The first read; most files have their metadata in it.
const FIRST_READ: u64 = 16 << 20;
/// The longest metadata: many times that of the largest vocabularies.
const LONGEST_METADATA: u64 = 1 << 26;

/// Opens a file; weights are read later, as they are needed.
///
/// # Errors
/// A file that cannot be read, is damaged, or holds a model that no decoder of ours can run.
pub fn open(path: &Path) -> Result<Checkpoint, Error> {
    from_file(SourceFile::open(path)?)
}

/// Opens a file that may be in memory.
///
/// # Errors
/// As [`open`].
pub fn from_file(file: SourceFile) -> Result<Checkpoint, Error> {
    let file = Arc::new(file);
    let path = file.path();
    let contents = read_contents(&file)?;
    let fail = |reason: String| Error::source(path, reason);
    let mut config = config::parse(&contents, rope_factors(&file, &contents)?).map_err(fail)?;
    let tokenizer = tokenizer::rebuild(&contents, config.vocab_size).map_err(fail)?;
    check(path, &tokenizer.json, config.vocab_size)?;
    config.bos_token = tokenizer.bos_token;
    config.eos_tokens = tokenizer.eos_tokens;
    let template = contents.text("tokenizer.chat_template").map_err(fail)?;
    Ok(Checkpoint {
        weights: weights::find(&file, &contents, &config)?,
        config,
        tokenizer_json: tokenizer.json,
        chat_template: template.map(str::to_owned),
        origin: Origin::of(path, std::slice::from_ref(&file))?,
    })
}

/// Reads as much of the start as it takes.
fn read_contents(file: &SourceFile) -> Result<Contents, Error> {
    let fail = |reason: String| Error::source(file.path(), reason);
    let mut len = FIRST_READ.min(file.len());
    loop {
        let mut bytes = vec![0; len as usize];
        file.read_at(0, &mut bytes)?;
        match parse(&bytes, file.len()) {
            Ok(contents) => return Ok(contents),
            Err(ParseError::Invalid(reason)) => return Err(fail(reason)),
            Err(ParseError::Short) if len == file.len() => {
                return Err(fail("the file ends within its metadata".to_owned()));
            }
            Err(ParseError::Short) if len >= LONGEST_METADATA => {
                return Err(fail(format!(
                    "more than {LONGEST_METADATA} bytes of metadata"
                )));
            }
            Err(ParseError::Short) => len = (4 * len).min(file.len()),
        }
    }
}

fn rope_factors(file: &SourceFile, contents: &Contents) -> Result<RopeFactors, Error> {
    /// More than any head has frequencies.
    const MOST: usize = 1 << 16;
    let read = |name: &str| -> Result<Option<Vec<f32>>, Error> {
        let Some(tensor) = contents.tensors.get(name) else {
            return Ok(None);
        };
        let len = tensor.dimensions.iter().product();
        if tensor.kind != GgmlType::F32 || len > MOST {
            let reason = format!(
                "{:?} of {:?}: expected F32 frequencies",
                tensor.kind, tensor.dimensions
            );
            return Err(Error::tensor(file.path(), name, reason));
        }
        let mut bytes = vec![0; 4 * len];
        file.read_at(tensor.offset, &mut bytes)?;
        let mut values = vec![0.0; len];
        GgmlType::F32.dequantize(&bytes, &mut values);
        Ok(Some(values))
    };
    Ok(RopeFactors {
        all: read("rope_freqs.weight")?,
        short: read("rope_factors_short.weight")?,
        long: read("rope_factors_long.weight")?,
    })
}
