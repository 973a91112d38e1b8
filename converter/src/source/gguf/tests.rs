use super::reader::{Contents, TensorInfo, Value};
use super::tokenizer;
use super::types::GgmlType;
use super::weights::Rows;
use crate::checkpoint::Weight;
use crate::source::file::SourceFile;
use half::f16;
use kinglet::Tokenizer;
use kinglet_kernels::packing::Codes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Blocks of a type, and the values that the `gguf` package makes of them.
struct Known {
    kind: GgmlType,
    blocks: &'static [u8],
    values: Vec<f32>,
}

/// What `tests/fixtures/gguf_blocks/make.py` wrote.
fn known() -> Vec<Known> {
    let mut rest: &[u8] = include_bytes!("../../../../tests/fixtures/gguf_blocks/blocks.bin");
    let mut all = vec![];
    while !rest.is_empty() {
        let mut take = |len: usize| rest.split_off(..len).unwrap();
        let mut number = || u32::from_le_bytes(take(4).try_into().unwrap());
        let (kind, count) = (number(), number() as usize);
        let kind = GgmlType::from_number(kind).unwrap();
        let (len, bytes) = kind.block();
        let blocks = take(count * bytes);
        let values = take(count * len * 4).as_chunks().0.iter();
        let values = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        all.push(Known {
            kind,
            blocks,
            values,
        });
    }
    all
}

#[test]
fn every_type_equals_the_gguf_package_bit_for_bit() {
    let known = known();
    assert_eq!(known.len(), 13);
    for Known {
        kind,
        blocks,
        values,
    } in known
    {
        let mut out = vec![f32::NAN; values.len()];
        kind.dequantize(blocks, &mut out);
        for (i, (found, expected)) in out.iter().zip(&values).enumerate() {
            // A zero has no sign in what follows; of the rest every bit counts.
            let same = found.to_bits() == expected.to_bits() || *found == 0.0 && *expected == 0.0;
            assert!(same, "{kind:?} {i}: {found:e} against {expected:e}");
        }
    }
}

/// A matrix of one block per row.
fn matrix(known: &Known) -> Rows {
    let (cols, bytes) = known.kind.block();
    let rows = known.blocks.len() / bytes;
    let file = SourceFile::from_bytes(Path::new("t.gguf"), known.blocks.to_vec());
    Rows {
        file: Arc::new(file),
        tensor: TensorInfo {
            kind: known.kind,
            dimensions: vec![cols, rows],
            offset: 0,
            bytes: known.blocks.len() as u64,
        },
        first: 0,
        shape: vec![rows, cols],
        interleaved: None,
    }
}

#[test]
fn grids_are_kept_bit_for_bit() {
    let mut kept = vec![];
    for known in known() {
        let weight = matrix(&known);
        let rows = weight.shape()[0];
        let codes = weight.read_codes(0..rows).unwrap();
        assert_eq!(codes.is_some(), weight.grid().is_some());
        let Some(codes) = codes else {
            continue;
        };
        kept.push(known.kind);
        let mut packed = vec![0; codes.layout().bytes()];
        codes.pack_into(&mut packed).unwrap();
        let unpacked = Codes::unpack(*codes.layout(), &packed).unwrap();
        let (_, bytes) = known.kind.block();
        for (row, block) in known.blocks.chunks_exact(bytes).enumerate() {
            let at = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]);
            assert_eq!(unpacked.scales[row], at(0), "{:?}", known.kind);
            let (minimum, quants) = match known.kind {
                GgmlType::Q4_1 => (Some(at(2)), &block[4..]),
                _ => (None, &block[2..]),
            };
            assert_eq!(unpacked.minimums.get(row).copied(), minimum);
            for col in 0..32 {
                let code = match known.kind {
                    GgmlType::Q8_0 => quants[col] as i8,
                    _ if col < 16 => (quants[col] & 15) as i8,
                    _ => (quants[col - 16] >> 4) as i8,
                };
                assert_eq!(unpacked.codes[row * 32 + col], code, "{:?}", known.kind);
                // And so are the weights.
                let expected = known.values[row * 32 + col];
                assert_eq!(unpacked.weight(row, col), expected, "{:?}", known.kind);
            }
        }
    }
    assert_eq!(kept, [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q8_0]);
}

