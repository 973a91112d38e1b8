//! GGUF as a source: metadata, configuration, tokenizer, rows and codes of every weight.
#![no_main]

use kinglet::Tokenizer;
use kinglet_convert::source::file::SourceFile;
use kinglet_convert::source::gguf;
use kinglet_tests::models::read_some;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("fuzz.gguf");
    let file = SourceFile::from_bytes(path, bytes.to_vec());
    let Ok(checkpoint) = gguf::from_file(file) else {
        return;
    };
    read_some(&checkpoint);
    // Opening has built it once already, and most of the time goes there.
    if bytes.len().is_multiple_of(8) {
        let tokenizer = Tokenizer::from_json(&checkpoint.tokenizer_json, path).expect("checked");
        let _ = tokenizer.encode("ab </s>a", true);
        let _ = tokenizer.decode(&[1, 3, 4, 5]);
    }
});
