//! Everything that can go wrong in the runtime.

use kinglet_kernels::isa::IsaError;
use kinglet_kernels::packing::PackingError;
use std::path::PathBuf;

/// An error of the runtime. Each variant names the file, tensor or option, what was expected, what
/// was found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a `.kgl` file.
    #[error("{}: {reason}", path.display())]
    NotKinglet {
        /// The file.
        path: PathBuf,
        /// What it is instead, and what to do.
        reason: String,
    },
    /// The file has a version that this library does not know.
    #[error(
        "{}: format version {found}, but this kinglet reads up to {newest}: \
         install a newer kinglet, or convert the model again",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The newest version that can be read.
        newest: u32,
    },
    /// The file contradicts itself or its format.
    #[error("{}: {reason}: the file is damaged, convert or copy it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the tensor or field, what was expected and what was found.
        reason: String,
    },
    /// The model's configuration makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// A weight cannot be packed as asked.
    #[error("tensor {name}: {source}")]
    Packing {
        /// The tensor.
        name: String,
        /// What is wrong.
        source: PackingError,
    },
    /// A context of no tokens, or one whose cache cannot be addressed.
    #[error(
        "a context of {context} tokens is not possible: \
         choose 1 to {trained}, the positions that the model was trained for"
    )]
    Context {
        /// Tokens asked for.
        context: usize,
        /// Positions that the model was trained for.
        trained: usize,
    },
    /// A context that this computer has no memory for.
    #[error(
        "a context of {context} tokens needs {:.1} GB, more than this computer can give: \
         choose a smaller context (-c) or a smaller cache (--kv q8 or k8v4)",
        *bytes as f64 / 1e9
    )]
    Memory {
        /// Tokens asked for.
        context: usize,
        /// Bytes of its cache and its rotary tables.
        bytes: usize,
    },
    /// Tokens that do not fit into the context.
    #[error(
        "{more} more tokens do not fit: the context of {context} tokens holds {held} already; \
         choose a larger context (-c) or a shorter prompt"
    )]
    ContextFull {
        /// Tokens that are there.
        held: usize,
        /// Tokens to add.
        more: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A token that the vocabulary lacks.
    #[error("token {token} is not in the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A next token was asked for before any was given.
    #[error("there is nothing to continue: give at least one token")]
    NoTokens,
    /// An encoder where a decoder is needed.
    #[error(
        "{}: this is an encoder ({architecture}): it turns texts into vectors or classes with \
         `kinglet embed` or `kinglet classify`, and cannot continue them",
        path.display()
    )]
    NotDecoder {
        /// The file.
        path: PathBuf,
        /// Its architecture.
        architecture: String,
    },
    /// A decoder where an encoder is needed.
    #[error(
        "{}: this is a decoder ({architecture}): it continues texts with `kinglet run` or \
         `kinglet chat`; embeddings need an encoder, for example all-minilm-l6-v2",
        path.display()
    )]
    NotEncoder {
        /// The file.
        path: PathBuf,
        /// Its architecture.
        architecture: String,
    },
    /// An encoder without a classification head.
    #[error(
        "{}: the model has no classification head: use `kinglet embed`, or a model made to \
         classify texts (ForSequenceClassification)",
        path.display()
    )]
    NoClassifier {
        /// The file.
        path: PathBuf,
    },
    /// A text, or a pair of texts, that is longer than an encoder takes.
    #[error(
        "text {text} has {found} tokens, but the model takes {limit}: \
         shorten it, or cut it with --truncate"
    )]
    LongText {
        /// Which of the texts or pairs, from 1 on.
        text: usize,
        /// Its tokens, special ones included.
        found: usize,
        /// Tokens that the model takes.
        limit: usize,
    },
    /// A text without anything in it.
    #[error("text {text} is empty: leave it out")]
    EmptyText {
        /// Which of the texts, from 1 on.
        text: usize,
    },
    /// A pair of texts, one of them without anything in it.
    #[error("the {which} text of pair {pair} is empty: leave the pair out")]
    EmptyInPair {
        /// Which of the pairs, from 1 on.
        pair: usize,
        /// `first` or `second`.
        which: &'static str,
    },
    /// Types of tokens that the model lacks, or that are not one for each token.
    #[error(
        "text {text} has {tokens} tokens with {types} types up to {largest}: \
         expected one type for each token, less than {known}"
    )]
    TokenTypes {
        /// Which of the texts, from 1 on.
        text: usize,
        /// Its tokens.
        tokens: usize,
        /// Its types.
        types: usize,
        /// The largest of them.
        largest: u32,
        /// Types that the model knows.
        known: usize,
    },
    /// A text too short to score.
    #[error(
        "the text has {found} tokens, fewer than one window of {window}: \
         use a longer text or a shorter window (--ctx)"
    )]
    ShortText {
        /// Its tokens.
        found: usize,
        /// Tokens of a window.
        window: usize,
    },
    /// Models with different vocabularies cannot be compared.
    #[error("the model has a vocabulary of {model} tokens, the reference one of {reference}")]
    OtherVocabulary {
        /// Of the model.
        model: usize,
        /// Of the reference.
        reference: usize,
    },
    /// A text or token that the tokenizer cannot take.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What it said.
        reason: String,
    },
    /// A model that was not made to chat.
    #[error(
        "{}: the model has no chat template: use `kinglet run`, or a model made to chat \
         (their names often end in Instruct or it)",
        path.display()
    )]
    NoChatTemplate {
        /// The file.
        path: PathBuf,
    },
    /// A chat template that is not valid, or that refuses the conversation.
    #[error("chat template: {reason}")]
    ChatTemplate {
        /// What it said.
        reason: String,
    },
    /// The chosen instruction set is unknown or not supported.
    #[error(transparent)]
    Isa(#[from] IsaError),
}

impl Error {
    /// An input/output error of a file.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::Io {
            path: path.into(),
            source,
        }
    }
}
