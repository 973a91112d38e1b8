//! Whether a header makes sense: every number in it is checked before it is used.

use super::names::{Projection, correction, expected_weights, optional_weights, projections};
use super::{Activations, Header, WeightInfo};
use crate::config::{EncoderConfig, ModelConfig, Residual, Rope, RopeScaling};
use kinglet_kernels::packing::{Kind, Layout};
use std::collections::BTreeMap;

/// The most layers: several times those of the deepest published decoders.
const MAX_LAYERS: usize = 1024;

/// The most of any other dimension: beyond every published model, and small enough for products of
/// three to fit 64 bits.
const MAX_DIMENSION: usize = 1 << 21;

/// Floats of a vector are padded to whole vectors of 16.
pub const VECTOR_STEP: usize = 16;

/// Checks a configuration.
///
/// # Errors
/// A sentence that names the field, what was expected and what was found.
pub fn config(config: &ModelConfig) -> Result<(), String> {
    let dimensions = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("heads", config.heads),
        ("kv_heads", config.kv_heads),
        ("head_dim", config.head_dim),
    ];
    for (name, found) in dimensions {
        if found == 0 || found > MAX_DIMENSION {
            return Err(format!("{name} is {found}: expected 1 to {MAX_DIMENSION}"));
        }
    }
    if config.heads.saturating_mul(config.head_dim) > MAX_DIMENSION {
        return Err(format!(
            "{} heads of {} are more than {MAX_DIMENSION} floats",
            config.heads, config.head_dim
        ));
    }
    if config.max_positions == 0 || config.max_positions > 1 << 31 {
        return Err(format!("max_positions is {}", config.max_positions));
    }
    if !config.heads.is_multiple_of(config.kv_heads) {
        return Err(format!(
            "heads ({}) are not a multiple of kv_heads ({})",
            config.heads, config.kv_heads
        ));
    }
    if config.layers.is_empty() || config.layers.len() > MAX_LAYERS {
        return Err(format!(
            "{} layers: expected 1 to {MAX_LAYERS}",
            config.layers.len()
        ));
    }
    for (index, layer) in config.layers.iter().enumerate() {
        let learned = config.encoder.as_ref().and_then(|e| e.first_position);
        let rotates = learned.is_none() || !config.ropes.is_empty() || layer.rope > 0;
        if rotates && layer.rope >= config.ropes.len() {
            return Err(format!(
                "layer {index} names rotary embedding {}, but there are {}",
                layer.rope,
                config.ropes.len()
            ));
        }
        if layer.window == Some(0) {
            return Err(format!("layer {index} has a sliding window of 0"));
        }
    }
    config
        .ropes
        .iter()
        .try_for_each(|rope| check_rope(rope, config.head_dim))?;
    let positive = [
        ("norm_eps", config.norm_eps),
        ("attention_scale", config.attention_scale),
        ("embedding_scale", config.embedding_scale),
        ("logit_softcap", config.logit_softcap.unwrap_or(1.0)),
        ("attention_softcap", config.attention_softcap.unwrap_or(1.0)),
    ];
    positive
        .into_iter()
        .try_for_each(|(name, found)| check_positive(name, found))?;
    if config.post_norms && config.residual == Residual::PostNorm {
        return Err("post_norms beside residual post_norm".to_owned());
    }
    if let Some(encoder) = &config.encoder {
        check_encoder(encoder, config)?;
    }
    let tokens = config.bos_token.iter().chain(&config.eos_tokens);
    for &token in tokens {
        if token as usize >= config.vocab_size {
            return Err(format!(
                "special token {token} is not in a vocabulary of {}",
                config.vocab_size
            ));
        }
    }
    Ok(())
}

fn check_positive(name: &str, found: f32) -> Result<(), String> {
    if found.is_finite() && found > 0.0 {
        return Ok(());
    }
    Err(format!("{name} is {found}: expected a positive number"))
}

fn check_encoder(encoder: &EncoderConfig, config: &ModelConfig) -> Result<(), String> {
    if let Some(first) = encoder.first_position
        && (first > MAX_DIMENSION || config.max_positions > MAX_DIMENSION)
    {
        return Err(format!(
            "{} positions after row {first}: expected at most {MAX_DIMENSION}",
            config.max_positions
        ));
    }
    if encoder.token_types > MAX_DIMENSION {
        return Err(format!(
            "token_types is {}: expected at most {MAX_DIMENSION}",
            encoder.token_types
        ));
    }
    if encoder.max_tokens == 0 || encoder.max_tokens > config.max_positions {
        return Err(format!(
            "max_tokens is {}: expected 1 to {}, the positions",
            encoder.max_tokens, config.max_positions
        ));
    }
    if config.layers.iter().any(|layer| layer.window.is_some()) {
        return Err("an encoder with a sliding window is not supported".to_owned());
    }
    let labels = encoder.classifier.as_ref().map(|c| c.labels.len());
    if labels.is_some_and(|labels| labels == 0 || labels > MAX_DIMENSION) {
        return Err(format!(
            "the classifier has {} labels: expected 1 to {MAX_DIMENSION}",
            labels.unwrap_or(0)
        ));
    }
    Ok(())
}

