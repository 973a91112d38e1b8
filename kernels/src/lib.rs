//! Hand-written INT8/INT4 kernels for transformer inference on CPUs.
//!
//! - [`packing`]: the one packed weight layout that serves every ISA.
//! - [`isa`]: detection and choice of the instruction set (`KINGLET_ISA`).
//! - [`pool`]: the persistent thread pool; [`topology`]: which cores it should use.
//! - [`Engine`]: an ISA and a pool, with the safe operations that a model is made of.
//!
//! Every operation has one defined order of float operations, so that each ISA and each thread
//! count gives the same bits.

#[cfg(target_endian = "big")]
compile_error!("kinglet's files are little endian, and are read as they lie in memory");

pub mod activations;
pub mod affinity;
mod attention;
pub mod engine;
mod generic;
pub mod isa;
pub mod kv;
mod matmul;
pub mod packing;
pub mod pool;
pub mod roofline;
pub mod topology;

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use attention::HeadCaches;
pub use engine::{Activation, AttentionShape, Engine, MatmulInput, MatmulJob};
