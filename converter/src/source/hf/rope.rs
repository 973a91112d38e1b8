//! `rope_parameters` (transformers 5) or `rope_scaling` (before) as a [`RopeScaling`].

use kinglet::config::RopeScaling;
use serde_json::{Map, Value};

/// Rotary parameters, read with checks.
pub struct RopeParameters<'a>(pub &'a Map<String, Value>);

/// What the scaling needs to know of the model.
#[derive(Clone, Copy)]
pub struct Context {
    /// `max_position_embeddings`
    pub positions: usize,
    /// `original_max_position_embeddings` beside the rotary parameters; it counts more than theirs.
    pub original: Option<usize>,
    /// Whether it is Phi-3, whose early files call LongRoPE `su` or `yarn`.
    pub phi3: bool,
}

impl RopeParameters<'_> {
    /// A number, if it is there.
    ///
    /// # Errors
    /// A value of another type.
    pub fn number(&self, key: &str) -> Result<Option<f32>, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => number(key, value).map(Some),
        }
    }

    fn required(&self, kind: &str, key: &str) -> Result<f32, String> {
        let found = self.number(key)?;
        found.ok_or_else(|| format!("rope scaling {kind:?} without {key}"))
    }

    fn numbers(&self, key: &str) -> Result<Vec<f32>, String> {
        let values = self.0.get(key).and_then(Value::as_array);
        let values = values.ok_or_else(|| format!("rope scaling without a list {key}"))?;
        values.iter().map(|value| number(key, value)).collect()
    }

    /// The scaling.
    ///
    /// # Errors
    /// A kind that is not supported, or a parameter that is missing or of another type.
    pub fn scaling(&self, context: Context) -> Result<Option<RopeScaling>, String> {
        let kind = match self.0.get("rope_type").or(self.0.get("type")) {
            None | Some(Value::Null) => "default",
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(format!("rope_type is {other}: expected a string")),
        };
        let original = self.number("original_max_position_embeddings")?;
        let original = context.original.or(original.map(|x| x as usize));
        let original_positions = original.unwrap_or(context.positions);
        // What the context grew by, where the parameters do not say.
        let grown = context.positions as f32 / original_positions.max(1) as f32;
        match kind {
            "default" => Ok(None),
            "linear" => Ok(Some(RopeScaling::Linear {
                factor: self.required(kind, "factor")?,
            })),
            "llama3" => Ok(Some(RopeScaling::Llama3 {
                factor: self.required(kind, "factor")?,
                low_freq_factor: self.required(kind, "low_freq_factor")?,
                high_freq_factor: self.required(kind, "high_freq_factor")?,
                original_positions,
            })),
            "longrope" => self.longrope(original_positions, grown).map(Some),
            "su" | "yarn" if context.phi3 => self.longrope(original_positions, grown).map(Some),
            "yarn" => self.yarn(original_positions, grown).map(Some),
            other => Err(format!(
                "rope_type {other:?} is not supported: \
                 expected default, linear, llama3, longrope or yarn"
            )),
        }
    }

    fn longrope(&self, original_positions: usize, grown: f32) -> Result<RopeScaling, String> {
        let factor = self.number("factor")?.unwrap_or(grown);
        let attention = if factor > 1.0 {
            (1.0 + factor.ln() / (original_positions as f32).ln()).sqrt()
        } else {
            1.0
        };
        Ok(RopeScaling::LongRope {
            short: self.numbers("short_factor")?,
            long: self.numbers("long_factor")?,
            original_positions,
            attention_factor: self.number("attention_factor")?.unwrap_or(attention),
        })
    }

    fn yarn(&self, original_positions: usize, grown: f32) -> Result<RopeScaling, String> {
        if self.0.get("truncate") == Some(&Value::Bool(false)) {
            return Err("rope scaling \"yarn\" with truncate false is not supported".to_owned());
        }
        let factor = self.number("factor")?.unwrap_or(grown);
        let scale = |m: f32| {
            if factor > 1.0 {
                0.1 * m * factor.ln() + 1.0
            } else {
                1.0
            }
        };
        let (mscale, all) = (
            self.number("mscale")?.filter(|&m| m != 0.0),
            self.number("mscale_all_dim")?.filter(|&m| m != 0.0),
        );
        let attention = match (mscale, all) {
            (Some(mscale), Some(all)) => scale(mscale) / scale(all),
            _ => scale(1.0),
        };
        Ok(RopeScaling::Yarn {
            factor,
            beta_fast: self.number("beta_fast")?.unwrap_or(32.0),
            beta_slow: self.number("beta_slow")?.unwrap_or(1.0),
            original_positions,
            attention_factor: self.number("attention_factor")?.unwrap_or(attention),
        })
    }
}

fn number(key: &str, value: &Value) -> Result<f32, String> {
    let number = value.as_f64().map(|x| x as f32);
    number.ok_or_else(|| format!("{key} is {value}: expected a number"))
}
