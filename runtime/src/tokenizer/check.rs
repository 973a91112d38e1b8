//! The kind of a `tokenizer.json`, and parts that the `tokenizers` crate would panic on, refused with a
//! sentence.

use super::charsmap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The parts that are looked at; the vocabulary is skipped over.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    dropout: Option<f32>,
    /// Only BPE has them; older files do not name their kind.
    merges: Option<IgnoredAny>,
}

/// Which kind of model cuts words into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Byte pair encoding.
    Bpe,
    /// Byte pair encoding that marks the end of words, or leaves merges out at random.
    BpeVariant,
    WordPiece,
    Unigram,
    /// One that is not named, or not known here.
    Other,
}

impl Model {
    fn kind(&self) -> Kind {
        let suffix = self.end_of_word_suffix.as_deref().unwrap_or_default();
        let named = self.kind.as_deref();
        match named.or(self.merges.map(|_| "BPE")) {
            Some("BPE") if suffix.is_empty() && self.dropout.unwrap_or(0.0) == 0.0 => Kind::Bpe,
            Some("BPE") => Kind::BpeVariant,
            Some("WordPiece") => Kind::WordPiece,
            Some("Unigram") => Kind::Unigram,
            _ => Kind::Other,
        }
    }
}

/// Checks a `tokenizer.json`, and says which kind of model it has.
///
/// # Errors
/// A sentence that names the part, what was expected and what was found.
pub fn outline(json: &[u8]) -> Result<Kind, String> {
    let outline: Outline = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let kind = outline.model.kind();
    let prefix = outline.model.continuing_subword_prefix;
    let word_piece = kind == Kind::WordPiece;
    if let Some(prefix) = prefix.filter(|prefix| !prefix.is_empty() && !word_piece) {
        return Err(format!(
            "continuing_subword_prefix {prefix:?} is only supported for WordPiece"
        ));
    }
    each_object(&outline.normalizer, &mut |part| {
        let charsmap = &part["precompiled_charsmap"];
        if part["type"] != "Precompiled" && charsmap.is_null() {
            return Ok(());
        }
        let text = charsmap
            .as_str()
            .ok_or("expected text in base64".to_owned());
        let checked = text.and_then(charsmap::check);
        checked.map_err(|e| format!("normalizer Precompiled: precompiled_charsmap: {e}"))
    })?;
    each_object(&outline.decoder, &mut |part| {
        if part["type"] == "Strip" && part["stop"].as_u64() != Some(0) {
            return Err(format!(
                "decoder Strip: stop is {}: expected 0",
                part["stop"]
            ));
        }
        Ok(())
    })?;
    let mut templates = 0;
    each_object(&outline.post_processor, &mut |part| {
        if part["type"] == "TemplateProcessing" {
            templates += 1;
            template(part)?;
        }
        Ok(())
    })?;
    if templates > 1 {
        return Err(format!(
            "post_processor: {templates} templates: expected at most one"
        ));
    }
    Ok(kind)
}

/// Whether the template of a single text has that text alone, and whether the special tokens that
/// it and that of a pair name are known.
fn template(processor: &Value) -> Result<(), String> {
    let pieces = |template: &str| processor[template].as_array().into_iter().flatten();
    for piece in pieces("single") {
        let sequence = &piece["Sequence"]["id"];
        if !sequence.is_null() && sequence != "A" {
            return Err(format!(
                "post_processor: a template of a single text names the text {sequence}: \
                 expected \"A\""
            ));
        }
    }
    for piece in pieces("single").chain(pieces("pair")) {
        let name = piece["SpecialToken"]["id"].as_str();
        if let Some(name) = name.filter(|name| processor["special_tokens"].get(name).is_none()) {
            return Err(format!(
                "post_processor: the template names {name:?}, which its special_tokens lack"
            ));
        }
    }
    Ok(())
}

/// Calls `check` for every object, those within others included.
fn each_object(
    value: &Value,
    check: &mut impl FnMut(&Value) -> Result<(), String>,
) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            check(value)?;
            fields
                .values()
                .try_for_each(|field| each_object(field, check))
        }
        Value::Array(values) => values
            .iter()
            .try_for_each(|value| each_object(value, check)),
        _ => Ok(()),
    }
}
