//! NEON with the INT8 dot product `sdot`.

mod matmul;
mod peak;

pub(crate) use matmul::MATMUL;
pub(in crate::aarch64) use matmul::Sdot;
pub(crate) use peak::PEAK;
