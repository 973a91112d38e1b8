//! Matmul with 512-bit vectors: one vector holds the 16 rows of a panel.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes: codes of `q4` are unsigned as they are, those of
//! `q8` become so by flipping their top bit (adding 128). Accumulators start at minus the zero
//! point times the sum of the activations, which undoes the offset.

use crate::activations::ACTIVATION_GROUP;
use crate::matmul::{Block, MatmulKernels, Micro, Tiles};
use crate::packing::PANEL;
use crate::x86_64::ahead::Ahead;
use crate::x86_64::prefetch_write;
use std::arch::x86_64::*;

/// Bytes of one load: 4 K (`q8`) or 8 K (`q4`) of the 16 rows of a panel.
const LINE: usize = 64;

pub(crate) static MATMUL: MatmulKernels = KERNELS;

pub(in crate::x86_64) const KERNELS: MatmulKernels = MatmulKernels {
    q4: Tiles {
        by_tokens: &[
            q4::<1, 1, false> as Micro,
            q4::<2, 2, false>,
            q4::<2, 3, false>,
            q4::<2, 4, false>,
            q4::<2, 5, false>,
            q4::<2, 6, false>,
        ],
    },
    q4_minimum: Tiles {
        by_tokens: &[
            q4::<1, 1, true> as Micro,
            q4::<2, 2, true>,
            q4::<2, 3, true>,
            q4::<2, 4, true>,
            q4::<2, 5, true>,
            q4::<2, 6, true>,
        ],
    },
    q8: Tiles {
        by_tokens: &[
            q8::<1, 1> as Micro,
            q8::<2, 2>,
            q8::<2, 3>,
            q8::<2, 4>,
            q8::<2, 5>,
            q8::<2, 6>,
            q8::<2, 7>,
            q8::<2, 8>,
        ],
    },
    q3: split::<2, 1>(),
    q5: split::<4, 1>(),
    q6: split::<4, 2>(),
    f16: Tiles {
        by_tokens: &[
            float::<true, 1> as Micro,
            float::<true, 2>,
            float::<true, 3>,
        ],
    },
    f32: Tiles {
        by_tokens: &[
            float::<false, 1> as Micro,
            float::<false, 2>,
            float::<false, 3>,
        ],
    },
    many: None,
};

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q4<const P: usize, const N: usize, const MINIMUM: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        if block.streams {
            q4_as::<P, N, MINIMUM, true>(block, out, stride);
        } else {
            q4_as::<P, N, MINIMUM, false>(block, out, stride);
        }
    }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q4_as<const P: usize, const N: usize, const MINIMUM: bool, const STREAMS: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises hold for each run of panels within the block.
    unsafe {
        let mut p = 0;
        while p + P <= block.count {
            q4_panels::<P, N, MINIMUM, STREAMS>(block, p, out.add(p * PANEL), stride);
            p += P;
        }
        while p < block.count {
            q4_panels::<1, N, MINIMUM, STREAMS>(block, p, out.add(p * PANEL), stride);
            p += 1;
        }
    }
}