fn contents<const N: usize>(metadata: [(&str, Value); N]) -> Contents {
    Contents {
        metadata: metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        tensors: BTreeMap::new(),
    }
}

fn texts(texts: &[&str]) -> Value {
    Value::Texts(texts.iter().map(|&text| text.to_owned()).collect())
}

#[test]
fn metadata_is_read_by_type() {
    let contents = contents([
        ("text", Value::Text("t".to_owned())),
        ("int", Value::Int(7)),
        ("negative", Value::Int(-7)),
        ("huge", Value::Int(1 << 40)),
        ("float", Value::Float(0.5)),
        ("flag", Value::Bool(true)),
        ("equal", Value::Ints(vec![3, 3])),
        ("unequal", Value::Ints(vec![3, 4])),
        ("texts", texts(&["a", "b"])),
        ("floats", Value::Floats(vec![1.0, 2.0])),
    ]);
    assert_eq!(contents.text("text"), Ok(Some("t")));
    assert_eq!(contents.count("int"), Ok(Some(7)));
    assert_eq!(contents.count("equal"), Ok(Some(3)));
    assert_eq!(contents.float("float"), Ok(Some(0.5)));
    assert_eq!(contents.float("int"), Ok(Some(7.0)));
    assert_eq!(contents.flag("flag"), Ok(Some(true)));
    assert_eq!(contents.texts("texts").unwrap().unwrap().len(), 2);
    assert_eq!(contents.ints("unequal", 2), Ok(Some(&[3, 4][..])));
    assert_eq!(contents.required_floats("floats", 2), Ok(&[1.0, 2.0][..]));
    for missing in [
        contents.text("none").map(|found| found.is_none()),
        contents.count("none").map(|found| found.is_none()),
        contents.float("none").map(|found| found.is_none()),
        contents.flag("none").map(|found| found.is_none()),
        contents.texts("none").map(|found| found.is_none()),
        contents.ints("none", 1).map(|found| found.is_none()),
    ] {
        assert_eq!(missing, Ok(true));
    }
    let message = |result: Result<Option<usize>, String>| result.unwrap_err();
    assert!(message(contents.count("negative")).contains("negative is -7"));
    assert!(message(contents.count("huge")).contains("huge is 1099511627776"));
    assert!(message(contents.count("unequal")).contains("differs between layers"));
    assert!(message(contents.count("text")).contains("a string: expected an integer"));
    let floats = contents.required_floats("floats", 3).unwrap_err();
    assert!(floats.contains("2 elements: expected 3"), "{floats}");
    let none = contents.required_count("none").unwrap_err();
    assert!(none.contains("none is missing"), "{none}");
}

fn rebuilt(contents: &Contents) -> (Tokenizer, tokenizer::Rebuilt) {
    let rebuilt = tokenizer::rebuild(contents, 1000).unwrap();
    let tokenizer = Tokenizer::from_json(&rebuilt.json, Path::new("t.gguf")).unwrap();
    (tokenizer, rebuilt)
}

