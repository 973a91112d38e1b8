//! Kinglet runs compressed language models on the CPUs that people own.

pub mod config;
pub mod format;
