//! Portable Rust: the reference that every ISA equals bit for bit.

mod lanes;
mod matmul;

pub(crate) use matmul::MATMUL;

crate::generic::ops_table!(lanes::Array);
