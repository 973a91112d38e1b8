use super::*;
use proptest::prelude::*;
use std::sync::OnceLock;

/// Bytes as tokens (0–255), and a few words after them.
fn byte_level() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let json = include_bytes!("../../../tests/fixtures/byte_tokenizer.json");
        Tokenizer::from_json(json, Path::new("byte_tokenizer.json")).unwrap()
    })
}

/// SentencePiece-like: words with `▁`, and bytes for the rest.
fn byte_fallback() -> Tokenizer {
    let mut vocab = serde_json::Map::new();
    for byte in 0..256 {
        vocab.insert(format!("<0x{byte:02X}>"), byte.into());
    }
    for (id, word) in (256..).zip(["▁", "▁Hello", "▁world", "a", "▁a"]) {
        vocab.insert(word.to_owned(), id.into());
    }
    let json = serde_json::json!({
        "version": "1.0",
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true},
        "added_tokens": [{
            "id": 261, "content": "</s>", "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        }],
    });
    Tokenizer::from_json(json.to_string().as_bytes(), Path::new("t.json")).unwrap()
}

fn streamed(tokenizer: &Tokenizer, before: &[u32], tokens: &[u32]) -> (Vec<String>, String) {
    let mut stream = TextStream::new(tokenizer, before);
    let mut pieces: Vec<String> = tokens.iter().map(|&t| stream.push(t).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    let all = pieces.concat();
    (pieces, all)
}

#[test]
fn characters_are_never_cut() {
    let text = "né 🦀 日本";
    let (pieces, all) = streamed(
        byte_level(),
        &[],
        &byte_level().encode(text, false).unwrap(),
    );
    assert_eq!(all, text);
    assert!(pieces.iter().all(|p| !p.contains('\u{fffd}')), "{pieces:?}");
    assert_eq!(pieces[4..8], ["", "", "", "🦀"], "{pieces:?}");
}

#[test]
fn a_leading_space_stays_after_a_prompt() {
    let tokenizer = byte_fallback();
    assert_eq!(streamed(&tokenizer, &[257], &[258]).1, " world");
    assert_eq!(streamed(&tokenizer, &[], &[257, 258]).1, "Hello world");
    assert_eq!(streamed(&tokenizer, &[], &[257, 261, 258]).1, "Hello world");
    // A character that the text before has begun.
    assert_eq!(streamed(byte_level(), &[0xE3], &[0x81, 0x82]).1, "あ");
    // A space alone is no text yet where none stands before it.
    assert_eq!(streamed(&tokenizer, &[], &[256, 261, 260]).1, " a");
    assert_eq!(streamed(&tokenizer, &[], &[261, 256, 260]).1, " a");
    // é in two bytes.
    assert_eq!(
        streamed(&tokenizer, &[257], &[256, 0xC3, 0xA9, 260]).1,
        " é a"
    );
}

#[test]
fn bytes_that_are_no_character_do_not_hold_up_the_stream() {
    let (pieces, all) = streamed(byte_level(), &[], &[0xFF, 0xFF, 0xFF, 0xFF, b'a'.into()]);
    assert!(all.ends_with('a'), "{pieces:?}");
    assert_eq!(pieces[3], "\u{fffd}\u{fffd}\u{fffd}", "{pieces:?}");
}

proptest! {
    #[test]
    fn pieces_make_the_whole_text(text in any::<String>(), cut in 0usize..20) {
        let tokens = byte_level().encode(&text, false).unwrap();
        // The prompt ends with a whole character.
        let boundary = (0..=cut.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap();
        let (before, after) = tokens.split_at(boundary);
        let (pieces, all) = streamed(byte_level(), before, after);
        prop_assert_eq!(all, &text[boundary..], "{:?}", pieces);
    }

    #[test]
    fn stop_strings_are_found_wherever_pieces_end(
        text in "[ab.]{0,30}",
        stops in prop::collection::vec("[ab.]{1,4}", 0..3),
        cuts in prop::collection::vec(0usize..30, 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut matcher = StopMatcher::new(&stops);
        let (mut out, mut stopped) = (String::new(), false);
        for ends in cuts.windows(2) {
            if !stopped {
                let (piece, found) = matcher.push(&text[ends[0]..ends[1]]);
                out += &piece;
                stopped = found;
            }
        }
        // Only the text so far can stop, so the first end of a stop string decides.
        let first_end = (0..=text.len()).find(|&end| stops.iter().any(|s| text[..end].ends_with(s.as_str())));
        prop_assert_eq!(stopped, first_end.is_some());
        if !stopped {
            out += &matcher.finish();
            prop_assert_eq!(out, text);
        } else {
            prop_assert!(text.starts_with(&out));
            prop_assert!(stops.iter().all(|s| !out.contains(s.as_str())));
        }
    }
}

/// A file read part by part does what the crate makes of the whole, limits of a training run aside.
#[test]
fn parts_make_the_whole_tokenizer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let kinds = [
        ("byte_tokenizer.json", check::Kind::Bpe),
        ("encoders/roberta/tokenizer.json", check::Kind::Bpe),
        ("encoders/distilbert/tokenizer.json", check::Kind::WordPiece),
        ("encoders/xlm-roberta/tokenizer.json", check::Kind::Unigram),
    ];
    let texts = [
        "",
        "The capital of France is Paris.",
        "  two  spaces, a\nline and a\ttab ",
        "<s>né 🦀 日本</s> [MASK] <mask>",
        "3.14159 == π? don't, can't WON'T",
    ];
    for (name, kind) in kinds {
        let json = std::fs::read(folder.join(name)).unwrap();
        let mut whole: serde_json::Value = serde_json::from_slice(&json).unwrap();
        whole["truncation"] = serde_json::json!({
            "direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0
        });
        let limited = serde_json::to_vec(&whole).unwrap();
        assert_eq!(check::outline(&limited), Ok(kind), "{name}");
        let expected = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        for kind in [kind, check::Kind::Other] {
            let read = read::tokenizer(&limited, kind).unwrap();
            assert_eq!(read.get_vocab(true), expected.get_vocab(true), "{name}");
            for text in texts {
                let long = text.repeat(40);
                for text in [text, &long] {
                    let ours = read.encode(text, true).unwrap();
                    let theirs = expected.encode(text, true).unwrap();
                    assert_eq!(ours, theirs, "{name}: {text:?}");
                    assert_eq!(
                        read.decode(ours.get_ids(), true).unwrap(),
                        expected.decode(theirs.get_ids(), true).unwrap(),
                        "{name}: {text:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_kind_of_a_tokenizer_is_found() {
    let kind = |model: serde_json::Value| {
        check::outline(serde_json::json!({"model": model}).to_string().as_bytes()).unwrap()
    };
    let merges: [&str; 0] = [];
    let bpe = serde_json::json!({"type": "BPE", "vocab": {}, "merges": merges});
    let with = |key: &str, value: serde_json::Value| {
        let mut model = bpe.clone();
        model[key] = value;
        kind(model)
    };
    assert_eq!(kind(bpe.clone()), check::Kind::Bpe);
    assert_eq!(with("type", serde_json::Value::Null), check::Kind::Bpe);
    assert_eq!(with("dropout", 0.0.into()), check::Kind::Bpe);
    assert_eq!(with("dropout", 0.1.into()), check::Kind::BpeVariant);
    assert_eq!(with("end_of_word_suffix", "".into()), check::Kind::Bpe);
    assert_eq!(
        with("end_of_word_suffix", "</w>".into()),
        check::Kind::BpeVariant
    );
    assert_eq!(kind(serde_json::json!({"vocab": {}})), check::Kind::Other);
}
