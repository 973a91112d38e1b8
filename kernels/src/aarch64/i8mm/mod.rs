//! NEON with `sdot` and the INT8 matrix product `smmla`.

mod matmul;
mod peak;

pub(crate) use matmul::MATMUL;
pub(crate) use peak::PEAK;
