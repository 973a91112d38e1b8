//! One decoder block with dense weights, run stage by stage over all calibration tokens, so that
//! each linear layer's input is at hand where a pass needs it.

use super::attention::{self, Heads};
use super::dense::Dense;
use crate::Error;
use crate::checkpoint::Checkpoint;
use kinglet::config::ModelConfig;
use kinglet::format::names::{bias_name, layer};
use kinglet::model::RopeTable;
use kinglet_kernels::{AttentionShape, Engine};

/// What a block runs with.
pub struct Context<'a> {
    /// Norms, rotary embeddings and activations as at run time.
    pub engine: &'a Engine,
    /// The model.
    pub config: &'a ModelConfig,
    /// Tables of [`ModelConfig::ropes`].
    pub ropes: &'a [RopeTable],
    /// Tokens of a window.
    pub window: usize,
}

/// The weights of one block.
pub struct Block {
    index: usize,
    pub(super) attn_norm: Vec<f32>,
    pub(super) q: Dense,
    pub(super) k: Dense,
    pub(super) v: Dense,
    pub(super) qk_norms: Option<(Vec<f32>, Vec<f32>)>,
    pub(super) o: Dense,
    pub(super) attn_post_norm: Option<Vec<f32>>,
    pub(super) ffn_norm: Vec<f32>,
    pub(super) gate: Dense,
    pub(super) up: Dense,
    pub(super) down: Dense,
    pub(super) ffn_post_norm: Option<Vec<f32>>,
}

/// The linear layers of a block, those with one input together, in the order in which they run.
pub const STAGES: [&[&str]; 4] = [&["q", "k", "v"], &["o"], &["gate", "up"], &["down"]];

/// The norm that gives each of [`STAGES`] its input, if one does.
pub const NORMS: [Option<&str>; 4] = [Some("attn_norm"), None, Some("ffn_norm"), None];

/// Queries, keys and values: before the norms of heads, and as attention takes them.
pub(super) struct Projections {
    pub raw_q: Vec<f32>,
    pub raw_k: Vec<f32>,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

impl Block {
    /// Reads block `index`.
    ///
    /// # Errors
    /// A weight that is missing or cannot be read.
    pub fn read(checkpoint: &Checkpoint, index: usize) -> Result<Block, Error> {
        let config = &checkpoint.config;
        let vector = |part: &str| checkpoint.read(&layer(index, part));
        let dense = |part: &str, bias: bool| {
            let name = layer(index, part);
            let bias = bias.then(|| checkpoint.read(&bias_name(&name)));
            Ok::<_, Error>(Dense {
                inputs: checkpoint.weight(&name)?.shape()[1],
                weights: checkpoint.read(&name)?,
                bias: bias.transpose()?,
            })
        };
        let post = |part: &str| config.post_norms.then(|| vector(part)).transpose();
        let qk_norms = if config.qk_norms {
            Some((vector("q_norm")?, vector("k_norm")?))
        } else {
            None
        };
        Ok(Block {
            index,
            attn_norm: vector("attn_norm")?,
            q: dense("q", config.qkv_biases)?,
            k: dense("k", config.qkv_biases)?,
            v: dense("v", config.qkv_biases)?,
            qk_norms,
            o: dense("o", false)?,
            attn_post_norm: post("attn_post_norm")?,
            ffn_norm: vector("ffn_norm")?,
            gate: dense("gate", false)?,
            up: dense("up", false)?,
            down: dense("down", false)?,
            ffn_post_norm: post("ffn_post_norm")?,
        })
    }

    /// A linear layer by its name in [`STAGES`].
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn dense_mut(&mut self, part: &str) -> &mut Dense {
        match part {
            "q" => &mut self.q,
            "k" => &mut self.k,
            "v" => &mut self.v,
            "o" => &mut self.o,
            "gate" => &mut self.gate,
            "up" => &mut self.up,
            "down" => &mut self.down,
            _ => panic!("a block has no linear layer {part}"),
        }
    }

    /// The input of stage `stage` of [`STAGES`], from the residual stream `x` for the first layers
    /// of attention and feed-forward, and else from the input of the stage before.
    pub fn stage_input(
        &self,
        context: &Context,
        stage: usize,
        x: &[f32],
        before: &[f32],
    ) -> Vec<f32> {
        match stage {
            0 => norm(context, x, &self.attn_norm),
            1 => self.attend(context, &self.projections(context, before)),
            2 => norm(context, x, &self.ffn_norm),
            _ => {
                let mut gate = self.gate.forward(before);
                let up = self.up.forward(before);
                context
                    .engine
                    .activate_gated(context.config.activation.into(), &mut gate, &up);
                gate
            }
        }
    }

    /// Adds the output of attention (`stage` 1) or feed-forward (`stage` 3) to the residual stream;
    /// nothing after the other stages.
    pub fn add_output(&self, context: &Context, stage: usize, input: &[f32], x: &mut [f32]) {
        let (layer, post) = match stage {
            1 => (&self.o, &self.attn_post_norm),
            3 => (&self.down, &self.ffn_post_norm),
            _ => return,
        };
        let mut out = layer.forward(input);
        if let Some(weight) = post {
            let eps = context.config.norm_eps;
            context.engine.rms_norm_in_place(&mut out, weight, eps);
        }
        context.engine.add(x, &out);
    }

    /// Runs the whole block.
    pub fn forward(&self, context: &Context, x: &mut [f32]) {
        let mut input = vec![];
        for stage in 0..STAGES.len() {
            input = self.stage_input(context, stage, x, &input);
            self.add_output(context, stage, &input, x);
        }
    }

    pub(super) fn projections(&self, context: &Context, normed: &[f32]) -> Projections {
        let (engine, config) = (context.engine, context.config);
        let raw_q = self.q.forward(normed);
        let raw_k = self.k.forward(normed);
        let (mut q, mut k) = (raw_q.clone(), raw_k.clone());
        if let Some((q_norm, k_norm)) = &self.qk_norms {
            engine.rms_norm_in_place(&mut q, q_norm, config.norm_eps);
            engine.rms_norm_in_place(&mut k, k_norm, config.norm_eps);
        }
        self.rotate(context, &mut q, config.heads, 1.0);
        self.rotate(context, &mut k, config.kv_heads, 1.0);
        Projections {
            raw_q,
            raw_k,
            q,
            k,
            v: self.v.forward(normed),
        }
    }

    /// The rotary embedding of each window; its inverse for a `direction` of -1.
    pub(super) fn rotate(&self, context: &Context, x: &mut [f32], heads: usize, direction: f32) {
        let config = context.config;
        let rope = &context.ropes[config.layers[self.index].rope];
        let (cos, sin) = rope.rows(0, context.window);
        let sin: Vec<f32> = sin.iter().map(|s| s * direction).collect();
        for window in x.chunks_exact_mut(context.window * heads * config.head_dim) {
            context
                .engine
                .rope(window, heads, config.head_dim, cos, &sin);
        }
    }

    fn attend(&self, context: &Context, projections: &Projections) -> Vec<f32> {
        let Projections { q, k, v, .. } = projections;
        let shape = self.attention_shape(context.config);
        attention::forward(&shape, context.window, Heads { q, k, v })
    }

    pub(super) fn attention_shape(&self, config: &ModelConfig) -> AttentionShape {
        config.attention_shape(&config.layers[self.index])
    }
}

/// RMSNorm of rows of `weight.len()`.
pub(crate) fn norm(context: &Context, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    context
        .engine
        .rms_norm(x, weight, context.config.norm_eps, &mut out);
    out
}
