//! Generating text: tokens from a session, as text, until something ends it.

use crate::error::Error;
use crate::session::Session;
use crate::tokenizer::{StopMatcher, TextStream, Tokenizer};
use serde::Serialize;
use std::ops::ControlFlow;

/// What ends a completion.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The most tokens; `None`: until another end.
    pub max_tokens: Option<usize>,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the text, normally [`crate::config::ModelConfig::eos_tokens`].
    pub eos_tokens: Vec<u32>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model said that it is done.
    Eos,
    /// A stop string came.
    Stop,
    /// There were as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller stopped it.
    Interrupted,
}

/// A completion.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The text, as it was streamed.
    pub text: String,
    /// Tokens that were generated, an end token not counted.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// Generates text after what `session` holds; `on_text` gets a piece for each token, which is empty
/// where none becomes certain, and what is left in the end; it may stop the completion.
///
/// # Errors
/// A session without tokens, or a tokenizer that lacks one of the model's.
pub fn complete(
    session: &mut Session,
    tokenizer: &Tokenizer,
    limits: &Limits,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Completion, Error> {
    let mut stream = TextStream::new(tokenizer, session.tokens());
    let mut matcher = StopMatcher::new(&limits.stop);
    let mut completion = Completion {
        text: String::new(),
        tokens: 0,
        finish: Finish::Length,
    };
    let mut stopped = false;
    while limits.max_tokens.is_none_or(|max| completion.tokens < max) {
        if session.position() == session.capacity() {
            completion.finish = Finish::Context;
            break;
        }
        let token = session.next()?;
        if limits.eos_tokens.contains(&token) {
            completion.finish = Finish::Eos;
            break;
        }
        completion.tokens += 1;
        let (piece, found) = matcher.push(&stream.push(token)?);
        completion.text += &piece;
        if on_text(&piece).is_break() {
            completion.finish = Finish::Interrupted;
            return Ok(completion);
        }
        if found {
            completion.finish = Finish::Stop;
            stopped = true;
            break;
        }
    }
    if !stopped {
        let (mut rest, found) = matcher.push(&stream.finish()?);
        if found {
            completion.finish = Finish::Stop;
        } else {
            rest += &matcher.finish();
        }
        if !rest.is_empty() {
            completion.text += &rest;
            let _ = on_text(&rest);
        }
    }
    Ok(completion)
}
