//! An instruction set and a thread pool, with the safe operations that a model is made of.

use crate::activations::{ACTIVATION_GROUP, QuantizedRows};
use crate::attention::{self, HeadCaches};
use crate::generic::{self, Ops};
use crate::isa::Isa;
use crate::kv::{CHUNK, HeadChunk, KvLayer};
use crate::matmul::{self, MatmulKernels};
use crate::packing::PackedMatrix;
use crate::pool::ThreadPool;
use std::sync::Arc;

/// Runs operations with the kernels of one instruction set on one thread pool.
///
/// Matrices of floats are row-major slices, `[row][column]`; a row is a token unless said
/// otherwise. Lengths that do not fit together panic: they are bugs of the caller, never of a file.
/// Clones share the threads.
#[derive(Clone)]
pub struct Engine {
    isa: Isa,
    matmul: &'static MatmulKernels,
    ops: &'static Ops,
    pool: Arc<ThreadPool>,
}

/// The input of a matmul: `rows` of `cols` floats, and the same quantized when any weight needs it.
#[derive(Clone, Copy)]
pub struct MatmulInput<'a> {
    /// `[row][cols]`
    pub rows: &'a [f32],
    /// Columns (K).
    pub cols: usize,
    /// What [`Engine::quantize`] made of `rows`; needed if any weight is quantized.
    pub quantized: Option<&'a QuantizedRows>,
}

/// One product `out = input · weightsᵀ + bias` of a matmul.
pub struct MatmulJob<'a> {
    /// `[output][cols]`
    pub weights: PackedMatrix<'a>,
    /// Added to each row of the output.
    pub bias: Option<&'a [f32]>,
    /// `[row][weights.rows]`
    pub out: &'a mut [f32],
}

/// The nonlinearity of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`
    Silu,
    /// GELU with the error function.
    Gelu,
    /// GELU with the tanh approximation.
    GeluTanh,
}

/// What attention needs beside queries and cache.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Floats per head.
    pub head_dim: usize,
    /// Factor on the scores, typically `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Each query sees itself and this many positions less one before it; `None`: all.
    pub window: Option<usize>,
    /// `score = cap · tanh(score / cap)`
    pub softcap: Option<f32>,
}

impl AttentionShape {
    /// # Panics
    /// If heads do not share keys evenly.
    pub(crate) fn check(&self) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "query heads against key heads"
        );
    }
}

impl Engine {
    /// An engine with the kernels of `isa`.
    ///
    /// # Panics
    /// If this CPU lacks `isa`.
    pub fn new(isa: Isa, pool: ThreadPool) -> Engine {
        assert!(isa.is_available(), "{isa} is not available on this CPU");
        Engine {
            isa,
            matmul: matmul::kernels(isa),
            ops: generic::ops(isa),
            pool: Arc::new(pool),
        }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The thread pool.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// Quantizes rows of `cols` floats for [`Engine::matmul`].
    pub fn quantize(&self, rows: &[f32], cols: usize, out: &mut QuantizedRows) {
        assert!(rows.len().is_multiple_of(cols), "rows of {cols} floats");
        out.reshape(rows.len() / cols, cols);
        let stride = out.stride;
        let groups = stride / ACTIVATION_GROUP;
        let quantize = |row: &[f32], (codes, scales, sums): QuantizedRow| {
            // SAFETY: the table is that of an available ISA.
            unsafe { (self.ops.quantize_row)(row, codes, scales, sums) }
        };
        let targets = out
            .codes
            .chunks_exact_mut(stride)
            .zip(out.scales.chunks_exact_mut(groups))
            .zip(out.sums.chunks_exact_mut(groups));
        let targets = targets.map(|((codes, scales), sums)| (codes, scales, sums));
        if rows.len() < PARALLEL {
            for (row, target) in rows.chunks_exact(cols).zip(targets) {
                quantize(row, target);
            }
            return;
        }
        let mut targets: Vec<Option<QuantizedRow>> = targets.map(Some).collect();
        self.pool.for_each_chunk(&mut targets, 1, |index, target| {
            let row = &rows[index * cols..][..cols];
            quantize(row, target[0].take().expect("each row is taken once"));
        });
    }

    /// Multiplies one input with several matrices in one parallel pass.
    pub fn matmul(&self, input: MatmulInput, jobs: &mut [MatmulJob]) {
        matmul::matmul(self.matmul, &self.pool, input, jobs);
    }

    /// RMSNorm of each row of `weight.len()` floats (Zhang and Sennrich 2019):
    /// `x / sqrt(mean(x²) + eps) · weight`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "norm of another length");
        let width = weight.len();
        self.for_each_row(out, width, |index, row| {
            row.copy_from_slice(&x[index * width..][..width]);
            // SAFETY: the table is that of an available ISA.
            unsafe { (self.ops.rms_norm)(row, weight, eps) };
        });
    }

