//! Advanced SIMD alone, as on every 64-bit ARM.

mod dots;
mod lanes;
mod matmul;
mod peak;
mod smlal;

pub(in crate::aarch64) use dots::{Short, Words};
pub(in crate::aarch64) use lanes::Quads;
pub(crate) use matmul::MATMUL;
pub(crate) use peak::PEAK;

crate::generic::ops_table!(lanes::Quads, dots::Words, dots::Long, dots::Short);
