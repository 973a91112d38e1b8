//! Text to tokens and back.

mod check;
mod stop;
mod stream;
#[cfg(test)]
mod tests;

pub use stop::StopMatcher;
pub use stream::TextStream;

use crate::error::Error;
use crate::format::ModelFile;
use std::path::Path;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// The tokenizer inside a model's file.
    ///
    /// # Errors
    /// A tokenizer that is damaged, or newer than this library.
    pub fn of(file: &ModelFile) -> Result<Tokenizer, Error> {
        Self::from_json(file.tokenizer_json(), file.path())
    }

    /// A tokenizer from the contents of `tokenizer.json`; `path` is for messages.
    ///
    /// # Errors
    /// As [`Tokenizer::of`].
    pub fn from_json(json: &[u8], path: &Path) -> Result<Tokenizer, Error> {
        let damaged = |reason: String| Error::Damaged {
            path: path.to_owned(),
            reason: format!("tokenizer: {reason}"),
        };
        check::outline(json).map_err(damaged)?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(|e| damaged(e.to_string()))?;
        // Every text as it is: some files still have the limits of a training run.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| damaged(e.to_string()))?;
        Ok(Tokenizer { inner })
    }

    /// Tokens of a text. Special tokens written out in it (`<|im_start|>`) are recognized; `special`
    /// also adds those that the model wants around every text.
    ///
    /// # Errors
    /// A text that the tokenizer cannot take.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let encoding = self.inner.encode_fast(text, special).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of a text with all that the model wants around it, cut to `limit` so that what comes
    /// after the text stays; and how many there were.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_within(&self, text: &str, limit: usize) -> Result<(Vec<u32>, usize), Error> {
        let encoding = self.inner.encode_fast(text, true).map_err(failed)?;
        let mut tokens = encoding.get_ids().to_vec();
        let found = tokens.len();
        if found > limit {
            let special = encoding.get_special_tokens_mask().iter().rev();
            let after = special.take_while(|&&special| special == 1).count();
            let after = after.min(limit);
            tokens.drain(limit - after..found - after);
        }
        Ok((tokens, found))
    }

    /// The text of tokens, special ones left out.
    ///
    /// # Errors
    /// Tokens that the tokenizer cannot turn into text.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.inner.decode(tokens, true).map_err(failed)
    }

    /// The largest token of the vocabulary, added tokens not counted; `None` if it is empty.
    pub fn largest_token(&self) -> Option<u32> {
        self.inner.get_vocab(false).into_values().max()
    }

    /// A token as the vocabulary spells it.
    pub fn spelling(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer {
        reason: error.to_string(),
    }
}
