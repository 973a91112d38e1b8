//! Text to tokens and back.

mod bpe;
mod charsmap;
mod check;
mod model;
mod read;
mod sequence;
mod stop;
mod stream;
#[cfg(test)]
mod tests;

pub use sequence::Sequence;
pub use stop::StopMatcher;
pub use stream::TextStream;

use crate::error::Error;
use crate::format::ModelFile;
use std::path::Path;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: read::Parts,
}

impl Tokenizer {
    /// The tokenizer inside a model's file.
    ///
    /// # Errors
    /// A tokenizer that is damaged, or newer than this library.
    pub fn of(file: &ModelFile) -> Result<Tokenizer, Error> {
        let tokenizer = Self::from_json(file.tokenizer_json(), file.path());
        file.release_tokenizer_json();
        tokenizer
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
        let kind = check::outline(json).map_err(damaged)?;
        let inner = read::tokenizer(json, kind).map_err(|e| damaged(e.to_string()))?;
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

    /// A text, or with `second` a pair of texts, with all that the model wants around and between
    /// them, cut to `limit` tokens so that the special ones stay and the longer text of a pair gives
    /// way first; and how many tokens there were.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], or a tokenizer that makes nothing of a second text.
    pub fn encode_within(
        &self,
        text: &str,
        second: Option<&str>,
        limit: usize,
    ) -> Result<(Sequence, usize), Error> {
        let encoding = match second {
            None => self.inner.encode_fast(text, true),
            Some(second) => self.inner.encode_fast((text, second), true),
        };
        let encoding = encoding.map_err(failed)?;
        if second.is_some() && sequence::count(&encoding.get_sequence_ids(), 1) == 0 {
            return Err(Error::Tokenizer {
                reason: "it makes no token of the second text of a pair: \
                         is the model made for pairs?"
                    .to_owned(),
            });
        }
        Ok((sequence::cut(&encoding, limit), encoding.len()))
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
