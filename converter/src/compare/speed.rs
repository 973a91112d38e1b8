//! Speed, the models taking turns, so that what disturbs the machine disturbs them alike.

use super::{Options, lines};
use crate::Error;
use kinglet::bench::{Bench, EmbedBench, Spread, Test};
use kinglet::{EmbedOptions, Model};
use kinglet_kernels::kv::KvKind;
use serde::Serialize;

/// How fast a model is.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Speed {
    /// A decoder.
    Decoder {
        /// Tokens of a prompt per second.
        prefill_tokens_per_second: Spread,
        /// Generated tokens per second.
        decode_tokens_per_second: Spread,
    },
    /// An encoder, from text to vector.
    Encoder {
        /// Texts per second, all at once.
        batch_texts_per_second: Spread,
        /// Texts per second, one by one.
        single_texts_per_second: Spread,
    },
}

impl Speed {
    /// The figure that people feel: tokens generated, or single texts, per second.
    pub fn felt(&self) -> f64 {
        match self {
            Speed::Decoder {
                decode_tokens_per_second: rate,
                ..
            }
            | Speed::Encoder {
                single_texts_per_second: rate,
                ..
            } => rate.median,
        }
    }
}

/// Texts that encoders are timed with at most.
pub const TEXTS: usize = 50;

/// A measurement that can be repeated; rates per second.
type Run<'a> = Box<dyn FnMut() -> Result<f64, Error> + 'a>;

/// Speed of each model.
pub fn measure(models: &[Model], text: &str, options: &Options) -> Result<Vec<Speed>, Error> {
    let mut lines = lines(text);
    lines.truncate(TEXTS);
    let is_encoder = models.iter().any(|model| model.config().encoder.is_some());
    let run = |model, second: bool| match is_encoder {
        true => texts(model, &lines, if second { 1 } else { lines.len() }),
        false => tokens(model, options, second),
    };
    let rates = |second: bool| {
        let mut runs: Vec<Run> = models
            .iter()
            .map(|model| run(model, second))
            .collect::<Result<_, Error>>()?;
        let mut rates = vec![vec![]; models.len()];
        for _ in 0..options.repeat.max(1) {
            for (run, rates) in runs.iter_mut().zip(&mut rates) {
                rates.push(run()?);
            }
        }
        Ok::<_, Error>(rates)
    };
    let speed = |(first, second): (Vec<f64>, Vec<f64>)| {
        let (first, second) = (Spread::of(&first), Spread::of(&second));
        match is_encoder {
            true => Speed::Encoder {
                batch_texts_per_second: first,
                single_texts_per_second: second,
            },
            false => Speed::Decoder {
                prefill_tokens_per_second: first,
                decode_tokens_per_second: second,
            },
        }
    };
    Ok(rates(false)?
        .into_iter()
        .zip(rates(true)?)
        .map(speed)
        .collect())
}

fn tokens<'a>(model: &'a Model, options: &Options, decode: bool) -> Result<Run<'a>, Error> {
    let test = Test {
        tokens: if decode {
            options.generate
        } else {
            options.prompt
        },
        decode,
        depth: 0,
    };
    let mut bench = Bench::new(model, test, KvKind::default())?;
    Ok(Box::new(move || Ok(bench.run()?)))
}

fn texts<'a>(model: &'a Model, texts: &'a [String], batch: usize) -> Result<Run<'a>, Error> {
    let options = EmbedOptions {
        truncate: true,
        ..EmbedOptions::default()
    };
    let mut bench = EmbedBench::new(model.encoder()?, texts, batch, options)?;
    Ok(Box::new(move || Ok(texts.len() as f64 / bench.run()?)))
}
