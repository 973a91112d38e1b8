//! A recipe: what a conversion does, as TOML. Each key has a command-line flag of the same name (`kind` is `--quant`,
//! `minimum` is `--min`), and the recipe is stored in the file that it made.

use crate::Error;
use crate::calibrate::BUILT_IN;
use crate::passes::rotate::Rotate;
use kinglet_kernels::packing::{Group, Kind, SplitBits};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The passes and their settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// What is done to weights before.
    #[serde(skip_serializing_if = "Passes::is_empty")]
    pub passes: Passes,
    /// How weights are stored.
    pub quantize: Quantize,
}

/// Transformations after which a model computes the same and quantizes better, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Passes {
    /// Whether values of heads are rotated, or the residual stream too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
    /// Whether the input channels of layers are scaled by what the calibration text shows; by default
    /// where layers are `q8` and calibrated, see [`Recipe::awq`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awq: Option<bool>,
}

impl Passes {
    fn is_empty(&self) -> bool {
        *self == Passes::default()
    }
}

/// How codes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Round to nearest, scales from the largest weight of each group
    Rtn,
    /// Round to nearest, the scale of each group searched for
    Search,
    /// GPTQ: errors made up for, for the inputs that a calibration text gives
    Gptq,
}

/// How weights are stored. Kinds are `f32`, `f16`, `q8`, `q6`, `q5`, `q4` or `q3`, which `group` and
/// `minimum` make precise, or a full name such as `q8g32` or `q4mg64`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quantize {
    /// Kind of the matrices in the layers.
    pub kind: String,
    /// Columns that share a scale: 32, 64 or 128.
    pub group: usize,
    /// Whether `q4` has a minimum beside the scale.
    pub minimum: bool,
    /// Kind of the embedding (of tokens, positions and token types); by default `q8` where the
    /// layers are smaller, else that of the layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed: Option<String>,
    /// Kind of the output or classification head; by default that of the embedding. A tied head of
    /// another kind is written beside the embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// How codes are chosen; by default `search`, which needs no data. Encoders are not calibrated:
    /// for them, `gptq` is `search`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The size of the file, such as `77.6MB` (of 10⁶ bytes), `1.5GB` or a number of bytes: kinds are
    /// then chosen for each weight to fit it with the least loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The size of the file as bits per weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpw: Option<f64>,
    /// The text that the model is calibrated on; by default the one built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
    /// The most windows of 512 tokens of it that are used.
    pub windows: usize,
    /// Whether layers take their inputs as the sum of two INT8, as many as it takes for the inputs of
    /// the others to lose no more than the weights do: closer to the original, and slower with long
    /// prompts.
    pub precise: bool,
    /// The rank of the correction that each quantized linear layer of a block gets, made for the inputs
    /// of the calibration text; 0 for none.
    pub low_rank: usize,
    /// Whether each quantized linear layer of a block gets a bias that makes up for the mean error of
    /// its outputs.
    pub bias_correction: bool,
    /// Whether norms are fitted to the quantized layers that read them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub norm_correction: bool,
    /// Whether weights that already lie on the grid of their kind (GGUF `Q4_0`, `Q4_1`, `Q8_0`)
    /// keep their codes and scales bit for bit.
    pub keep_grid: bool,
}

impl Default for Quantize {
    fn default() -> Quantize {
        Quantize {
            kind: "q4".to_owned(),
            group: 32,
            minimum: false,
            embed: None,
            head: None,
            method: None,
            size: None,
            bpw: None,
            calibration: None,
            windows: 48,
            precise: false,
            low_rank: 0,
            bias_correction: false,
            norm_correction: false,
            keep_grid: false,
        }
    }
}

/// The kinds of a model's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Of the layers.
    pub layers: Kind,
    /// Of the embedding.
    pub embed: Kind,
    /// Of the head.
    pub head: Kind,
}

impl Kinds {
    /// The kind of the matrix `name`.
    pub fn of(&self, name: &str) -> Kind {
        match name {
            "embed" | "positions" | "token_types" => self.embed,
            "head" | "classifier" | "classifier_dense" => self.head,
            _ => self.layers,
        }
    }

