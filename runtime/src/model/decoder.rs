//! The forward pass of a decoder, from tokens to hidden states to logits.

use super::Model;
use super::block::{Scratch, Sight};
use super::linear::forward;
use super::rope::RopeTable;
use crate::config::ModelConfig;
use kinglet_kernels::kv::{KvKind, KvLayer};

/// The state of one sequence: caches, and the memory that a forward pass works in.
pub(crate) struct Decoder {
    caches: Vec<KvLayer>,
    ropes: Vec<RopeTable>,
    scratch: Scratch,
}

impl Decoder {
    /// A decoder for a context of `positions`, taking up to `batch` tokens at a time; nothing is
    /// allocated per token.
    pub fn new(config: &ModelConfig, kv: KvKind, positions: usize, batch: usize) -> Decoder {
        let cache = |_| KvLayer::new(kv, config.kv_heads, config.head_dim, positions);
        Decoder {
            caches: (0..config.layers.len()).map(cache).collect(),
            ropes: config
                .ropes
                .iter()
                .map(|rope| RopeTable::new(rope, positions))
                .collect(),
            scratch: Scratch::new(config, batch),
        }
    }

    /// Runs `tokens` at positions `start..` and returns the hidden states of the last `wanted` of them
    /// after the final norm, `[token][hidden_size]`. The last block computes only these.
    pub fn forward(
        &mut self,
        model: &Model,
        tokens: &[u32],
        start: usize,
        wanted: usize,
    ) -> &[f32] {
        let config = model.config();
        let (hidden, scratch) = (config.hidden_size, &mut self.scratch);
        let x = &mut scratch.x[..tokens.len() * hidden];
        for (x, &token) in x.chunks_exact_mut(hidden).zip(tokens) {
            model.embed.row(&model.file, token as usize, x);
            if config.embedding_scale != 1.0 {
                x.iter_mut().for_each(|x| *x *= config.embedding_scale);
            }
        }
        let rows = tokens.len();
        let blocks = model.blocks.iter().zip(&config.layers);
        for (index, ((block, layer), cache)) in blocks.zip(&mut self.caches).enumerate() {
            let rope = self.ropes.get(layer.rope);
            let sight = Sight::Cache { cache, start };
            let last = index + 1 == model.blocks.len();
            let wanted = if last { wanted } else { rows };
            block.forward(model, layer, rope, sight, scratch, (rows, wanted));
        }
        let x = &scratch.x[(rows - wanted) * hidden..rows * hidden];
        match &model.norm {
            Some(norm) => {
                let normed = &mut scratch.normed[..wanted * hidden];
                norm.apply(&model.engine, x, normed);
                normed
            }
            None => x,
        }
    }

    /// Logits of hidden states as [`Decoder::forward`] returns them, `[row][vocab_size]`.
    pub fn logits(&mut self, model: &Model, hidden: &[f32], out: &mut [f32]) {
        let head = (model.head(), &mut *out);
        forward(
            &model.engine,
            &model.file,
            hidden,
            &mut self.scratch.inputs,
            [head],
        );
        if let Some(cap) = model.config().logit_softcap {
            model.engine.softcap(out, cap);
        }
    }
}
