//! Damaged and lying GGUF files: an error that names what is wrong, never a panic.

use kinglet_convert::checkpoint::Checkpoint;
use kinglet_convert::recipe::Recipe;
use kinglet_convert::source::file::SourceFile;
use kinglet_convert::source::gguf;
use kinglet_tests::models::gguf::{Gguf, TOKENS, Tensor, Value, text, texts};
use kinglet_tests::models::read_some;
use std::path::Path;
use std::time::{Duration, Instant};

fn open(bytes: &[u8]) -> Result<Checkpoint, String> {
    let file = SourceFile::from_bytes(Path::new("m.gguf"), bytes.to_vec());
    gguf::from_file(file).map_err(|e| e.to_string())
}

/// Opens, and converts into a file that the runtime opens.
fn convert(bytes: &[u8], recipe: &Recipe) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.kgl");
    kinglet_convert::write(&open(bytes)?, &path, recipe, &|_, _| ()).map_err(|e| e.to_string())?;
    kinglet::Model::open(&path).map_err(|e| e.to_string())?;
    Ok(())
}

/// The message names the file and all of these.
#[track_caller]
fn refused_bytes(bytes: &[u8], names: &[&str]) {
    let start = Instant::now();
    let message = open(bytes).err().expect("a refusal");
    // What a few hundred bytes claim must not be believed: memory of that size would take seconds
    // to fill.
    assert!(start.elapsed() < Duration::from_secs(2), "{message}");
    assert!(message.starts_with("m.gguf: "), "{message}");
    for name in names {
        assert!(message.contains(name), "no {name:?} in: {message}");
    }
}

/// The message for a changed file names all of these.
#[track_caller]
fn refused(change: impl Fn(&mut Gguf), names: &[&str]) {
    let mut file = Gguf::sound();
    change(&mut file);
    refused_bytes(&file.bytes(), names);
}

#[track_caller]
fn refused_value(key: &str, value: Value, names: &[&str]) {
    refused(
        |file| file.set(key, value.clone()),
        &[&[key], names].concat(),
    );
}

#[test]
fn sound_files_convert() {
    for file in [Gguf::sound(), Gguf::sentence_piece()] {
        for keep_grid in [false, true] {
            let mut recipe = Recipe::default();
            recipe.quantize.keep_grid = keep_grid;
            convert(&file.bytes(), &recipe).unwrap();
        }
    }
}

#[test]
fn truncation_at_any_byte_is_an_error() {
    let bytes = Gguf::sound().bytes();
    // The last tensor's bytes end the file: each byte is needed.
    for len in 0..bytes.len() {
        let message = open(&bytes[..len]).err();
        let message = message.unwrap_or_else(|| panic!("opened with {len} bytes"));
        assert!(message.starts_with("m.gguf: "), "{message}");
    }
}

#[test]
fn any_byte_of_the_metadata_may_be_anything() {
    for file in [Gguf::sound(), Gguf::sentence_piece()] {
        let (mut bytes, len) = (file.bytes(), file.metadata_len());
        for at in 0..len {
            let before = bytes[at];
            for value in [
                0,
                1,
                before ^ 1,
                before ^ 0x80,
                before.wrapping_add(1),
                0xFF,
            ] {
                bytes[at] = value;
                if let Ok(checkpoint) = open(&bytes) {
                    read_some(&checkpoint);
                }
            }
            bytes[at] = before;
        }
    }
}

#[test]
fn other_files_and_versions_are_told_apart() {
    refused(|file| file.magic = *b"GGML", &["not a GGUF file", "GGUF"]);
    refused_bytes(b"", &["0 are left"]);
    refused_bytes(b"PK\x03\x04", &["not a GGUF file"]);
    for version in [0, 1, 4, 99, u32::MAX] {
        let named = format!("version {version}");
        refused(|file| file.version = version, &[&named, "expected 2 or 3"]);
    }
    refused(
        |file| file.version = 3u32.swap_bytes(),
        &["big-endian", "little-endian"],
    );
}

