//! AVX2 with FMA and F16C.

mod matmul;

pub(crate) use matmul::MATMUL;
