//! Speed of a model: prompt processing and token generation, as `llama-bench` measures them; texts
//! to embeddings.

use crate::encoder::{EmbedOptions, Encoder};
use crate::error::Error;
use crate::model::Model;
use crate::session::{Session, SessionOptions};
use kinglet_kernels::kv::KvKind;
use kinglet_kernels::roofline;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Instant;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Tokens to process or generate.
    pub tokens: usize,
    /// Whether they are generated one by one, or a prompt processed at once.
    pub decode: bool,
    /// Tokens that are in the context before.
    pub depth: usize,
}

/// `pp512`, `tg128`, `tg64@d512`
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.decode { "tg" } else { "pp" };
        match self.depth {
            0 => f.pad(&format!("{kind}{}", self.tokens)),
            depth => f.pad(&format!("{kind}{}@d{depth}", self.tokens)),
        }
    }
}

impl Serialize for Test {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Median, least and largest of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; all zero if there are none.
    pub fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Spread {
                median: 0.0,
                min: 0.0,
                max: 0.0,
            };
        };
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Spread {
            median: (low + high) / 2.0,
            min,
            max,
        }
    }
}

/// A session that a test runs in, several times.
pub struct Bench<'m> {
    model: &'m Model,
    session: Session<'m>,
    test: Test,
    kv: KvKind,
}

impl<'m> Bench<'m> {
    /// Prepares a test and runs a little of it, so that memory is there and cores are awake.
    ///
    /// # Errors
    /// A test that does not fit.
    pub fn new(model: &'m Model, test: Test, kv: KvKind) -> Result<Bench<'m>, Error> {
        let session = model.session(SessionOptions {
            context: test.depth.saturating_add(test.tokens),
            kv,
            ..SessionOptions::default()
        })?;
        let mut bench = Bench {
            model,
            session,
            test,
            kv,
        };
        let tokens = bench.tokens(test.depth + test.tokens.min(32));
        bench.session.prefill(&tokens)?;
        bench.session.logits()?;
        Ok(bench)
    }

    /// Runs the test once; returns tokens per second.
    ///
    /// # Errors
    /// None that [`Bench::new`] has not found.
    pub fn run(&mut self) -> Result<f64, Error> {
        let test = self.test;
        let tokens = self.tokens(test.depth + test.tokens);
        // The context before the test stays from the warm-up; its last token runs again.
        self.session.truncate(test.depth);
        if test.depth == 0 {
            self.session.clear();
        } else {
            self.session.logits()?;
        }
        let start = Instant::now();
        if test.decode {
            for token in &tokens[test.depth..] {
                self.session.prefill(&[*token])?;
                self.session.logits()?;
            }
        } else {
            self.session.prefill(&tokens[test.depth..])?;
            self.session.logits()?;
        }
        Ok(test.tokens as f64 / start.elapsed().as_secs_f64())
    }

    /// What each token takes: to decode it, bytes read on average; in a prompt, multiply-accumulates with
    /// weights.
    pub fn work_per_token(&self) -> usize {
        let Test { tokens, depth, .. } = self.test;
        match self.test.decode {
            true => self.model.bytes_per_token(self.kv, depth + tokens / 2),
            false => self.model.macs_per_token(),
        }
    }

    /// How much of [`Bench::work_per_token`] the machine can do in a second, on the model's threads: a plain loop
    /// that reads as many bytes, or up to 512 MB; INT8 products on registers alone. None where the instruction set
    /// has no such product.
    pub fn roofline(&self) -> Option<f64> {
        const MOST: usize = 512 << 20;
        let engine = self.model.engine();
        if !self.test.decode {
            return roofline::integer_peak(engine.isa(), engine.pool());
        }
        let words = self.work_per_token().min(MOST) / size_of::<u64>();
        Some(roofline::read_bandwidth(engine.pool(), &vec![1; words]))
    }

    /// The same pseudo-random tokens each time: what they are does not matter for speed.
    fn tokens(&self, count: usize) -> Vec<u32> {
        let vocab = self.model.config().vocab_size as u64;
        let token = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % vocab;
        (0..count as u64).map(|i| token(i) as u32).collect()
    }
}

/// Texts that an encoder embeds, several times.
pub struct EmbedBench<'a> {
    encoder: Encoder<'a>,
    texts: &'a [String],
    batch: usize,
    options: EmbedOptions,
    tokens: usize,
}

impl<'a> EmbedBench<'a> {
    /// Prepares to embed `texts`, `batch` (at least 1) at a time, and does so once, so that memory
    /// is there and cores are awake.
    ///
    /// # Errors
    /// A text that cannot be embedded.
    pub fn new(
        encoder: Encoder<'a>,
        texts: &'a [String],
        batch: usize,
        options: EmbedOptions,
    ) -> Result<EmbedBench<'a>, Error> {
        let tokens = encoder.tokenize(texts, options.truncate)?;
        let mut bench = EmbedBench {
            encoder,
            texts,
            batch: batch.max(1),
            options,
            tokens: tokens.iter().map(|sequence| sequence.tokens.len()).sum(),
        };
        bench.run()?;
        Ok(bench)
    }

    /// Embeds all texts once; returns the seconds that it took, tokenizing included.
    ///
    /// # Errors
    /// None that [`EmbedBench::new`] has not found.
    pub fn run(&mut self) -> Result<f64, Error> {
        let start = Instant::now();
        for texts in self.texts.chunks(self.batch) {
            self.encoder.embed(texts, &self.options)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Tokens of all texts, special ones included.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_those_of_the_values() {
        let spread = |median, min, max| Spread { median, min, max };
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0));
        assert_eq!(Spread::of(&[]), spread(0.0, 0.0, 0.0));
    }

    #[test]
    fn tests_are_named_as_people_know_them() {
        let test = |tokens, decode, depth| Test {
            tokens,
            decode,
            depth,
        };
        assert_eq!(test(512, false, 0).to_string(), "pp512");
        assert_eq!(test(64, true, 512).to_string(), "tg64@d512");
    }
}
