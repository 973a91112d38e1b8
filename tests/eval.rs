//! Evaluation: what a quantized KV cache costs.

use kinglet::eval::{EvalOptions, evaluate};
use kinglet::{Model, Tokenizer};
use kinglet_kernels::kv::KvKind;
use kinglet_tests::{checkpoint, tiny_config, write};

#[test]
fn a_quantized_cache_shows_against_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f32.kgl");
    write(&checkpoint(tiny_config()), &path, "f32");
    let model = Model::open(&path).unwrap();
    let text = "A wren, a finch and a kinglet.".repeat(4);
    let tokens = Tokenizer::of(model.file()).unwrap();
    let tokens = tokens.encode(&text, false).unwrap();
    let divergence = |kv| {
        let options = EvalOptions {
            window: 64,
            windows: None,
            kv,
        };
        let found = evaluate(&model, Some(&model), &tokens, options, |_, _| ()).unwrap();
        found.against_reference.unwrap().kl_mean
    };
    // The reference has the same cache as the model, so the same bits, except where that has integers.
    assert_eq!(divergence(KvKind::F32), 0.0);
    assert_eq!(divergence(KvKind::F16), 0.0);
    let q8 = divergence(KvKind::Q8);
    assert!(q8 > 0.0 && divergence(KvKind::K8V4) > q8);
}
