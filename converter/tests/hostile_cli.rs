//! The program on flags and files that make no sense: a message and an exit code, never a panic.

use std::process::Command;

/// The exit code is `code`, and the message has all of `names`.
#[track_caller]
fn ends(arguments: &str, code: i32, names: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("nothing")).unwrap();
    std::fs::write(folder.join("empty.gguf"), b"").unwrap();
    std::fs::write(folder.join("other.gguf"), b"%PDF-1.7").unwrap();
    std::fs::write(folder.join("a.safetensors"), b"").unwrap();
    std::fs::write(folder.join("recipe.toml"), b"[quantize]\nbits = 3").unwrap();
    std::fs::write(folder.join("latin1.toml"), b"caf\xe9").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kinglet-convert"))
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(output.status.code(), Some(code), "{message}");
    for name in names {
        assert!(message.contains(name), "no {name:?} in: {message}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_by_flag() {
    ends(
        "empty.gguf -q int3",
        1,
        &["--quant", "int3", "expected f32"],
    );
    ends(
        "empty.gguf -q q4 -g 48",
        1,
        &["--group", "group size 48", "32, 64 or 128"],
    );
    ends("empty.gguf -g 18446744073709551615", 1, &["group size"]);
    ends("empty.gguf -g 18446744073709551616", 2, &["--group"]);
    ends("empty.gguf --embed q2", 1, &["--embed", "q2"]);
    ends("empty.gguf --head q2", 1, &["--head", "q2"]);
    ends("empty.gguf --recipe none.toml", 1, &["none.toml"]);
    ends(
        "empty.gguf --recipe recipe.toml",
        1,
        &["recipe.toml", "bits"],
    );
    ends(
        "empty.gguf --recipe latin1.toml",
        1,
        &["latin1.toml", "UTF-8"],
    );
    ends("empty.gguf --surprise", 2, &["--surprise"]);
    ends("empty.gguf --size 3XB", 1, &["--size", "3XB", "77.6MB"]);
}

/// Before the source is read.
#[test]
fn outputs_that_cannot_be_written_are_named() {
    ends("empty.gguf -o nothing", 1, &["nothing", "is not a file"]);
    ends("empty.gguf -o none/a.kgl", 1, &["none: No such file"]);
}

#[test]
fn sources_that_cannot_be_used_are_named() {
    ends("none", 1, &["none", "no such folder or file", "smollm2"]);
    ends("a.safetensors", 1, &["a.safetensors", "convert the folder"]);
    ends("empty.gguf", 1, &["empty.gguf", "0 are left"]);
    ends("other.gguf", 1, &["other.gguf", "not a GGUF file"]);
    ends("nothing", 1, &["nothing", "config.json is missing"]);
}
