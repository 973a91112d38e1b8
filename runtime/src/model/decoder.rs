//! The forward pass of a decoder, from tokens to hidden states to logits.

use super::linear::forward;
use super::rope::RopeTable;
use super::{Layer, Model};
use crate::config::{self, LayerConfig, ModelConfig};
use kinglet_kernels::activations::QuantizedRows;
use kinglet_kernels::kv::{KvKind, KvLayer};
use kinglet_kernels::{Activation, AttentionShape};

/// The state of one sequence: caches, and the memory that a forward pass works in.
pub(crate) struct Decoder {
    caches: Vec<KvLayer>,
    ropes: Vec<RopeTable>,
    scratch: Scratch,
}

/// Memory for as many rows as go through the layers together; nothing is allocated per token.
struct Scratch {
    /// The residual stream.
    x: Vec<f32>,
    /// Its norm, then the output of attention or feed-forward.
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    quantized: QuantizedRows,
}

impl Decoder {
    /// A decoder for a context of `positions`, taking up to `batch` tokens at a time.
    pub fn new(config: &ModelConfig, kv: KvKind, positions: usize, batch: usize) -> Decoder {
        let cache = |_| KvLayer::new(kv, config.kv_heads, config.head_dim, positions);
        let rows = |width: usize| vec![0.0; batch * width];
        let keys = config.kv_heads * config.head_dim;
        let queries = config.heads * config.head_dim;
        Decoder {
            caches: (0..config.layers.len()).map(cache).collect(),
            ropes: config
                .ropes
                .iter()
                .map(|rope| RopeTable::new(rope, positions))
                .collect(),
            scratch: Scratch {
                x: rows(config.hidden_size),
                normed: rows(config.hidden_size),
                q: rows(queries),
                k: rows(keys),
                v: rows(keys),
                attended: rows(queries),
                gate: rows(config.intermediate_size),
                up: rows(config.intermediate_size),
                quantized: QuantizedRows::default(),
            },
        }
    }

    /// Runs `tokens` at positions `start..` and returns their hidden states after the final norm,
    /// `[token][hidden_size]`.
    pub fn forward(&mut self, model: &Model, tokens: &[u32], start: usize) -> &[f32] {
        let config = model.config();
        let hidden = config.hidden_size;
        let x = &mut self.scratch.x[..tokens.len() * hidden];
        for (x, &token) in x.chunks_exact_mut(hidden).zip(tokens) {
            model.embed.row(&model.file, token as usize, x);
            if config.embedding_scale != 1.0 {
                x.iter_mut().for_each(|x| *x *= config.embedding_scale);
            }
        }
        let layers = model.layers.iter().zip(&config.layers);
        for ((weights, layer), cache) in layers.zip(&mut self.caches) {
            let rope = &self.ropes[layer.rope];
            self.scratch
                .attention(model, weights, layer, rope, cache, tokens.len(), start);
            self.scratch.feed_forward(model, weights, tokens.len());
        }
        let x = &self.scratch.x[..tokens.len() * hidden];
        let normed = &mut self.scratch.normed[..tokens.len() * hidden];
        model
            .engine
            .rms_norm(x, &model.norm, config.norm_eps, normed);
        normed
    }

    /// Logits of hidden states as [`Decoder::forward`] returns them, `[row][vocab_size]`.
    pub fn logits(&mut self, model: &Model, hidden: &[f32], out: &mut [f32]) {
        let head = (model.head(), &mut *out);
        forward(
            &model.engine,
            &model.file,
            hidden,
            &mut self.scratch.quantized,
            [head],
        );
        if let Some(cap) = model.config().logit_softcap {
            model.engine.softcap(out, cap);
        }
    }
}

impl Scratch {
    /// `x += attention(norm(x))`
    #[allow(clippy::too_many_arguments)]
    fn attention(
        &mut self,
        model: &Model,
        weights: &Layer,
        layer: &LayerConfig,
        rope: &RopeTable,
        cache: &mut KvLayer,
        rows: usize,
        start: usize,
    ) {
        let (engine, file, config) = (&model.engine, &model.file, model.config());
        let eps = config.norm_eps;
        let x = &mut self.x[..rows * config.hidden_size];
        let normed = &mut self.normed[..rows * config.hidden_size];
        let q = &mut self.q[..rows * weights.q.outputs()];
        let k = &mut self.k[..rows * weights.k.outputs()];
        let v = &mut self.v[..rows * weights.v.outputs()];
        let attended = &mut self.attended[..q.len()];

        engine.rms_norm(x, &weights.attn_norm, eps, normed);
        let projections = [
            (&weights.q, &mut *q),
            (&weights.k, &mut *k),
            (&weights.v, &mut *v),
        ];
        forward(engine, file, normed, &mut self.quantized, projections);
        if let Some((q_norm, k_norm)) = &weights.qk_norms {
            engine.rms_norm_in_place(q, q_norm, eps);
            engine.rms_norm_in_place(k, k_norm, eps);
        }
        let (cos, sin) = rope.rows(start, rows);
        engine.rope(q, config.heads, config.head_dim, cos, sin);
        engine.rope(k, config.kv_heads, config.head_dim, cos, sin);
        engine.kv_append(cache, start, k, v);
        let shape = AttentionShape {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            scale: config.attention_scale,
            window: layer.window,
            softcap: config.attention_softcap,
        };
        engine.attention(&shape, q, start, cache, attended);
        let output = [(&weights.o, &mut *normed)];
        forward(engine, file, attended, &mut self.quantized, output);
        if let Some(norm) = &weights.attn_post_norm {
            engine.rms_norm_in_place(normed, norm, eps);
        }
        engine.add(x, normed);
    }

    /// `x += down(activation(gate(norm(x))) · up(norm(x)))`
    fn feed_forward(&mut self, model: &Model, weights: &Layer, rows: usize) {
        let (engine, file, config) = (&model.engine, &model.file, model.config());
        let x = &mut self.x[..rows * config.hidden_size];
        let normed = &mut self.normed[..rows * config.hidden_size];
        let gate = &mut self.gate[..rows * config.intermediate_size];
        let up = &mut self.up[..gate.len()];

        engine.rms_norm(x, &weights.ffn_norm, config.norm_eps, normed);
        let projections = [(&weights.gate, &mut *gate), (&weights.up, &mut *up)];
        forward(engine, file, normed, &mut self.quantized, projections);
        let activation = match config.activation {
            config::Activation::Silu => Activation::Silu,
            config::Activation::Gelu => Activation::Gelu,
            config::Activation::GeluTanh => Activation::GeluTanh,
        };
        engine.activate_gated(activation, gate, up);
        let output = [(&weights.down, &mut *normed)];
        forward(engine, file, gate, &mut self.quantized, output);
        if let Some(norm) = &weights.ffn_post_norm {
            engine.rms_norm_in_place(normed, norm, config.norm_eps);
        }
        engine.add(x, normed);
    }
}
