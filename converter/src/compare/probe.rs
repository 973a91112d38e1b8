//! What a model costs a process that does nothing else: peak memory, and time until it answers.

use crate::Error;
use kinglet::format::ModelFile;
use kinglet::{EmbedOptions, Model, SessionOptions};
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::pool::ThreadPool;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// What was found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Most memory that the process has had resident, mapped weights included; `None` where the
    /// system does not say.
    pub peak_memory: Option<u64>,
    /// Seconds from opening the file to the first token or vector.
    pub first_result_seconds: f64,
}

/// Opens a model and runs `prompt` tokens (an encoder: at most one text of its length), for a
/// process of its own.
///
/// # Errors
/// A file that cannot be used.
pub fn probe(path: &Path, threads: usize, prompt: usize) -> Result<Probe, Error> {
    let isa = Isa::from_env().map_err(kinglet::Error::from)?;
    let engine = Engine::new(isa, ThreadPool::new(threads));
    let start = Instant::now();
    let model = Model::new(ModelFile::open(path)?, engine)?;
    let vocab = model.config().vocab_size as u32;
    // What the tokens are does not matter: each is a row of the embedding.
    let tokens = |count: usize| {
        (0..count)
            .map(|i| (i as u32).wrapping_mul(7919) % vocab)
            .collect()
    };
    match &model.config().encoder {
        Some(config) => {
            let tokens: Vec<u32> = tokens(prompt.clamp(1, config.max_tokens));
            let mut encoder = model.encoder()?;
            encoder.embed_tokens(&[tokens.into()], &EmbedOptions::default())?;
        }
        None => {
            let prompt = prompt.max(1);
            let mut session = model.session(SessionOptions {
                context: prompt.saturating_add(1),
                ..SessionOptions::default()
            })?;
            let tokens: Vec<u32> = tokens(prompt);
            session.prefill(&tokens)?;
            session.next()?;
        }
    }
    Ok(Probe {
        first_result_seconds: start.elapsed().as_secs_f64(),
        peak_memory: peak_memory(),
    })
}

/// The high-water mark of this process's resident memory, as Linux counts it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
