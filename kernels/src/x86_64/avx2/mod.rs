//! AVX2 with FMA and F16C.

mod dots;
mod matmul;
mod peak;

pub(crate) use matmul::MATMUL;
pub(crate) use peak::PEAK;

crate::generic::ops_table!(
    super::ymm::Ymm,
    dots::Words,
    dots::Long,
    dots::Short,
    "avx2,fma,f16c"
);