/// `P` panels from `first` on.
///
/// # Safety
/// As [`Micro`], with `N` tokens, and `first + P` panels in the block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q4_panels<const P: usize, const N: usize, const MINIMUM: bool, const STREAMS: bool>(
    block: &Block,
    first: usize,
    out: *mut f32,
    stride: usize,
) {
    let low = _mm512_set1_epi8(15);
    // SAFETY: every address lies in a panel (`groups` groups, `parts` · 4 lines each) or in one of
    // the `N` tokens (at least as many columns), as `Block` promises.
    unsafe {
        let mut acc = start::<P, N>(out, stride);
        let mut ahead = Ahead::<STREAMS>::new(block, first, P, 4);
        for part in 0..block.groups * block.parts {
            ahead.ask();
            let group = block.group_of(part);
            let mut scale = [_mm512_setzero_ps(); P];
            for (p, scale) in scale.iter_mut().enumerate() {
                *scale = halves(block.panel(first + p), group);
            }
            let mut sum = [[_mm512_setzero_si512(); N]; P];
            if !MINIMUM {
                for n in 0..N {
                    let offset = -8 * *block.x_sums.add(n * block.x_groups() + part);
                    for sum in &mut sum {
                        sum[n] = _mm512_set1_epi32(offset);
                    }
                }
            }
            for line in 0..4 {
                let k = part * ACTIVATION_GROUP + line * 8;
                let mut codes = [_mm512_setzero_si512(); P];
                for (p, codes) in codes.iter_mut().enumerate() {
                    let at = block.codes + (part * 4 + line) * LINE;
                    let line = block.panel(first + p).add(at);
                    *codes = _mm512_loadu_si512(line.cast());
                }
                for n in 0..N {
                    let x = four(block, n, k);
                    for p in 0..P {
                        let codes = _mm512_and_si512(codes[p], low);
                        sum[p][n] = _mm512_dpbusd_epi32(sum[p][n], codes, x);
                    }
                }
                for n in 0..N {
                    let x = four(block, n, k + 4);
                    for p in 0..P {
                        let codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes[p]), low);
                        sum[p][n] = _mm512_dpbusd_epi32(sum[p][n], codes, x);
                    }
                    if line == 3 {
                        accumulate(block, part, n, &scale, &sum, &mut acc);
                    }
                }
            }
            if MINIMUM {
                for p in 0..P {
                    let minimum = halves(block.panel(first + p).add(block.minimums), group);
                    for n in 0..N {
                        let at = n * block.x_groups() + part;
                        let x = *block.x_scales.add(at) * *block.x_sums.add(at) as f32;
                        acc[p][n] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x), acc[p][n]);
                    }
                }
            }
        }
        store(&acc, out, stride);
    }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q8<const P: usize, const N: usize>(block: &Block, out: *mut f32, stride: usize) {
    // SAFETY: the caller's promises.
    unsafe {
        if block.streams {
            q8_as::<P, N, true>(block, out, stride);
        } else {
            q8_as::<P, N, false>(block, out, stride);
        }
    }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q8_as<const P: usize, const N: usize, const STREAMS: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises hold for each run of panels within the block.
    unsafe {
        let mut p = 0;
        while p + P <= block.count {
            q8_panels::<P, N, STREAMS>(block, p, out.add(p * PANEL), stride);
            p += P;
        }
        while p < block.count {
            q8_panels::<1, N, STREAMS>(block, p, out.add(p * PANEL), stride);
            p += 1;
        }
    }
}

/// `P` panels from `first` on.
///
/// # Safety
/// As [`Micro`], with `N` tokens, and `first + P` panels in the block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn q8_panels<const P: usize, const N: usize, const STREAMS: bool>(
    block: &Block,
    first: usize,
    out: *mut f32,
    stride: usize,
) {
    let top_bit = _mm512_set1_epi8(-128);
    // SAFETY: every address lies in a panel (`groups` groups, `parts` · 8 lines each) or in one of
    // the `N` tokens (at least as many columns), as `Block` promises.
    unsafe {
        let mut acc = start::<P, N>(out, stride);
        let mut ahead = Ahead::<STREAMS>::new(block, first, P, 8);
        for part in 0..block.groups * block.parts {
            ahead.ask();
            let group = block.group_of(part);
            let mut scale = [_mm512_setzero_ps(); P];
            for (p, scale) in scale.iter_mut().enumerate() {
                *scale = halves(block.panel(first + p), group);
            }
            let mut sum = [[_mm512_setzero_si512(); N]; P];
            for n in 0..N {
                let offset = -128 * *block.x_sums.add(n * block.x_groups() + part);
                for sum in &mut sum {
                    sum[n] = _mm512_set1_epi32(offset);
                }
            }
            for line in 0..8 {
                let mut codes = [_mm512_setzero_si512(); P];
                for (p, codes) in codes.iter_mut().enumerate() {
                    let at = block.codes + (part * 8 + line) * LINE;
                    let line = block.panel(first + p).add(at);
                    let signed = _mm512_loadu_si512(line.cast());
                    *codes = _mm512_xor_si512(signed, top_bit);
                }
                for n in 0..N {
                    let x = four(block, n, part * ACTIVATION_GROUP + line * 4);
                    for p in 0..P {
                        sum[p][n] = _mm512_dpbusd_epi32(sum[p][n], codes[p], x);
                    }
                    if line == 7 {
                        accumulate(block, part, n, &scale, &sum, &mut acc);
                    }
                }
            }
        }
        store(&acc, out, stride);
    }
}

