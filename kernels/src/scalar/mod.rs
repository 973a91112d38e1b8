//! Portable Rust: the reference that every ISA equals bit for bit.

mod dots;
pub(crate) mod lanes;
mod matmul;

pub(crate) use matmul::MATMUL;

crate::generic::ops_table!(lanes::Array, dots::Words, dots::Long, dots::Short);
