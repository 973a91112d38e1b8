//! Rows of other engines, measured apart by the same protocol, as a JSON file:
//!
//! ```json
//! {
//!   "conditions": {
//!     "cpu": "as in /proc/cpuinfo", "threads": 2, "text_sha256": "of the text's bytes",
//!     "samples": 31, "prompt": 512, "window": 512, "generate": 64, "tokens_scored": 7905
//!   },
//!   "notes": ["sentences for the report"],
//!   "rows": [{
//!     "name": "llama.cpp Q4_0", "engine": "llama-cpp-python 0.3.36", "file": "Q4_0.gguf",
//!     "bytes": 77000000, "kinds": ["Q4_0"], "first_result_seconds": 0.4, "peak_memory": 180000000,
//!     "speed": {"prefill_tokens_per_second": [900.0, 910.0], "decode_tokens_per_second": [80.0]},
//!     "quality": {"perplexity": 35.0, "kl_mean": 0.08, "kl_p99": 0.7, "top1_agreement": 0.82}
//!   }]
//! }
//! ```
//!
//! For encoders, the last three conditions give way to `similarity_sha256` (of documents and
//! judgements, if there are any), `speed` has `batch_texts_per_second` and
//! `single_texts_per_second`, and `quality` has `spearman`, `cosine_mean` and `cosine_min`. Speeds
//! are those of each run. `samples` are windows or lines; `prompt` for encoders the tokens of one
//! text. `peak_memory` and the last three of a decoder's qualities, or any of an encoder's, may be
//! left out.

