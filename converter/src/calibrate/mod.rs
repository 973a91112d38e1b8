//! Calibration: a text runs through the model, block by block, and shows which inputs each linear
//! layer gets and how much its outputs matter.
//!
//! All tokens go through one block before the next is read, so that memory holds one block's weights
//! and one state per token, however deep the model.

mod attention;
mod block;
pub mod dense;
mod gradient;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use block::norm;
pub use block::{Block, Context, NORMS, STAGES};
pub(crate) use gradient::rounding;
pub use gradient::{Sensitivity, measure};
pub use text::BUILT_IN;

use crate::Error;
use crate::checkpoint::Checkpoint;
use kinglet::Tokenizer;
use kinglet::config::ModelConfig;
use kinglet::model::RopeTable;
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::pool::ThreadPool;
use std::path::Path;

/// Tokens of a window.
const WINDOW: usize = 512;

/// Bytes that the states of all layers, two for each float, and what one layer's gradient takes may have: deep
/// and wide models get fewer windows.
const MEMORY: usize = 4 << 30;

/// The tokens of a calibration text, and what runs them.
pub struct Calibration {
    engine: Engine,
    ropes: Vec<RopeTable>,
    /// Whole windows.
    tokens: Vec<u32>,
    window: usize,
}

impl Calibration {
    /// Up to `windows` windows of `text`, spread over it evenly; fewer for a model whose states would
    /// not fit memory.
    ///
    /// # Errors
    /// A tokenizer that cannot be used, or a text of less than 16 tokens.
    pub fn new(checkpoint: &Checkpoint, text: &str, windows: usize) -> Result<Calibration, Error> {
        let config = &checkpoint.config;
        let path = Path::new(&checkpoint.origin.name);
        let tokenizer = Tokenizer::from_json(&checkpoint.tokenizer_json, path)?;
        let all = tokenizer.encode(text, false)?;
        if let Some(&token) = all.iter().find(|&&t| t as usize >= config.vocab_size) {
            let reason = format!(
                "the tokenizer makes token {token}, the embedding has {} rows",
                config.vocab_size
            );
            return Err(Error::source(path, reason));
        }
        let window = WINDOW.min(all.len()).min(config.max_positions);
        if window < 16 {
            let (what, tokens) = match config.max_positions < 16 {
                true => ("the model takes", config.max_positions),
                false => ("the text has", all.len()),
            };
            return Err(Error::Setting {
                flag: "calibration",
                reason: format!("{what} {tokens} tokens: expected 16 or more"),
            });
        }
        let found: Vec<&[u32]> = all.chunks_exact(window).collect();
        let states = 2 * config.hidden_size * config.layers.len();
        // Six times the width of its feed-forward block and four times its own, as floats.
        let layer = 4 * (6 * config.intermediate_size + 4 * config.hidden_size);
        let windows = windows.min(MEMORY / (window * (states + layer))).max(1);
        let count = found.len().min(windows);
        let mut tokens = Vec::with_capacity(count * window);
        for index in 0..count {
            let start = tokens.len();
            tokens.extend_from_slice(found[index * found.len() / count]);
            if let Some(bos) = config.bos_token {
                tokens[start] = bos;
            }
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let isa = Isa::from_env().map_err(kinglet::Error::from)?;
        Ok(Calibration {
            engine: Engine::new(isa, ThreadPool::new(threads)),
            ropes: config
                .ropes
                .iter()
                .map(|rope| RopeTable::new(rope, window))
                .collect(),
            tokens,
            window,
        })
    }

    /// The tokens, whole windows.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What blocks run with.
    pub fn context<'a>(&'a self, config: &'a ModelConfig) -> Context<'a> {
        Context {
            engine: &self.engine,
            config,
            ropes: &self.ropes,
            window: self.window,
        }
    }

    /// The embedded tokens, `[token][hidden_size]`.
    ///
    /// # Errors
    /// An embedding that cannot be read.
    pub fn embed(&self, checkpoint: &Checkpoint) -> Result<Vec<f32>, Error> {
        let config = &checkpoint.config;
        let embed = checkpoint.weight("embed")?;
        let mut x = vec![0.0; self.tokens.len() * config.hidden_size];
        for (x, &token) in x.chunks_exact_mut(config.hidden_size).zip(&self.tokens) {
            embed.read_rows(token as usize..token as usize + 1, x)?;
            x.iter_mut().for_each(|x| *x *= config.embedding_scale);
        }
        Ok(x)
    }
}
