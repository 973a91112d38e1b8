//! AMX-INT8: matrix multiplication in tile registers, for many tokens at once. What is done for few
//! tokens, and everything that is no matmul, is that of AVX-512 VNNI.

mod matmul;
mod peak;
mod permission;
mod tiles;

#[cfg(test)]
pub(crate) use matmul::EMULATED;
pub(crate) use matmul::MATMUL;
pub(crate) use peak::PEAK;
pub(crate) use permission::permitted;
