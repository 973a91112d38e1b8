//! Damaged and lying `.kgl` files: an error that names what is wrong, never a panic.

use kinglet::format::ModelFile;
use kinglet_tests::{checkpoint, recipe, tiny_config, write};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A sound file.
fn sound() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.kgl");
        write(&checkpoint(tiny_config()), &path, "q4");
        std::fs::read(path).unwrap()
    })
}

/// A sound file with corrections of rank 4 and biases that the configuration does not ask for.
fn corrected() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.kgl");
        let mut recipe = recipe("q4");
        recipe.quantize.low_rank = 4;
        recipe.quantize.bias_correction = true;
        kinglet_convert::write(&checkpoint(tiny_config()), &path, &recipe, &|_, _| ()).unwrap();
        std::fs::read(path).unwrap()
    })
}

fn open(bytes: &[u8]) -> Result<ModelFile, String> {
    ModelFile::from_bytes(Path::new("m.kgl"), bytes).map_err(|e| e.to_string())
}

/// Opens and verifies.
fn verify(bytes: &[u8]) -> Result<(), String> {
    open(bytes)?.verify(|_, _| ()).map_err(|e| e.to_string())
}

fn header_len(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// The file with its safetensors header changed; `document` is our own JSON inside it.
fn changed(change: impl Fn(&mut Value, &mut Value)) -> Vec<u8> {
    changed_file(sound(), change)
}

fn changed_file(bytes: &[u8], change: impl Fn(&mut Value, &mut Value)) -> Vec<u8> {
    let len = header_len(bytes);
    let mut entries: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let text = entries["__metadata__"]["header"].as_str().unwrap();
    let mut document: Value = serde_json::from_str(text).unwrap();
    change(&mut entries, &mut document);
    if entries["__metadata__"]["header"].is_string() {
        entries["__metadata__"]["header"] = json!(document.to_string());
    }
    let mut json = serde_json::to_vec(&entries).unwrap();
    json.resize((json.len() + 8).next_multiple_of(4096) - 8, b' ');
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json);
    out.extend(&bytes[8 + len..]);
    out
}

/// The message for a changed header names all of these.
#[track_caller]
fn refused(change: impl Fn(&mut Value, &mut Value), names: &[&str]) {
    refused_file(&changed(change), names);
}

#[track_caller]
fn refused_file(bytes: &[u8], names: &[&str]) {
    let message = open(bytes).err().expect("a refusal");
    assert!(message.starts_with("m.kgl: "), "{message}");
    for name in names {
        assert!(message.contains(name), "no {name:?} in: {message}");
    }
}

#[test]
fn a_sound_file_opens_verifies_and_survives_an_equal_header() {
    verify(sound()).unwrap();
    // Only the checksum of the header tells.
    let equal = changed(|_, _| ());
    open(&equal).unwrap();
    assert!(verify(&equal).is_ok() || verify(&equal).unwrap_err().contains("the header"));
}

#[test]
fn truncation_at_any_byte_is_an_error() {
    let bytes = sound();
    for len in 0..bytes.len() {
        assert!(open(&bytes[..len]).is_err(), "opened with {len} bytes");
    }
    let longer = [bytes, &[0; 64]].concat();
    assert!(open(&longer).is_err(), "opened with bytes to spare");
}

