//! Text of tokens that come one by one.

use super::Tokenizer;
use crate::error::Error;

/// Tokens whose text may still change with the next one: a character has at most four bytes, and so
/// at most four tokens.
const LONGEST_CHARACTER: usize = 4;

/// Tokens that are kept at most while their text has not become certain.
const LONGEST_WAIT: usize = 64;

/// Turns tokens into text as they come. What it hands out never ends inside a character, and all of
/// it together is the text of all the tokens.
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Tokens that give the next ones their context, then those whose text is not all out yet.
    tokens: Vec<u32>,
    /// How many of the tokens are context.
    context: usize,
    /// Text after the context that is out.
    out: String,
}

impl<'t> TextStream<'t> {
    /// A stream that goes on after `before`: a leading space of the first token is kept.
    pub fn new(tokenizer: &'t Tokenizer, before: &[u32]) -> TextStream<'t> {
        let tokens = before[before.len().saturating_sub(LONGEST_CHARACTER)..].to_vec();
        TextStream {
            tokenizer,
            context: tokens.len(),
            tokens,
            out: String::new(),
        }
    }

    /// Takes a token; returns the text that has become certain, often that of the token, sometimes
    /// nothing.
    ///
    /// # Errors
    /// A token that the tokenizer cannot turn into text.
    pub fn push(&mut self, token: u32) -> Result<String, Error> {
        self.tokens.push(token);
        let text = self.pending()?;
        let waiting = self.tokens.len() - self.context;
        // Bytes that are no character yet show as U+FFFD. Of a long row of these only the last
        // can become one still; the others are what they are.
        let trimmed = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        let certain = if trimmed == text.len() || waiting >= LONGEST_WAIT {
            text.len()
        } else if waiting >= LONGEST_CHARACTER {
            text.len() - char::REPLACEMENT_CHARACTER.len_utf8()
        } else {
            trimmed
        };
        let piece = self.after_out(&text[..certain]);
        // A special token, or the start of something, is no context for what comes: the text before is.
        let is_none_yet = text.is_empty() && waiting < LONGEST_WAIT;
        if certain == text.len() && !is_none_yet {
            // What was new is the context of what comes.
            self.tokens.drain(..self.context);
            self.context = self.tokens.len();
            self.out.clear();
        } else {
            self.out += &piece;
        }
        Ok(piece)
    }

    /// The rest, when no more tokens come: bytes that never became a character as U+FFFD.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(self) -> Result<String, Error> {
        Ok(self.after_out(&self.pending()?))
    }

    /// The part of `text` that is not out yet.
    fn after_out(&self, text: &str) -> String {
        text.strip_prefix(&self.out).unwrap_or_default().to_owned()
    }

    /// Text of the tokens after the context.
    fn pending(&self) -> Result<String, Error> {
        let before = self.tokenizer.decode(&self.tokens[..self.context])?;
        let mut text = self.tokenizer.decode(&self.tokens)?;
        let common = before.bytes().zip(text.bytes()).take_while(|(a, b)| a == b);
        let mut common = common.count();
        while !text.is_char_boundary(common) {
            common -= 1;
        }
        Ok(text.split_off(common))
    }
}
