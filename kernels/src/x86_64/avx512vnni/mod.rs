//! AVX-512 with the 512-bit INT8 dot product.

mod matmul;
mod peak;

pub(crate) use matmul::MATMUL;
pub(crate) use peak::PEAK;
