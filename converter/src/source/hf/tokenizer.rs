//! The tokenizer's files: `tokenizer.json` (or `vocab.txt`), `tokenizer_config.json`,
//! `chat_template.jinja`.

use super::vocab;
use crate::Error;
use crate::source::folder::Folder;
use serde_json::Value;
use std::path::Path;

/// What the files say.
pub struct TokenizerFiles {
    /// `tokenizer.json`
    pub json: Vec<u8>,
    /// The token that the tokenizer puts before every text, if it does.
    pub bos_token: Option<u32>,
    /// The chat template, if there is one.
    pub chat_template: Option<String>,
}

/// Reads the tokenizer's files.
///
/// # Errors
/// Neither `tokenizer.json` nor `vocab.txt`, or files that are not what they should be.
pub fn read(folder: &Folder) -> Result<TokenizerFiles, Error> {
    let settings = match folder.read("tokenizer_config.json")? {
        Some(text) => json_of(&folder.path().join("tokenizer_config.json"), &text)?,
        None => Value::Null,
    };
    let json = match folder.read("tokenizer.json")? {
        Some(json) => json,
        None => from_vocab(folder, &settings)?,
    };
    let parsed = json_of(&folder.path().join("tokenizer.json"), &json)?;
    let template = folder.read("chat_template.jinja")?;
    let template = template.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(TokenizerFiles {
        bos_token: bos_token(&parsed),
        chat_template: template.or_else(|| chat_template(&settings)),
        json,
    })
}

/// What `vocab.txt` makes, where there is no `tokenizer.json`.
fn from_vocab(folder: &Folder, settings: &Value) -> Result<Vec<u8>, Error> {
    let path = folder.path().join("vocab.txt");
    let vocab = folder.read("vocab.txt")?.ok_or_else(|| {
        Error::source(
            folder.path(),
            "tokenizer.json is missing: with transformers, \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) makes it",
        )
    })?;
    let vocab = String::from_utf8(vocab).map_err(|e| Error::source(&path, e.to_string()))?;
    vocab::tokenizer_json(&vocab, settings).map_err(|reason| Error::source(&path, reason))
}

fn json_of(path: &Path, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::source(path, e.to_string()))
}

/// The special token that the post-processor's template starts with.
fn bos_token(tokenizer: &Value) -> Option<u32> {
    let processor = &tokenizer["post_processor"];
    let steps = match processor["type"].as_str()? {
        "Sequence" => processor["processors"].as_array()?.as_slice(),
        _ => std::slice::from_ref(processor),
    };
    let template = steps.iter().find(|p| p["type"] == "TemplateProcessing")?;
    let name = template["single"][0]["SpecialToken"]["id"].as_str()?;
    let id = template["special_tokens"][name]["ids"][0].as_u64()?;
    u32::try_from(id).ok()
}

/// The template itself, or the one named `default` of a list.
fn chat_template(settings: &Value) -> Option<String> {
    let template = match &settings["chat_template"] {
        Value::Array(named) => &named.iter().find(|t| t["name"] == "default")?["template"],
        template => template,
    };
    template.as_str().map(str::to_owned)
}
