//! The converter: checkpoint → passes → one packed file.

pub mod checkpoint;
mod error;
pub mod source;

pub use error::Error;
