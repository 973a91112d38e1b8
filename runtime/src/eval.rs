//! Quality on a text: perplexity, and distance from a reference model.
//!
//! The protocol of llama.cpp's `perplexity`, so that figures compare directly: the tokens of the text
//! are cut into windows, each starts in an empty context (its first token replaced by BOS where the
//! model wants one), and predictions in its second half are scored.

use crate::error::Error;
use crate::model::Model;
use crate::session::{Session, SessionOptions};
use kinglet_kernels::kv::KvKind;
use serde::Serialize;
use std::ops::Range;

/// How a text is scored.
#[derive(Clone, Copy, Debug)]
pub struct EvalOptions {
    /// Tokens of a window.
    pub window: usize,
    /// The most windows; `None`: the whole text.
    pub windows: Option<usize>,
    /// How keys and values are stored; a reference has F32, so that what others cost shows.
    pub kv: KvKind,
}

impl EvalOptions {
    /// The windows of a text of `tokens` tokens, and the predictions in them that are scored.
    pub fn scored(&self, tokens: usize) -> (usize, usize) {
        let windows = tokens / self.tokens();
        let windows = windows.min(self.windows.unwrap_or(usize::MAX));
        (windows, windows * self.positions().len())
    }

    /// Tokens of a window: enough for a prediction in its second half.
    fn tokens(&self) -> usize {
        self.window.max(4)
    }

    /// The positions of a window whose predictions are scored: the last one predicts a token of the
    /// next window.
    fn positions(&self) -> Range<usize> {
        self.tokens() / 2..self.tokens() - 1
    }
}

/// What a text says about a model.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// `exp` of the mean negative log likelihood of the scored tokens.
    pub perplexity: f64,
    /// Predictions that were scored.
    pub tokens_scored: usize,
    /// Windows that were scored.
    pub windows: usize,
    /// Against a reference model.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub against_reference: Option<Distance>,
}

/// How far a model's predictions are from a reference's.
#[derive(Clone, Debug, Serialize)]
pub struct Distance {
    /// Mean Kullback-Leibler divergence of the model from the reference, in nats.
    pub kl_mean: f64,
    /// Its 99th percentile.
    pub kl_p99: f64,
    /// Part of the predictions whose most likely token is the reference's.
    pub top1_agreement: f64,
}

/// Scores `tokens`; `progress(done, total)` in windows.
///
/// # Errors
/// A text shorter than a window, or a reference with another vocabulary.
pub fn evaluate(
    model: &Model,
    reference: Option<&Model>,
    tokens: &[u32],
    options: EvalOptions,
    mut progress: impl FnMut(usize, usize),
) -> Result<Evaluation, Error> {
    let window = options.tokens();
    let (count, _) = options.scored(tokens.len());
    let windows = tokens.chunks_exact(window).take(count);
    if count == 0 {
        return Err(Error::ShortText {
            found: tokens.len(),
            window,
        });
    }
    let vocab = model.config().vocab_size;
    if let Some(reference) = reference.filter(|r| r.config().vocab_size != vocab) {
        return Err(Error::OtherVocabulary {
            model: vocab,
            reference: reference.config().vocab_size,
        });
    }
    let open = |model, kv| {
        let options = SessionOptions {
            context: window,
            kv,
            ..SessionOptions::default()
        };
        Session::new(model, options)
    };
    // Both in step, so that the reference's logits need not be kept for a whole window.
    let reference = reference.map(|reference| open(reference, KvKind::F32));
    let mut session = (open(model, options.kv)?, reference.transpose()?);
    let mut sums = Sums::default();
    for (index, window_tokens) in windows.enumerate() {
        progress(index, count);
        let mut tokens = window_tokens.to_vec();
        if let Some(bos) = model.config().bos_token {
            tokens[0] = bos;
        }
        let scored = options.positions();
        let step = match session.1 {
            None => scored.len(),
            Some(_) => (REFERENCE_FLOATS / vocab).clamp(1, scored.len()),
        };
        let mut expected: Vec<f32> = vec![];
        if let Some(reference) = &mut session.1 {
            reference.begin(&tokens)?;
        }
        session.0.begin(&tokens)?;
        for from in scored.clone().step_by(step) {
            let range = from..scored.end.min(from + step);
            if let Some(reference) = &mut session.1 {
                expected.clear();
                reference.logits_of(range.clone(), |_, logits| {
                    expected.extend_from_slice(logits)
                });
            }
            let start = range.start;
            session.0.logits_of(range, |position, logits| {
                let expected = expected.chunks_exact(vocab).nth(position - start);
                sums.add(logits, expected, tokens[position + 1]);
            });
        }
    }
    progress(count, count);
    Ok(sums.evaluation(count))
}

