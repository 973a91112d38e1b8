//! Matmul with the dot products of [`Smlal`].

use super::smlal::Smlal;
use crate::aarch64::quarters::{float::float, gemm, gemv};
use crate::matmul::{Block, MatmulKernels, Micro, Tiles};

pub(crate) static MATMUL: MatmulKernels = MatmulKernels {
    q4: Tiles {
        by_tokens: &[
            q4_one::<false> as Micro,
            q4::<1, 2, false>,
            q4::<2, 3, false>,
            q4::<2, 4, false>,
            q4::<3, 5, false>,
            q4::<3, 6, false>,
        ],
    },
    q4_minimum: Tiles {
        by_tokens: &[
            q4_one::<true> as Micro,
            q4::<1, 2, true>,
            q4::<2, 3, true>,
            q4::<2, 4, true>,
            q4::<3, 5, true>,
            q4::<3, 6, true>,
        ],
    },
    q8: Tiles {
        by_tokens: &[
            q8_one as Micro,
            q8::<1, 2>,
            q8::<2, 3>,
            q8::<2, 4>,
            q8::<3, 5>,
            q8::<3, 6>,
        ],
    },
    q3: split::<2, 1>(),
    q5: split::<4, 1>(),
    q6: split::<4, 2>(),
    f16: Tiles {
        by_tokens: &[
            float::<true, 2, 1> as Micro,
            float::<true, 1, 2>,
            float::<true, 1, 3>,
        ],
    },
    f32: Tiles {
        by_tokens: &[
            float::<false, 2, 1> as Micro,
            float::<false, 1, 2>,
            float::<false, 1, 3>,
        ],
    },
    many: None,
};

/// # Safety
/// As [`Micro`], with one token.
unsafe fn q4_one<const MINIMUM: bool>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises.
    unsafe { gemv::q4::<Smlal, 1, MINIMUM>(block, out) }
}

/// # Safety
/// As [`Micro`], with one token.
unsafe fn q8_one(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises.
    unsafe { gemv::q8::<Smlal, 1>(block, out) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
unsafe fn q4<const PAIRS: usize, const N: usize, const MINIMUM: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe { gemm::q4::<Smlal, PAIRS, N, MINIMUM>(block, out, stride) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
unsafe fn q8<const PAIRS: usize, const N: usize>(block: &Block, out: *mut f32, stride: usize) {
    // SAFETY: the caller's promises.
    unsafe { gemm::q8::<Smlal, PAIRS, N>(block, out, stride) }
}

/// Kernels for codes of `LOW + HIGH` bits in two planes.
const fn split<const LOW: i32, const HIGH: i32>() -> Tiles {
    Tiles {
        by_tokens: &[
            split_one::<LOW, HIGH> as Micro,
            split_tile::<LOW, HIGH, 1, 2>,
            split_tile::<LOW, HIGH, 2, 3>,
            split_tile::<LOW, HIGH, 2, 4>,
            split_tile::<LOW, HIGH, 3, 5>,
            split_tile::<LOW, HIGH, 3, 6>,
        ],
    }
}

/// # Safety
/// As [`Micro`], with one token.
unsafe fn split_one<const LOW: i32, const HIGH: i32>(block: &Block, out: *mut f32, _stride: usize) {
    // SAFETY: the caller's promises.
    unsafe { gemv::split::<Smlal, LOW, HIGH, 1>(block, out) }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
unsafe fn split_tile<const LOW: i32, const HIGH: i32, const PAIRS: usize, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe { gemm::split::<Smlal, LOW, HIGH, PAIRS, N>(block, out, stride) }
}
