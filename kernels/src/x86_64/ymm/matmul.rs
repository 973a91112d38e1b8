//! Matmul with 256-bit vectors, once for every way to take INT8 dot products with them.
//!
//! One vector holds 8 rows, half a panel: a half is the unit of work here, numbered through the
//! panels of a block. Several tokens share one half, whose accumulators then fit the 16 registers;
//! a single token takes both halves of a panel, so that weights stream in the order of memory.
//!
//! Groups are found by division, off the critical path: the shift of [`Block::group_of`] costs these
//! kernels a register that they do not have, and a prompt a sixth of its speed.

use crate::activations::ACTIVATION_GROUP;
use crate::matmul::Block;
use crate::packing::PANEL;
use crate::x86_64::ahead::{Ahead, ask};
use crate::x86_64::prefetch_write;
use std::arch::x86_64::*;

/// Bytes of 4 K (`q8`) or 8 K (`q4`) of the 16 rows of a panel.
const LINE: usize = 64;

/// How an ISA takes dot products of unsigned or signed weights with signed activations, four
/// columns at a time, into 8 row sums.
///
/// # Safety
/// Every method needs AVX2 and what else the implementing ISA has.
pub(in crate::x86_64) trait Dot {
    /// `q8` codes of one line, prepared once for all tokens.
    type Q8: Copy;
    /// The weight that a `q8` code of zero turns into.
    const Q8_ZERO: i32;

    /// Adds the products of codes in 0..=15 to a sum that at most 8 such steps share.
    unsafe fn q4(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i;
    /// The 8 row sums after the steps of [`Dot::q4`].
    unsafe fn q4_sums(sum: __m256i) -> __m256i;
    /// Prepares signed codes.
    unsafe fn q8_codes(codes: __m256i) -> Self::Q8;
    /// Adds the products of prepared codes.
    unsafe fn q8(sum: __m256i, codes: Self::Q8, x: __m256i) -> __m256i;
}

/// The first byte of half `unit`'s panel, and the half's byte offset in a line.
///
/// # Safety
/// `unit` must be below twice the number of panels.
#[inline(always)]
unsafe fn half(block: &Block, unit: usize) -> (*const u8, usize) {
    // SAFETY: as the caller promises.
    unsafe { (block.panel(unit / 2), unit % 2 * (LINE / 2)) }
}

/// Where the 8 outputs of half `unit` start.
#[inline(always)]
fn output(unit: usize) -> usize {
    unit * (PANEL / 2)
}

/// `q4` for `N` tokens, `H` halves at a time.
///
/// # Safety
/// As [`crate::matmul::Micro`], with `N` tokens, and the ISA of `D`. `H` must be 1 or 2.
#[inline(always)]
pub(in crate::x86_64) unsafe fn q4<
    D: Dot,
    const H: usize,
    const N: usize,
    const MINIMUM: bool,
    const STREAMS: bool,
>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: units stay below twice the number of panels.
    unsafe {
        for unit in (0..2 * block.count).step_by(H) {
            q4_halves::<D, H, N, MINIMUM, STREAMS>(block, unit, out, stride);
        }
    }
}

/// # Safety
/// As [`q4`], and `first + H` halves in the block.
#[inline(always)]
unsafe fn q4_halves<
    D: Dot,
    const H: usize,
    const N: usize,
    const MINIMUM: bool,
    const STREAMS: bool,
