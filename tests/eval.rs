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
    // The reference's cache has f32, so the same bits as that of a model with f32.
    assert_eq!(divergence(KvKind::F32), 0.0);
    let [q16, q8, k8v4] = [KvKind::Q16, KvKind::Q8, KvKind::K8V4].map(divergence);
    // Steps of 16 bits are a fortieth of those of 8 at least, and divergence grows with their square.
    assert!(
        0.0 < q16 && 40.0 * q16 < q8 && q8 < k8v4,
        "{q16} {q8} {k8v4}"
    );
}