    /// What most layers of a file with so many bits per weight will have: the widest kind that fits.
    pub fn of_size(self, bits_per_weight: f64) -> Kinds {
        let wide = Kind::quantized().filter(|kind| {
            let scale = 16.0 / kind.group().map_or(16.0, |group| group.len() as f64);
            !kind.has_minimum() && kind.code_bits() as f64 + scale <= bits_per_weight
        });
        let widest = wide.max_by_key(|kind| (kind.code_bits(), std::cmp::Reverse(kind.group())));
        Kinds {
            layers: widest.unwrap_or(self.layers),
            ..self
        }
    }
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// A file that cannot be read, or a key or value that is unknown.
    pub fn read(path: &Path) -> Result<Recipe, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        toml::from_str(&text).map_err(|e| Error::source(path, e.to_string()))
    }

    /// The kinds that the settings ask for.
    ///
    /// # Errors
    /// A setting that names no kind or group size, or passes that do not go with the rest.
    pub fn kinds(&self) -> Result<Kinds, Error> {
        let kinds = self.quantize.kinds()?;
        // For what it finds wrong, whatever the model.
        self.quantize.budget(1)?;
        if let Some(path) = &self.quantize.calibration
            && path.to_str().is_none()
        {
            return Err(Error::Setting {
                flag: "calibration",
                reason: format!(
                    "{}: expected a name in UTF-8: rename the file",
                    path.display()
                ),
            });
        }
        let flag = match self.passes {
            Passes {
                awq: Some(true), ..
            } => "awq",
            Passes { rotate: None, .. } => return Ok(kinds),
            _ => "rotate",
        };
        let fail = |reason| Err(Error::Setting { flag, reason });
        if self.quantize.keep_grid {
            return fail("cannot stand with --keep-grid: weights leave their grid".to_owned());
        }
        if flag == "awq" && !kinds.layers.is_quantized() {
            let layers = kinds.layers;
            return fail(format!(
                "{layers} is not rounded: expected --quant q8 or smaller"
            ));
        }
        Ok(kinds)
    }

    /// Whether the input channels of layers of these kinds are scaled. Of what `q8` loses most are
    /// its inputs, which nothing else makes up for; below, GPTQ gains nothing from it.
    pub fn awq(&self, kinds: &Kinds) -> bool {
        let is_calibrated = self.quantize.method() == Method::Gptq && !self.quantize.keep_grid;
        let pays = is_calibrated && matches!(kinds.layers, Kind::Q8 { .. });
        self.passes.awq.unwrap_or(pays)
    }

    /// The recipe as TOML.
    ///
    /// # Panics
    /// If the name of the calibration text is not UTF-8, which [`Recipe::kinds`] refuses.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is plain data")
    }
}

impl Quantize {
    /// How codes are chosen.
    pub fn method(&self) -> Method {
        self.method.unwrap_or(Method::Search)
    }

    /// Whether quantized layers are corrected.
    pub fn corrects(&self) -> bool {
        self.low_rank > 0 || self.bias_correction
    }

    /// The rank of the correction of a matrix: no more than its shorter side.
    pub fn rank(&self, outputs: usize, inputs: usize) -> Option<usize> {
        let rank = self.low_rank.min(outputs).min(inputs);
        (rank > 0).then_some(rank)
    }

    /// The flag that asks for what only a calibration text can give, if any does.
    pub fn calibrated_for(&self) -> Option<&'static str> {
        let flags = [
            ("size", self.size.is_some()),
            ("bpw", self.bpw.is_some()),
            ("precise", self.precise),
            ("low-rank", self.low_rank > 0),
            ("bias-correction", self.bias_correction),
            ("norm-correction", self.norm_correction),
        ];
        flags.iter().find(|(_, set)| *set).map(|(flag, _)| *flag)
    }

    /// The most bytes of the file, with the flag that asks for them, if any does.
    ///
    /// # Errors
    /// A size that cannot be read, or both flags at once.
    pub fn budget(&self, parameters: u64) -> Result<Option<(&'static str, u64)>, Error> {
        let invalid = |flag, reason| Error::Setting { flag, reason };
        match (&self.size, self.bpw) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(invalid("size", "cannot stand with --bpw".to_owned())),
            (Some(size), None) => {
                let bytes = parse_size(size).ok_or_else(|| {
                    let reason = format!("{size:?}: expected a size such as 77.6MB or 1.5GB");
                    invalid("size", reason)
                })?;
                Ok(Some(("size", bytes)))
            }
            (None, Some(bpw)) if bpw > 0.0 && bpw <= 32.0 => {
                Ok(Some(("bpw", (bpw / 8.0 * parameters as f64) as u64)))
            }
            (None, Some(bpw)) => {
                let reason = format!("{bpw}: expected bits per weight between 0 and 32");
                Err(invalid("bpw", reason))
            }
        }
    }

    /// The calibration text.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn calibration_text(&self) -> Result<Cow<'static, str>, Error> {
        match &self.calibration {
            None => Ok(Cow::Borrowed(BUILT_IN)),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                Ok(Cow::Owned(text))
            }
        }
    }

    /// The kinds that the settings ask for.
    ///
    /// # Errors
    /// A setting that names no kind or group size.
    pub fn kinds(&self) -> Result<Kinds, Error> {
        let layers = self.parse("quant", &self.kind)?;
        let embed = match (&self.embed, layers) {
            (Some(name), _) => self.parse("embed", name)?,
            (None, Kind::Q4 { group, .. } | Kind::Split { group, .. }) => Kind::Q8 { group },
            (None, kind) => kind,
        };
        let head = match &self.head {
            Some(name) => self.parse("head", name)?,
            None => embed,
        };
        Ok(Kinds {
            layers,
            embed,
            head,
        })
    }

    fn parse(&self, flag: &'static str, name: &str) -> Result<Kind, Error> {
        let invalid = |reason: String| Error::Setting { flag, reason };
        let group = || {
            Group::from_len(self.group).map_err(|e| Error::Setting {
                flag: "group",
                reason: e.to_string(),
            })
        };
        let split = |bits: SplitBits| {
            Ok::<_, Error>(Kind::Split {
                bits,
                group: group()?,
            })
        };
        Ok(match name {
            "q8" => Kind::Q8 { group: group()? },
            "q6" => split(SplitBits::B6)?,
            "q5" => split(SplitBits::B5)?,
            "q3" => split(SplitBits::B3)?,
            "q4" => Kind::Q4 {
                group: group()?,
                minimum: self.minimum,
            },
            _ => name.parse().map_err(|_| {
                invalid(format!(
                    "unknown kind {name:?}: expected f32, f16, q8, q6, q5, q4, q3, \
                     or one with its group such as q8g32, q4g64, q4mg128"
                ))
            })?,
        })
    }
}

