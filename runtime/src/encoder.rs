//! An encoder: texts to embeddings, or to the scores of classes.

use crate::config::{EncoderConfig, Pooling};
use crate::error::Error;
use crate::model::{EncoderMemory, Model};
use crate::tokenizer::{Sequence, Tokenizer};

/// Rows that go through the layers together, whole texts: enough for the weights, unpacked once for
/// all of them, to cost little; few enough for the activations to stay in the cache.
const BATCH: usize = 512;

/// How texts are embedded. What is `None` is as the model's own configuration says.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbedOptions {
    /// How the hidden states of a text become its embedding.
    pub pooling: Option<Pooling>,
    /// Whether embeddings have length 1.
    pub normalize: Option<bool>,
    /// Whether a text that is too long is cut instead of refused.
    pub truncate: bool,
}

/// The embedding of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Tokens of the text, special ones included, as they were run.
    pub tokens: usize,
    /// `hidden_size` floats; with [`Pooling::None`] as many for each token, one after the other.
    pub values: Vec<f32>,
}

/// Texts to embeddings or classes.
pub struct Encoder<'m> {
    model: &'m Model,
    config: &'m EncoderConfig,
    tokenizer: Tokenizer,
    memory: EncoderMemory,
}

impl<'m> Encoder<'m> {
    /// An encoder on `model`, see [`Model::encoder`].
    pub(crate) fn new(model: &'m Model) -> Result<Encoder<'m>, Error> {
        let Some(config) = &model.config().encoder else {
            return Err(Error::NotEncoder {
                path: model.file().path().to_owned(),
                architecture: model.config().architecture.clone(),
            });
        };
        Ok(Encoder {
            model,
            config,
            tokenizer: Tokenizer::of(model.file())?,
            memory: EncoderMemory::default(),
        })
    }

    /// Embeds texts, in their order. A text gives the same bits alone or among others.
    ///
    /// # Errors
    /// A text that is empty, too long, or that the tokenizer cannot take.
    pub fn embed(
        &mut self,
        texts: &[impl AsRef<str> + Sync],
        options: &EmbedOptions,
    ) -> Result<Vec<Embedding>, Error> {
        let sequences = self.tokenize(texts, options.truncate)?;
        self.embed_tokens(&sequences, options)
    }

    /// Embeds texts that are tokens already, special ones included.
    ///
    /// # Errors
    /// A text that is empty or too long, or a token or type that the model lacks.
    pub fn embed_tokens(
        &mut self,
        sequences: &[Sequence],
        options: &EmbedOptions,
    ) -> Result<Vec<Embedding>, Error> {
        let pooling = options.pooling.unwrap_or(self.config.pooling);
        let normalized = options.normalize.unwrap_or(self.config.normalize);
        let hidden = self.model.config().hidden_size;
        let mut embeddings = Vec::with_capacity(sequences.len());
        self.run(sequences, |states| {
            let mut values = pool(states, hidden, pooling);
            if normalized {
                values.chunks_exact_mut(hidden).for_each(normalize);
            }
            embeddings.push(Embedding {
                tokens: states.len() / hidden,
                values,
            });
        })?;
        Ok(embeddings)
    }

    /// Scores of the classes of each text, in the order of [`Encoder::labels`].
    ///
    /// # Errors
    /// A model without a classification head; otherwise as [`Encoder::embed`].
    pub fn classify(
        &mut self,
        texts: &[impl AsRef<str> + Sync],
        truncate: bool,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let sequences = self.tokenize(texts, truncate)?;
        self.classify_tokens(&sequences)
    }

    /// Scores of the classes of each pair of texts: how well an answer fits a question, whether one
    /// sentence follows from another.
    ///
    /// # Errors
    /// As [`Encoder::classify`].
    pub fn classify_pairs(
        &mut self,
        pairs: &[(impl AsRef<str> + Sync, impl AsRef<str> + Sync)],
        truncate: bool,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let sequences = self.tokenize_pairs(pairs, truncate)?;
        self.classify_tokens(&sequences)
    }

    /// Scores of the classes of texts that are tokens already, special ones included.
    ///
    /// # Errors
    /// A model without a classification head; otherwise as [`Encoder::embed_tokens`].
    pub fn classify_tokens(&mut self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, Error> {
        if self.config.classifier.is_none() {
            return Err(Error::NoClassifier {
                path: self.model.file().path().to_owned(),
            });
        }
        let hidden = self.model.config().hidden_size;
        let mut first = Vec::with_capacity(sequences.len() * hidden);
        self.run(sequences, |states| {
            first.extend_from_slice(&states[..hidden])
        })?;
        let scores = self.memory.classify(self.model, self.config, &first);
        Ok(scores
            .chunks_exact(self.labels().len())
            .map(<[f32]>::to_vec)
            .collect())
    }

    /// Names of the classes; empty without a classification head.
    pub fn labels(&self) -> &'m [String] {
        let classifier = self.config.classifier.as_ref();
        classifier.map_or(&[], |classifier| &classifier.labels)
    }

    /// Tokens that a text may have, special ones included.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// Tokens of texts, special ones included, on all threads.
    ///
    /// # Errors
    /// As [`Encoder::embed`].
    pub fn tokenize(
        &self,
        texts: &[impl AsRef<str> + Sync],
        truncate: bool,
    ) -> Result<Vec<Sequence>, Error> {
        self.on_all_threads(texts.len(), |index| {
            let (text, number) = (texts[index].as_ref(), index + 1);
            if text.trim().is_empty() {
                return Err(Error::EmptyText { text: number });
            }
            self.sequence(number, text, None, truncate)
        })
    }

    /// Tokens of pairs of texts, as the model wants them around and between the two, on all threads.
    ///
    /// # Errors
    /// As [`Encoder::tokenize`].
    pub fn tokenize_pairs(
        &self,
        pairs: &[(impl AsRef<str> + Sync, impl AsRef<str> + Sync)],
        truncate: bool,
    ) -> Result<Vec<Sequence>, Error> {
        self.on_all_threads(pairs.len(), |index| {
            let (first, second) = (pairs[index].0.as_ref(), pairs[index].1.as_ref());
            let pair = index + 1;
            for (which, text) in [("first", first), ("second", second)] {
                if text.trim().is_empty() {
                    return Err(Error::EmptyInPair { pair, which });
                }
            }
            self.sequence(pair, first, Some(second), truncate)
        })
    }

    fn sequence(
        &self,
        number: usize,
        text: &str,
        second: Option<&str>,
        truncate: bool,
    ) -> Result<Sequence, Error> {
        let limit = self.config.max_tokens;
        let (mut sequence, found) = self.tokenizer.encode_within(text, second, limit)?;
        if found > limit && !truncate {
            return Err(Error::LongText {
                text: number,
                found,
                limit,
            });
        }
        // A model that tells no types apart takes any for the first.
        if self.config.token_types < 2 {
            sequence.types.clear();
        }
        Ok(sequence)
    }

    fn on_all_threads(
        &self,
        count: usize,
        sequence_of: impl Fn(usize) -> Result<Sequence, Error> + Sync,
    ) -> Result<Vec<Sequence>, Error> {
        let mut results: Vec<Option<Result<Sequence, Error>>> = vec![];
        results.resize_with(count, || None);
        let pool = self.model.engine().pool();
        pool.for_each_chunk(&mut results, 1, |index, result| {
            result[0] = Some(sequence_of(index));
        });
        results.into_iter().flatten().collect()
    }

    /// Calls `each` with the hidden states of each sequence, in their order.
    fn run(&mut self, sequences: &[Sequence], mut each: impl FnMut(&[f32])) -> Result<(), Error> {
        self.check(sequences)?;
        let hidden = self.model.config().hidden_size;
        let mut rest = sequences;
        while !rest.is_empty() {
            let mut rows = 0;
            let fits = |sequence: &&Sequence| {
                rows += sequence.tokens.len();
                rows <= BATCH
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (batch, after) = rest.split_at(count);
            let mut states = self.memory.forward(self.model, self.config, batch);
            for sequence in batch {
                let (own, others) = states.split_at(sequence.tokens.len() * hidden);
                each(own);
                states = others;
            }
            rest = after;
        }
        Ok(())
    }

    fn check(&self, sequences: &[Sequence]) -> Result<(), Error> {
        let (vocab, limit) = (self.model.config().vocab_size, self.config.max_tokens);
        let known = self.config.token_types.max(1);
        for (index, Sequence { tokens, types }) in sequences.iter().enumerate() {
            let text = index + 1;
            if tokens.is_empty() {
                return Err(Error::EmptyText { text });
            }
            if tokens.len() > limit {
                return Err(Error::LongText {
                    text,
                    found: tokens.len(),
                    limit,
                });
            }
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
                return Err(Error::Token { token, vocab });
            }
            let unknown = types.iter().find(|&&kind| kind as usize >= known);
            if unknown.is_some() || !types.is_empty() && types.len() != tokens.len() {
                return Err(Error::TokenTypes {
                    text,
                    tokens: tokens.len(),
                    types: types.len(),
                    largest: types.iter().copied().max().unwrap_or(0),
                    known,
                });
            }
        }
        Ok(())
    }
}

fn pool(states: &[f32], hidden: usize, pooling: Pooling) -> Vec<f32> {
    match pooling {
        Pooling::None => states.to_vec(),
        Pooling::Cls => states[..hidden].to_vec(),
        Pooling::Mean => {
            let mut mean = vec![0.0; hidden];
            for row in states.chunks_exact(hidden) {
                mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            let rows = (states.len() / hidden) as f32;
            mean.iter_mut().for_each(|sum| *sum /= rows);
            mean
        }
    }
}

/// Gives a vector length 1; zeros stay.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
}

/// Cosine of the angle between two vectors; 0 if one of them is zero, not a number if one is none.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        products.sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 {
        0.0
    } else {
        dot(a, b) / lengths
    }
}
