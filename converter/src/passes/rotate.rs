//! Rotations folded into weights (QuaRot, Ashkboos et al. 2024; SpinQuant, Liu et al. 2024): outliers,
//! of weights and of inputs alike, are spread over all dimensions.
//!
//! Only what a model computes in any basis can be rotated without loss: the values of attention heads,
//! which are added up and go to `o`, and the residual stream, if norms have no say in single
//! dimensions. The input of `down` comes from a nonlinearity and would have to be rotated at run time.

use super::fold::{Ones, RotatedColumns, RotatedRows, ScaledColumns};
use super::rotation::Rotation;
use crate::Error;
use crate::checkpoint::{Checkpoint, Weight};
use kinglet::config::{NormKind, Residual};
use kinglet::format::names::layer;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Rotate {
    /// The values of attention heads: any model
    Heads,
    /// The residual stream as well: a tied head is written beside the embedding
    All,
}

/// Rotates a checkpoint.
///
/// # Errors
/// A model whose residual stream cannot be rotated without loss, or a weight that is missing or cannot
/// be read.
pub fn rotate(checkpoint: &Checkpoint, what: Rotate) -> Result<Checkpoint, Error> {
    let mut rotated = checkpoint.clone();
    if what == Rotate::All {
        residual(&mut rotated)?;
    }
    heads(&mut rotated)?;
    Ok(rotated)
}

/// `v` gives rotated values, with their bias if there is one, and `o` takes them.
fn heads(checkpoint: &mut Checkpoint) -> Result<(), Error> {
    let rotation = Arc::new(Rotation::new(checkpoint.config.head_dim));
    let biases = checkpoint.config.qkv_biases || checkpoint.config.biases;
    for index in 0..checkpoint.config.layers.len() {
        let values = [("v", true), ("v_bias", biases)];
        for (part, _) in values.into_iter().filter(|(_, is_there)| *is_there) {
            checkpoint.replace(&layer(index, part), rows(&rotation))?;
        }
        checkpoint.replace(&layer(index, "o"), columns(&rotation))?;
    }
    Ok(())
}

/// All that is written to the residual stream is rotated, and all that reads it takes it so; the
/// weights of norms go into the layers that follow.
fn residual(checkpoint: &mut Checkpoint) -> Result<(), Error> {
    let config = &checkpoint.config;
    let reason = if config.norm != NormKind::Rms || config.residual != Residual::PreNorm {
        Some("LayerNorm takes the mean off, which depends on the basis")
    } else if config.post_norms {
        Some("it weighs the single dimensions of what a block adds (post norms)")
    } else {
        None
    };
    if let Some(reason) = reason {
        let reason = format!(
            "the residual stream of {} cannot be rotated without loss, {reason}: expected heads",
            config.architecture
        );
        let flag = "rotate";
        return Err(Error::Setting { flag, reason });
    }
    let rotation = Arc::new(Rotation::new(config.hidden_size));
    let layers = config.layers.len();
    // The head first, while a tied one still is the embedding.
    normed(checkpoint, &rotation, "norm", &["head".to_owned()])?;
    checkpoint.config.tied_head = false;
    checkpoint.replace("embed", columns(&rotation))?;
    for index in 0..layers {
        for (norm, parts) in [
            ("attn_norm", &["q", "k", "v"][..]),
            ("ffn_norm", &["gate", "up"]),
        ] {
            let parts: Vec<String> = parts.iter().map(|part| layer(index, part)).collect();
            normed(checkpoint, &rotation, &layer(index, norm), &parts)?;
        }
        for part in ["o", "down"] {
            checkpoint.replace(&layer(index, part), rows(&rotation))?;
        }
    }
    Ok(())
}

/// The layers `parts` read the rotated stream, and take over the weight of their norm.
fn normed(
    checkpoint: &mut Checkpoint,
    rotation: &Arc<Rotation>,
    norm: &str,
    parts: &[String],
) -> Result<(), Error> {
    let factors = checkpoint.read(norm)?;
    checkpoint.replace(norm, |_| Ones([factors.len()]))?;
    for part in parts {
        checkpoint.replace(part, |inner| {
            let factors = factors.clone();
            let inner = Arc::new(ScaledColumns { inner, factors });
            columns(rotation)(inner)
        })?;
    }
    Ok(())
}

fn rows(rotation: &Arc<Rotation>) -> impl FnOnce(Arc<dyn Weight>) -> RotatedRows {
    let rotation = rotation.clone();
    |inner| RotatedRows { inner, rotation }
}

fn columns(rotation: &Arc<Rotation>) -> impl FnOnce(Arc<dyn Weight>) -> RotatedColumns {
    let rotation = rotation.clone();
    |inner| RotatedColumns { inner, rotation }
}
