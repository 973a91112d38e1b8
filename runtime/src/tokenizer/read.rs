//! `tokenizer.json`, read in one pass where the kind of its model is known.
//!
//! The `tokenizers` crate finds out the kind by trying all of them on a copy of the vocabulary, which is
//! most of the time to start a small model.

use super::bpe::Bpe;
use super::check::Kind;
use super::model::WordModel;
use serde::Deserialize;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl,
};

/// A tokenizer, put together from its parts.
pub type Parts = TokenizerImpl<
    WordModel,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// All that shapes a tokenizer but for the limits of a training run.
#[derive(Deserialize)]
struct Source<M> {
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

/// A tokenizer whose model is of this kind, without padding and truncation: every text as it is.
///
/// # Errors
/// What is wrong, as `serde_json` or the crate says it.
pub fn tokenizer(json: &[u8], kind: Kind) -> Result<Parts, tokenizers::Error> {
    fn other(model: impl Into<ModelWrapper>) -> WordModel {
        WordModel::Other(model.into())
    }
    Ok(match kind {
        Kind::Bpe => parts::<Bpe>(json, WordModel::Bpe)?,
        Kind::BpeVariant => parts::<BPE>(json, other)?,
        Kind::WordPiece => parts::<WordPiece>(json, other)?,
        Kind::Unigram => parts::<Unigram>(json, other)?,
        Kind::Other => parts::<ModelWrapper>(json, other)?,
    })
}

fn parts<'a, M: Deserialize<'a>>(
    json: &'a [u8],
    model: fn(M) -> WordModel,
) -> Result<Parts, serde_json::Error> {
    let source: Source<M> = serde_json::from_slice(json)?;
    let mut tokenizer = TokenizerImpl::new(model(source.model));
    tokenizer
        .with_normalizer(source.normalizer)
        .with_pre_tokenizer(source.pre_tokenizer)
        .with_post_processor(source.post_processor)
        .with_decoder(source.decoder);
    tokenizer.add_tokens(&source.added_tokens);
    Ok(tokenizer)
}
