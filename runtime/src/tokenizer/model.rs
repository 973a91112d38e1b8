//! What cuts words into tokens.

use super::bpe::Bpe;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tokenizers::models::TrainerWrapper;
use tokenizers::{Model, ModelWrapper, Token};

/// A model of ours, or of the `tokenizers` crate.
pub enum WordModel {
    Bpe(Bpe),
    Other(ModelWrapper),
}

impl Model for WordModel {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            WordModel::Bpe(model) => model.tokenize(word),
            WordModel::Other(model) => model.tokenize(word),
        }
    }

    fn token_to_id(&self, spelling: &str) -> Option<u32> {
        match self {
            WordModel::Bpe(model) => model.token_to_id(spelling),
            WordModel::Other(model) => model.token_to_id(spelling),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            WordModel::Bpe(model) => model.id_to_token(id),
            WordModel::Other(model) => model.id_to_token(id),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            WordModel::Bpe(model) => model.get_vocab(),
            WordModel::Other(model) => model.get_vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            WordModel::Bpe(model) => model.get_vocab_size(),
            WordModel::Other(model) => model.get_vocab_size(),
        }
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        match self {
            WordModel::Bpe(_) => Err("a tokenizer that was read to run cannot be saved".into()),
            WordModel::Other(model) => model.save(folder, prefix),
        }
    }

    fn get_trainer(&self) -> TrainerWrapper {
        match self {
            WordModel::Bpe(_) => TrainerWrapper::BpeTrainer(Default::default()),
            WordModel::Other(model) => model.get_trainer(),
        }
    }
}