>(
    block: &Block,
    first: usize,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: every address lies in a panel (`groups` groups, `parts` · 4 lines each) or in one of
    // the `N` tokens (at least as many columns), as `Block` promises; the ISA is the caller's.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let mut acc = start::<H, N>(first, out, stride);
        let mut ahead = Ahead::<STREAMS>::new(block, first / 2, 1, 4);
        for part in 0..block.groups * block.parts {
            let group = part / block.parts;
            ahead.ask();
            let mut sum = [[_mm256_setzero_si256(); N]; H];
            for line in 0..4 {
                let k = part * ACTIVATION_GROUP + line * 8;
                let mut codes = [_mm256_setzero_si256(); H];
                for (h, codes) in codes.iter_mut().enumerate() {
                    let (panel, at) = half(block, first + h);
                    let at = block.codes + (part * 4 + line) * LINE + at;
                    *codes = _mm256_loadu_si256(panel.add(at).cast());
                }
                for n in 0..N {
                    let x = four(block, n, k);
                    for h in 0..H {
                        sum[h][n] = D::q4(sum[h][n], _mm256_and_si256(codes[h], low), x);
                    }
                }
                for n in 0..N {
                    let x = four(block, n, k + 4);
                    for h in 0..H {
                        let codes = _mm256_and_si256(_mm256_srli_epi16::<4>(codes[h]), low);
                        sum[h][n] = D::q4(sum[h][n], codes, x);
                    }
                }
            }
            for h in 0..H {
                let (panel, at) = half(block, first + h);
                let scale = halves(panel.add(at / 2), group);
                for n in 0..N {
                    let sums = D::q4_sums(sum[h][n]);
                    let zero = if MINIMUM { 0 } else { 8 };
                    acc[h][n] = accumulate(block, n, part, scale, sums, zero, acc[h][n]);
                }
                if MINIMUM {
                    let minimum = halves(panel.add(block.minimums + at / 2), group);
                    for n in 0..N {
                        let at = n * block.x_groups() + part;
                        let x = *block.x_scales.add(at) * *block.x_sums.add(at) as f32;
                        acc[h][n] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(x), acc[h][n]);
                    }
                }
            }
        }
        store(first, &acc, out, stride);
    }
}

/// `q8` for `N` tokens, `H` halves at a time.
///
/// # Safety
/// As [`q4`].
#[inline(always)]
pub(in crate::x86_64) unsafe fn q8<D: Dot, const H: usize, const N: usize, const STREAMS: bool>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: units stay below twice the number of panels.
    unsafe {
        for unit in (0..2 * block.count).step_by(H) {
            q8_halves::<D, H, N, STREAMS>(block, unit, out, stride);
        }
    }
}

/// # Safety
/// As [`q4`], and `first + H` halves in the block.
#[inline(always)]
unsafe fn q8_halves<D: Dot, const H: usize, const N: usize, const STREAMS: bool>(
    block: &Block,
    first: usize,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: every address lies in a panel (`groups` groups, `parts` · 8 lines each) or in one of
    // the `N` tokens (at least as many columns), as `Block` promises; the ISA is the caller's.
    unsafe {
        let mut acc = start::<H, N>(first, out, stride);
        let mut ahead = Ahead::<STREAMS>::new(block, first / 2, 1, 8);
        for part in 0..block.groups * block.parts {
            let group = part / block.parts;
            ahead.ask();
            let mut sum = [[_mm256_setzero_si256(); N]; H];
            for line in 0..8 {
                let mut codes = [D::q8_codes(_mm256_setzero_si256()); H];
                for (h, codes) in codes.iter_mut().enumerate() {
                    let (panel, at) = half(block, first + h);
                    let at = block.codes + (part * 8 + line) * LINE + at;
                    *codes = D::q8_codes(_mm256_loadu_si256(panel.add(at).cast()));
                }
                for n in 0..N {
                    let x = four(block, n, part * ACTIVATION_GROUP + line * 4);
                    for h in 0..H {
                        sum[h][n] = D::q8(sum[h][n], codes[h], x);
                    }
                }
            }
            for h in 0..H {
                let (panel, at) = half(block, first + h);
                let scale = halves(panel.add(at / 2), group);
                for n in 0..N {
                    let zero = D::Q8_ZERO;
                    acc[h][n] = accumulate(block, n, part, scale, sum[h][n], zero, acc[h][n]);
                }
            }
        }
        store(first, &acc, out, stride);
    }
}

/// Codes of `LOW + HIGH` bits in two planes for `N` tokens, `H` halves at a time.
///
/// # Safety
/// As [`q4`].
#[inline(always)]
pub(in crate::x86_64) unsafe fn split<
    D: Dot,
    const LOW: usize,
    const HIGH: usize,
    const H: usize,
    const N: usize,
    const STREAMS: bool,