#[test]
fn counts_that_cannot_be_are_refused_at_once() {
    for count in [1 << 20, 1 << 32, 1 << 62, u64::MAX] {
        let named = count.to_string();
        refused(
            |file| file.counts.0 = Some(count),
            &[&named, "tensors", "left"],
        );
        refused(
            |file| file.counts.1 = Some(count),
            &[&named, "metadata entries", "left"],
        );
    }
    // One more than there are: what follows is no entry.
    refused(|file| file.counts.1 = Some(15), &[]);
    refused(|file| file.counts.0 = Some(12), &[]);
    // Fewer tensors: one is missing.
    refused(
        |file| file.counts.0 = Some(10),
        &["blk.0.ffn_down.weight", "missing"],
    );
    for len in [1u64 << 20, 1 << 40, 1 << 63, u64::MAX] {
        let named = len.to_string();
        let long = Value::Raw(8, len.to_le_bytes().to_vec());
        refused_value("general.name", long, &[&named, "left"]);
        let array = |kind: u32| {
            let bytes = [&kind.to_le_bytes()[..], &len.to_le_bytes()].concat();
            Value::Raw(9, bytes)
        };
        for kind in [0, 5, 6, 7, 8, 10, 12] {
            refused_value("tokenizer.ggml.scores", array(kind), &[&named, "left"]);
        }
    }
    refused(
        |file| file.metadata[0].0 = "k".repeat(1 << 17),
        &["metadata key", "131072", "at most"],
    );
    refused(
        |file| file.tensors[0].name = "k".repeat(1 << 17),
        &["tensor name", "131072", "at most"],
    );
}

#[test]
fn a_small_file_cannot_claim_much() {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((1u64 << 60).to_le_bytes());
    bytes.extend((1u64 << 60).to_le_bytes());
    bytes.resize(200, 0);
    refused_bytes(&bytes, &["1152921504606846976 tensors", "left"]);
    bytes[8..16].fill(0);
    refused_bytes(&bytes, &["1152921504606846976 metadata entries", "left"]);
}

#[test]
fn values_of_other_types_are_named() {
    refused_value(
        "general.architecture",
        Value::U32(1),
        &["an integer", "expected a string"],
    );
    refused_value(
        "llama.block_count",
        text("1"),
        &["a string", "expected an integer"],
    );
    refused_value("llama.block_count", Value::I32(-1), &["-1", "expected"]);
    refused_value(
        "llama.attention.layer_norm_rms_epsilon",
        text("1e-5"),
        &["a string", "expected a float"],
    );
    refused_value(
        "tokenizer.ggml.add_bos_token",
        Value::U32(1),
        &["an integer", "expected a bool"],
    );
    refused_value(
        "tokenizer.ggml.add_bos_token",
        Value::Raw(7, vec![2]),
        &["2", "expected 0 or 1"],
    );
    refused_value(
        "tokenizer.ggml.tokens",
        Value::I32s(vec![1]),
        &["an array of integers", "expected an array of strings"],
    );
    refused_value(
        "tokenizer.ggml.merges",
        Value::F32s(vec![1.0]),
        &["an array of floats", "expected an array of strings"],
    );
    refused_value(
        "tokenizer.ggml.token_type",
        texts(&["a"]),
        &["an array of strings", "expected an array of integers"],
    );
    refused_value(
        "tokenizer.ggml.scores",
        Value::Raw(13, vec![]),
        &["unknown value type 13"],
    );
    let unknown = [&13u32.to_le_bytes()[..], &[0; 8]].concat();
    refused_value(
        "tokenizer.ggml.scores",
        Value::Raw(9, unknown),
        &["unknown array type 13"],
    );
    let nested = [&9u32.to_le_bytes()[..], &[0; 8]].concat();
    refused_value(
        "tokenizer.ggml.scores",
        Value::Raw(9, nested),
        &["arrays of arrays"],
    );
    let not_utf8 = [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat();
    refused_value("general.name", Value::Raw(8, not_utf8), &["not UTF-8"]);
    let beyond = [&10u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[0xFF; 8]].concat();
    refused_value("general.extra", Value::Raw(9, beyond), &["63 bits"]);
}

#[test]
fn missing_and_doubled_entries_are_named() {
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.context_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        refused(|file| file.remove(key), &[key, "missing"]);
        refused(
            |file| {
                let pair = file.metadata.iter().find(|pair| pair.0 == key).unwrap();
                file.metadata.push(pair.clone());
            },
            &[key, "twice"],
        );
    }
    for index in 0..Gguf::sound().tensors.len() {
        let name = Gguf::sound().tensors[index].name.clone();
        refused(
            |file| {
                file.tensors.remove(index);
            },
            &[&name, "missing"],
        );
        refused(
            |file| file.tensors.push(file.tensors[index].clone()),
            &[&name, "twice"],
        );
    }
}