#[test]
fn any_bit_of_the_header_flipped_is_found() {
    let mut bytes = sound().to_vec();
    for at in 0..8 + header_len(&bytes) {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(verify(&bytes).is_err(), "bit {bit} of byte {at}");
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn flipped_data_is_found_and_named() {
    let mut bytes = sound().to_vec();
    let start = 8 + header_len(&bytes);
    for at in (start..bytes.len()).step_by(53) {
        bytes[at] ^= 4;
        let message = verify(&bytes).unwrap_err();
        assert!(message.contains("checksum"), "{message}");
        bytes[at] ^= 4;
    }
}

#[test]
fn other_files_are_told_apart() {
    let message = open(b"GGUF\x03\0\0\0 and so on").err().unwrap();
    assert!(
        message.contains("GGUF") && message.contains("kinglet-convert"),
        "{message}"
    );
    let message = open(b"%PDF-1.7 and so on").err().unwrap();
    assert!(message.contains("not a .kgl file"), "{message}");
    assert!(open(b"").err().unwrap().contains("too short"));
    refused(
        |entries, _| entries["__metadata__"] = json!({}),
        &["safetensors", "kinglet-convert"],
    );
}

#[test]
fn unknown_versions_are_refused_by_name() {
    refused(
        |entries, _| entries["__metadata__"]["version"] = json!("7"),
        &["version 7", "up to 3", "install a newer kinglet"],
    );
}

#[test]
fn inputs_taken_twice_are_of_version_2_and_of_integers() {
    let twice = |version: &'static str, name: &'static str, value: &'static str| {
        move |entries: &mut Value, document: &mut Value| {
            entries["__metadata__"]["version"] = json!(version);
            document["weights"][name]["activations"] = json!(value);
        }
    };
    open(&changed(twice("2", "layers.1.down", "q8x2"))).unwrap();
    refused(
        twice("1", "layers.1.down", "q8x2"),
        &["version 1", "version 2"],
    );
    refused(
        twice("2", "layers.1.ffn_norm", "q8x2"),
        &["layers.1.ffn_norm", "f32", "takes floats"],
    );
    refused(twice("2", "layers.1.down", "q8x3"), &["q8x3", "q8x2"]);
    // A newer version need not use what is new in it.
    open(&changed(|entries, _| {
        entries["__metadata__"]["version"] = json!("2");
    }))
    .unwrap();
}

#[test]
fn corrections_are_of_version_3_and_of_one_rank() {
    open(corrected()).unwrap();
    let refused = |change: &dyn Fn(&mut Value, &mut Value), names: &[&str]| {
        refused_file(&changed_file(corrected(), change), names);
    };
    let versions = ["version 2", "version 3"];
    refused(&|e, _| e["__metadata__"]["version"] = json!("2"), &versions);
    let shaped = |name: &'static str, shape: Value| {
        move |_: &mut Value, d: &mut Value| d["weights"][name]["shape"] = shape.clone()
    };
    let down = ["layers.1.down_narrow", "layers.1.down_widen"];
    for (name, shape, expected) in [
        (down[0], json!([4, 47]), "[4, 48]"),
        (down[0], json!([0, 48]), "rank of 1 to 32"),
        (down[0], json!([33, 48]), "rank of 1 to 32"),
        (down[0], json!([u64::MAX, 48]), "rank of 1 to 32"),
        (down[0], json!([]), "rank of 1 to 32"),
        (down[0], json!([4]), "[4, 48]"),
        (down[1], json!([31, 4]), "[32, 4]"),
        (down[1], json!([32, 5]), "[32, 4]"),
        (down[1], json!([32, u64::MAX]), "[32, 4]"),
        ("layers.0.o_bias", json!([33]), "[32]"),
    ] {
        refused(&shaped(name, shape), &[name, expected]);
    }
    // Another rank in both, but the bytes of this one.
    let rank_20 = |e: &mut Value, d: &mut Value| {
        shaped(down[0], json!([20, 48]))(e, d);
        shaped(down[1], json!([32, 20]))(e, d);
    };
    refused(&rank_20, &["layers.1.down_", "bytes"]);
    let without = |name: &'static str| {
        move |_: &mut Value, d: &mut Value| {
            d["weights"].as_object_mut().unwrap().remove(name);
        }
    };
    refused(&without(down[0]), &[down[0], "missing beside"]);
    refused(&without(down[1]), &[down[1], "missing beside"]);
    let moved = |name: &'static str| {
        move |_: &mut Value, d: &mut Value| d["weights"][name] = d["weights"][down[0]].clone()
    };
    for name in [
        "layers.2.q_narrow",
        "embed_narrow",
        "head_widen",
        "norm_bias",
        "embed_bias",
    ] {
        refused(&moved(name), &[name, "no place"]);
    }
    let set = |name: &'static str, key: &'static str, value: &'static str| {
        move |_: &mut Value, d: &mut Value| d["weights"][name][key] = json!(value)
    };
    refused(
        &set(down[0], "activations", "q8x2"),
        &[down[0], "no activations"],
    );
    refused(&set(down[1], "kind", "q7g32"), &[down[1], "q7g32"]);
    refused(&set(down[1], "kind", "f32"), &[down[1], "bytes"]);
    refused(
        &set("layers.0.o_bias", "kind", "f16"),
        &["layers.0.o_bias", "f32"],
    );
}

