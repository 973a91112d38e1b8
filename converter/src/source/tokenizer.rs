//! What every source's tokenizer has to be.

use crate::Error;
use kinglet::Tokenizer;
use std::path::Path;

/// Checks that the runtime can load a `tokenizer.json`, and that the model has a row for each of its
/// tokens. Added tokens may be beyond: Gemma 3 without vision keeps that of images. `path` is for
/// messages.
///
/// # Errors
/// A tokenizer that cannot be loaded or that is larger than the vocabulary.
pub fn check(path: &Path, json: &[u8], vocab: usize) -> Result<(), Error> {
    let tokenizer = Tokenizer::from_json(json, path).map_err(|error| match error {
        kinglet::Error::Damaged { reason, .. } => Error::source(path, reason),
        other => other.into(),
    })?;
    match tokenizer.largest_token() {
        Some(token) if token as usize >= vocab => Err(Error::source(
            path,
            format!(
                "the tokenizer has token {token}, but the model only {vocab}: is it another's?"
            ),
        )),
        Some(_) => Ok(()),
        None => Err(Error::source(path, "the tokenizer has no tokens")),
    }
}