fn check_rope(rope: &Rope, head_dim: usize) -> Result<(), String> {
    check_positive("rope theta", rope.theta)?;
    if rope.dims == 0 || !rope.dims.is_multiple_of(2) || rope.dims > head_dim {
        return Err(format!(
            "rope dims are {}: expected an even number up to head_dim ({head_dim})",
            rope.dims
        ));
    }
    let mut positive = vec![];
    let mut original = 1;
    match &rope.scaling {
        None => {}
        Some(RopeScaling::Linear { factor }) => positive.push(*factor),
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_positions,
        }) => {
            positive.extend([*factor, *low_freq_factor, *high_freq_factor]);
            original = *original_positions;
        }
        Some(RopeScaling::LongRope {
            short,
            long,
            original_positions,
            attention_factor,
        }) => {
            if short.len() != rope.dims / 2 || long.len() != rope.dims / 2 {
                return Err(format!(
                    "rope has {} short and {} long factors: expected {} each",
                    short.len(),
                    long.len(),
                    rope.dims / 2
                ));
            }
            positive.extend(short.iter().chain(long));
            positive.push(*attention_factor);
            original = *original_positions;
        }
        Some(RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_positions,
            attention_factor,
        }) => {
            positive.extend([*factor, *beta_fast, *beta_slow, *attention_factor]);
            original = *original_positions;
        }
    }
    if original == 0 {
        return Err("rope original_positions is 0".to_owned());
    }
    positive
        .into_iter()
        .try_for_each(|factor| check_positive("a rope factor", factor))
}

/// Checks a header: the configuration, and that the weights are those that it needs.
///
/// # Errors
/// A sentence that names the field or tensor, what was expected and what was found.
pub fn header(header: &Header) -> Result<(), String> {
    config(&header.config)?;
    let expected = expected_weights(&header.config);
    let mut optional = optional_weights(&header.config);
    optional.append(&mut corrections(header)?);
    for (name, shape) in &expected {
        if !header.weights.contains_key(name) {
            return Err(format!("tensor {name} of shape {shape:?} is missing"));
        }
    }
    for (name, info) in &header.weights {
        let Some(shape) = expected.get(name).or_else(|| optional.get(name)) else {
            return Err(format!("tensor {name} has no place in this configuration"));
        };
        if info.shape != *shape {
            return Err(format!(
                "tensor {name} has shape {:?}: expected {shape:?}",
                info.shape
            ));
        }
        let stored = stored(info).map_err(|reason| format!("tensor {name}: {reason}"))?;
        let integers = matches!(stored, Stored::Matrix(layout) if layout.kind().is_quantized());
        if info.activations != Activations::default() && !integers {
            return Err(format!(
                "tensor {name} of kind {} takes floats: expected no activations",
                info.kind
            ));
        }
    }
    Ok(())
}

/// Shapes of the low-rank corrections: those that the rank of each `NAME_narrow` asks for.
fn corrections(header: &Header) -> Result<BTreeMap<String, Vec<usize>>, String> {
    let mut shapes = BTreeMap::new();
    for Projection { name, shape, .. } in projections(&header.config) {
        let [narrow, widen] = correction(&name);
        let info = match (header.weights.get(&narrow), header.weights.get(&widen)) {
            (None, None) => continue,
            (None, Some(_)) => return Err(format!("tensor {narrow} is missing beside {widen}")),
            (Some(_), None) => return Err(format!("tensor {widen} is missing beside {narrow}")),
            (Some(info), Some(_)) => info,
        };
        let [outputs, inputs] = shape;
        let rank = info.shape.first().copied().unwrap_or(0);
        let full = outputs.min(inputs);
        if rank == 0 || rank > full {
            return Err(format!(
                "tensor {narrow} has shape {:?}: expected a rank of 1 to {full} by {inputs}",
                info.shape
            ));
        }
        for name in [&narrow, &widen] {
            if header.weights[name].activations != Activations::default() {
                return Err(format!(
                    "tensor {name} corrects another: expected no activations"
                ));
            }
        }
        shapes.insert(narrow, vec![rank, inputs]);
        shapes.insert(widen, vec![outputs, rank]);
    }
    Ok(shapes)
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    /// A packed matrix, `U8`.
    Matrix(Layout),
    /// A vector of that many floats, padded to 16, `F32`.
    Vector(usize),
}

impl Stored {
    /// Bytes in the file, a multiple of 64.
    pub fn bytes(self) -> usize {
        match self {
            Stored::Matrix(layout) => layout.bytes(),
            Stored::Vector(len) => len.next_multiple_of(VECTOR_STEP) * size_of::<f32>(),
        }
    }
}

/// Layout of a weight.
///
/// # Errors
/// An unknown kind, a shape of other than one or two dimensions, or one that cannot be addressed.
pub fn stored(info: &WeightInfo) -> Result<Stored, String> {
    let kind: Kind = info.kind.parse().map_err(|error| format!("{error}"))?;
    match info.shape[..] {
        [len] if kind == Kind::F32 && (1..=1 << 40).contains(&len) => Ok(Stored::Vector(len)),
        [_] => Err(format!(
            "a vector of kind {kind} and shape {:?}: expected f32",
            info.shape
        )),
        [rows, cols] => match Layout::new(kind, rows, cols) {
            Ok(layout) => Ok(Stored::Matrix(layout)),
            Err(error) => Err(error.to_string()),
        },
        _ => Err(format!("{} dimensions: expected 1 or 2", info.shape.len())),
    }
}