>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: units stay below twice the number of panels.
    unsafe {
        for unit in (0..2 * block.count).step_by(H) {
            split_halves::<D, LOW, HIGH, H, N, STREAMS>(block, unit, out, stride);
        }
    }
}

/// # Safety
/// As [`q4`], and `first + H` halves in the block.
#[inline(always)]
unsafe fn split_halves<
    D: Dot,
    const LOW: usize,
    const HIGH: usize,
    const H: usize,
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
    // one of the `N` tokens (at least as many columns), as `Block` promises; the ISA is the
    // caller's.
    unsafe {
        let zero = _mm256_set1_epi8(1 << (bits - 1));
        let mut acc = start::<H, N>(first, out, stride);
        let mut ahead = Ahead::<STREAMS>::new(block, first / 2, 1, bits);
        for part in 0..block.groups * block.parts {
            let group = part / block.parts;
            ahead.ask();
            let mut sum = [[_mm256_setzero_si256(); N]; H];
            for quad in 0..8 {
                let mut codes = [D::q8_codes(_mm256_setzero_si256()); H];
                for (h, codes) in codes.iter_mut().enumerate() {
                    let (panel, at) = half(block, first + h);
                    let lines = panel.add(block.codes + part * bits * LINE + at);
                    let low = plane::<LOW>(lines, quad);
                    let high = plane::<HIGH>(lines.add(LOW * LINE), quad);
                    let high = _mm256_sll_epi16(high, _mm_cvtsi32_si128(LOW as i32));
                    let signed = _mm256_sub_epi8(_mm256_or_si256(low, high), zero);
                    *codes = D::q8_codes(signed);
                }
                for n in 0..N {
                    let x = four(block, n, part * ACTIVATION_GROUP + quad * 4);
                    for h in 0..H {
                        sum[h][n] = D::q8(sum[h][n], codes[h], x);
                    }
                }
            }
            for h in 0..H {
                let (panel, at) = half(block, first + h);
                let scale = halves(panel.add(at / 2), group);
                for n in 0..N {
                    let zero = D::Q8_ZERO;
                    acc[h][n] = accumulate(block, n, part, scale, sum[h][n], zero, acc[h][n]);
                }
            }
        }
        store(first, &acc, out, stride);
    }
}

/// The `WIDTH` bits of the `quad`th four columns of 8 rows out of a plane.
///
/// # Safety
/// `lines` must point to `WIDTH` lines, at a half; `quad` must be below 8.
#[inline(always)]
unsafe fn plane<const WIDTH: usize>(lines: *const u8, quad: usize) -> __m256i {
    let columns = 8 / WIDTH;
    // SAFETY: `quad / columns` is below `WIDTH`; the caller has AVX2.
    unsafe {
        let shift = _mm_cvtsi32_si128((quad % columns * WIDTH) as i32);
        let line = _mm256_loadu_si256(lines.add(quad / columns * LINE).cast());
        let mask = _mm256_set1_epi8((1 << WIDTH) - 1);
        _mm256_and_si256(_mm256_srl_epi16(line, shift), mask)
    }
}

/// The scales (or minimums) of 8 rows of one group as floats.
///
/// # Safety
/// `plane` must hold more than `group` groups.
#[inline(always)]
unsafe fn halves(plane: *const u8, group: usize) -> __m256 {
    // SAFETY: a group of a plane has 16 halves.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(plane.add(group * PANEL * 2).cast())) }
}

/// Four codes of token `n` from column `k` on, in every lane.
///
/// # Safety
/// The block must have more than `n` tokens of more than `k + 3` columns.
#[inline(always)]
unsafe fn four(block: &Block, n: usize, k: usize) -> __m256i {
    // SAFETY: within token `n`.
    unsafe {
        let codes = block.x_codes.add(n * block.x_stride + k).cast::<i32>();
        _mm256_set1_epi32(codes.read_unaligned())
    }
}

