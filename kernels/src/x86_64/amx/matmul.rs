//! Matmul by tiles of 16 tokens.
//!
//! A tile of weights holds 32 columns of the 16 rows of a panel, as `q8` has them; other kinds are
//! unpacked first, once for all tokens. The tile unit multiplies them with 32 columns of 16 tokens,
//! and while it is at the next 32, vectors scale the sums and add them up.

use super::tiles::{Amx, Pair, Sums, TOKENS, Unit};
use crate::activations::ACTIVATION_GROUP;
use crate::matmul::{Block, ManyKernels, MatmulKernels};
use crate::packing::PANEL;
use crate::x86_64::avx512vnni::{KERNELS, halves, plane};
use crate::x86_64::{prefetch_l2, prefetch_write};
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Lines of 64 bytes in a tile of weights: 4 columns of 16 rows each.
const LINES: usize = 8;

/// Panels that share what it takes to arrange the tokens for them.
const PANELS: usize = 16;

pub(crate) static MATMUL: MatmulKernels = kernels::<Amx>();

/// [`MATMUL`] on any CPU with AVX-512 VNNI.
#[cfg(test)]
pub(crate) static EMULATED: MatmulKernels = kernels::<super::tiles::Emulated>();

const fn kernels<U: Unit>() -> MatmulKernels {
    MatmulKernels {
        many: Some(ManyKernels {
            least: TOKENS,
            panels: PANELS,
            q4: many::<U, 4, 0, false>,
            q4_minimum: many::<U, 4, 0, true>,
            q8: many::<U, 8, 0, false>,
            q3: many::<U, 2, 1, false>,
            q5: many::<U, 4, 1, false>,
            q6: many::<U, 4, 2, false>,
        }),
        ..KERNELS
    }
}

/// What a thread unpacks and prepares.
struct Scratch {
    /// Tiles of weights, `[panel][part][LINES]`.
    lines: Vec<__m512i>,
    /// Codes of the 16 tokens of a tile, `[part][token][32]`.
    x: Vec<[__m256i; TOKENS]>,
    /// Scales of the 16 tokens of a tile, for each part.
    scales: Vec<[f32; TOKENS]>,
    /// With minimums: scale times sum of the codes, likewise.
    products: Vec<[f32; TOKENS]>,
    /// What the tile unit hands over.
    sums: Sums,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch {
            lines: vec![],
            x: vec![],
            scales: vec![],
            products: vec![],
            sums: Sums([[0; 16]; TOKENS]),
        })
    };
}

/// Codes of `LOW + HIGH` bits in two planes.
///
/// # Safety
/// As [`crate::matmul::ManyTokens`], and the process must be permitted to use `U`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn many<U: Unit, const LOW: usize, const HIGH: usize, const MINIMUM: bool>(
    block: &Block,
    tokens: usize,
    out: *mut f32,
    stride: usize,
) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promises.
        unsafe {
            if LOW < 8 {
                unpack::<LOW, HIGH, MINIMUM>(block, &mut scratch.lines);
            }
            let mut unit = U::default();
            unit.configure();
            tiles::<U, LOW, MINIMUM>(&mut unit, block, scratch, tokens, out, stride);
            unit.release();
        }
    });
}

/// Tile after tile of tokens, past every panel. `scratch` has the unpacked weights.
///
/// # Safety
/// As [`many`], and the thread must be configured.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tiles<U: Unit, const LOW: usize, const MINIMUM: bool>(
    unit: &mut U,
    block: &Block,
    scratch: &mut Scratch,
    tokens: usize,
    out: *mut f32,
    stride: usize,
) {
    let parts = block.groups * block.parts;
    let tiles = tokens.div_ceil(TOKENS);
    let next = block.panels.wrapping_add(block.count * block.panel_bytes);
    let next_lines = block.count * block.panel_bytes / 64;
    for tile in 0..tiles {
        // The panels that come next are read from memory meanwhile.
        for line in tile * next_lines / tiles..(tile + 1) * next_lines / tiles {
            prefetch_l2(next.wrapping_add(line * 64));
        }
        // The last tile takes some tokens of the one before once more, rather than have fewer.
        let first = (tile * TOKENS).min(tokens - TOKENS);
        // SAFETY: tokens `first..first + 16` and panels below `count`, with the caller's promises.
        unsafe {
            gather::<MINIMUM>(block, first, parts, scratch);
            for p in 0..block.count {
                let weights = if LOW < 8 {
                    scratch.lines[p * parts * LINES..].as_ptr().cast()
                } else {
                    block.panel(p).add(block.codes)
                };
                let out = out.add(first * stride + p * PANEL);
                panel::<U, MINIMUM>(unit, block, p, weights, scratch, out, stride);
            }
        }
    }
}

