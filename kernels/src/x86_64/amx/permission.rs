//! Whether this process may use tile registers: their state is large, so Linux grants them on request.

use std::sync::OnceLock;

/// Whether the CPU has AMX-INT8 and the operating system lets this process use it, from now on, on
/// every thread.
pub(crate) fn permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| has_amx_int8() && request())
}

/// CPUID leaf 7: bits 24 (AMX-TILE) and 25 (AMX-INT8) of EDX.
fn has_amx_int8() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx >> 24 & 0b11 == 0b11
}

/// Asks the kernel (Linux 5.16 or later) for the tile data, feature 18 of the extended state.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn request() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: takes two numbers and touches no memory of ours. It is refused, and changes nothing,
    // where the kernel does not know it or an alternate signal stack is too small.
    let refused = unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    refused == 0
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn request() -> bool {
    false
}
