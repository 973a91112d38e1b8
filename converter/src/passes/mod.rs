//! Passes: from a checkpoint to one that computes the same and loses less when it is quantized.
//!
//! What a pass does to the input of a linear layer, a scale or a rotation, is undone by what stands
//! before it, and both are folded into the weights: the model runs as before, at no cost. Weights stay
//! lazy: a folded one computes its rows when they are read.

pub mod awq;
mod fold;
pub mod rotate;
mod rotation;
#[cfg(test)]
mod tests;

use crate::Error;
use crate::calibrate::Calibration;
use crate::checkpoint::Checkpoint;
use crate::recipe::{Kinds, Method, Recipe};
use std::borrow::Cow;

/// Windows of the calibration text that are enough to choose scales.
const WINDOWS: usize = 16;

/// Applies the passes of a recipe, one after the other, before its quantizer, which makes `kinds` by
/// `method`; `progress` is told each weight once if a pass runs the model.
///
/// # Errors
/// A pass that the model does not allow, or a weight or calibration text that cannot be read.
pub fn apply<'a>(
    checkpoint: &'a Checkpoint,
    recipe: &Recipe,
    kinds: &Kinds,
    method: Method,
    progress: &dyn Fn(usize),
) -> Result<Cow<'a, Checkpoint>, Error> {
    let mut passed = Cow::Borrowed(checkpoint);
    if let Some(what) = recipe.passes.rotate {
        passed = Cow::Owned(rotate::rotate(&passed, what)?);
    }
    if recipe.passes.awq == Some(true) {
        let text = recipe.quantize.calibration_text()?;
        let windows = recipe.quantize.windows.min(WINDOWS);
        let calibration = Calibration::new(&passed, &text, windows)?;
        let scaled = awq::scale(&passed, &calibration, kinds, method, progress)?;
        passed = Cow::Owned(scaled);
    }
    Ok(passed)
}