#[test]
fn numbers_that_make_no_model_are_named() {
    for value in [0, 1 << 17, u32::MAX] {
        let named = value.to_string();
        refused_value(
            "llama.block_count",
            Value::U32(value),
            &[&named, "expected"],
        );
    }
    refused_value(
        "llama.block_count",
        Value::U64(u64::MAX),
        &["18446744073709551615"],
    );
    refused(
        |file| file.set("llama.block_count", Value::U32(2000)),
        &["2000 layers", "expected 1 to"],
    );
    refused(
        |file| file.set("llama.block_count", Value::U32(2)),
        &["blk.1.", "missing"],
    );
    refused_value(
        "llama.attention.head_count",
        Value::U32(0),
        &["0", "1 or more"],
    );
    refused(
        |file| file.set("llama.attention.head_count", Value::U32(3)),
        &["blk.0.attn_k.weight", "[32, 16]", "[32, 10]"],
    );
    refused(
        |file| file.set("llama.attention.head_count_kv", Value::U32(0)),
        &["kv_heads is 0"],
    );
    refused(
        |file| file.set("llama.attention.key_length", Value::U32(3)),
        &["heads of 3", "even"],
    );
    refused(
        |file| file.set("llama.attention.value_length", Value::U32(8)),
        &["keys of 16", "values of 8"],
    );
    refused(
        |file| file.set("llama.attention.key_length", Value::U64(1 << 39)),
        &["head_dim is 549755813888"],
    );
    refused(
        |file| file.set("llama.embedding_length", Value::U64(1 << 39)),
        &["hidden_size is 549755813888", "expected 1 to"],
    );
    refused(
        |file| file.set("llama.context_length", Value::U32(0)),
        &["max_positions is 0"],
    );
    refused(
        |file| file.set("llama.rope.dimension_count", Value::U32(7)),
        &["rope dims are 7", "even"],
    );
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let named = value.to_string();
        refused(
            |file| file.set("llama.rope.freq_base", Value::F32(value)),
            &["rope theta", &named],
        );
        refused(
            |file| file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(value)),
            &["norm_eps", &named],
        );
    }
    refused_value(
        "llama.rope.scaling.type",
        text("ntk"),
        &["ntk", "expected none, linear or yarn"],
    );
    refused(
        |file| {
            file.set("llama.rope.scaling.type", text("yarn"));
            file.set("llama.rope.scaling.factor", Value::F32(f32::NAN));
        },
        &["rope factor", "NaN"],
    );
    let per_layer = Value::I32s(vec![2, 1]);
    refused_value("llama.attention.head_count", per_layer, &["differs"]);
    refused_value(
        "llama.attention.head_count",
        Value::I32s(vec![]),
        &["differs"],
    );
}

#[test]
fn unknown_models_are_refused_by_name() {
    refused_value(
        "general.architecture",
        text("mamba"),
        &["mamba", "expected one of"],
    )
}

