//! A recipe: what a conversion does, as TOML. Each key has a command-line flag of the same name, and
//! the recipe is stored in the file that it made.

use crate::Error;
use kinglet_kernels::packing::{Group, Kind};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The passes and their settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// How weights are stored.
    pub quantize: Quantize,
}

/// How weights are stored. Kinds are `f32`, `f16`, `q8` or `q4`, which `group` and `minimum` make
/// precise, or a full name such as `q8g32` or `q4mg64`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quantize {
    /// Kind of the matrices in the layers.
    pub kind: String,
    /// Columns that share a scale: 32, 64 or 128.
    pub group: usize,
    /// Whether `q4` has a minimum beside the scale.
    pub minimum: bool,
    /// Kind of the embedding (of tokens, positions and token types); by default `q8` where the layers are `q4`, else that of the layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed: Option<String>,
    /// Kind of the output or classification head; by default that of the embedding. A tied head of another kind is
    /// written beside the embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
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

    /// The recipe as TOML.
    ///
    /// # Panics
    /// Never: a recipe is plain data.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is plain data")
    }
}

impl Quantize {
    /// The kinds that the settings ask for.
    ///
    /// # Errors
    /// A setting that names no kind or group size.
    pub fn kinds(&self) -> Result<Kinds, Error> {
        let layers = self.parse("quant", &self.kind)?;
        let embed = match (&self.embed, layers) {
            (Some(name), _) => self.parse("embed", name)?,
            (None, Kind::Q4 { group, .. }) => Kind::Q8 { group },
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
        Ok(match name {
            "q8" => Kind::Q8 { group: group()? },
            "q4" => Kind::Q4 {
                group: group()?,
                minimum: self.minimum,
            },
            _ => name.parse().map_err(|_| {
                invalid(format!(
                    "unknown kind {name:?}: expected f32, f16, q8, q4, \
                     or one with its group such as q8g32, q4g64, q4mg128"
                ))
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        assert_eq!(toml::from_str::<Recipe>(&recipe.to_toml()).unwrap(), recipe);
        assert!(toml::from_str::<Recipe>("[quantize]\nbits = 4").is_err());
    }
}
