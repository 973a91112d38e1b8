//! `tokenizer.json`, read in one pass where the kind of its model is known.
//!
//! The `tokenizers` crate finds out the kind by trying all of them on a copy of the vocabulary, which is
//! most of the time to start a small model.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

/// All that shapes a tokenizer but for the limits of a training run.
#[derive(Deserialize)]
struct Parts<M> {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Option<NormalizerWrapper>,
    #[serde(default)]
    pre_tokenizer: Option<PreTokenizerWrapper>,
    #[serde(default)]
    post_processor: Option<PostProcessorWrapper>,
    #[serde(default)]
    decoder: Option<DecoderWrapper>,
    model: M,
}

/// A tokenizer whose model is of this kind, without padding and truncation.
///
/// # Errors
/// What is wrong, as the crate says it.
pub fn tokenizer(json: &[u8], kind: Option<&str>) -> Result<Tokenizer, tokenizers::Error> {
    match kind {
        Some("BPE") => with_model::<BPE>(json),
        Some("WordPiece") => with_model::<WordPiece>(json),
        Some("Unigram") => with_model::<Unigram>(json),
        _ => {
            let mut tokenizer = Tokenizer::from_bytes(json)?;
            // Every text as it is: some files still have the limits of a training run.
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None)?;
            Ok(tokenizer)
        }
    }
}

fn with_model<M>(json: &[u8]) -> Result<Tokenizer, tokenizers::Error>
where
    M: DeserializeOwned + Into<ModelWrapper>,
{
    let parts: Parts<M> = serde_json::from_slice(json)?;
    let mut tokenizer = Tokenizer::new(parts.model);
    tokenizer
        .with_normalizer(parts.normalizer)
        .with_pre_tokenizer(parts.pre_tokenizer)
        .with_post_processor(parts.post_processor)
        .with_decoder(parts.decoder);
    tokenizer.add_tokens(&parts.added_tokens);
    Ok(tokenizer)
}
