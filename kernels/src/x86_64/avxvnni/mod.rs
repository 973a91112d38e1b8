//! AVX2 with the 256-bit INT8 dot product.

mod matmul;

pub(crate) use matmul::MATMUL;
