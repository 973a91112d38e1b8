//! AVX2 with the 256-bit INT8 dot product.

mod dots;
mod matmul;
mod peak;

pub(crate) use matmul::MATMUL;
pub(crate) use peak::PEAK;

crate::generic::ops_table!(from super::avx2::OPS, dots::Words, dots::Long, dots::Short, "avx2,fma,f16c,avxvnni");
