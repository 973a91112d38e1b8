//! Kinglet runs compressed language models on the CPUs that people own.

pub mod bench;
pub mod chat;
pub mod cli;
pub mod complete;
pub mod config;
pub mod encoder;
mod error;
pub mod eval;
pub mod format;
pub mod model;
pub mod output;
pub mod sampler;
pub mod session;
pub mod similarity;
pub mod tokenizer;

pub use encoder::{EmbedOptions, Encoder};
pub use error::Error;
pub use model::Model;
pub use session::{Session, SessionOptions};
pub use tokenizer::Tokenizer;
