//! The instruction sets that kinglet has kernels for, and the choice among them.

use std::fmt;
use std::str::FromStr;

/// The environment variable that forces an instruction set.
pub const ISA_VARIABLE: &str = "KINGLET_ISA";

/// An instruction set with kernels of its own. Later ones of a family include the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Portable Rust: the reference that all others equal bit for bit.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with the 256-bit INT8 dot product `vpdpbusd` (AVX-VNNI).
    AvxVnni,
    /// AVX-512 F/BW/VL/DQ with the 512-bit INT8 dot product (AVX-512 VNNI).
    Avx512Vnni,
    /// AVX-512 VNNI with the INT8 tiles of AMX.
    Amx,
    /// AArch64 Advanced SIMD, as on every 64-bit ARM.
    Neon,
    /// NEON with `sdot` (ARMv8.2 dot product).
    DotProd,
    /// NEON with `sdot` and `smmla` (ARMv8.6 INT8 matrix multiply).
    I8mm,
}

/// Why an instruction set cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IsaError {
    /// The name is not one of ours.
    #[error("unknown instruction set {found:?}: expected one of {expected}")]
    Unknown {
        /// What was asked for.
        found: String,
        /// The accepted names.
        expected: String,
    },
    /// The name is ours, but this CPU lacks it.
    #[error("instruction set {isa} is not supported by this CPU: it has {available}")]
    Unsupported {
        /// What was asked for.
        isa: Isa,
        /// What there is.
        available: String,
    },
}

impl Isa {
    /// Every instruction set, from plain to wide.
    pub const ALL: [Isa; 8] = [
        Isa::Scalar,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512Vnni,
        Isa::Amx,
        Isa::Neon,
        Isa::DotProd,
        Isa::I8mm,
    ];

    /// The name used by `KINGLET_ISA` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
            Isa::DotProd => "dotprod",
            Isa::I8mm => "i8mm",
        }
    }

    /// Whether this CPU can run the kernels of this instruction set.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let available = {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            match self {
                Isa::Scalar => true,
                Isa::Avx2 => avx2,
                Isa::AvxVnni => avx2 && has!("avxvnni"),
                Isa::Avx512Vnni => {
                    avx2 && has!("avx512f")
                        && has!("avx512bw")
                        && has!("avx512vl")
                        && has!("avx512dq")
                        && has!("avx512vnni")
                }
                Isa::Amx => Isa::Avx512Vnni.is_available() && crate::x86_64::amx::permitted(),
                _ => false,
            }
        };
        #[cfg(target_arch = "aarch64")]
        let available = {
            use std::arch::is_aarch64_feature_detected as has;
            match self {
                Isa::Scalar | Isa::Neon => true,
                Isa::DotProd => has!("dotprod"),
                Isa::I8mm => has!("dotprod") && has!("i8mm"),
                _ => false,
            }
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let available = self == Isa::Scalar;
        available
    }

    /// The instruction sets that this CPU has, from plain to wide.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The widest instruction set that this CPU has.
    pub fn detect() -> Isa {
        Isa::available().last().unwrap_or(Isa::Scalar)
    }

    /// The instruction set named by `KINGLET_ISA`, else the widest available.
    ///
    /// # Errors
    /// An unknown name, or one that this CPU lacks.
    pub fn from_env() -> Result<Isa, IsaError> {
        let Some(name) = std::env::var_os(ISA_VARIABLE).filter(|v| !v.is_empty()) else {
            return Ok(Isa::detect());
        };
        let isa: Isa = name.to_string_lossy().parse()?;
        if isa.is_available() {
            return Ok(isa);
        }
        Err(IsaError::Unsupported {
            isa,
            available: names(Isa::available()),
        })
    }
}

fn names(isas: impl Iterator<Item = Isa>) -> String {
    isas.map(Isa::name).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Isa, IsaError> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| IsaError::Unknown {
                found: name.to_owned(),
                expected: names(Isa::ALL.into_iter()),
            })
    }
}
