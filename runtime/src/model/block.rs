//! One block, attention and feed-forward, as decoders and encoders share it.

use super::Model;
use super::linear::{Inputs, Linear, forward};
use super::norm::Norm;
use super::rope::RopeTable;
use crate::config::{FeedForward, LayerConfig, ModelConfig, Residual};
use crate::error::Error;
use crate::format::ModelFile;
use crate::format::names::layer;
use kinglet_kernels::HeadCaches;
use kinglet_kernels::kv::KvLayer;
use std::ops::Range;

/// The weights of one block.
pub struct Block {
    attn_norm: Norm,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Norms of query and key heads.
    qk_norms: Option<(Norm, Norm)>,
    o: Linear,
    attn_post_norm: Option<Norm>,
    ffn_norm: Norm,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    ffn_post_norm: Option<Norm>,
}

/// What rows see beside themselves.
pub enum Sight<'a> {
    /// A sequence's cache, which holds what is before position `start`, where the rows follow.
    Cache {
        cache: &'a mut KvLayer,
        start: usize,
    },
    /// The rows of their own sequence; the sequences follow each other, of these lengths.
    Sequences {
        lengths: &'a [usize],
        caches: &'a HeadCaches,
    },
}

/// Memory for a number of rows; nothing else is allocated per block.
pub struct Scratch {
    /// The residual stream.
    pub x: Vec<f32>,
    /// The norm of some of its rows, then the output of attention or feed-forward.
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// For the input of linear layers.
    pub inputs: Inputs,
}

impl Scratch {
    /// Memory for up to `rows` rows, of which up to `part` go through a block together.
    pub fn new(config: &ModelConfig, rows: usize, part: usize) -> Scratch {
        let floats = |width: usize| vec![0.0; part * width];
        let keys = config.kv_heads * config.head_dim;
        let queries = config.heads * config.head_dim;
        let gate = match config.feed_forward {
            FeedForward::Gated => config.intermediate_size,
            FeedForward::Plain => 0,
        };
        Scratch {
            x: vec![0.0; rows * config.hidden_size],
            normed: floats(config.hidden_size),
            q: floats(queries),
            k: floats(keys),
            v: floats(keys),
            attended: floats(queries),
            gate: floats(gate),
            up: floats(config.intermediate_size),
            inputs: Inputs::default(),
        }
    }
}

impl Block {
    /// The weights of block `index`.
    ///
    /// # Errors
    /// A tensor that the file lacks.
    pub fn open(file: &ModelFile, index: usize) -> Result<Block, Error> {
        let config = file.config();
        let name = |part: &str| layer(index, part);
        let norm = |part: &str| Norm::open(file, &name(part), config.norm);
        let post = |part: &str| config.post_norms.then(|| norm(part)).transpose();
        let linear = |part: &str| Linear::open(file, &name(part));
        let qk_norms = if config.qk_norms {
            Some((norm("q_norm")?, norm("k_norm")?))
        } else {
            None
        };
        let gate = match config.feed_forward {
            FeedForward::Gated => Some(linear("gate")?),
            FeedForward::Plain => None,
        };
        Ok(Block {
            attn_norm: norm("attn_norm")?,
            q: linear("q")?,
            k: linear("k")?,
            v: linear("v")?,
            qk_norms,
            o: linear("o")?,
            attn_post_norm: post("attn_post_norm")?,
            ffn_norm: norm("ffn_norm")?,
            gate,
            up: linear("up")?,
            down: linear("down")?,
            ffn_post_norm: post("ffn_post_norm")?,
        })
    }