/// Kernels for codes of `LOW + HIGH` bits in two planes.
const fn split<const LOW: usize, const HIGH: usize>() -> Tiles {
    Tiles {
        by_tokens: &[
            split_tile::<LOW, HIGH, 1, 1> as Micro,
            split_tile::<LOW, HIGH, 2, 2>,
            split_tile::<LOW, HIGH, 2, 3>,
            split_tile::<LOW, HIGH, 2, 4>,
            split_tile::<LOW, HIGH, 2, 5>,
            split_tile::<LOW, HIGH, 2, 6>,
        ],
    }
}

/// Codes of `LOW + HIGH` bits in two planes.
///
/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn split_tile<const LOW: usize, const HIGH: usize, const P: usize, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        if block.streams {
            split_tile_as::<LOW, HIGH, P, N, true>(block, out, stride);
        } else {
            split_tile_as::<LOW, HIGH, P, N, false>(block, out, stride);
        }
    }
}

/// # Safety
/// As [`Micro`], with `N` tokens.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn split_tile_as<
    const LOW: usize,
    const HIGH: usize,
    const P: usize,
    const N: usize,
    const STREAMS: bool,
>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises hold for each run of panels within the block.
    unsafe {
        let mut p = 0;
        while p + P <= block.count {
            split_panels::<LOW, HIGH, P, N, STREAMS>(block, p, out.add(p * PANEL), stride);
            p += P;
        }
        while p < block.count {
            split_panels::<LOW, HIGH, 1, N, STREAMS>(block, p, out.add(p * PANEL), stride);
            p += 1;
        }
    }
}

/// `P` panels from `first` on.
///
/// # Safety
/// As [`Micro`], with `N` tokens, and `first + P` panels in the block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn split_panels<
    const LOW: usize,
    const HIGH: usize,
    const P: usize,
    const N: usize,
    const STREAMS: bool,
>(
    block: &Block,
    first: usize,
    out: *mut f32,
    stride: usize,
) {
    let bits = LOW + HIGH;
    // SAFETY: every address lies in a panel (`groups` groups, `parts` · `bits` lines each) or in
    // one of the `N` tokens (at least as many columns), as `Block` promises.
    unsafe {
        let mut acc = start::<P, N>(out, stride);
        let mut ahead = Ahead::<STREAMS>::new(block, first, P, bits);
        for part in 0..block.groups * block.parts {
            ahead.ask();
            let group = block.group_of(part);
            let mut scale = [_mm512_setzero_ps(); P];
            for (p, scale) in scale.iter_mut().enumerate() {
                *scale = halves(block.panel(first + p), group);
            }
            let mut sum = [[_mm512_setzero_si512(); N]; P];
            for n in 0..N {
                let zero = 1 << (bits - 1);
                let offset = -zero * *block.x_sums.add(n * block.x_groups() + part);
                for sum in &mut sum {
                    sum[n] = _mm512_set1_epi32(offset);
                }
            }
            for quad in 0..8 {
                let mut codes = [_mm512_setzero_si512(); P];
                for (p, codes) in codes.iter_mut().enumerate() {
                    let at = block.codes + part * bits * LINE;
                    let lines = block.panel(first + p).add(at);
                    let low = plane::<LOW>(lines, quad);
                    let high = plane::<HIGH>(lines.add(LOW * LINE), quad);
                    let high = _mm512_sll_epi16(high, _mm_cvtsi32_si128(LOW as i32));
                    *codes = _mm512_or_si512(low, high);
                }
                for n in 0..N {
                    let x = four(block, n, part * ACTIVATION_GROUP + quad * 4);
                    for p in 0..P {
                        sum[p][n] = _mm512_dpbusd_epi32(sum[p][n], codes[p], x);
                    }
                    if quad == 7 {
                        accumulate(block, part, n, &scale, &sum, &mut acc);
                    }
                }
            }
        }
        store(&acc, out, stride);
    }
}

/// The `WIDTH` bits of the `quad`th four columns of 16 rows out of a plane.
///
/// # Safety
/// `lines` must point to `WIDTH` lines; `quad` must be below 8.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::x86_64) unsafe fn plane<const WIDTH: usize>(
    lines: *const u8,
    quad: usize,
) -> __m512i {
    let columns = 8 / WIDTH;
    let shift = _mm_cvtsi32_si128((quad % columns * WIDTH) as i32);
    // SAFETY: `quad / columns` is below `WIDTH`.
    let line = unsafe { _mm512_loadu_si512(lines.add(quad / columns * LINE).cast()) };
    let mask = _mm512_set1_epi8((1 << WIDTH) - 1);
    _mm512_and_si512(_mm512_srl_epi16(line, shift), mask)
}

