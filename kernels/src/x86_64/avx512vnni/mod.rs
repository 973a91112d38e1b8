//! AVX-512 with the 512-bit INT8 dot product.

mod matmul;

pub(crate) use matmul::MATMUL;