    /// [`Engine::rms_norm`] in place.
    pub fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], eps: f32) {
        // SAFETY: the table is that of an available ISA.
        self.for_each_row(x, weight.len(), |_, row| unsafe {
            (self.ops.rms_norm)(row, weight, eps)
        });
    }

    /// LayerNorm of each row of `weight.len()` floats (Ba et al. 2016).
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "norm of another length");
        let width = weight.len();
        self.for_each_row(out, width, |index, row| {
            row.copy_from_slice(&x[index * width..][..width]);
            // SAFETY: the table is that of an available ISA.
            unsafe { (self.ops.layer_norm)(row, weight, bias, eps) };
        });
    }

    /// [`Engine::layer_norm`] in place.
    pub fn layer_norm_in_place(&self, x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
        // SAFETY: the table is that of an available ISA.
        self.for_each_row(x, weight.len(), |_, row| unsafe {
            (self.ops.layer_norm)(row, weight, bias, eps)
        });
    }

    /// `x = layer_norm(x + y)` in one pass, see [`Engine::layer_norm`].
    pub fn add_layer_norm(&self, x: &mut [f32], y: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
        assert_eq!(x.len(), y.len(), "sum of unequal lengths");
        let width = weight.len();
        self.for_each_row(x, width, |index, row| {
            let y = &y[index * width..][..width];
            // SAFETY: the table is that of an available ISA.
            unsafe {
                (self.ops.add)(row, y);
                (self.ops.layer_norm)(row, weight, bias, eps);
            }
        });
    }

    /// Rotary position embedding (Su et al. 2021), halves layout as in `transformers`, in place on
    /// rows of `heads · head_dim` floats. `cos` and `sin` are `[row][rotary / 2]`; dimensions of a
    /// head beyond `rotary` stay.
    pub fn rope(&self, x: &mut [f32], heads: usize, head_dim: usize, cos: &[f32], sin: &[f32]) {
        let rows = x.len() / (heads * head_dim);
        let half = cos.len() / rows.max(1);
        assert!(cos.len() == rows * half && sin.len() == cos.len() && 2 * half <= head_dim);
        self.for_each_row(x, heads * head_dim, |row, x| {
            let (cos, sin) = (&cos[row * half..][..half], &sin[row * half..][..half]);
            for head in x.chunks_exact_mut(head_dim) {
                // SAFETY: the table is that of an available ISA.
                unsafe { (self.ops.rope)(head, cos, sin) };
            }
        });
    }

    /// `x = activation(x)`
    pub fn activate(&self, activation: Activation, x: &mut [f32]) {
        // SAFETY: the table is that of an available ISA.
        self.for_each_row(x, ELEMENTS, |_, x| unsafe {
            (self.ops.activate)(activation, x)
        });
    }

    /// `gate = activation(gate) · up`
    pub fn activate_gated(&self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate against up");
        self.for_each_row(gate, ELEMENTS, |index, gate| {
            let up = &up[index * ELEMENTS..][..gate.len()];
            // SAFETY: the table is that of an available ISA.
            unsafe { (self.ops.activate_gated)(activation, gate, up) };
        });
    }

    /// `x += y`
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "sum of unequal lengths");
        self.for_each_row(x, ELEMENTS, |index, x| {
            let y = &y[index * ELEMENTS..][..x.len()];
            // SAFETY: the table is that of an available ISA.
            unsafe { (self.ops.add)(x, y) };
        });
    }

    /// `x = cap · tanh(x / cap)`
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        // SAFETY: the table is that of an available ISA.
        self.for_each_row(x, ELEMENTS, |_, x| unsafe { (self.ops.softcap)(x, cap) });
    }

    /// Softmax in place of each row of `cols` floats.
    pub fn softmax(&self, x: &mut [f32], cols: usize) {
        // SAFETY: the table is that of an available ISA.
        self.for_each_row(x, cols, |_, row| unsafe { (self.ops.softmax)(row) });
    }

    /// Stores keys and values (`[row][kv_heads · head_dim]`) at positions `start..`, on all threads if it
    /// pays.
    pub fn kv_append(&self, cache: &mut KvLayer, start: usize, keys: &[f32], values: &[f32]) {
        let (heads, head_dim) = (cache.kv_heads, cache.head_dim);
        let rows = keys.len() / (heads * head_dim);
        assert!(keys.len() == rows * heads * head_dim && values.len() == keys.len());
        assert!(cache.has_room(start, rows), "positions beyond the cache");
        self.check_writer(cache);
        cache.written_by = Some(self.isa);
        let end = start + rows;
        let first = start / CHUNK;
        let each = end.div_ceil(CHUNK) - first;
        let mut chunks = cache.chunks_mut(first..first + each);
        let store = |index: usize, chunk: &mut HeadChunk| {
            let (head, from) = (index / each, (first + index % each) * CHUNK);
            for position in start.max(from)..end.min(from + CHUNK) {
                let at = ((position - start) * heads + head) * head_dim;
                let (key, value) = (&keys[at..][..head_dim], &values[at..][..head_dim]);
                // SAFETY: the table is that of an available ISA.
                unsafe { (self.ops.kv_store)(chunk, position - from, key, value) };
            }
        };
        self.for_each_chunk(keys.len(), &mut chunks, 1, |index, chunk| {
            store(index, &mut chunk[0]);
        });
    }

    /// # Panics
    /// If another instruction set has written to the cache.
    fn check_writer(&self, cache: &KvLayer) {
        let writer = cache.written_by.unwrap_or(self.isa);
        assert_eq!(
            writer, self.isa,
            "instruction sets that write and read a KV cache"
        );
    }

    /// Causal attention with an online softmax over the cache: queries and `out` are
    /// `[row][heads · head_dim]`, row `i` at position `start + i`, whose key and value are stored.
    pub fn attention(
        &self,
        shape: &AttentionShape,
        queries: &[f32],
        start: usize,
        cache: &KvLayer,
        out: &mut [f32],
    ) {
        self.check_writer(cache);
        attention::attention(self.ops, &self.pool, shape, queries, start, cache, out);
    }

    /// Attention inside whole sequences: every row sees all rows of its own sequence, and no
    /// others. The sequences follow each other, `lengths` rows each; queries and `out` are
    /// `[row][heads · head_dim]`, keys and values `[row][kv_heads · head_dim]`. A sequence gives the
    /// same bits alone or among others.
    #[allow(clippy::too_many_arguments)]
    pub fn attention_within(
        &self,
        shape: &AttentionShape,
        lengths: &[usize],
        queries: &[f32],
        keys: &[f32],
        values: &[f32],
        caches: &HeadCaches,
        out: &mut [f32],
    ) {
        let rows = attention::Rows {
            queries,
            keys,
            values,
        };
        attention::attention_within(self.ops, &self.pool, shape, lengths, rows, caches, out);
    }

    /// Calls `task(row, floats)` for each row of `cols` floats, on all threads if it pays.
    fn for_each_row(&self, x: &mut [f32], cols: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
        self.for_each_chunk(x.len(), x, cols, task);
    }

    /// [`ThreadPool::for_each_chunk`] for work on so many `floats`, on this thread alone if they are few.
    fn for_each_chunk<T: Send>(
        &self,
        floats: usize,
        data: &mut [T],
        len: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        if floats < PARALLEL {
            let chunks = data.chunks_mut(len).enumerate();
            chunks.for_each(|(index, chunk)| task(index, chunk));
        } else {
            self.pool.for_each_chunk(data, len, task);
        }
    }
}

/// Codes, scales and sums of one row.
type QuantizedRow<'a> = (&'a mut [i8], &'a mut [f32], &'a mut [i32]);

/// Floats from which on an elementwise operation is worth handing to other threads: some ten
/// microseconds of work, several times what waking them costs.
const PARALLEL: usize = 1 << 15;

/// Floats that an operation without rows takes at once.
const ELEMENTS: usize = 1 << 11;