#[test]
fn contradictions_are_named() {
    refused(
        |entries, _| entries["__metadata__"]["header"] = json!(null),
        &["header"],
    );
    refused(
        |_, d| d["config"]["heads"] = json!(3),
        &["heads (3)", "kv_heads (2)"],
    );
    refused(
        |_, d| d["config"]["hidden_size"] = json!(64),
        &["embed", "[256, 32]", "[256, 64]"],
    );
    refused(
        |_, d| d["config"]["vocab_size"] = json!(0),
        &["vocab_size is 0"],
    );
    refused(
        |_, d| d["config"]["head_dim"] = json!(u64::MAX),
        &["head_dim is 18446744073709551615"],
    );
    refused(
        |_, d| d["config"]["heads"] = json!(1 << 20),
        &["1048576 heads of 8"],
    );
    refused(|_, d| d["config"]["layers"] = json!([]), &["0 layers"]);
    refused(
        |_, d| d["config"]["layers"][1]["rope"] = json!(5),
        &["layer 1", "rotary embedding 5"],
    );
    refused(
        |_, d| d["config"]["ropes"][0]["dims"] = json!(7),
        &["rope dims are 7"],
    );
    refused(
        |_, d| d["config"]["norm_eps"] = json!(-1.0),
        &["norm_eps", "-1"],
    );
    refused(
        |_, d| d["config"]["eos_tokens"] = json!([256]),
        &["special token 256"],
    );
    refused(
        |_, d| d["weights"]["layers.1.q"]["kind"] = json!("q7g32"),
        &["layers.1.q", "q7g32"],
    );
    refused(
        |_, d| d["weights"]["layers.1.q"]["kind"] = json!("q8g32"),
        &["layers.1.q", "bytes"],
    );
    refused(
        |_, d| {
            d["weights"].as_object_mut().unwrap().remove("norm");
        },
        &["norm", "missing"],
    );
    refused(
        |_, d| d["weights"]["layers.2.q"] = d["weights"]["layers.1.q"].clone(),
        &["layers.2.q", "no place"],
    );
    refused(|_, d| d["tokenizer_bytes"] = json!(0), &["tokenizer"]);
    refused(
        |_, d| d["tokenizer_bytes"] = json!(u64::MAX),
        &["tokenizer"],
    );
    refused(|_, d| d["surprise"] = json!(1), &["surprise"]);
}

#[test]
fn encoders_that_contradict_themselves_are_named() {
    let encoder = |change: &'static str, value: Value| {
        move |_: &mut Value, d: &mut Value| {
            d["config"]["encoder"] = json!({"max_tokens": 16, "pooling": "mean"});
            d["config"]["encoder"][change] = value.clone();
        }
    };
    // A decoder's weights without a mask make a sound encoder.
    open(&changed(encoder("normalize", json!(true)))).unwrap();
    refused(encoder("max_tokens", json!(0)), &["max_tokens is 0"]);
    refused(
        encoder("max_tokens", json!(129)),
        &["max_tokens is 129", "1 to 128"],
    );
    refused(
        encoder("first_position", json!(0)),
        &["positions", "[128, 32]", "missing"],
    );
    refused(encoder("first_position", json!(u64::MAX)), &["after row"]);
    refused(encoder("token_types", json!(u64::MAX)), &["token_types"]);
    refused(
        encoder("embedding_norm", json!(true)),
        &["embed_norm", "missing"],
    );
    refused(
        encoder("pooling", json!("max")),
        &["header", "`max`", "`mean`"],
    );
    let classifier = json!({"labels": [], "activation": "tanh", "scores": "raw"});
    refused(encoder("classifier", classifier), &["0 labels"]);
    refused(
        |_, d| d["config"]["residual"] = json!("post_norm"),
        &["norm", "no place"],
    );
    refused(
        |_, d| d["config"]["norm"] = json!("layer"),
        &["norm_bias", "missing"],
    );
}

#[test]
fn lying_places_are_refused() {
    let offsets = |name: &'static str, range: [u64; 2]| {
        move |entries: &mut Value, _: &mut Value| entries[name]["data_offsets"] = json!(range)
    };
    // Overlapping, beyond the end, backwards, near the end of the address space.
    refused(offsets("norm", [0, 128]), &["header"]);
    refused(offsets("checksums", [0, 1 << 40]), &["header"]);
    refused(offsets("norm", [128, 0]), &["header"]);
    refused(offsets("embed", [0, u64::MAX]), &["header"]);
    refused(
        |entries, _| entries["norm"]["shape"] = json!([u64::MAX, 4]),
        &["header"],
    );
    refused(
        |entries, _| entries["norm"]["dtype"] = json!("I32"),
        &["norm", "I32"],
    );
    refused(
        |entries, _| {
            let entry = entries.as_object_mut().unwrap().remove("norm").unwrap();
            entries["extra"] = entry;
        },
        &["extra"],
    );
}

#[test]
fn a_header_that_lies_about_its_length_is_refused() {
    for length in [0u64, 1, 7, 1 << 24, 1 << 40, u64::MAX] {
        let mut bytes = sound().to_vec();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert!(open(&bytes).is_err(), "length {length}");
    }
}

#[test]
fn nothing_half_written_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.kgl");
    let mut broken = checkpoint(tiny_config());
    let down = kinglet_tests::Floats {
        shape: vec![32, 48],
        values: vec![f32::NAN; 32 * 48],
    };
    broken
        .weights
        .insert("layers.1.down".to_owned(), Arc::new(down));
    let recipe = kinglet_convert::recipe::Recipe::default();
    let error = kinglet_convert::write(&broken, &path, &recipe, &|_, _| ()).unwrap_err();
    assert!(
        error.to_string().contains("layers.1.down, row 0"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