    /// Every linear layer.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let always = [&self.q, &self.k, &self.v, &self.o, &self.up, &self.down];
        always.into_iter().chain(&self.gate)
    }

    /// What every row goes through, see [`Block::forward`].
    pub fn keys_and_values(&self) -> [&Linear; 2] {
        [&self.k, &self.v]
    }

    /// Runs some `rows` of [`Scratch::x`] through the block: all of them give keys and values, the last
    /// `wanted` of them the block's output, in their place.
    pub fn forward(
        &self,
        model: &Model,
        layer: &LayerConfig,
        rope: Option<&RopeTable>,
        sight: Sight,
        scratch: &mut Scratch,
        (rows, wanted): (Range<usize>, usize),
    ) {
        let outputs = rows.end - wanted..rows.end;
        self.attention(model, layer, rope, sight, scratch, (rows, wanted));
        self.feed_forward(model, scratch, outputs);
    }

    /// `x += attention(norm(x))`, or `x = norm(x + attention(x))`.
    fn attention(
        &self,
        model: &Model,
        layer: &LayerConfig,
        rope: Option<&RopeTable>,
        sight: Sight,
        scratch: &mut Scratch,
        (rows, wanted): (Range<usize>, usize),
    ) {
        let (engine, file, config) = (&model.engine, &model.file, model.config());
        let hidden = config.hidden_size;
        let x = &mut scratch.x[rows.start * hidden..rows.end * hidden];
        let rows = rows.len();
        let others = (rows - wanted) * hidden;
        let normed = &mut scratch.normed[..x.len()];
        let q = &mut scratch.q[..wanted * self.q.outputs()];
        let k = &mut scratch.k[..rows * self.k.outputs()];
        let v = &mut scratch.v[..rows * self.v.outputs()];
        let attended = &mut scratch.attended[..q.len()];
        let inputs = &mut scratch.inputs;

        let input = self.input(model, &self.attn_norm, x, normed);
        if wanted == rows {
            let projections = [(&self.q, &mut *q), (&self.k, &mut *k), (&self.v, &mut *v)];
            forward(engine, file, input, inputs, projections);
        } else {
            let projections = [(&self.k, &mut *k), (&self.v, &mut *v)];
            forward(engine, file, input, inputs, projections);
            forward(engine, file, &input[others..], inputs, [(&self.q, &mut *q)]);
        }
        if let Some((q_norm, k_norm)) = &self.qk_norms {
            q_norm.apply_in_place(engine, q);
            k_norm.apply_in_place(engine, k);
        }
        if let Some(rope) = rope {
            rotate(model, rope, &sight, q, k);
        }
        let shape = config.attention_shape(layer);
        match sight {
            Sight::Cache { cache, start } => {
                engine.kv_append(cache, start, k, v);
                let start = start + rows - wanted;
                engine.attention(&shape, q, start, cache, attended);
            }
            Sight::Sequences { lengths, caches } => {
                engine.attention_within(&shape, lengths, q, k, v, caches, attended);
            }
        }
        let (x, normed) = (&mut x[others..], &mut normed[others..]);
        let output = [(&self.o, &mut *normed)];
        forward(engine, file, attended, inputs, output);
        if let Some(norm) = &self.attn_post_norm {
            norm.apply_in_place(engine, normed);
        }
        self.add(model, &self.attn_norm, x, normed);
    }

    /// The same around `down(activation(gate(x)) · up(x))` or `down(activation(up(x)))`.
    fn feed_forward(&self, model: &Model, scratch: &mut Scratch, rows: Range<usize>) {
        let (engine, file, config) = (&model.engine, &model.file, model.config());
        let hidden = config.hidden_size;
        let x = &mut scratch.x[rows.start * hidden..rows.end * hidden];
        let normed = &mut scratch.normed[..x.len()];
        let up = &mut scratch.up[..rows.len() * config.intermediate_size];
        let inputs = &mut scratch.inputs;
        let activation = config.activation.into();

        let input = self.input(model, &self.ffn_norm, x, normed);
        let activated = match &self.gate {
            Some(weights) => {
                let gate = &mut scratch.gate[..up.len()];
                let projections = [(weights, &mut *gate), (&self.up, &mut *up)];
                forward(engine, file, input, inputs, projections);
                engine.activate_gated(activation, gate, up);
                gate
            }
            None => {
                forward(engine, file, input, inputs, [(&self.up, &mut *up)]);
                engine.activate(activation, up);
                up
            }
        };
        let output = [(&self.down, &mut *normed)];
        forward(engine, file, activated, inputs, output);
        if let Some(norm) = &self.ffn_post_norm {
            norm.apply_in_place(engine, normed);
        }
        self.add(model, &self.ffn_norm, x, normed);
    }

    /// What attention or feed-forward works on: the residual stream, or its norm.
    fn input<'a>(
        &self,
        model: &Model,
        norm: &Norm,
        x: &'a [f32],
        normed: &'a mut [f32],
    ) -> &'a [f32] {
        match model.config().residual {
            Residual::PreNorm => {
                norm.apply(&model.engine, x, normed);
                normed
            }
            Residual::PostNorm => x,
        }
    }

    /// Takes an output into the residual stream.
    fn add(&self, model: &Model, norm: &Norm, x: &mut [f32], output: &[f32]) {
        match model.config().residual {
            Residual::PreNorm => model.engine.add(x, output),
            Residual::PostNorm => norm.add_and_apply(&model.engine, x, output),
        }
    }
}

/// Rotates queries and keys by their positions. The queries are those of the last rows.
fn rotate(model: &Model, rope: &RopeTable, sight: &Sight, q: &mut [f32], k: &mut [f32]) {
    let (engine, config) = (&model.engine, model.config());
    let rows = |x: &[f32], heads: usize| x.len() / (heads * config.head_dim);
    let rotate = |x: &mut [f32], heads: usize, start: usize| {
        let (cos, sin) = rope.rows(start, rows(x, heads));
        engine.rope(x, heads, config.head_dim, cos, sin);
    };
    match sight {
        Sight::Cache { start, .. } => {
            let end = start + rows(k, config.kv_heads);
            rotate(k, config.kv_heads, *start);
            rotate(q, config.heads, end - rows(q, config.heads));
        }
        Sight::Sequences { lengths, .. } => {
            for (x, heads) in [(q, config.heads), (k, config.kv_heads)] {
                let mut rest = x;
                for &rows in *lengths {
                    let (own, others) = rest.split_at_mut(rows * heads * config.head_dim);
                    rotate(own, heads, 0);
                    rest = others;
                }
            }
        }
    }
}
