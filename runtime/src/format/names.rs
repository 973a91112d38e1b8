//! Which weights a configuration needs, and their shapes: the one list that validation, the packer
//! and the model share.

use crate::config::{EncoderConfig, FeedForward, ModelConfig, NormKind, Residual};
use std::collections::BTreeMap;

/// Name and logical shape of every weight that the configuration needs. Others may be there too, see
/// [`optional_weights`] and [`correction`].
///
/// Call [`super::validate::config`] first: sizes are multiplied here.
pub fn expected_weights(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let hidden = config.hidden_size;
    let mut weights = Weights::default();
    weights.add("embed", &[config.vocab_size, hidden]);
    if config.residual == Residual::PreNorm {
        weights.norm("norm", hidden, config.norm);
    }
    match &config.encoder {
        Some(encoder) => weights.encoder(encoder, config),
        None if !config.tied_head => weights.add("head", &[config.vocab_size, hidden]),
        None => {}
    }
    for index in 0..config.layers.len() {
        let name = |part: &str| layer(index, part);
        for part in ["attn_norm", "ffn_norm"] {
            weights.norm(&name(part), hidden, config.norm);
        }
        if config.post_norms {
            weights.norm(&name("attn_post_norm"), hidden, config.norm);
            weights.norm(&name("ffn_post_norm"), hidden, config.norm);
        }
        if config.qk_norms {
            weights.norm(&name("q_norm"), config.head_dim, config.norm);
            weights.norm(&name("k_norm"), config.head_dim, config.norm);
        }
    }
    for Projection { name, shape, bias } in projections(config) {
        weights.linear(&name, shape, bias);
    }
    weights.0
}

/// A linear layer of a block.
pub struct Projection {
    /// The name of its matrix; that of its bias is `NAME_bias`.
    pub name: String,
    /// `[outputs, inputs]`
    pub shape: [usize; 2],
    /// Whether the configuration gives it a bias.
    pub bias: bool,
}

/// Every linear layer of every block, in the order in which a forward pass reads them.
pub fn projections(config: &ModelConfig) -> Vec<Projection> {
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    let qkv_biases = config.qkv_biases || config.biases;
    let mut parts = vec![
        ("q", [queries, hidden], qkv_biases),
        ("k", [keys, hidden], qkv_biases),
        ("v", [keys, hidden], qkv_biases),
        ("o", [hidden, queries], config.biases),
    ];
    if config.feed_forward == FeedForward::Gated {
        parts.push(("gate", [wide, hidden], config.biases));
    }
    parts.push(("up", [wide, hidden], config.biases));
    parts.push(("down", [hidden, wide], config.biases));
    let of_layer = |index| {
        let projection = move |&(part, shape, bias): &(&str, _, _)| Projection {
            name: layer(index, part),
            shape,
            bias,
        };
        parts.iter().map(projection)
    };
    (0..config.layers.len()).flat_map(of_layer).collect()
}

/// Names of the low-rank correction of the matrix `name`, `out += (x · narrowᵀ) · widenᵀ`:
/// `NAME_narrow` of rank × inputs and `NAME_widen` of outputs × rank.
pub fn correction(name: &str) -> [String; 2] {
    [format!("{name}_narrow"), format!("{name}_widen")]
}

/// The name of a linear layer's or norm's bias.
pub fn bias_name(name: &str) -> String {
    format!("{name}_bias")
}

/// A list in the making.
#[derive(Default)]
struct Weights(BTreeMap<String, Vec<usize>>);

impl Weights {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(name.to_owned(), shape.to_vec());
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], bias: bool) {
        self.add(name, &shape);
        if bias {
            self.add(&bias_name(name), &shape[..1]);
        }
    }

    fn norm(&mut self, name: &str, width: usize, kind: NormKind) {
        self.add(name, &[width]);
        if kind == NormKind::Layer {
            self.add(&bias_name(name), &[width]);
        }
    }

    fn encoder(&mut self, encoder: &EncoderConfig, config: &ModelConfig) {
        let hidden = config.hidden_size;
        if let Some(first) = encoder.first_position {
            self.add("positions", &[first + config.max_positions, hidden]);
        }
        if encoder.token_types > 0 {
            self.add("token_types", &[encoder.token_types, hidden]);
        }
        if encoder.embedding_norm {
            self.norm("embed_norm", hidden, NormKind::Layer);
        }
        if let Some(classifier) = &encoder.classifier {
            self.linear("classifier_dense", [hidden, hidden], true);
            self.linear("classifier", [classifier.labels.len(), hidden], true);
        }
    }
}

/// Weights that may be there: the `head` of a decoder with a tied embedding, packed as another kind,
/// and biases of linear layers that the architecture has none for.
pub fn optional_weights(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let mut weights = Weights::default();
    if config.encoder.is_none() {
        weights.add("head", &[config.vocab_size, config.hidden_size]);
    }
    for Projection { name, shape, .. } in projections(config) {
        weights.add(&bias_name(&name), &shape[..1]);
    }
    weights.0
}

/// The name of a layer's weight.
pub fn layer(index: usize, name: &str) -> String {
    format!("layers.{index}.{name}")
}
