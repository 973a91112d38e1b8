//! The `.kgl` reader: open, verify, read everything that it hands out, and run a token.
//!
//! The first byte says how the rest is meant: 0: the file as it is; else the document of the header,
//! the entries of tensors and the data, parted by [`SEPARATOR`], which become a file with the right
//! lengths and padding, so that what is changed reaches the checks behind those.
#![no_main]

use kinglet::format::{ModelFile, VERSION};
use kinglet::{EmbedOptions, Model, SessionOptions, Tokenizer};
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::pool::ThreadPool;
use kinglet_tests::models::{KGL_SEPARATOR, parted};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

/// Models beyond are not run: they would only take time.
const MOST_MULTIPLICATIONS: usize = 1 << 18;

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, rest)) = bytes.split_first() else {
        return;
    };
    let file = match mode {
        0 => rest.to_vec(),
        _ => assembled(rest),
    };
    let Ok(file) = ModelFile::from_bytes(Path::new("fuzz.kgl"), &file) else {
        return;
    };
    let _ = file.verify(|_, _| ());
    let _ = file.chat_template();
    for tensor in file.tensors() {
        if let Ok(matrix) = file.matrix(tensor.name) {
            let mut row = vec![0.0; matrix.layout().cols()];
            matrix.row(matrix.layout().rows() - 1, &mut row);
        } else {
            file.vector(tensor.name).expect("a matrix or a vector");
        }
    }
    if let Ok(tokenizer) = Tokenizer::of(&file) {
        let _ = tokenizer.encode("ab </s>a", true);
        let _ = tokenizer.decode(&[1, 3, 4, 5]);
    }
    run(file);
});

/// A file of a header's document, entries of tensors and data.
fn assembled(bytes: &[u8]) -> Vec<u8> {
    let [document, entries, data] = parted(bytes, KGL_SEPARATOR);
    let document = serde_json::Value::from(String::from_utf8_lossy(document)).to_string();
    let mut file = vec![0; 8];
    let metadata =
        format!(r#"{{"__metadata__":{{"format":"kinglet","version":"{VERSION}","header":"#);
    file.extend(metadata.as_bytes());
    file.extend(document.as_bytes());
    file.extend(b"},");
    file.extend(entries);
    file.push(b'}');
    file.resize(file.len().next_multiple_of(4096), b' ');
    let header = file.len() as u64 - 8;
    file[..8].copy_from_slice(&header.to_le_bytes());
    file.extend(data);
    file
}

fn run(file: ModelFile) {
    let weights = file.tensors().map(|t| t.shape.iter().product::<usize>());
    if weights.sum::<usize>() > MOST_MULTIPLICATIONS || file.config().head_dim > 256 {
        return;
    }
    let vocab = file.config().vocab_size as u32;
    let engine = Engine::new(Isa::Scalar, ThreadPool::new(1));
    let model = Model::new(file, engine).expect("a validated file");
    if model.config().encoder.is_some() {
        embed(&model);
        return;
    }
    let options = SessionOptions {
        context: 4,
        ..SessionOptions::default()
    };
    let mut session = model.session(options).expect("a small context");
    session
        .prefill(&[0, vocab - 1])
        .expect("tokens of the model");
    session.next().expect("room for a token");
}

/// Embeds two texts of tokens, if the tokenizer is sound, and classifies one if there are classes.
fn embed(model: &Model) {
    let Ok(mut encoder) = model.encoder() else {
        return;
    };
    let last = model.config().vocab_size as u32 - 1;
    let mut texts = vec![vec![0].into(), vec![last].into()];
    if encoder.max_tokens() > 1 {
        texts.push(vec![last, 0].into());
    }
    let options = EmbedOptions::default();
    encoder
        .embed_tokens(&texts, &options)
        .expect("tokens of the model");
    let _ = encoder.classify_tokens(&texts);
    let _ = encoder.embed(&["ab </s>a"], &options);
    let _ = encoder.classify_pairs(&[("ab </s>a", "b")], true);
}
