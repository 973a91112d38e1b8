//! Which weights a configuration needs, and their shapes: the one list that validation, the packer
//! and the model share.

use crate::config::{EncoderConfig, FeedForward, ModelConfig, NormKind, Residual};
use std::collections::BTreeMap;

/// Name and logical shape of every weight that the configuration needs. A `head` may be there
/// beside a tied embedding too, see [`optional_weights`].
///
/// Call [`super::validate::config`] first: sizes are multiplied here.
pub fn expected_weights(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let hidden = config.hidden_size;
    let (queries, keys) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
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
        let qkv_biases = config.qkv_biases || config.biases;
        weights.linear(&name("q"), [queries, hidden], qkv_biases);
        weights.linear(&name("k"), [keys, hidden], qkv_biases);
        weights.linear(&name("v"), [keys, hidden], qkv_biases);
        weights.linear(&name("o"), [hidden, queries], config.biases);
        if config.qk_norms {
            weights.norm(&name("q_norm"), config.head_dim, config.norm);
            weights.norm(&name("k_norm"), config.head_dim, config.norm);
        }
        let wide = config.intermediate_size;
        if config.feed_forward == FeedForward::Gated {
            weights.linear(&name("gate"), [wide, hidden], config.biases);
        }
        weights.linear(&name("up"), [wide, hidden], config.biases);
        weights.linear(&name("down"), [hidden, wide], config.biases);
    }
    weights.0
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
            self.add(&format!("{name}_bias"), &shape[..1]);
        }
    }

    fn norm(&mut self, name: &str, width: usize, kind: NormKind) {
        self.add(name, &[width]);
        if kind == NormKind::Layer {
            self.add(&format!("{name}_bias"), &[width]);
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

/// Weights that may be there: the `head` of a model with a tied embedding, packed as another kind.
pub fn optional_weights(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    if config.encoder.is_some() {
        return BTreeMap::new();
    }
    let head = vec![config.vocab_size, config.hidden_size];
    BTreeMap::from([("head".to_owned(), head)])
}

/// The name of a layer's weight.
pub fn layer(index: usize, name: &str) -> String {
    format!("layers.{index}.{name}")
}
