//! NEON with the INT8 dot product `sdot`.

mod dots;
mod matmul;
mod peak;

pub(crate) use matmul::MATMUL;
pub(in crate::aarch64) use matmul::Sdot;
pub(crate) use peak::PEAK;

crate::generic::ops_table!(from super::neon::OPS, super::neon::Words, dots::Long, dots::Short, "neon,dotprod");
