//! Quantizers: floats to codes on a grid.

pub mod rtn;