/// `fma(scale_w · scale_x, sums - zero · Σx, acc)`
///
/// # Safety
/// The block must have more than `n` tokens of more than `part` groups.
#[inline(always)]
unsafe fn accumulate(
    block: &Block,
    n: usize,
    part: usize,
    scale: __m256,
    sums: __m256i,
    zero: i32,
    acc: __m256,
) -> __m256 {
    // SAFETY: token `n` has a scale and a sum for each group.
    unsafe {
        let at = n * block.x_groups() + part;
        let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*block.x_scales.add(at)));
        let offset = _mm256_set1_epi32(zero * *block.x_sums.add(at));
        let sums = if zero == 0 {
            sums
        } else {
            _mm256_sub_epi32(sums, offset)
        };
        _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sums), acc)
    }
}

/// Sums of zero, for a tile of several tokens while the lines that it will write are fetched: they
/// are seldom in the cache when it is done.
///
/// # Safety
/// Needs AVX.
#[inline(always)]
unsafe fn start<const H: usize, const N: usize>(
    first: usize,
    out: *const f32,
    stride: usize,
) -> [[__m256; N]; H] {
    if N > 1 {
        for n in 0..N {
            for h in (0..H).step_by(2) {
                prefetch_write(out.wrapping_add(n * stride + output(first + h)).cast());
            }
        }
    }
    // SAFETY: the caller has AVX.
    unsafe { [[_mm256_setzero_ps(); N]; H] }
}

/// # Safety
/// `out` must be good for the outputs of halves `first..first + H` at `N` multiples of `stride`.
#[inline(always)]
unsafe fn store<const H: usize, const N: usize>(
    first: usize,
    acc: &[[__m256; N]; H],
    out: *mut f32,
    stride: usize,
) {
    for (h, acc) in acc.iter().enumerate() {
        for (n, &acc) in acc.iter().enumerate() {
            // SAFETY: as the caller promises.
            unsafe { _mm256_storeu_ps(out.add(n * stride + output(first + h)), acc) };
        }
    }
}

/// `f16` (`HALF`) and `f32` for `N` tokens.
///
/// # Safety
/// As [`crate::matmul::Micro`], with `N` tokens, AVX2, FMA and F16C.
#[inline(always)]
pub(in crate::x86_64) unsafe fn float<const HALF: bool, const N: usize>(
    block: &Block,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: column `k` below `cols` of a panel and of the `N` tokens, and the caller's `out`.
    unsafe {
        for unit in 0..2 * block.count {
            let (panel, at) = half(block, unit);
            let row = at / 4;
            let mut acc = [[_mm256_setzero_ps(); 4]; N];
            let quad_bytes = 4 * PANEL * if HALF { 2 } else { 4 };
            for quad in 0..block.cols / 4 {
                // Two passes, one for each half, do not look like a stream.
                if block.streams && N == 1 && at == 0 {
                    ask(panel.add(quad * quad_bytes), quad_bytes / 64);
                }
                for j in 0..4 {
                    float_step::<HALF, N>(block, panel, row, quad * 4 + j, j, &mut acc);
                }
            }
            let rest = block.cols / 4 * 4;
            for j in 0..block.cols % 4 {
                float_step::<HALF, N>(block, panel, row, rest + j, j, &mut acc);
            }
            for (n, acc) in acc.iter().enumerate() {
                let sum =
                    _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3]));
                _mm256_storeu_ps(out.add(n * stride + output(unit)), sum);
            }
        }
    }
}

/// Column `k` of the 8 rows from `row` on, into partial sum `j`.
///
/// # Safety
/// The panel and the `N` tokens must have more than `k` columns.
#[inline(always)]
unsafe fn float_step<const HALF: bool, const N: usize>(
    block: &Block,
    panel: *const u8,
    row: usize,
    k: usize,
    j: usize,
    acc: &mut [[__m256; 4]; N],
) {
    // SAFETY: as the caller promises.
    unsafe {
        let weights = if HALF {
            halves(panel.add(row * 2), k)
        } else {
            _mm256_loadu_ps(panel.cast::<f32>().add(k * PANEL + row))
        };
        for (n, acc) in acc.iter_mut().enumerate() {
            let x = _mm256_set1_ps(*block.x.add(n * block.cols + k));
            acc[j] = _mm256_fmadd_ps(weights, x, acc[j]);
        }
    }
}
