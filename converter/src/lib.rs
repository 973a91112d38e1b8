//! The converter: checkpoint → passes → one packed file.

pub mod calibrate;
pub mod checkpoint;
pub mod cli;
pub mod compare;
mod convert;
mod error;
pub mod pack;
pub mod passes;
pub mod plan;
pub mod pull;
pub mod quantize;
pub mod recipe;
pub mod report;
mod sha256;
pub mod source;

pub use convert::{convert, write};
pub use error::Error;