#[test]
fn shapes_that_lie_are_refused() {
    let dimensions = |dimensions: &'static [u64], names: &[&str]| {
        refused(
            |file| file.tensor("blk.0.attn_v.weight").dimensions = dimensions.to_vec(),
            &[&["blk.0.attn_v.weight"], names].concat(),
        );
    };
    dimensions(&[], &["0 dimensions", "expected 1 to 4"]);
    dimensions(&[32, 16, 1, 1, 1], &["5 dimensions", "expected 1 to 4"]);
    dimensions(&[1 << 63, 2], &["empty or too large"]);
    dimensions(&[1 << 32, 1 << 32], &["empty or too large"]);
    dimensions(&[1 << 32, 1 << 32, 16], &["empty or too large"]);
    dimensions(
        &[u64::MAX, u64::MAX, u64::MAX, u64::MAX],
        &["empty or too large"],
    );
    dimensions(&[0, 16], &["empty or too large"]);
    dimensions(&[32, 0], &["empty or too large"]);
    dimensions(&[32, 1 << 44], &["empty or too large", "17592186044416"]);
    dimensions(&[32, 1 << 40], &["beyond the end"]);
    dimensions(&[32, 1 << 30], &["beyond the end"]);
    dimensions(&[16, 32], &["[16, 32]", "[32, 16]"]);
    dimensions(&[512], &["[512]", "[32, 16]"]);
    dimensions(&[32, 4, 4], &["[32, 4, 4]", "[32, 16]"]);
    refused(
        |file| {
            *file.tensor("blk.0.attn_q.weight") = Tensor::new("blk.0.attn_q.weight", 2, &[32, 31])
        },
        &["blk.0.attn_q.weight", "[32, 31]", "[32, 32]"],
    );
    refused(
        |file| file.tensor("blk.0.attn_q.weight").dimensions = vec![33, 32],
        &["blk.0.attn_q.weight", "33", "multiple of 32"],
    );
    // A vector whose type has blocks cannot be read element by element.
    refused(
        |file| *file.tensor("output_norm.weight") = Tensor::new("output_norm.weight", 8, &[32]),
        &["output_norm.weight", "Q8_0", "expected F32, F16 or BF16"],
    );
    for kind in [4, 5, 9, 15, 16, 31, 99, u32::MAX] {
        let named = format!("type number {kind}");
        refused(
            |file| file.tensor("token_embd.weight").kind = kind,
            &["token_embd.weight", &named, "expected F32"],
        );
    }
    refused(
        |file| file.tensors.push(Tensor::new("rope_freqs.weight", 1, &[8])),
        &["rope_freqs.weight", "F16", "expected F32"],
    );
    refused(
        |file| file.tensors.push(Tensor::new("rope_freqs.weight", 0, &[7])),
        &["rope has 7", "expected 8"],
    );
}

#[test]
fn places_that_lie_are_refused() {
    let offset = |offset: u64, names: &[&str]| {
        refused(
            |file| file.tensor("blk.0.attn_v.weight").offset = Some(offset),
            &[&["blk.0.attn_v.weight"], names].concat(),
        );
    };
    offset(1, &["multiple of 32"]);
    offset(0, &["token_embd.weight", "overlap"]);
    for beyond in [1 << 20, 1 << 62, u64::MAX - 31] {
        offset(beyond, &["beyond the end", "cut short"]);
    }
    for alignment in [0, 3, 24, 1 << 30] {
        let named = alignment.to_string();
        refused_value(
            "general.alignment",
            Value::U32(alignment),
            &[&named, "power of two"],
        );
    }
    refused_value("general.alignment", Value::U64(1 << 40), &["power of two"]);
    refused_value("general.alignment", Value::I32(-32), &["power of two"]);
    refused_value("general.alignment", text("32"), &["a string", "an integer"]);
    refused(
        |file| file.set("general.alignment", Value::U32(1 << 20)),
        &["starts at", "multiple of 1048576"],
    );
}

