//! Loops with 256-bit vectors, shared by the ISAs that have no wider ones.

mod bytes;
mod lanes;
pub(super) mod matmul;
mod words;

pub(in crate::x86_64) use bytes::{load_bytes, load_levels};
pub(crate) use lanes::Ymm;
pub(super) use lanes::{largest, sum};
pub(crate) use words::{AddPairs, Words};
