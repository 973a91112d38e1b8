//! Portable Rust: the reference that every ISA equals bit for bit.

mod matmul;

pub(crate) use matmul::MATMUL;