/// The codes and scales of 16 tokens side by side, part by part, and the products of scale and sum.
///
/// # Safety
/// The block must have the 16 tokens from `first` on, and they `parts` groups.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn gather<const MINIMUM: bool>(
    block: &Block,
    first: usize,
    parts: usize,
    scratch: &mut Scratch,
) {
    let groups = block.x_groups();
    scratch.x.resize(parts, [_mm256_setzero_si256(); TOKENS]);
    scratch.scales.resize(parts, [0.0; TOKENS]);
    scratch
        .products
        .resize(if MINIMUM { parts } else { 0 }, [0.0; TOKENS]);
    let gathered = scratch.x.iter_mut().zip(&mut scratch.scales);
    for (part, (x, scales)) in gathered.enumerate() {
        for (token, (x, scale)) in x.iter_mut().zip(scales).enumerate() {
            let codes = (first + token) * block.x_stride + part * ACTIVATION_GROUP;
            // SAFETY: group `part` of one of the tokens.
            unsafe {
                *x = _mm256_loadu_si256(block.x_codes.add(codes).cast());
                *scale = *block.x_scales.add((first + token) * groups + part);
            }
        }
    }
    let products = scratch.products.iter_mut().zip(&scratch.scales);
    for (part, (products, scales)) in products.enumerate() {
        for (token, (product, scale)) in products.iter_mut().zip(scales).enumerate() {
            // SAFETY: as above.
            let sum = unsafe { *block.x_sums.add((first + token) * groups + part) };
            *product = scale * sum as f32;
        }
    }
}

/// Codes of every panel as signed bytes, less their zero point.
///
/// # Safety
/// The block must be of codes of `LOW + HIGH` bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn unpack<const LOW: usize, const HIGH: usize, const MINIMUM: bool>(
    block: &Block,
    lines: &mut Vec<__m512i>,
) {
    let bits = LOW + HIGH;
    let zero = if MINIMUM { 0 } else { 1 << (bits - 1) };
    let zero = _mm512_set1_epi8(zero);
    lines.clear();
    for p in 0..block.count {
        for part in 0..block.groups * block.parts {
            // SAFETY: a panel has `bits` lines for each part.
            let codes = unsafe { block.panel(p).add(block.codes + part * bits * 64) };
            let unpacked: [__m512i; LINES] = std::array::from_fn(|quad| {
                // SAFETY: the planes have `LOW` and `HIGH` of the lines.
                let codes = unsafe {
                    let low = plane::<LOW>(codes, quad);
                    if HIGH > 0 {
                        let high = plane::<HIGH>(codes.add(LOW * 64), quad);
                        let high = _mm512_sll_epi16(high, _mm_cvtsi32_si128(LOW as i32));
                        _mm512_or_si512(low, high)
                    } else {
                        low
                    }
                };
                _mm512_sub_epi8(codes, zero)
            });
            lines.extend_from_slice(&unpacked);
        }
    }
}

/// Panel `p` for the 16 tokens whose codes and scales are in `scratch`.
///
/// # Safety
/// As [`crate::matmul::ManyTokens`]; `weights` must be the tiles of the panel, `out` the first of the
/// outputs.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn panel<U: Unit, const MINIMUM: bool>(
    unit: &mut U,
    block: &Block,
    p: usize,
    weights: *const u8,
    scratch: &mut Scratch,
    out: *mut f32,
    stride: usize,
) {
    let parts = block.groups * block.parts;
    let x = scratch.x.as_ptr();
    let pair = |part: usize| {
        let part = part.min(parts - 1);
        Pair {
            x: x.wrapping_add(part).cast(),
            weights: weights.wrapping_add(part * LINES * 64),
        }
    };
    // They are seldom in the cache when they are written, and would hold up what follows.
    for n in 0..TOKENS {
        prefetch_write(out.wrapping_add(n * stride).cast());
    }
    let mut acc = [_mm512_setzero_ps(); TOKENS];
    // SAFETY: part by part within the panel and the 16 tokens, which have as many columns; those
    // beyond the last are the last again, and of no use.
    unsafe {
        unit.begin([pair(0), pair(1), pair(2)]);
        let panel = block.panel(p);
        let mut part = 0;
        for group in 0..block.groups {
            let scale = halves(panel, group);
            for _ in 0..block.parts {
                let ahead = pair(part + 3);
                let sums = &mut scratch.sums;
                match part % 4 {
                    0 => unit.step::<0>(ahead, sums),
                    1 => unit.step::<1>(ahead, sums),
                    2 => unit.step::<2>(ahead, sums),
                    _ => unit.step::<3>(ahead, sums),
                }
                let x = scratch.scales.as_ptr().add(part).cast::<f32>();
                for (n, acc) in acc.iter_mut().enumerate() {
                    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(*x.add(n)));
                    let sum = _mm512_load_si512(scratch.sums.0[n].as_ptr().cast());
                    *acc = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sum), *acc);
                }
                if MINIMUM {
                    let minimum = halves(panel.add(block.minimums), group);
                    let x = scratch.products.as_ptr().add(part).cast::<f32>();
                    for (n, acc) in acc.iter_mut().enumerate() {
                        *acc = _mm512_fmadd_ps(minimum, _mm512_set1_ps(*x.add(n)), *acc);
                    }
                }
                part += 1;
            }
        }
        for (n, acc) in acc.into_iter().enumerate() {
            _mm512_storeu_ps(out.add(n * stride), acc);
        }
    }
}