#[test]
fn byte_level_tokenizers_are_rebuilt() {
    let tokens = [
        "<|a|>",
        "<|im_end|>",
        "h",
        "i",
        "hi",
        "Ġ",
        "Ġhi",
        "Ã",
        "©",
        "<user>",
    ];
    let mut contents = contents([
        ("tokenizer.ggml.model", Value::Text("gpt2".to_owned())),
        ("tokenizer.ggml.tokens", texts(&tokens)),
        (
            "tokenizer.ggml.token_type",
            Value::Ints(vec![3, 3, 1, 1, 1, 1, 1, 1, 1, 4]),
        ),
        ("tokenizer.ggml.merges", texts(&["h i", "Ġ hi"])),
        ("tokenizer.ggml.bos_token_id", Value::Int(0)),
        ("tokenizer.ggml.eos_token_id", Value::Int(0)),
    ]);
    let (tokenizer, first) = rebuilt(&contents);
    let encode = |text: &str| tokenizer.encode(text, true).unwrap();
    assert_eq!(encode("hi hi"), [4, 6]);
    // A byte at a time where there is no merge; special and added tokens whole.
    assert_eq!(encode("é"), [7, 8]);
    assert_eq!(encode("hi<|im_end|>hi<user>"), [4, 1, 4, 9]);
    assert_eq!(tokenizer.decode(&[4, 6, 7, 8]).unwrap(), "hi hié");
    // Special tokens are left out of text, added ones are text.
    assert_eq!(tokenizer.decode(&[1, 4, 9]).unwrap(), "hi<user>");
    // Byte-level models get no token before a text unless the metadata says so, or they are Llama 3's or
    // Mistral's.
    assert_eq!(first.bos_token, None);
    assert_eq!(first.eos_tokens, [0, 1]);
    let mut with = |key: &str, value| {
        contents.metadata.insert(key.to_owned(), value);
        rebuilt(&contents).1.bos_token
    };
    let pre = |name: &str| Value::Text(name.to_owned());
    assert_eq!(with("tokenizer.ggml.pre", pre("llama-bpe")), Some(0));
    assert_eq!(with("tokenizer.ggml.pre", pre("tekken")), Some(0));
    assert_eq!(
        with("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        None
    );
}

#[test]
fn sentence_piece_tokenizers_are_rebuilt() {
    let tokens = [
        "<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁ab", "▁a", "<turn>",
    ];
    let scores = [
        0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -1.0, -2.0, -3.0, 0.0,
    ];
    let metadata = |prefix: bool| {
        contents([
            ("tokenizer.ggml.model", Value::Text("llama".to_owned())),
            ("tokenizer.ggml.tokens", texts(&tokens)),
            (
                "tokenizer.ggml.token_type",
                Value::Ints(vec![2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 3]),
            ),
            ("tokenizer.ggml.scores", Value::Floats(scores.to_vec())),
            ("tokenizer.ggml.bos_token_id", Value::Int(1)),
            ("tokenizer.ggml.eos_token_id", Value::Int(2)),
            ("tokenizer.ggml.unknown_token_id", Value::Int(0)),
            ("tokenizer.ggml.add_space_prefix", Value::Bool(prefix)),
        ])
    };
    let (tokenizer, rebuilt) = rebuilt(&metadata(true));
    assert_eq!(
        (rebuilt.bos_token, &rebuilt.eos_tokens[..]),
        (Some(1), &[2][..])
    );
    let encode = |text: &str| tokenizer.encode(text, false).unwrap();
    // The best score merges first: "ab", then "▁ab"; "▁a" only where "ab" is not.
    assert_eq!(encode("ab"), [9]);
    assert_eq!(encode("aab"), [10, 8]);
    assert_eq!(encode("ab ab"), [9, 9]);
    // Bytes for what has no token, the unknown token for bytes that have none.
    assert_eq!(encode("é"), [5, 3, 4]);
    assert_eq!(encode("z"), [5, 0]);
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [1, 9]);
    assert_eq!(tokenizer.decode(&[1, 9, 9, 3, 4]).unwrap(), "ab abé");
    assert_eq!(tokenizer.decode(&[9, 5, 5, 6]).unwrap(), "ab  a");
    let (tokenizer, _) = self::rebuilt(&metadata(false));
    assert_eq!(tokenizer.encode("ab ab", false).unwrap(), [8, 9]);
    assert_eq!(tokenizer.decode(&[9]).unwrap(), " ab");
}
