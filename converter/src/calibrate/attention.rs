//! Causal attention over whole windows, forward and backward, with dense matrices.
//!
//! The runtime streams keys and values through an online softmax; here a window's probabilities are
//! at hand, because the gradient needs them.

use super::dense::{view, view_mut};
use kinglet_kernels::AttentionShape;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// Queries (`[token][heads · head_dim]`), keys and values (`[token][kv_heads · head_dim]`) of
/// consecutive windows.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
}

/// The columns of one head in rows of `width` floats.
fn head(rows: &[f32], index: usize, head_dim: usize, width: usize) -> ArrayView2<'_, f32> {
    let columns = s![.., index * head_dim..(index + 1) * head_dim];
    view(rows, width).slice_move(columns)
}

fn head_mut(
    rows: &mut [f32],
    index: usize,
    head_dim: usize,
    width: usize,
) -> ArrayViewMut2<'_, f32> {
    let columns = s![.., index * head_dim..(index + 1) * head_dim];
    view_mut(rows, width).slice_move(columns)
}

/// Attention of each window of `window` tokens: `[token][heads · head_dim]`.
pub fn forward(shape: &AttentionShape, window: usize, heads: Heads) -> Vec<f32> {
    let (queries, keys) = widths(shape);
    let mut out = vec![0.0; heads.q.len()];
    out.par_chunks_mut(window * queries)
        .enumerate()
        .for_each(|(index, out)| {
            let heads = slice(heads, index, window, queries, keys);
            let mut probabilities = vec![0.0; window * window];
            for h in 0..shape.heads {
                let kv = h / (shape.heads / shape.kv_heads);
                probabilities_of(shape, heads, h, kv, &mut probabilities);
                let p = view(&probabilities, window);
                let v = head(heads.v, kv, shape.head_dim, keys);
                let mut out = head_mut(out, h, shape.head_dim, queries);
                general_mat_mul(1.0, &p, &v, 0.0, &mut out);
            }
        });
    out
}

/// Gradients of queries, keys and values from that of the output.
pub fn backward(
    shape: &AttentionShape,
    window: usize,
    heads: Heads,
    gradient: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (queries, keys) = widths(shape);
    let mut dq = vec![0.0; heads.q.len()];
    let mut dk = vec![0.0; heads.k.len()];
    let mut dv = vec![0.0; heads.v.len()];
    dq.par_chunks_mut(window * queries)
        .zip(dk.par_chunks_mut(window * keys))
        .zip(dv.par_chunks_mut(window * keys))
        .zip(gradient.par_chunks(window * queries))
        .enumerate()
        .for_each(|(index, (((dq, dk), dv), gradient))| {
            let heads = slice(heads, index, window, queries, keys);
            for h in 0..shape.heads {
                backward_head(shape, window, heads, h, gradient, (dq, dk, dv));
            }
        });
    (dq, dk, dv)
}

fn widths(shape: &AttentionShape) -> (usize, usize) {
    (
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    )
}

fn slice(heads: Heads<'_>, index: usize, window: usize, queries: usize, keys: usize) -> Heads<'_> {
    let queries = index * window * queries..(index + 1) * window * queries;
    let keys = index * window * keys..(index + 1) * window * keys;
    Heads {
        q: &heads.q[queries],
        k: &heads.k[keys.clone()],
        v: &heads.v[keys],
    }
}

/// Softmax of the masked scores of query head `h` on key head `kv`, `[query][key]`. Returns with the
/// probabilities nothing else: a soft cap's own derivative is found from the scores again.
fn probabilities_of(shape: &AttentionShape, heads: Heads, h: usize, kv: usize, out: &mut [f32]) {
    scores(shape, heads, h, kv, out);
    let window = out.len().isqrt();
    for (query, row) in out.chunks_exact_mut(window).enumerate() {
        let from = first_key(shape, query);
        let seen = &mut row[from..=query];
        let largest = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        seen.iter_mut().for_each(|x| *x = (*x - largest).exp());
        let total: f32 = seen.iter().sum();
        seen.iter_mut().for_each(|x| *x /= total);
        row[..from].fill(0.0);
        row[query + 1..].fill(0.0);
    }
}

/// Scores before the mask, soft-capped.
fn scores(shape: &AttentionShape, heads: Heads, h: usize, kv: usize, out: &mut [f32]) {
    let (queries, keys) = widths(shape);
    let window = out.len().isqrt();
    let q = head(heads.q, h, shape.head_dim, queries);
    let k = head(heads.k, kv, shape.head_dim, keys);
    general_mat_mul(shape.scale, &q, &k.t(), 0.0, &mut view_mut(out, window));
    if let Some(cap) = shape.softcap {
        out.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
}

fn first_key(shape: &AttentionShape, query: usize) -> usize {
    shape
        .window
        .map_or(0, |window| (query + 1).saturating_sub(window))
}

/// Adds the gradients of one query head.
fn backward_head(
    shape: &AttentionShape,
    window: usize,
    heads: Heads,
    h: usize,
    gradient: &[f32],
    (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
) {
    let (queries, keys) = widths(shape);
    let (dim, kv) = (shape.head_dim, h / (shape.heads / shape.kv_heads));
    let mut p = vec![0.0; window * window];
    probabilities_of(shape, heads, h, kv, &mut p);
    let gradient = head(gradient, h, dim, queries);
    let mut dv = head_mut(dv, kv, dim, keys);
    general_mat_mul(1.0, &view(&p, window).t(), &gradient, 1.0, &mut dv);
    let mut ds = vec![0.0; window * window];
    let v = head(heads.v, kv, dim, keys);
    general_mat_mul(1.0, &gradient, &v.t(), 0.0, &mut view_mut(&mut ds, window));
    for (ds, p) in ds.chunks_exact_mut(window).zip(p.chunks_exact(window)) {
        let mean: f32 = ds.iter().zip(p).map(|(ds, p)| ds * p).sum();
        ds.iter_mut()
            .zip(p)
            .for_each(|(ds, p)| *ds = p * (*ds - mean));
    }
    if let Some(cap) = shape.softcap {
        // The probabilities are no longer needed: their place takes the scores.
        scores(shape, heads, h, kv, &mut p);
        for (ds, score) in ds.iter_mut().zip(&p) {
            *ds *= 1.0 - (score / cap) * (score / cap);
        }
    }
    let ds = view(&ds, window);
    let (q, k) = (head(heads.q, h, dim, queries), head(heads.k, kv, dim, keys));
    general_mat_mul(
        shape.scale,
        &ds,
        &k,
        1.0,
        &mut head_mut(dq, h, dim, queries),
    );
    general_mat_mul(
        shape.scale,
        &ds.t(),
        &q,
        1.0,
        &mut head_mut(dk, kv, dim, keys),
    );
}
