//! Quantizers: floats to codes on a grid.

mod cholesky;
pub mod gptq;
pub mod grid;
pub mod low_rank;
mod norm;
pub mod rtn;
pub mod search;
pub mod sequential;
