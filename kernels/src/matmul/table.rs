//! The kernels of each ISA and kind, in one table.

use super::Micro;
use crate::isa::Isa;
use crate::packing::{Kind, SplitBits};

/// Kernels of one kind, for 1, 2, 3, … tokens at once.
pub(crate) struct Tiles {
    pub by_tokens: &'static [Micro],
}

/// The matmul kernels of one ISA.
pub(crate) struct MatmulKernels {
    pub q4: Tiles,
    pub q4_minimum: Tiles,
    pub q8: Tiles,
    pub q3: Tiles,
    pub q5: Tiles,
    pub q6: Tiles,
    pub f16: Tiles,
    pub f32: Tiles,
}

impl MatmulKernels {
    /// The kernels of a kind.
    pub fn tiles(&'static self, kind: Kind) -> &'static Tiles {
        match kind {
            Kind::Q4 { minimum: false, .. } => &self.q4,
            Kind::Q4 { minimum: true, .. } => &self.q4_minimum,
            Kind::Q8 { .. } => &self.q8,
            Kind::Split { bits, .. } => match bits {
                SplitBits::B3 => &self.q3,
                SplitBits::B5 => &self.q5,
                SplitBits::B6 => &self.q6,
            },
            Kind::F16 => &self.f16,
            Kind::F32 => &self.f32,
        }
    }
}

/// The kernels of an ISA; the scalar ones for an ISA of another architecture.
pub(crate) fn kernels(isa: Isa) -> &'static MatmulKernels {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &crate::x86_64::avx2::MATMUL,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => &crate::x86_64::avxvnni::MATMUL,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => &crate::x86_64::avx512vnni::MATMUL,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &crate::aarch64::neon::MATMUL,
        #[cfg(target_arch = "aarch64")]
        Isa::DotProd => &crate::aarch64::dotprod::MATMUL,
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => &crate::aarch64::i8mm::MATMUL,
        _ => &crate::scalar::MATMUL,
    }
}
