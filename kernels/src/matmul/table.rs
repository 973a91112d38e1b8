//! The kernels of each ISA and kind, in one table.

use super::{ManyTokens, Micro};
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
    /// Where the ISA has something else for many tokens.
    pub many: Option<ManyKernels>,
}

/// The kernels of an ISA for many tokens.
pub(crate) struct ManyKernels {
    /// The fewest tokens that they are for.
    pub least: usize,
    /// The most panels that one task takes.
    pub panels: usize,
    pub q4: ManyTokens,
    pub q4_minimum: ManyTokens,
    pub q8: ManyTokens,
    pub q3: ManyTokens,
    pub q5: ManyTokens,
    pub q6: ManyTokens,
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

    /// The kernel of a kind for `tokens` tokens at once, if there is one for so many.
    pub fn many(&self, kind: Kind, tokens: usize) -> Option<ManyTokens> {
        let many = self.many.as_ref().filter(|many| tokens >= many.least)?;
        match kind {
            Kind::Q4 { minimum: false, .. } => Some(many.q4),
            Kind::Q4 { minimum: true, .. } => Some(many.q4_minimum),
            Kind::Q8 { .. } => Some(many.q8),
            Kind::Split { bits, .. } => Some(match bits {
                SplitBits::B3 => many.q3,
                SplitBits::B5 => many.q5,
                SplitBits::B6 => many.q6,
            }),
            Kind::F16 | Kind::F32 => None,
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
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => &crate::x86_64::amx::MATMUL,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &crate::aarch64::neon::MATMUL,
        #[cfg(target_arch = "aarch64")]
        Isa::DotProd => &crate::aarch64::dotprod::MATMUL,
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => &crate::aarch64::i8mm::MATMUL,
        _ => &crate::scalar::MATMUL,
    }
}
