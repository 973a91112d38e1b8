//! A session: one sequence of tokens, its cache and its sampler.

use crate::config::ModelConfig;
use crate::error::Error;
use crate::model::{Decoder, Model};
use crate::sampler::{Sampler, SamplerOptions};
use kinglet_kernels::kv::KvKind;
use std::ops::Range;

/// Tokens that go through the model together: enough for reading the weights to cost nothing; few enough for
/// the activations to stay small.
const BATCH: usize = 512;

/// Rows whose logits are held at once when many are asked for.
const LOGIT_ROWS: usize = 32;

/// How a session is set up.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Tokens that fit, prompt and answer together.
    pub context: usize,
    /// How keys and values are stored.
    pub kv: KvKind,
    /// How tokens are chosen.
    pub sampling: SamplerOptions,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            context: 4096,
            kv: KvKind::default(),
            sampling: SamplerOptions::default(),
        }
    }
}

/// One sequence of tokens on a model.
pub struct Session<'m> {
    model: &'m Model,
    decoder: Decoder,
    sampler: Sampler,
    capacity: usize,
    tokens: Vec<u32>,
    /// How many of the tokens have gone through the layers.
    evaluated: usize,
    /// Hidden state of the last token that has.
    hidden: Vec<f32>,
    /// Hidden states of all tokens, for [`Session::logits_of`].
    states: Vec<f32>,
    logits: Vec<f32>,
    /// Whether `logits` belongs to `hidden`.
    fresh: bool,
}

impl<'m> Session<'m> {
    /// A session on `model`, see [`Model::session`].
    pub(crate) fn new(model: &'m Model, options: SessionOptions) -> Result<Session<'m>, Error> {
        let config = model.config();
        model.check_decoder()?;
        let bytes = bytes(config, options.kv, options.context);
        let bytes = bytes.filter(|&bytes| options.context > 0 && bytes <= isize::MAX as usize / 2);
        let bytes = bytes.ok_or(Error::Context {
            context: options.context,
            trained: config.max_positions,
        })?;
        // Asked for as a whole first: a system that does not have it says so here, and does not end
        // the process when it is used.
        let mut all: Vec<u8> = vec![];
        all.try_reserve_exact(bytes).map_err(|_| Error::Memory {
            context: options.context,
            bytes,
        })?;
        drop(all);
        let batch = BATCH.min(options.context);
        Ok(Session {
            model,
            decoder: Decoder::new(model, options.kv, options.context, batch),
            sampler: Sampler::new(options.sampling),
            capacity: options.context,
            tokens: vec![],
            evaluated: 0,
            hidden: vec![0.0; config.hidden_size],
            states: vec![],
            logits: vec![0.0; config.vocab_size],
            fresh: false,
        })
    }

    /// Whether `more` tokens fit after those that are there.
    ///
    /// # Errors
    /// They do not.
    pub fn check_fits(&self, more: usize) -> Result<(), Error> {
        if more <= self.capacity - self.tokens.len() {
            return Ok(());
        }
        Err(Error::ContextFull {
            held: self.tokens.len(),
            more,
            context: self.capacity,
        })
    }

    /// Appends tokens and runs them through the model.
    ///
    /// # Errors
    /// Tokens that do not fit, or that the vocabulary lacks.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.check(tokens)?;
        self.tokens.extend_from_slice(tokens);
        self.evaluate();
        Ok(())
    }

    /// Whether tokens fit and the vocabulary has them.
    fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        self.check_fits(tokens.len())?;
        let vocab = self.model.config().vocab_size;
        match tokens.iter().find(|&&token| token as usize >= vocab) {
            Some(&token) => Err(Error::Token { token, vocab }),
            None => Ok(()),
        }
    }

    /// Runs what has not been run.
    fn evaluate(&mut self) {
        while self.evaluated < self.tokens.len() {
            let end = self.tokens.len().min(self.evaluated + BATCH);
            let tokens = &self.tokens[self.evaluated..end];
            // Of all tokens, the last one's hidden state is asked for.
            let wanted = usize::from(end == self.tokens.len());
            let states = self
                .decoder
                .forward(self.model, tokens, self.evaluated, wanted);
            self.hidden[..states.len()].copy_from_slice(states);
            self.evaluated = end;
            self.fresh = false;
        }
    }

    /// Logits of the token after the last, one for each token of the vocabulary.
    ///
    /// # Errors
    /// A session without tokens.
    pub fn logits(&mut self) -> Result<&[f32], Error> {
        if self.tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        self.evaluate();
        if !self.fresh {
            self.decoder
                .logits(self.model, &self.hidden, &mut self.logits);
            self.fresh = true;
        }
        Ok(&self.logits)
    }

    /// Chooses the next token and appends it.
    ///
    /// # Errors
    /// A full context, or a session without tokens.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<u32, Error> {
        self.check_fits(1)?;
        self.logits()?;
        let token = self.sampler.sample(&self.logits, &self.tokens);
        self.tokens.push(token);
        Ok(token)
    }

    /// Runs `tokens` from an empty context and keeps their hidden states for
    /// [`Session::logits_of`].
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn begin(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.clear();
        self.check(tokens)?;
        self.states.clear();
        for (index, batch) in tokens.chunks(BATCH).enumerate() {
            let states = self
                .decoder
                .forward(self.model, batch, index * BATCH, batch.len());
            self.states.extend_from_slice(states);
        }
        Ok(())
    }

    /// Calls `each(position, logits)` for positions of what [`Session::begin`] ran, in order, in
    /// bounded memory.
    ///
    /// # Panics
    /// If the range is beyond what ran.
    pub fn logits_of(&mut self, positions: Range<usize>, mut each: impl FnMut(usize, &[f32])) {
        let config = self.model.config();
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let wanted = &self.states[positions.start * hidden..positions.end * hidden];
        let mut logits = vec![0.0; LOGIT_ROWS.min(positions.len()) * vocab];
        for (index, states) in wanted.chunks(LOGIT_ROWS * hidden).enumerate() {
            let logits = &mut logits[..states.len() / hidden * vocab];
            self.decoder.logits(self.model, states, logits);
            for (row, logits) in logits.chunks_exact(vocab).enumerate() {
                each(positions.start + index * LOGIT_ROWS + row, logits);
            }
        }
    }

    /// Tokens of the sequence.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens there are.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// How many fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.evaluated = 0;
    }

    /// Keeps the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.tokens.len() {
            return;
        }
        self.tokens.truncate(len);
        // The last token runs again, since its hidden state is gone.
        self.evaluated = self.evaluated.min(len.saturating_sub(1));
    }
}

/// Bytes of what grows with the context: the KV cache and the rotary tables.
fn bytes(config: &ModelConfig, kv: KvKind, context: usize) -> Option<usize> {
    let dims: usize = config.ropes.iter().map(|rope| rope.dims).sum();
    let tables = context.checked_mul(dims.checked_mul(size_of::<f32>())?)?;
    cache_bytes(config, kv, context)?.checked_add(tables)
}

/// Bytes of the KV cache of a session; `None` if they cannot be counted.
pub fn cache_bytes(config: &ModelConfig, kv: KvKind, context: usize) -> Option<usize> {
    let layer = kv.bytes(config.kv_heads, config.head_dim, context)?;
    layer.checked_mul(config.layers.len())
}
