//! The `.kgl` reader: open, verify, and read everything that it hands out.
#![no_main]

use kinglet::format::ModelFile;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = ModelFile::from_bytes(Path::new("fuzz.kgl"), bytes) else {
        return;
    };
    let _ = file.verify(|_, _| ());
    let _ = (file.tokenizer_json(), file.chat_template());
    for tensor in file.tensors() {
        if let Ok(matrix) = file.matrix(tensor.name) {
            let mut row = vec![0.0; matrix.layout().cols()];
            matrix.row(matrix.layout().rows() - 1, &mut row);
        } else {
            file.vector(tensor.name).expect("a matrix or a vector");
        }
    }
});
