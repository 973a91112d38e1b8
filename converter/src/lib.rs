//! The converter: checkpoint → passes → one packed file.

pub mod checkpoint;
pub mod error;
