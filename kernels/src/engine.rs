//! An instruction set and a thread pool, with the safe operations that a model is made of.

use crate::activations::QuantizedRows;
use crate::isa::Isa;
use crate::kv::KvLayer;
use crate::matmul::{self, MatmulKernels};
use crate::packing::PackedMatrix;
use crate::pool::ThreadPool;

/// Runs operations with the kernels of one instruction set on one thread pool.
///
/// Matrices of floats are row-major slices, `[row][column]`; a row is a token unless said
/// otherwise. Lengths that do not fit together panic: they are bugs of the caller, never of a file.
pub struct Engine {
    isa: Isa,
    matmul: &'static MatmulKernels,
    pool: ThreadPool,
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

/// One product `out = input · weightsᵀ` of a matmul.
pub struct MatmulJob<'a> {
    /// `[output][cols]`
    pub weights: PackedMatrix<'a>,
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
            pool,
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
        todo!()
    }

    /// Multiplies one input with several matrices in one parallel pass.
    pub fn matmul(&self, input: MatmulInput, jobs: &mut [MatmulJob]) {
        matmul::matmul(self.matmul, &self.pool, input, jobs);
    }

    /// RMSNorm of each row of `weight.len()` floats (Zhang and Sennrich 2019):
    /// `x / sqrt(mean(x²) + eps) · weight`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        todo!()
    }

    /// [`Engine::rms_norm`] in place.
    pub fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], eps: f32) {
        todo!()
    }

    /// LayerNorm of each row of `weight.len()` floats (Ba et al. 2016).
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        todo!()
    }

    /// Rotary position embedding (Su et al. 2021), halves layout as in `transformers`, in place on
    /// rows of `heads · head_dim` floats. `cos` and `sin` are `[row][rotary / 2]`; dimensions of a
    /// head beyond `rotary` stay.
    pub fn rope(&self, x: &mut [f32], heads: usize, head_dim: usize, cos: &[f32], sin: &[f32]) {
        todo!()
    }

    /// `x = activation(x)`
    pub fn activate(&self, activation: Activation, x: &mut [f32]) {
        todo!()
    }

    /// `gate = activation(gate) · up`
    pub fn activate_gated(&self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        todo!()
    }

    /// `x += y`
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        todo!()
    }

    /// Adds `bias` to each row of `bias.len()` floats.
    pub fn add_bias(&self, x: &mut [f32], bias: &[f32]) {
        todo!()
    }

    /// `x = cap · tanh(x / cap)`
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        todo!()
    }

    /// Softmax in place of each row of `cols` floats.
    pub fn softmax(&self, x: &mut [f32], cols: usize) {
        todo!()
    }

    /// Stores keys and values (`[row][kv_heads · head_dim]`) at positions `start..`.
    pub fn kv_append(&self, cache: &mut KvLayer, start: usize, keys: &[f32], values: &[f32]) {
        todo!()
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
        todo!()
    }
}
