//! Matmul: how a product is cut into tasks, and what an ISA's kernels are given.
//!
//! One definition of the arithmetic serves every ISA. For a row of weights and a row of input, over
//! groups of 32 columns `g` in order, starting from `acc = 0`:
//! - `q4` symmetric: `acc = fma(scale_w · scale_x, Σ (code_w - 8) · code_x, acc)`
//! - `q3`, `q5`, `q6`: the same with 4, 16, 32 in place of the 8;
//! - `q8`: the same without the 8;
//! - `q4` with minimum: `acc = fma(scale_w · scale_x, Σ code_w · code_x, acc)`, then
//!   `acc = fma(minimum_w, scale_x · Σ code_x, acc)`.
//! - `f16`, `f32`: four partial sums, of the columns with `k % 4` = 0, 1, 2, 3, each in order with
//!   fused multiply-add, then `(p0 + p1) + (p2 + p3)`.
//!
//! The bias comes last. The integer sums are exact, so their order is free. A kernel sees whole
//! panels only; the rows that pad the last panel never reach the output.

mod block;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use block::{Block, ManyTokens, Micro};
#[cfg(target_arch = "x86_64")]
pub(crate) use table::ManyKernels;
pub(crate) use table::{MatmulKernels, Tiles, kernels};

use crate::activations::{ACTIVATION_GROUP, QuantizedRows};
use crate::engine::{MatmulInput, MatmulJob};
use crate::packing::{Layout, PANEL, PackedMatrix};
use crate::pool::ThreadPool;
use std::ops::Range;

/// Input bytes that should stay in a core's L2 cache while panels of weights pass by.
const INPUT_BLOCK_BYTES: usize = 384 * 1024;

/// So many tokens are worth a pass over the weights of their own: each thread then keeps to its tokens
/// from one operation to the next, and what it reads is what it has written.
const OWN_TOKENS: usize = 48;

/// So few tokens are bound by reading weights: a task takes as many panels as for one token.
const FEW_TOKENS: usize = 2;

/// The most panels that one task takes when more tokens pass by them; on ARM, they share what it takes
/// to arrange the tokens for them.
const GEMM_PANELS: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };

/// Tasks per thread in GEMV: enough for the others to take over from a slow core.
const TASKS_PER_THREAD: usize = 8;

/// One product of a matmul, with its output as a raw pointer that tasks share.
struct Product<'a> {
    weights: PackedMatrix<'a>,
    kernels: &'static MatmulKernels,
    bias: Option<&'a [f32]>,
    out: *mut f32,
    /// Index of its first panel among those of all products.
    first_panel: usize,
}

// SAFETY: tasks write disjoint (panel, token) parts of `out`, which outlives the parallel pass.
unsafe impl Sync for Product<'_> {}

/// Computes every job, spread over the pool.
pub(crate) fn matmul(
    kernels: &'static MatmulKernels,
    pool: &ThreadPool,
    input: MatmulInput,
    jobs: &mut [MatmulJob],
) {
    let tokens = input.rows.len() / input.cols;
    assert_eq!(
        tokens * input.cols,
        input.rows.len(),
        "matmul input is not whole rows"
    );
    let mut panels = 0;
    let mut products = Vec::with_capacity(jobs.len());
    for job in jobs.iter_mut() {
        let layout = job.weights.layout();
        assert_eq!(layout.cols(), input.cols, "matmul input against weights");
        assert_eq!(
            job.out.len(),
            tokens * layout.rows(),
            "matmul output against weights"
        );
        assert!(
            job.bias.is_none_or(|bias| bias.len() == layout.rows()),
            "bias against weights"
        );
        if layout.kind().is_quantized() {
            check_quantized(input.quantized, tokens, layout);
        }
        products.push(Product {
            weights: job.weights,
            kernels,
            bias: job.bias,
            out: job.out.as_mut_ptr(),
            first_panel: panels,
        });
        panels += layout.panels();
    }
    if tokens == 0 || panels == 0 {
        return;
    }
    let block = (INPUT_BLOCK_BYTES / input.cols)
        .min(tokens.div_ceil(pool.threads()).max(OWN_TOKENS))
        .clamp(1, tokens);
    let blocks = tokens.div_ceil(block);
    let step = if tokens <= FEW_TOKENS {
        panels.div_ceil(pool.threads() * TASKS_PER_THREAD)
    } else {
        // Two tasks for each thread, even if there are few panels.
        let many = kernels.many.as_ref().filter(|many| block >= many.least);
        let most = many.map_or(GEMM_PANELS, |many| many.panels);
        most.min(panels.div_ceil(2 * pool.threads()))
    };
    let chunks = panels.div_ceil(step);
    pool.run(blocks * chunks, &|task| {
        let first = task / chunks * block;
        let rows = first..tokens.min(first + block);
        let first = task % chunks * step;
        run_task(&products, input, rows, first..panels.min(first + step));
    });
}

fn check_quantized(quantized: Option<&QuantizedRows>, tokens: usize, layout: &Layout) {
    let quantized = quantized.expect("quantized weights need quantized activations");
    assert_eq!(
        quantized.rows, tokens,
        "quantized activations against matmul input"
    );
    assert!(
        quantized.stride >= layout.padded_cols(),
        "quantized activations are too narrow"
    );
    assert_eq!(quantized.codes.len(), quantized.rows * quantized.stride);
    assert_eq!(
        quantized.scales.len() * ACTIVATION_GROUP,
        quantized.codes.len()
    );
    assert_eq!(quantized.sums.len(), quantized.scales.len());
}