/// Bytes of a size such as `77.6MB`, units of 1000.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        _ => return None,
    };
    let bytes = (number.parse::<f64>().ok()? * factor).round();
    (1.0..1e15).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let all = [
            ("77.6MB", 77_600_000),
            ("1.5 gb", 1_500_000_000),
            ("12", 12),
        ];
        for (text, bytes) in all {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1.2.3", "5 XB", "1e9", "0"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        let both = Quantize {
            size: Some("1MB".to_owned()),
            bpw: Some(4.0),
            ..Quantize::default()
        };
        assert!(both.budget(1).is_err());
    }

    #[test]
    fn a_size_stands_for_the_widest_kind_that_fits() {
        let kinds = Quantize::default().kinds().unwrap();
        let layers = |bits: f64| kinds.of_size(bits).layers.to_string();
        let all = [4.6, 5.2, 6.27, 8.13, 8.3, 8.6, 16.1].map(layers);
        let expected = [
            "q4g32", "q5g128", "q6g64", "q8g128", "q8g64", "q8g32", "q8g32",
        ];
        assert_eq!(all, expected);
        assert_eq!(layers(1.0), "q4g32");
    }

    fn kinds(quantize: Quantize) -> String {
        let kinds = quantize.kinds().unwrap();
        format!("{} {} {}", kinds.layers, kinds.embed, kinds.head)
    }

    #[test]
    fn kinds_follow_from_settings() {
        let with = |kind: &str, group, minimum| Quantize {
            kind: kind.to_owned(),
            group,
            minimum,
            ..Quantize::default()
        };
        assert_eq!(kinds(Quantize::default()), "q4g32 q8g32 q8g32");
        assert_eq!(kinds(with("q4", 64, true)), "q4mg64 q8g64 q8g64");
        assert_eq!(kinds(with("f16", 32, false)), "f16 f16 f16");
        let head = Quantize {
            embed: Some("f16".to_owned()),
            head: Some("q4mg128".to_owned()),
            ..with("q8", 32, false)
        };
        assert_eq!(kinds(head), "q8g32 f16 q4mg128");
    }

    #[test]
    fn errors_name_the_flag() {
        let unknown = Quantize {
            embed: Some("int3".to_owned()),
            ..Quantize::default()
        };
        let message = unknown.kinds().unwrap_err().to_string();
        assert!(
            message.contains("--embed") && message.contains("int3"),
            "{message}"
        );
        let group = Quantize {
            group: 48,
            ..Quantize::default()
        };
        let message = group.kinds().unwrap_err().to_string();
        assert!(message.contains("group size 48"), "{message}");
    }

    #[test]
    fn toml_round_trips_and_refuses_unknown_keys() {
        let recipe = Recipe {
            quantize: Quantize {
                head: Some("q8".to_owned()),
                ..Quantize::default()
            },
            passes: Passes {
                rotate: Some(Rotate::Heads),
                awq: Some(true),
            },
        };
        assert_eq!(toml::from_str::<Recipe>(&recipe.to_toml()).unwrap(), recipe);
        assert!(toml::from_str::<Recipe>("[quantize]\nbits = 4").is_err());
    }
}
