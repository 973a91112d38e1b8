//! Which weights a configuration needs, and their shapes: the one list that validation, the packer
//! and the model share.

use crate::config::ModelConfig;
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
    let mut weights = BTreeMap::from([
        ("embed".to_owned(), vec![config.vocab_size, hidden]),
        ("norm".to_owned(), vec![hidden]),
    ]);
    if !config.tied_head {
        weights.insert("head".to_owned(), vec![config.vocab_size, hidden]);
    }
    for index in 0..config.layers.len() {
        let mut add = |name: &str, shape: &[usize]| {
            weights.insert(layer(index, name), shape.to_vec());
        };
        add("attn_norm", &[hidden]);
        add("ffn_norm", &[hidden]);
        if config.post_norms {
            add("attn_post_norm", &[hidden]);
            add("ffn_post_norm", &[hidden]);
        }
        add("q", &[queries, hidden]);
        add("k", &[keys, hidden]);
        add("v", &[keys, hidden]);
        add("o", &[hidden, queries]);
        if config.qkv_biases {
            add("q_bias", &[queries]);
            add("k_bias", &[keys]);
            add("v_bias", &[keys]);
        }
        if config.qk_norms {
            add("q_norm", &[config.head_dim]);
            add("k_norm", &[config.head_dim]);
        }
        add("gate", &[config.intermediate_size, hidden]);
        add("up", &[config.intermediate_size, hidden]);
        add("down", &[hidden, config.intermediate_size]);
    }
    weights
}

/// Weights that may be there: the `head` of a model with a tied embedding, packed as another kind.
pub fn optional_weights(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let head = vec![config.vocab_size, config.hidden_size];
    BTreeMap::from([("head".to_owned(), head)])
}

/// The name of a layer's weight.
pub fn layer(index: usize, name: &str) -> String {
    format!("layers.{index}.{name}")
}
