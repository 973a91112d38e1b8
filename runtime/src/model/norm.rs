//! Norms: RMSNorm or LayerNorm, with their weights.

use crate::config::NormKind;
use crate::error::Error;
use crate::format::ModelFile;
use crate::format::names::bias_name;
use kinglet_kernels::Engine;

/// A norm of rows.
pub struct Norm {
    weight: Vec<f32>,
    /// Of a LayerNorm; RMSNorm has none.
    bias: Option<Vec<f32>>,
    eps: f32,
}

impl Norm {
    /// The norm `name`.
    ///
    /// # Errors
    /// A tensor that the file lacks.
    pub fn open(file: &ModelFile, name: &str, kind: NormKind) -> Result<Norm, Error> {
        let bias = match kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(file.vector(&bias_name(name))?.to_vec()),
        };
        Ok(Norm {
            weight: file.vector(name)?.to_vec(),
            bias,
            eps: file.config().norm_eps,
        })
    }

    /// `out = norm(x)`
    pub fn apply(&self, engine: &Engine, x: &[f32], out: &mut [f32]) {
        match &self.bias {
            None => engine.rms_norm(x, &self.weight, self.eps, out),
            Some(bias) => engine.layer_norm(x, &self.weight, bias, self.eps, out),
        }
    }

    /// `x = norm(x)`
    pub fn apply_in_place(&self, engine: &Engine, x: &mut [f32]) {
        match &self.bias {
            None => engine.rms_norm_in_place(x, &self.weight, self.eps),
            Some(bias) => engine.layer_norm_in_place(x, &self.weight, bias, self.eps),
        }
    }

    /// `x = norm(x + y)`
    pub fn add_and_apply(&self, engine: &Engine, x: &mut [f32], y: &[f32]) {
        match &self.bias {
            None => {
                engine.add(x, y);
                engine.rms_norm_in_place(x, &self.weight, self.eps);
            }
            Some(bias) => engine.add_layer_norm(x, y, &self.weight, bias, self.eps),
        }
    }
}
