//! Advanced SIMD alone, as on every 64-bit ARM.

mod lanes;
mod matmul;
mod peak;
mod smlal;

pub(crate) use matmul::MATMUL;
pub(crate) use peak::PEAK;

crate::generic::ops_table!(lanes::Quads);
