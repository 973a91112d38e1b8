//! AVX2 with the 256-bit INT8 dot product.

mod matmul;
mod peak;

pub(crate) use matmul::MATMUL;
pub(crate) use peak::PEAK;
