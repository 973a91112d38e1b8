//! `tokenizer.json` rebuilt from the metadata.

use super::reader::Contents;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Types of tokens, as llama.cpp numbers them.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Spellings of tokens that end a turn or a text, where the metadata does not name them all.
const ENDS: [&str; 6] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
];

/// What the metadata says of the tokenizer.
pub struct Rebuilt {
    /// `tokenizer.json`
    pub json: Vec<u8>,
    /// The token before every text, if there is one.
    pub bos_token: Option<u32>,
    /// Tokens that end a text.
    pub eos_tokens: Vec<u32>,
}

/// The longest token whose parts are looked up: all ways to cut it are tried.
const LONGEST_TOKEN: usize = 1024;

/// Rebuilds a tokenizer of the kinds `gpt2` (byte-level BPE) and `llama` (SentencePiece BPE), for a
/// model of `vocab` tokens.
///
/// # Errors
/// A sentence that names the key, what was expected and what was found.
pub fn rebuild(contents: &Contents, vocab: usize) -> Result<Rebuilt, String> {
    let kind = contents
        .text("tokenizer.ggml.model")?
        .ok_or("metadata tokenizer.ggml.model is missing")?;
    let tokens = contents.required_texts("tokenizer.ggml.tokens")?;
    if tokens.is_empty() || tokens.len() > vocab {
        return Err(format!(
            "metadata tokenizer.ggml.tokens has {} elements: expected 1 to {vocab}, the rows of \
             token_embd.weight",
            tokens.len()
        ));
    }
    let types = contents.ints("tokenizer.ggml.token_type", tokens.len())?;
    let byte_level = match kind {
        "gpt2" => true,
        "llama" => false,
        other => {
            return Err(format!(
                "metadata tokenizer.ggml.model is {other:?}: expected gpt2 or llama"
            ));
        }
    };
    // Where the metadata does not say, as llama.cpp has it.
    let has_bos = |pre| matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "tekken");
    let special = |key: &str| -> Result<Option<u32>, String> {
        let Some(token) = contents.count(key)? else {
            return Ok(None);
        };
        if token >= tokens.len() {
            return Err(format!(
                "metadata {key} is {token}: there are {} tokens",
                tokens.len()
            ));
        }
        Ok(u32::try_from(token).ok())
    };
    let adds_bos = match contents.flag("tokenizer.ggml.add_bos_token")? {
        Some(adds) => adds,
        None => !byte_level || contents.text("tokenizer.ggml.pre")?.is_some_and(has_bos),
    };
    let bos_token = special("tokenizer.ggml.bos_token_id")?.filter(|_| adds_bos);
    let mut eos_tokens = vec![];
    for name in ["eos", "eot", "eom"] {
        eos_tokens.extend(special(&format!("tokenizer.ggml.{name}_token_id"))?);
    }
    let kind_of = |id: usize| types.map_or(1, |types| types[id]);
    let ends = tokens
        .iter()
        .enumerate()
        .filter(|(id, token)| kind_of(*id) == CONTROL && ENDS.contains(&token.as_str()));
    eos_tokens.extend(ends.map(|(id, _)| id as u32));
    eos_tokens.sort_unstable();
    eos_tokens.dedup();

    let mut json = if byte_level {
        byte_level_bpe(contents, tokens)?
    } else {
        sentence_piece(contents, tokens)?
    };
    let added = tokens.iter().enumerate().filter_map(|(id, token)| {
        let kind = kind_of(id);
        matches!(kind, UNKNOWN | CONTROL | USER_DEFINED).then(|| {
            json!({
                "id": id, "content": token, "special": kind != USER_DEFINED,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
    });
    json["added_tokens"] = Value::Array(added.collect());
    json["version"] = json!("1.0");
    json["post_processor"] = match bos_token {
        None => Value::Null,
        Some(id) => {
            let bos = &tokens[id as usize];
            let first = json!({"SpecialToken": {"id": bos, "type_id": 0}});
            let text = |id| json!({"Sequence": {"id": id, "type_id": 0}});
            json!({
                "type": "TemplateProcessing",
                "single": [first, text("A")],
                "pair": [first, text("A"), first, text("B")],
                "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
            })
        }
    };
    Ok(Rebuilt {
        json: serde_json::to_vec(&json).map_err(|e| e.to_string())?,
        bos_token,
        eos_tokens,
    })
}

/// Tokens by spelling; of equal ones the first.
fn vocabulary(tokens: &[String]) -> Map<String, Value> {
    let mut vocabulary = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        vocabulary.entry(token.clone()).or_insert(id.into());
    }
    vocabulary
}

/// How texts are cut before merging, by the name that llama.cpp gave it.
fn byte_level_bpe(contents: &Contents, tokens: &[String]) -> Result<Value, String> {
    const CONTRACTIONS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|";
    const REST: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let words = r"[^\r\n\p{L}\p{N}]?\p{L}+|";
    let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = |pattern: String| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            bytes(false),
        ]})
    };
    let name = contents.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let (pre_tokenizer, normalizer, ignore_merges) = match name {
        "default" | "gpt-2" => (bytes(true), Value::Null, false),
        "smollm" => (
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, bytes(true),
            ]}),
            Value::Null,
            false,
        ),
        "llama-bpe" | "llama3" | "llama-v3" => (
            split(format!(r"{CONTRACTIONS}{words}\p{{N}}{{1,3}}|{REST}")),
            Value::Null,
            true,
        ),
        "qwen2" => (
            split(format!(r"{CONTRACTIONS}{words}\p{{N}}|{REST}")),
            json!({"type": "NFC"}),
            false,
        ),
        "tekken" => {
            let (upper, lower) = (
                r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
                r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
            );
            let words = format!(
                r"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*|"
            );
            let rest = REST.replace(r"[\r\n]*", r"[\r\n/]*");
            (split(format!(r"{words}\p{{N}}|{rest}")), Value::Null, true)
        }
        other => {
            return Err(format!(
                "metadata tokenizer.ggml.pre is {other:?}: expected default, gpt-2, smollm, \
                 llama-bpe, qwen2 or tekken; convert from the Hugging Face folder instead"
            ));
        }
    };
    let merges = contents.required_texts("tokenizer.ggml.merges")?;
    let merges: Vec<Value> = merges
        .iter()
        .map(|merge| {
            let (left, right) = merge
                .split_once(' ')
                .ok_or_else(|| format!("metadata tokenizer.ggml.merges: {merge:?} has no space"))?;
            Ok(json!([left, right]))
        })
        .collect::<Result<_, String>>()?;
    Ok(json!({
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocabulary(tokens), "merges": merges,
            "ignore_merges": ignore_merges, "byte_fallback": false, "fuse_unk": false},
    }))
}

