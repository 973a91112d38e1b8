//! AVX-512 with the 512-bit INT8 dot product.

mod dots;
mod lanes;
mod matmul;
mod peak;

pub(crate) use matmul::MATMUL;
pub(super) use matmul::{KERNELS, halves, plane};
pub(crate) use peak::PEAK;

crate::generic::ops_table!(
    lanes::Zmm,
    dots::Words,
    dots::Long,
    dots::Short,
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"
);
