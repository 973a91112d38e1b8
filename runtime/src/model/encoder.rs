//! The forward pass of an encoder, from tokens to hidden states to class scores.

use super::Model;
use super::block::{Scratch, Sight};
use super::linear::{Linear, forward};
use super::rope::RopeTable;
use crate::config::{EncoderConfig, HeadActivation, Scores};
use crate::tokenizer::Sequence;
use kinglet_kernels::HeadCaches;
use kinglet_kernels::kv::KvKind;

/// The memory that a forward pass works in; it grows with the longest text and the largest batch.
#[derive(Default)]
pub(crate) struct EncoderMemory {
    rows: usize,
    scratch: Option<Scratch>,
    caches: Option<HeadCaches>,
    ropes: Vec<RopeTable>,
    /// The learned embedding of each position, `[position][hidden]`; zeros where there is none.
    positions: Vec<f32>,
    /// The learned embedding of each token type, `[type][hidden]`; one of zeros where there is none.
    types: Vec<f32>,
    /// Token, position and type of each row.
    places: Vec<(u32, usize, usize)>,
}

impl EncoderMemory {
    /// Runs sequences, each of one to [`EncoderConfig::max_tokens`] tokens, and returns their
    /// hidden states one after the other, `[row][hidden]`. No row is padding.
    pub fn forward(
        &mut self,
        model: &Model,
        encoder: &EncoderConfig,
        sequences: &[Sequence],
    ) -> &[f32] {
        let config = model.config();
        let lengths: Vec<usize> = sequences.iter().map(|s| s.tokens.len()).collect();
        let rows = lengths.iter().sum();
        self.grow(
            model,
            encoder,
            rows,
            lengths.iter().copied().max().unwrap_or(1),
        );
        self.embed(model, sequences);
        let (Some(scratch), Some(caches)) = (&mut self.scratch, &self.caches) else {
            unreachable!("grown above")
        };
        for (block, layer) in model.blocks.iter().zip(&config.layers) {
            let rope = self.ropes.get(layer.rope);
            let sight = Sight::Sequences {
                lengths: &lengths,
                caches,
            };
            block.forward(model, layer, rope, sight, scratch, (0..rows, rows));
        }
        let x = &mut scratch.x[..rows * config.hidden_size];
        if let Some(norm) = &model.norm {
            norm.apply_in_place(&model.engine, x);
        }
        x
    }

    fn grow(&mut self, model: &Model, encoder: &EncoderConfig, rows: usize, longest: usize) {
        let config = model.config();
        if self.rows < rows || self.scratch.is_none() {
            self.scratch = Some(Scratch::new(config, rows, rows));
            self.rows = rows;
        }
        if self
            .caches
            .as_ref()
            .is_some_and(|c| c.positions() >= longest)
        {
            return;
        }
        let threads = model.engine.pool().threads();
        // f32: a head's keys and values are small, and made anew for each layer.
        let caches = HeadCaches::new(KvKind::F32, config.head_dim, longest, threads);
        self.caches = Some(caches);
        let ropes = config.ropes.iter();
        self.ropes = ropes.map(|rope| RopeTable::new(rope, longest)).collect();

        let hidden = config.hidden_size;
        let table = |table: &Option<Linear>, first: usize, rows: usize| {
            let mut values = vec![0.0; rows * hidden];
            if let Some(table) = table {
                let rows = values.chunks_exact_mut(hidden).enumerate();
                rows.for_each(|(row, out)| table.row(&model.file, first + row, out));
            }
            values
        };
        let first = encoder.first_position.unwrap_or(0);
        self.positions = table(&model.positions, first, longest);
        self.types = table(&model.token_types, 0, encoder.token_types.max(1));
    }

    /// The residual stream before the first block.
    fn embed(&mut self, model: &Model, sequences: &[Sequence]) {
        self.places.clear();
        for Sequence { tokens, types } in sequences {
            let places = tokens.iter().enumerate().map(|(position, &token)| {
                let kind = types.get(position).map_or(0, |&kind| kind as usize);
                (token, position, kind)
            });
            self.places.extend(places);
        }
        let (hidden, scale) = (model.config().hidden_size, model.config().embedding_scale);
        let Some(scratch) = &mut self.scratch else {
            return;
        };
        let x = &mut scratch.x[..self.places.len() * hidden];
        model.engine.pool().for_each_chunk(x, hidden, |row, x| {
            let (token, position, kind) = self.places[row];
            model.embed.row(&model.file, token as usize, x);
            let position = &self.positions[position * hidden..][..hidden];
            let kind = &self.types[kind * hidden..][..hidden];
            for ((x, position), kind) in x.iter_mut().zip(position).zip(kind) {
                *x = *x * scale + (position + kind);
            }
        });
        if let Some(norm) = &model.embed_norm {
            norm.apply_in_place(&model.engine, x);
        }
    }

    /// Scores of the classes of each text, `[text][label]`, from the hidden states of its first
    /// token, `[text][hidden]`; empty if the model has no classification head.
    pub fn classify(&mut self, model: &Model, encoder: &EncoderConfig, first: &[f32]) -> Vec<f32> {
        let (Some((dense, output)), Some(config)) = (&model.classifier, &encoder.classifier) else {
            return vec![];
        };
        let texts = first.len() / model.config().hidden_size;
        let inputs = &mut self
            .scratch
            .get_or_insert_with(|| Scratch::new(model.config(), 0, 0))
            .inputs;
        let mut inner = vec![0.0; texts * dense.outputs()];
        let (engine, file) = (&model.engine, &model.file);
        forward(engine, file, first, inputs, [(dense, &mut inner[..])]);
        for x in &mut inner {
            *x = match config.activation {
                HeadActivation::Tanh => libm::tanhf(*x),
                HeadActivation::Relu => x.max(0.0),
            };
        }
        let mut scores = vec![0.0; texts * output.outputs()];
        forward(engine, file, &inner, inputs, [(output, &mut scores[..])]);
        match config.scores {
            Scores::Softmax => engine.softmax(&mut scores, output.outputs()),
            Scores::Sigmoid => {
                let sigmoid = |x: &mut f32| *x = 1.0 / (1.0 + libm::expf(-*x));
                scores.iter_mut().for_each(sigmoid);
            }
            Scores::Raw => {}
        }
        scores
    }
}
