//! `vocab.txt`, the WordPiece vocabulary of old BERT checkpoints, as a `tokenizer.json`.

use serde_json::{Map, Value, json};

/// Builds `tokenizer.json`; `settings` is `tokenizer_config.json`, or null.
///
/// # Errors
/// A sentence that says which token is missing or doubled.
pub fn tokenizer_json(vocab: &str, settings: &Value) -> Result<Vec<u8>, String> {
    let mut ids = Map::new();
    for (id, token) in vocab.lines().enumerate() {
        let token = token.trim_end_matches('\r');
        if ids.insert(token.to_owned(), json!(id)).is_some() {
            return Err(format!("line {}: {token:?} is there already", id + 1));
        }
    }
    let name = |key: &str, default: &'static str| {
        // A token is written as its text, or as an object with it.
        let found = settings[key].as_str().or(settings[key]["content"].as_str());
        found.unwrap_or(default).to_owned()
    };
    let (cls, sep, unk) = (
        name("cls_token", "[CLS]"),
        name("sep_token", "[SEP]"),
        name("unk_token", "[UNK]"),
    );
    let id = |token: &str| {
        let id = ids.get(token).cloned();
        id.ok_or_else(|| format!("the special token {token:?} is missing"))
    };
    let (cls_id, sep_id) = (id(&cls)?, id(&sep)?);
    id(&unk)?;
    let (pad, mask) = (name("pad_token", "[PAD]"), name("mask_token", "[MASK]"));
    let special = [&pad, &unk, &cls, &sep, &mask]
        .into_iter()
        .filter_map(|token| {
            let id = ids.get(token)?;
            Some(json!({
                "id": id, "content": token, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false
            }))
        });
    let special: Vec<Value> = special.collect();
    let token = |id: &str, kind: u32| json!({"SpecialToken": {"id": id, "type_id": kind}});
    let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let flag = |key: &str| settings[key].as_bool().unwrap_or(true);
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars"),
            "strip_accents": settings["strip_accents"],
            "lowercase": flag("do_lower_case"),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token(&cls, 0), text("A", 0), token(&sep, 0)],
            "pair": [token(&cls, 0), text("A", 0), token(&sep, 0), text("B", 1), token(&sep, 1)],
            "special_tokens": {
                &cls: {"id": cls, "ids": [cls_id], "tokens": [cls]},
                &sep: {"id": sep, "ids": [sep_id], "tokens": [sep]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids,
        },
    });
    Ok(tokenizer.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nking\n##let\nking\u{e9}\n";

    fn encode(settings: &Value, text: &str) -> Vec<u32> {
        let json = tokenizer_json(VOCAB, settings).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(json).unwrap();
        tokenizer.encode(text, true).unwrap().get_ids().to_vec()
    }

    #[test]
    fn words_become_pieces_between_special_tokens() {
        assert_eq!(encode(&Value::Null, "Kinglet sings"), [2, 5, 6, 1, 3]);
        assert_eq!(encode(&Value::Null, "KING\u{c9}"), [2, 1, 3]);
        let cased = json!({"do_lower_case": false, "strip_accents": false});
        assert_eq!(encode(&cased, "King king\u{e9}[SEP]"), [2, 1, 7, 3, 3]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = tokenizer_json("[CLS]\n[UNK]\n", &Value::Null).unwrap_err();
        assert!(error.contains("[SEP]"), "{error}");
        let error = tokenizer_json("a\nb\na\n", &Value::Null).unwrap_err();
        assert!(error.contains("line 3"), "{error}");
    }
}