/// SentencePiece merges the pair whose result scores best; as BPE, every way to make a token of two
/// others is a merge, in the order of scores.
fn sentence_piece(contents: &Contents, tokens: &[String]) -> Result<Value, String> {
    let scores = contents.required_floats("tokenizer.ggml.scores", tokens.len())?;
    let ids: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .rev()
        .map(|(id, token)| (token.as_str(), id))
        .collect();
    let mut merges: Vec<(f32, &str, &str)> = vec![];
    for (id, token) in tokens.iter().enumerate() {
        if token.len() > LONGEST_TOKEN {
            return Err(format!(
                "metadata tokenizer.ggml.tokens: token {id} has {} bytes: expected at most \
                 {LONGEST_TOKEN}",
                token.len()
            ));
        }
        let cuts = token
            .char_indices()
            .skip(1)
            .map(|(at, _)| token.split_at(at));
        let mut ways: Vec<(usize, usize, &str, &str)> = cuts
            .filter_map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?, left, right)))
            .collect();
        ways.sort_unstable();
        merges.extend(
            ways.into_iter()
                .map(|(_, _, left, right)| (scores[id], left, right)),
        );
    }
    merges.sort_by(|a, b| {
        let key = |(score, left, right): &(f32, &str, &str)| {
            (*score, left.chars().count(), right.chars().count())
        };
        let (a, b) = (key(a), key(b));
        b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2)))
    });
    let merges: Vec<Value> = merges
        .into_iter()
        .map(|(_, left, right)| json!([left, right]))
        .collect();
    let prefix = contents
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut normalizers = vec![];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    normalizers.push(spaces);
    let unknown = contents
        .count("tokenizer.ggml.unknown_token_id")?
        .unwrap_or(0);
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": Value::Null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "vocab": vocabulary(tokens), "merges": merges,
            "unk_token": tokens.get(unknown), "fuse_unk": true, "byte_fallback": true,
            "ignore_merges": false},
    }))
}
