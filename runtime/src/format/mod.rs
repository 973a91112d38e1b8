//! The `.kgl` file: a safetensors file with a stricter contract.
//!
//! - The header is padded with spaces so that data starts on a 4096-byte boundary; each tensor's
//!   length is a multiple of 64 bytes, so each is 64-byte aligned when mapped.
//! - `__metadata__` has `format` = `kinglet`, `version` and `header`, a JSON [`Header`]. The version is
//!   the oldest that has all that the file uses: `3` with corrections of quantized layers (below), `2`
//!   where a weight takes its inputs as [`Activations::Q8x2`], else `1`.
//! - Tensors may lie in any order; the writer lays them out as a forward pass reads them, each layer's
//!   matrices first and then what belongs to them.
//! - Packed weights are `U8` tensors (see [`kinglet_kernels::packing`]), padded vectors `F32`.
//! - [`TOKENIZER`] (`tokenizer.json`), [`CHAT_TEMPLATE`] and [`CHECKSUMS`] are `U8` tensors, zero
//!   padded to 64 bytes; their true lengths stand in [`Header`].
//! - [`CHECKSUMS`] is the last tensor: little-endian XXH3-64 of the header (the 8 length bytes
//!   included), then of every other tensor in file order.
//!
//! | tensor | shape | when |
//! |---|---|---|
//! | `embed` | vocab × hidden | always |
//! | `positions` | first_position + max_positions × hidden | encoders with learned positions |
//! | `token_types` | token_types × hidden | encoders with token types |
//! | `embed_norm` | hidden | encoders with `embedding_norm` |
//! | `head` | vocab × hidden | decoders: untied, or tied but packed as another kind |
//! | `norm` | hidden | `residual: pre_norm` (the final norm) |
//! | `classifier_dense` | hidden × hidden | encoders with `classifier` |
//! | `classifier` | labels × hidden | encoders with `classifier` |
//! | `layers.N.attn_norm`, `layers.N.ffn_norm` | hidden | always |
//! | `layers.N.attn_post_norm`, `layers.N.ffn_post_norm` | hidden | `post_norms` |
//! | `layers.N.q` | heads·head_dim × hidden | always |
//! | `layers.N.k`, `layers.N.v` | kv_heads·head_dim × hidden | always |
//! | `layers.N.q_norm`, `layers.N.k_norm` | head_dim | `qk_norms` |
//! | `layers.N.o` | hidden × heads·head_dim | always |
//! | `layers.N.gate` | intermediate × hidden | `feed_forward: gated` |
//! | `layers.N.up` | intermediate × hidden | always |
//! | `layers.N.down` | hidden × intermediate | always |
//!
//! Biases stand beside as `NAME_bias`: those of q, k and v with `qkv_biases`, of every linear layer
//! of a block with `biases`, of every norm with `norm: layer`, of `embed_norm` and the classifier
//! always.
//!
//! What quantization cost a linear layer `NAME` of a block may be corrected, in two ways: by
//! `NAME_narrow` (rank × inputs) and `NAME_widen` (outputs × rank), a matrix of low rank that is added
//! to it; and by a `NAME_bias` that the configuration does not ask for.

mod mmap;
pub mod names;
mod reader;
pub mod validate;
mod writer;

pub use reader::{MatrixHandle, ModelFile, TensorInfo};
pub use writer::{Planned, Writer};

use crate::config::ModelConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the tensor with `tokenizer.json`.
pub const TOKENIZER: &str = "tokenizer";
/// Name of the tensor with the chat template (Jinja), absent if the model has none.
pub const CHAT_TEMPLATE: &str = "chat_template";
/// Name of the tensor of checksums.
pub const CHECKSUMS: &str = "checksums";
/// The newest version that this library reads; it writes the oldest that will do.
pub const VERSION: u32 = 3;

/// Data starts on a multiple of this.
const DATA_ALIGN: usize = 4096;
/// Lengths of tensors are multiples of this.
const TENSOR_ALIGN: usize = 64;
/// The longest header that is read: ten times that of a model of a thousand layers.
const MAX_HEADER: usize = 16 << 20;

/// The JSON document in the metadata of a `.kgl` file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The model.
    pub config: ModelConfig,
    /// Every weight: matrices and vectors.
    pub weights: BTreeMap<String, WeightInfo>,
    /// Length of `tokenizer.json` in bytes.
    pub tokenizer_bytes: usize,
    /// Length of the chat template in bytes; 0 if there is none.
    pub chat_template_bytes: usize,
    /// How the file was made.
    pub provenance: Provenance,
}

impl Header {
    /// The oldest version of the format that has all that is used here.
    ///
    /// Call [`validate::header`] first.
    pub fn version(&self) -> u32 {
        let expected = names::expected_weights(&self.config);
        let corrects = |name: &String| !expected.contains_key(name) && name != "head";
        let twice = |info: &WeightInfo| info.activations == Activations::Q8x2;
        if self.weights.keys().any(corrects) {
            3
        } else if self.weights.values().any(twice) {
            2
        } else {
            1
        }
    }
}

/// Logical shape and packing of a weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightInfo {
    /// `[outputs, inputs]` of a matrix, `[length]` of a vector.
    pub shape: Vec<usize>,
    /// Name of a [`kinglet_kernels::packing::Kind`]; vectors are `f32`, zero padded to 16 floats.
    pub kind: String,
    /// How a matrix of a quantized kind takes its inputs.
    #[serde(default, skip_serializing_if = "Activations::is_default")]
    pub activations: Activations,
}

/// How a matrix of a quantized kind takes its inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activations {
    /// As INT8, see [`kinglet_kernels::activations::QuantizedRows`].
    #[default]
    Q8,
    /// As the sum of two INT8: the input, and what its rounding lost. Costs a second row of products
    /// for each token, but no second reading of the weights.
    Q8x2,
}

impl Activations {
    fn is_default(&self) -> bool {
        *self == Activations::default()
    }
}

/// How a file was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version.
    pub made_by: String,
    /// Name of the source (folder or file, without its path).
    pub source: String,
    /// SHA-256 of the source's weights (of the concatenation, for shards in name order).
    pub source_sha256: String,
    /// The recipe, as TOML.
    pub recipe: String,
}