/// Floats of reference logits held at once: 32 MB.
const REFERENCE_FLOATS: usize = 8 << 20;

/// Running sums over the scored predictions.
#[derive(Default)]
struct Sums {
    negative_log_likelihood: f64,
    scored: usize,
    divergences: Vec<f64>,
    agreements: usize,
}

impl Sums {
    fn add(&mut self, logits: &[f32], reference: Option<&[f32]>, next: u32) {
        let total = log_sum_exp(logits);
        self.negative_log_likelihood += total - f64::from(logits[next as usize]);
        self.scored += 1;
        let Some(reference) = reference else {
            return;
        };
        let reference_total = log_sum_exp(reference);
        let divergence = logits.iter().zip(reference).map(|(&model, &reference)| {
            let reference = f64::from(reference) - reference_total;
            reference.exp() * (reference - (f64::from(model) - total))
        });
        let divergence = match divergence.sum::<f64>() {
            // The largest when they are sorted, which one of either sign is not.
            sum if sum.is_nan() => f64::NAN.abs(),
            // Rounding can leave a sum that is zero a little below it.
            sum => sum.max(0.0),
        };
        self.divergences.push(divergence);
        let agrees = !divergence.is_nan() && largest(logits) == largest(reference);
        self.agreements += usize::from(agrees);
    }

    fn evaluation(mut self, windows: usize) -> Evaluation {
        let scored = self.scored as f64;
        self.divergences.sort_unstable_by(f64::total_cmp);
        let against_reference = (!self.divergences.is_empty()).then(|| Distance {
            kl_mean: self.divergences.iter().sum::<f64>() / scored,
            kl_p99: self.divergences[(self.divergences.len() * 99).div_ceil(100) - 1],
            top1_agreement: self.agreements as f64 / scored,
        });
        Evaluation {
            perplexity: (self.negative_log_likelihood / scored).exp(),
            tokens_scored: self.scored,
            windows,
            against_reference,
        }
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    largest + sum.ln()
}

/// The index of the first largest.
fn largest(logits: &[f32]) -> usize {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_small_distributions() {
        let (half, model) = ([0.0f32, 0.0], [3f32.ln(), 0.0]);
        let mut sums = Sums::default();
        sums.add(&model, Some(&half), 0);
        sums.add(&half, Some(&half), 1);
        let result = sums.evaluation(1);
        // Likelihoods 3/4 and 1/2.
        assert!((result.perplexity - (8f64 / 3.0).sqrt()).abs() < 1e-6);
        let distance = result.against_reference.unwrap();
        // KL of (1/2, 1/2) from (3/4, 1/4): ln(4/3) / 2, and 0.
        let kl = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * (0.5f64 / 0.25).ln();
        assert!((distance.kl_mean - kl / 2.0).abs() < 1e-6);
        assert!((distance.kl_p99 - kl).abs() < 1e-6);
        assert_eq!(distance.top1_agreement, 1.0);
    }

    #[test]
    fn logits_that_are_not_numbers_agree_with_nothing() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            let mut sums = Sums::default();
            sums.add(&[bad, 1.0], Some(&[1.0, 0.0]), 0);
            sums.add(&[1.0, 0.0], Some(&[1.0, 0.0]), 0);
            let distance = sums.evaluation(1).against_reference.unwrap();
            assert!(distance.kl_mean.is_nan(), "{bad}");
            assert!(distance.kl_p99.is_nan(), "{bad}");
            assert_eq!(distance.top1_agreement, 0.5, "{bad}");
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        assert!((log_sum_exp(&[1000.0, 1000.0]) - 1000.0 - 2f64.ln()).abs() < 1e-9);
    }
}