/// Computes the `panels` (counted over all products) for the tokens in `rows`.
fn run_task(products: &[Product], input: MatmulInput, rows: Range<usize>, panels: Range<usize>) {
    for product in products {
        let end = product.first_panel + product.weights.layout().panels();
        let from = panels.start.max(product.first_panel);
        let to = panels.end.min(end);
        if from < to {
            let own = from - product.first_panel..to - product.first_panel;
            run_panels(product, input, rows.clone(), own);
        }
    }
}

/// Computes `panels` of one product for the tokens in `rows`, all at once or in tiles of tokens.
fn run_panels(product: &Product, input: MatmulInput, rows: Range<usize>, panels: Range<usize>) {
    let kind = product.weights.layout().kind();
    let whole = product.weights.layout().rows() / PANEL;
    let full = panels.start..panels.end.min(whole);
    // Checked once for all tiles.
    let blocks = Blocks {
        full: (!full.is_empty())
            .then(|| Block::new(&product.weights, full.clone(), input, rows.clone())),
        last: (panels.end > whole)
            .then(|| Block::new(&product.weights, whole..whole + 1, input, rows.clone())),
        panels: full,
        first: rows.start,
    };
    if let Some(kernel) = product.kernels.many(kind, rows.len()) {
        let tokens = rows.len();
        // SAFETY: as `run_tile` promises.
        let kernel = |block: &Block, out, stride| unsafe { kernel(block, tokens, out, stride) };
        run_tile(product, &blocks, rows, true, kernel);
        return;
    }
    let kernels = product.kernels.tiles(kind).by_tokens;
    let widest = kernels.len();
    let tiles = rows.len().div_ceil(widest);
    for tile in 0..tiles {
        let from = rows.start + cut(rows.len(), tiles, widest, tile);
        let to = rows.start + cut(rows.len(), tiles, widest, tile + 1);
        let kernel = kernels[to - from - 1];
        // SAFETY: as `run_tile` promises.
        let kernel = |block: &Block, out, stride| unsafe { kernel(block, out, stride) };
        run_tile(product, &blocks, from..to, tile == 0, kernel);
    }
}

/// The panels of a product that one task computes, for all its tokens.
struct Blocks {
    /// Those whose 16 rows are all there.
    full: Option<Block>,
    panels: Range<usize>,
    /// The last one of a matrix, where some of its rows are padding.
    last: Option<Block>,
    /// The first token.
    first: usize,
}

/// Computes the panels for the tokens in `rows` by a kernel for so many tokens, which is given a block
/// of the product's kind, and outputs that it may write. `streams` as in [`Block`].
fn run_tile(
    product: &Product,
    blocks: &Blocks,
    rows: Range<usize>,
    streams: bool,
    kernel: impl Fn(&Block, *mut f32, usize),
) {
    let outputs = product.weights.layout().rows();
    let ahead = rows.start - blocks.first;
    if let Some(block) = &blocks.full {
        let panels = &blocks.panels;
        // SAFETY: the block has these tokens. `out` has `outputs` floats for each; full panels end
        // within them, and no other task has these panels for these tokens. The kernel's ISA is
        // available, as `Engine::new` checks.
        let (block, out) = unsafe {
            let out = product.out.add(rows.start * outputs + panels.start * PANEL);
            (block.skip_tokens(ahead, streams), out)
        };
        kernel(&block, out, outputs);
        if let Some(bias) = product.bias {
            let columns = panels.start * PANEL..panels.end * PANEL;
            for token in rows.clone() {
                // SAFETY: what the kernel has just written.
                let out = unsafe {
                    let out = product.out.add(token * outputs + columns.start);
                    std::slice::from_raw_parts_mut(out, columns.len())
                };
                add(out, &bias[columns.clone()]);
            }
        }
    }
    if let Some(block) = &blocks.last {
        // SAFETY: the block has these tokens.
        let block = unsafe { block.skip_tokens(ahead, false) };
        let mut padded = vec![0.0; rows.len() * PANEL];
        kernel(&block, padded.as_mut_ptr(), PANEL);
        let whole = outputs / PANEL * PANEL;
        let rest = outputs - whole;
        for (token, row) in rows.zip(padded.chunks_exact_mut(PANEL)) {
            if let Some(bias) = product.bias {
                add(&mut row[..rest], &bias[whole..]);
            }
            // SAFETY: the last `rest` outputs of this token, which no other task has.
            unsafe {
                let out = product.out.add(token * outputs + whole);
                std::ptr::copy_nonoverlapping(row.as_ptr(), out, rest);
            }
        }
    }
}

/// Where tile `index` of `tiles` begins among `tokens`, no tile having more than `widest`. As even as
/// can be, but in pairs where the widest tile is of pairs: some kernels take two tokens at once.
fn cut(tokens: usize, tiles: usize, widest: usize, index: usize) -> usize {
    let at = tokens * index / tiles;
    if widest.is_multiple_of(2) {
        at.next_multiple_of(2).min(tokens)
    } else {
        at
    }
}

/// `x += y`, while `x` is still in L1.
fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
