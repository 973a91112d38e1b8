//! Quality: perplexity and divergence of decoders, agreement of encoders.

use super::{Options, eval_options, lines};
use crate::Error;
use kinglet::config::Pooling;
use kinglet::encoder::{Embedding, cosine};
use kinglet::eval::{Evaluation, evaluate};
use kinglet::similarity::Judgements;
use kinglet::{EmbedOptions, Model, Tokenizer};
use serde::Serialize;

/// How good a model is.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Quality {
    /// A decoder, on the text.
    Decoder(Evaluation),
    /// An encoder, on the lines of the text and on judged documents.
    Encoder(EncoderQuality),
}

/// How good an encoder is.
#[derive(Clone, Debug, Serialize)]
pub struct EncoderQuality {
    /// Spearman's rank correlation with human judgements of similarity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spearman: Option<f64>,
    /// Cosines of embeddings with those of the reference; of the reference itself, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_to_reference: Option<Cosines>,
    /// Texts that were embedded.
    pub texts: usize,
}

/// Cosines over texts.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cosines {
    /// Their mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
}

/// The tokens of the text, once all models are decoders or all encoders and turn it into the same.
///
/// # Errors
/// A model that differs from the first, and how.
pub fn same_tokens(models: &[Model], text: &str) -> Result<Vec<u32>, Error> {
    let mut first: Option<(&Model, Vec<u32>)> = None;
    for model in models {
        let tokens = Tokenizer::of(model.file())?.encode(text, true)?;
        let Some((reference, expected)) = &first else {
            first = Some((model, tokens));
            continue;
        };
        let (path, other) = (model.file().path(), reference.file().path().display());
        let fail = |reason: String| Err(Error::source(path, reason));
        let kind = |model: &Model| match model.config().encoder {
            Some(_) => "an encoder",
            None => "a decoder",
        };
        if kind(model) != kind(reference) {
            return fail(format!(
                "this is {}, but the reference {other} is {}",
                kind(model),
                kind(reference)
            ));
        }
        let (vocab, reference_vocab) = (model.config().vocab_size, reference.config().vocab_size);
        if vocab != reference_vocab {
            return fail(format!(
                "a vocabulary of {vocab} tokens, but the reference {other} has {reference_vocab}: \
                 only variants of one model can be compared"
            ));
        }
        if tokens != *expected {
            let same = tokens.iter().zip(expected).take_while(|(a, b)| a == b);
            return fail(format!(
                "its tokenizer differs from that of the reference {other}, in token {} of the \
                 text: only variants of one model can be compared",
                same.count() + 1
            ));
        }
    }
    Ok(first.map_or(vec![], |(_, tokens)| tokens))
}

/// Checks that there is something to measure on, before minutes are spent.
///
/// # Errors
/// A text without lines, or shorter than a window.
pub fn enough(model: &Model, text: &str, tokens: &[u32], options: &Options) -> Result<(), Error> {
    let reason = match model.config().encoder {
        Some(_) if lines(text).is_empty() => {
            "there is no text in it: expected one on each line".to_owned()
        }
        None if tokens.len() < options.window => {
            let (found, window) = (tokens.len(), options.window);
            kinglet::Error::ShortText { found, window }.to_string()
        }
        _ => return Ok(()),
    };
    Err(Error::source(&options.text, reason))
}

/// What all models are measured on.
pub struct Samples<'a> {
    /// The text.
    pub text: &'a str,
    /// Its tokens, see [`same_tokens`].
    pub tokens: &'a [u32],
    /// Documents and how alike people find them.
    pub judged: Option<&'a (Vec<String>, Judgements)>,
}

/// Measures models, the first of them the reference of the others; `notify` is told each before it
/// is measured.
///
/// # Errors
/// A text that is too short.
pub fn measure(
    models: &[Model],
    samples: &Samples,
    options: &Options,
    notify: &dyn Fn(&Model),
) -> Result<Vec<Quality>, Error> {
    let reference = &models[0];
    let encoder = reference.config().encoder.is_some();
    let texts = if encoder { lines(samples.text) } else { vec![] };
    let mut expected: Vec<Embedding> = vec![];
    let mut qualities = vec![];
    for (index, model) in models.iter().enumerate() {
        notify(model);
        let is_variant = index > 0;
        if !encoder {
            let (reference, windows) = (is_variant.then_some(reference), eval_options(options));
            let evaluation = evaluate(model, reference, samples.tokens, windows, |_, _| ())?;
            qualities.push(Quality::Decoder(evaluation));
            continue;
        }
        let own = embed(model, &texts)?;
        let spearman = match samples.judged {
            Some((documents, judgements)) => Some(judgements.spearman(&embed(model, documents)?)),
            None => None,
        };
        qualities.push(Quality::Encoder(EncoderQuality {
            spearman,
            cosine_to_reference: is_variant.then(|| cosines(&own, &expected)).flatten(),
            texts: texts.len(),
        }));
        if !is_variant {
            expected = own;
        }
    }
    Ok(qualities)
}

/// Cosines of embeddings with those of the reference; none of no texts.
fn cosines(own: &[Embedding], expected: &[Embedding]) -> Option<Cosines> {
    let pairs = own.iter().zip(expected);
    let cosines: Vec<f64> = pairs.map(|(a, b)| cosine(&a.values, &b.values)).collect();
    (!cosines.is_empty()).then(|| Cosines {
        mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
        // One that is not a number is the least.
        min: cosines.iter().copied().fold(1.0, |least, cosine| {
            if cosine < least || cosine.is_nan() {
                cosine
            } else {
                least
            }
        }),
    })
}

/// One vector for each text, cut where it is too long.
fn embed(model: &Model, texts: &[String]) -> Result<Vec<Embedding>, Error> {
    let own = model
        .config()
        .encoder
        .as_ref()
        .map(|encoder| encoder.pooling);
    let options = EmbedOptions {
        pooling: own.map(|pooling| match pooling {
            Pooling::None => Pooling::Mean,
            other => other,
        }),
        normalize: None,
        truncate: true,
    };
    Ok(model.encoder()?.embed(texts, &options)?)
}