/// The scales (or minimums) of one group as floats.
///
/// # Safety
/// `plane` must hold more than `group` groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::x86_64) unsafe fn halves(plane: *const u8, group: usize) -> __m512 {
    // SAFETY: a group of a plane has 16 halves.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(plane.add(group * PANEL * 2).cast())) }
}

/// Four codes of token `n` from column `k` on, in every lane.
///
/// # Safety
/// The block must have more than `n` tokens of more than `k + 3` columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn four(block: &Block, n: usize, k: usize) -> __m512i {
    // SAFETY: within token `n`.
    unsafe {
        let codes = block.x_codes.add(n * block.x_stride + k).cast::<i32>();
        _mm512_set1_epi32(codes.read_unaligned())
    }
}

/// `acc = fma(scale_w · scale_x, sum, acc)` for token `n`: right after its last product, so that the
/// products of the next token fill the pipes meanwhile.
///
/// # Safety
/// The block must have `N` tokens of more than `part` groups, `n` among them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn accumulate<const P: usize, const N: usize>(
    block: &Block,
    part: usize,
    n: usize,
    scale: &[__m512; P],
    sum: &[[__m512i; N]; P],
    acc: &mut [[__m512; N]; P],
) {
    // SAFETY: token `n` has a scale for each group.
    let x = unsafe { *block.x_scales.add(n * block.x_groups() + part) };
    for p in 0..P {
        let scale = _mm512_mul_ps(scale[p], _mm512_set1_ps(x));
        acc[p][n] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sum[p][n]), acc[p][n]);
    }
}

/// Sums of zero, for a tile of several tokens while the lines that it will write are fetched: they
/// are seldom in the cache when it is done.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn start<const P: usize, const N: usize>(out: *const f32, stride: usize) -> [[__m512; N]; P] {
    if N > 1 {
        for n in 0..N {
            for p in 0..P {
                prefetch_write(out.wrapping_add(n * stride + p * PANEL).cast());
            }
        }
    }
    [[_mm512_setzero_ps(); N]; P]
}

/// # Safety
/// `out` must be good for 16 · `P` floats at each of `N` multiples of `stride`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn store<const P: usize, const N: usize>(
    acc: &[[__m512; N]; P],
    out: *mut f32,
    stride: usize,
) {
    for (p, acc) in acc.iter().enumerate() {
        for (n, &acc) in acc.iter().enumerate() {
            // SAFETY: as the caller promises.
            unsafe { _mm512_storeu_ps(out.add(n * stride + p * PANEL), acc) };
        }
    }
}

/// `f16` (`HALF`) and `f32`.
///
/// # Safety
/// As [`Micro`], with `N` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn float<const HALF: bool, const N: usize>(block: &Block, out: *mut f32, stride: usize) {
    // SAFETY: column `k` below `cols` of a panel and of the `N` tokens, and the caller's `out`.
    unsafe {
        for p in 0..block.count {
            let panel = block.panel(p);
            let mut acc = [[_mm512_setzero_ps(); 4]; N];
            for quad in 0..block.cols / 4 {
                for j in 0..4 {
                    float_step::<HALF, N>(block, panel, quad * 4 + j, j, &mut acc);
                }
            }
            let rest = block.cols / 4 * 4;
            for j in 0..block.cols % 4 {
                float_step::<HALF, N>(block, panel, rest + j, j, &mut acc);
            }
            for (n, acc) in acc.iter().enumerate() {
                let sum =
                    _mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3]));
                _mm512_storeu_ps(out.add(n * stride + p * PANEL), sum);
            }
        }
    }
}

/// Column `k` into partial sum `j`.
///
/// # Safety
/// The panel and the `N` tokens must have more than `k` columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn float_step<const HALF: bool, const N: usize>(
    block: &Block,
    panel: *const u8,
    k: usize,
    j: usize,
    acc: &mut [[__m512; 4]; N],
) {
    // SAFETY: as the caller promises.
    unsafe {
        let weights = if HALF {
            halves(panel, k)
        } else {
            _mm512_loadu_ps(panel.cast::<f32>().add(k * PANEL))
        };
        for (n, acc) in acc.iter_mut().enumerate() {
            let x = _mm512_set1_ps(*block.x.add(n * block.cols + k));
            acc[j] = _mm512_fmadd_ps(weights, x, acc[j]);
        }
    }
}