use super::quality::{Cosines, EncoderQuality};
use super::{Conditions, Entry, Quality, Speed};
use crate::Error;
use kinglet::bench::Spread;
use kinglet::eval::{Distance, Evaluation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<S, Q> {
    conditions: Measured,
    #[serde(default)]
    notes: Vec<String>,
    rows: Vec<Row<S, Q>>,
}

/// What has to be as for the other models.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    pub cpu: String,
    pub threads: usize,
    pub text_sha256: String,
    pub similarity_sha256: Option<(String, String)>,
    pub samples: usize,
    pub prompt: usize,
    pub window: Option<usize>,
    pub generate: Option<usize>,
    pub tokens_scored: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<S, Q> {
    name: String,
    engine: String,
    file: String,
    bytes: u64,
    kinds: Vec<String>,
    first_result_seconds: f64,
    peak_memory: Option<u64>,
    speed: S,
    quality: Q,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecoderSpeed {
    prefill_tokens_per_second: Vec<f64>,
    decode_tokens_per_second: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncoderSpeed {
    batch_texts_per_second: Vec<f64>,
    single_texts_per_second: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecoderQuality {
    perplexity: f64,
    kl_mean: Option<f64>,
    kl_p99: Option<f64>,
    top1_agreement: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CosineQuality {
    spearman: Option<f64>,
    cosine_mean: Option<f64>,
    cosine_min: Option<f64>,
}

/// Reads a file of rows; they get the model's number of weights. Returns its notes, too.
///
/// # Errors
/// A file that cannot be read or is not as above, or conditions other than `conditions`: which
/// field, what was expected and what was found.
pub fn read(
    path: &Path,
    conditions: &Conditions,
    parameters: u64,
) -> Result<(Vec<Entry>, Vec<String>), Error> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let found = match conditions.tokens_scored {
        Some(_) => entries(&text, conditions, parameters, decoder),
        None => entries(&text, conditions, parameters, encoder),
    };
    found.map_err(|reason| Error::source(path, reason))
}

/// Turns the speed and the quality of a row into ours.
type Figures<S, Q> = fn(S, Q, &Conditions) -> Result<(Speed, Quality), String>;

fn entries<S: DeserializeOwned, Q: DeserializeOwned>(
    text: &[u8],
    conditions: &Conditions,
    parameters: u64,
    figures: Figures<S, Q>,
) -> Result<(Vec<Entry>, Vec<String>), String> {
    let json = &mut serde_json::Deserializer::from_slice(text);
    let file: File<S, Q> = serde_path_to_error::deserialize(json).map_err(|e| e.to_string())?;
    conditions.check(&file.conditions)?;
    let mut entries: Vec<Entry> = vec![];
    for row in file.rows {
        let name = row.name;
        if entries.iter().any(|entry| entry.name == name) {
            return Err(format!("two rows are named {name:?}"));
        }
        let of_row = |reason| format!("row {name:?}: {reason}");
        let positive = |x: f64| x > 0.0;
        within(
            "first_result_seconds",
            Some(row.first_result_seconds),
            positive,
        )
        .map_err(of_row)?;
        within("bytes", Some(row.bytes as f64), positive).map_err(of_row)?;
        let (speed, quality) = figures(row.speed, row.quality, conditions).map_err(of_row)?;
        entries.push(Entry {
            engine: Some(row.engine),
            file: row.file,
            bytes: row.bytes,
            parameters,
            bits_per_weight: 8.0 * row.bytes as f64 / parameters as f64,
            kinds: row.kinds,
            speed,
            peak_memory: row.peak_memory,
            first_result_seconds: row.first_result_seconds,
            quality,
            provenance: None,
            name,
        });
    }
    Ok((entries, file.notes))
}

fn decoder(
    speed: DecoderSpeed,
    quality: DecoderQuality,
    conditions: &Conditions,
) -> Result<(Speed, Quality), String> {
    within("perplexity", Some(quality.perplexity), |x| x >= 1.0)?;
    within("kl_mean", quality.kl_mean, |x| x >= 0.0)?;
    within("kl_p99", quality.kl_p99, |x| x >= 0.0)?;
    let part = |x| (0.0..=1.0).contains(&x);
    within("top1_agreement", quality.top1_agreement, part)?;
    let distance = (quality.kl_mean, quality.kl_p99, quality.top1_agreement);
    let against_reference = match distance {
        (Some(kl_mean), Some(kl_p99), Some(top1_agreement)) => Some(Distance {
            kl_mean,
            kl_p99,
            top1_agreement,
        }),
        (None, None, None) => None,
        _ => return Err("kl_mean, kl_p99 and top1_agreement go together".to_owned()),
    };
    let speed = Speed::Decoder {
        prefill_tokens_per_second: spread(
            "prefill_tokens_per_second",
            &speed.prefill_tokens_per_second,
        )?,
        decode_tokens_per_second: spread(
            "decode_tokens_per_second",
            &speed.decode_tokens_per_second,
        )?,
    };
    let quality = Evaluation {
        perplexity: quality.perplexity,
        tokens_scored: conditions.tokens_scored.unwrap_or(0),
        windows: conditions.samples,
        against_reference,
    };
    Ok((speed, Quality::Decoder(quality)))
}

fn encoder(
    speed: EncoderSpeed,
    quality: CosineQuality,
    conditions: &Conditions,
) -> Result<(Speed, Quality), String> {
    // A little beyond 1 is rounding.
    let cosine = |x: f64| (-1.001..=1.001).contains(&x);
    within("spearman", quality.spearman, cosine)?;
    within("cosine_mean", quality.cosine_mean, cosine)?;
    within("cosine_min", quality.cosine_min, cosine)?;
    let cosine_to_reference = match (quality.cosine_mean, quality.cosine_min) {
        (Some(mean), Some(min)) => Some(Cosines { mean, min }),
        (None, None) => None,
        _ => return Err("cosine_mean and cosine_min go together".to_owned()),
    };
    let speed = Speed::Encoder {
        batch_texts_per_second: spread("batch_texts_per_second", &speed.batch_texts_per_second)?,
        single_texts_per_second: spread("single_texts_per_second", &speed.single_texts_per_second)?,
    };
    let quality = EncoderQuality {
        spearman: quality.spearman,
        cosine_to_reference,
        texts: conditions.samples,
    };
    Ok((speed, Quality::Encoder(quality)))
}

fn within(name: &str, value: Option<f64>, valid: impl Fn(f64) -> bool) -> Result<(), String> {
    match value.filter(|&value| !valid(value)) {
        Some(value) => Err(format!("{name} is {value}, which cannot be")),
        None => Ok(()),
    }
}

fn spread(name: &str, runs: &[f64]) -> Result<Spread, String> {
    if runs.is_empty() {
        return Err(format!("{name} has no runs"));
    }
    for &rate in runs {
        within(name, Some(rate), |x| x > 0.0)?;
    }
    Ok(Spread::of(runs))
}
