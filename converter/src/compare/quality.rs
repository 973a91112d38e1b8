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

/// Whether all models are decoders or all encoders, and turn the text into the same tokens.
///
/// # Errors
/// A model that differs from the first, and how.
pub fn check_same_tokens(models: &[Model], text: &str) -> Result<(), Error> {
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
    Ok(())
}

/// Measures one model; `reference` is `None` for the reference itself.
///
/// # Errors
/// A text that is too short.
pub fn measure(
    model: &Model,
    reference: Option<&Model>,
    text: &str,
    judged: Option<&(Vec<String>, Judgements)>,
    options: &Options,
) -> Result<Quality, Error> {
    if model.config().encoder.is_none() {
        let tokens = Tokenizer::of(model.file())?.encode(text, false)?;
        let windows = eval_options(options);
        let evaluation = evaluate(model, reference, &tokens, windows, |_, _| ())?;
        return Ok(Quality::Decoder(evaluation));
    }
    let texts = lines(text);
    let cosines = match reference {
        Some(reference) => {
            let (own, expected) = (embed(model, &texts)?, embed(reference, &texts)?);
            let pairs = own.iter().zip(&expected);
            let cosines: Vec<f64> = pairs.map(|(a, b)| cosine(&a.values, &b.values)).collect();
            (!cosines.is_empty()).then(|| Cosines {
                mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
                min: cosines.iter().copied().fold(1.0, f64::min),
            })
        }
        None => None,
    };
    let spearman = match judged {
        Some((documents, judgements)) => Some(judgements.spearman(&embed(model, documents)?)),
        None => None,
    };
    Ok(Quality::Encoder(EncoderQuality {
        spearman,
        cosine_to_reference: cosines,
        texts: texts.len(),
    }))
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
