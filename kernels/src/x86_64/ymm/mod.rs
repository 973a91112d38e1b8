//! Loops with 256-bit vectors, shared by the ISAs that have no wider ones.

mod lanes;
mod levels;
pub(super) mod matmul;

pub(crate) use lanes::Ymm;
pub(super) use lanes::{largest, sum};
pub(in crate::x86_64) use levels::levels;
