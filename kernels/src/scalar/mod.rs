//! Portable Rust: the reference that every ISA equals bit for bit.

mod lanes;
mod matmul;

pub(crate) use matmul::MATMUL;
#[cfg(target_arch = "aarch64")]
pub(crate) use matmul::{Q3, Q5, Q6};

crate::generic::ops_table!(lanes::Array);
