//! The forward pass of a decoder, from tokens to hidden states to logits.

use super::Model;
use super::block::{Scratch, Sight};
use super::linear::forward;
use super::rope::RopeTable;
use kinglet_kernels::kv::{KvKind, KvLayer};

/// So many tokens go through a layer together for each thread: their activations then stay in its caches
/// from one operation to the next. A layer's weights do so from one part of the tokens to the next, as far
/// as they fit.
const PART: usize = 128;

/// The state of one sequence: caches, and the memory that a forward pass works in.
pub(crate) struct Decoder {
    caches: Vec<KvLayer>,
    ropes: Vec<RopeTable>,
    /// The most tokens that go through a layer together.
    part: usize,
    scratch: Scratch,
}

impl Decoder {
    /// A decoder for a context of `positions`, taking up to `batch` tokens at a time; nothing is
    /// allocated per token.
    pub fn new(model: &Model, kv: KvKind, positions: usize, batch: usize) -> Decoder {
        let config = model.config();
        let part = batch.min(PART * model.engine.pool().threads());
        let cache = |_| KvLayer::new(kv, config.kv_heads, config.head_dim, positions);
        Decoder {
            caches: (0..config.layers.len()).map(cache).collect(),
            ropes: config
                .ropes
                .iter()
                .map(|rope| RopeTable::new(rope, positions))
                .collect(),
            part,
            scratch: Scratch::new(config, batch, part),
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
        model.engine.pool().for_each_chunk(x, hidden, |row, x| {
            model.embed.row(&model.file, tokens[row] as usize, x);
            if config.embedding_scale != 1.0 {
                x.iter_mut().for_each(|x| *x *= config.embedding_scale);
            }
        });
        let rows = tokens.len();
        // As even as can be: a small rest would cost another pass over the weights.
        let part = rows.div_ceil(rows.div_ceil(self.part).max(1)).max(1);
        let blocks = model.blocks.iter().zip(&config.layers);
        for (index, ((block, layer), cache)) in blocks.zip(&mut self.caches).enumerate() {
            let rope = self.ropes.get(layer.rope);
            let last = index + 1 == model.blocks.len();
            let first = if last { rows - wanted } else { 0 };
            for from in (0..rows).step_by(part) {
                let to = rows.min(from + part);
                let sight = Sight::Cache {
                    cache: &mut *cache,
                    start: start + from,
                };
                let outputs = to - first.clamp(from, to);
                block.forward(model, layer, rope, sight, scratch, (from..to, outputs));
            }
        }
        let x = &mut scratch.x[(rows - wanted) * hidden..rows * hidden];
        if let Some(norm) = &model.norm {
            norm.apply_in_place(&model.engine, x);
        }
        x
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