#[test]
fn tokenizers_that_contradict_the_model_are_refused() {
    let mut more = TOKENS.to_vec();
    more.push("c");
    refused_value(
        "tokenizer.ggml.tokens",
        texts(&more),
        &["9 elements", "1 to 8", "token_embd.weight"],
    );
    refused_value("tokenizer.ggml.tokens", texts(&[]), &["0 elements"]);
    refused_value(
        "tokenizer.ggml.token_type",
        Value::I32s(vec![1; 7]),
        &["7 elements", "expected 8"],
    );
    refused_value(
        "tokenizer.ggml.merges",
        texts(&["ab"]),
        &["\"ab\"", "no space"],
    );
    refused(
        |file| file.set("tokenizer.ggml.merges", texts(&["a c"])),
        &["tokenizer", "\"ac\", which the vocabulary lacks"],
    );
    refused_value(
        "tokenizer.ggml.eos_token_id",
        Value::U32(8),
        &["8", "there are 8 tokens"],
    );
    refused_value(
        "tokenizer.ggml.bos_token_id",
        Value::U32(u32::MAX),
        &["4294967295", "there are 8 tokens"],
    );
    refused_value(
        "tokenizer.ggml.model",
        text("t5"),
        &["t5", "expected gpt2 or llama"],
    );
    refused_value(
        "tokenizer.ggml.pre",
        text("cl100k"),
        &["cl100k", "expected default"],
    );
    let sentence_piece = |key: &str, value: Option<Value>, names: &[&str]| {
        let mut file = Gguf::sentence_piece();
        match value {
            Some(value) => file.set(key, value),
            None => file.remove(key),
        }
        refused_bytes(&file.bytes(), &[&[key], names].concat());
    };
    sentence_piece("tokenizer.ggml.scores", None, &["missing"]);
    sentence_piece(
        "tokenizer.ggml.scores",
        Some(Value::F32s(vec![0.0; 9])),
        &["9 elements", "expected 8"],
    );
    sentence_piece(
        "tokenizer.ggml.scores",
        Some(Value::I32s(vec![0; 8])),
        &["an array of integers", "expected an array of floats"],
    );
    let mut long = vec!["a"; 8];
    let token = "a".repeat(1 << 20);
    long[7] = &token;
    sentence_piece(
        "tokenizer.ggml.tokens",
        Some(texts(&long)),
        &["token 7", "1048576 bytes", "at most"],
    );
}

#[test]
fn scores_that_are_not_numbers_do_no_harm() {
    let mut file = Gguf::sentence_piece();
    let scores = vec![
        f32::NAN,
        f32::INFINITY,
        -0.0,
        0.0,
        f32::NEG_INFINITY,
        f32::NAN,
        1.0,
        f32::NAN,
    ];
    file.set("tokenizer.ggml.scores", Value::F32s(scores));
    convert(&file.bytes(), &Recipe::default()).unwrap();
}

#[test]
fn weights_that_are_not_numbers_are_named() {
    let nan_at = |name: &str, at: usize, bytes: &[u8], keep_grid: bool| {
        let mut file = Gguf::sound();
        file.tensor(name).data[at..at + bytes.len()].copy_from_slice(bytes);
        let mut recipe = Recipe::default();
        recipe.quantize.keep_grid = keep_grid;
        convert(&file.bytes(), &recipe).unwrap_err()
    };
    let message = nan_at("output_norm.weight", 4, &f32::NAN.to_le_bytes(), false);
    assert!(message.contains("weight norm, row 1"), "{message}");
    let message = nan_at(
        "blk.0.ffn_gate.weight",
        128,
        &f32::INFINITY.to_le_bytes(),
        false,
    );
    assert!(
        message.contains("weight layers.0.gate, row 1: found inf"),
        "{message}"
    );
    // The scale of the second row, kept or not.
    for keep_grid in [false, true] {
        let message = nan_at("blk.0.attn_q.weight", 18, &[0x00, 0x7E], keep_grid);
        assert!(message.contains("weight layers.0.q, row"), "{message}");
        assert!(message.contains("NaN"), "{message}");
    }
}
