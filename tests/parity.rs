//! Logits against those of `transformers`, for every architecture: `fixtures/architectures/make.py`
//! made the models and the logits.

use kinglet::format::ModelFile;
use kinglet::{Model, SessionOptions};
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::kv::KvKind;
use kinglet_kernels::pool::ThreadPool;
use kinglet_tests::recipe;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The promise: beyond it, an architecture is wrong.
///
/// Both sides compute in f32, in another order of additions; `make.py` checks that every part of a
/// model moves the logits by thirty times as much.
const REQUIRED: f32 = 1e-3;

/// What rounding leaves is about 1e-6: sums of some dozens of terms are off by a few `2⁻²⁴`, and two
/// to six layers of attention and norms multiply that. Ten times as much for other processors.
const ROUNDING: f32 = 1e-5;

#[test]
fn llama() {
    agrees("llama");
    gguf_agrees("llama");
}

#[test]
fn llama_with_its_third_version_of_rope() {
    agrees("llama3_rope");
}

#[test]
fn smollm2() {
    agrees("smollm2");
}

#[test]
fn mistral() {
    agrees("mistral");
}

#[test]
fn qwen2() {
    agrees("qwen2");
    gguf_agrees("qwen2");
}

#[test]
fn qwen2_with_yarn() {
    agrees("qwen2_yarn");
}

#[test]
fn qwen3() {
    agrees("qwen3");
}

#[test]
fn gemma3() {
    agrees("gemma3");
    gguf_agrees("gemma3");
}

#[test]
fn phi3() {
    agrees("phi3");
}

#[test]
fn phi3_with_longrope() {
    agrees("phi3_longrope");
}

/// The text model of a Gemma 3 that sees: its configuration and tensors stand one level down.
#[test]
fn gemma3_with_vision() {
    for prefix in ["language_model.model.", "model.language_model."] {
        let folder = copy("gemma3", "config.json");
        let path = folder.path().join("config.json");
        let text: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let config = json!({"model_type": "gemma3", "text_config": text, "vision_config": {}});
        fs::write(&path, config.to_string()).unwrap();

        let path = folder.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let renamed = tensors.iter().map(|(name, view)| {
            let inner = name.strip_prefix("model.").unwrap();
            (format!("{prefix}{inner}"), view)
        });
        let mut renamed: Vec<(String, TensorView)> = renamed.collect();
        let vision = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        renamed.push(("vision_tower.embeddings.weight".to_owned(), vision));
        fs::write(&path, safetensors::serialize(renamed, None).unwrap()).unwrap();

        let model = convert(folder.path(), "f32", folder.path());
        for prompt in prompts("gemma3") {
            close(
                "gemma3 with vision",
                &prompt,
                &prefill(&model, &prompt.tokens),
            );
        }
    }
}

/// Same file, same tokens: same bits, whatever the instruction set, the number of threads, and
/// whether tokens come one by one or together.
#[test]
fn logits_are_the_same_bits() {
    for name in ["llama", "qwen3", "gemma3", "phi3_longrope"] {
        for kind in ["f32", "f16", "q8", "q4"] {
            let folder = tempfile::tempdir().unwrap();
            let tokens = prompts(name).remove(0).tokens;
            let expected = prefill(&convert(&fixture(name), kind, folder.path()), &tokens);
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let file = ModelFile::open(&folder.path().join("model.kgl")).unwrap();
                    let engine = Engine::new(isa, ThreadPool::new(threads));
                    let model = Model::new(file, engine).unwrap();
                    let case = format!("{name}, {kind}, {isa}, {threads} threads");
                    assert!(prefill(&model, &tokens) == expected, "prefill: {case}");
                    assert!(decode(&model, &tokens) == expected, "decode: {case}");
                    assert!(expected.ends_with(&last(&model, &tokens)), "last: {case}");
                }
            }
        }
    }
}

/// A prompt of several batches, which go through a layer in parts, of other sizes with more threads: as token
/// by token, and where the last token's logits alone are computed.
#[test]
fn logits_of_a_long_prompt_are_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    convert(&fixture("gemma3"), "q4", folder.path());
    let some = prompts("gemma3").remove(0).tokens;
    let tokens: Vec<u32> = some.into_iter().cycle().take(1100).collect();
    let mut expected: Option<Vec<f32>> = None;
    for threads in [1, 3] {
        let file = ModelFile::open(&folder.path().join("model.kgl")).unwrap();
        let engine = Engine::new(Isa::detect(), ThreadPool::new(threads));
        let model = Model::new(file, engine).unwrap();
        let logits = prefill(&model, &tokens);
        assert!(logits.ends_with(&last(&model, &tokens)), "{threads}");
        let expected = expected.get_or_insert_with(|| decode(&model, &tokens[..600]));
        assert!(logits.starts_with(expected), "{threads} threads");
    }
}

/// A prompt, and the logits of its every position.
struct Prompt {
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.join("fixtures/architectures").join(name)
}

fn prompts(name: &str) -> Vec<Prompt> {
    let bytes = fs::read(fixture(name).join("logits.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words = |tensor: &str| -> Option<Vec<[u8; 4]>> {
        let data = tensors.tensor(tensor).ok()?.data();
        Some(data.as_chunks().0.to_vec())
    };
    let prompt = |index: usize| {
        let tokens = words(&format!("tokens.{index}"))?;
        let logits = words(&format!("logits.{index}")).expect("logits of every prompt");
        Some(Prompt {
            tokens: tokens.into_iter().map(u32::from_le_bytes).collect(),
            logits: logits.into_iter().map(f32::from_le_bytes).collect(),
        })
    };
    let prompts: Vec<Prompt> = (0..).map_while(prompt).collect();
    assert!(!prompts.is_empty(), "{name} has no prompts");
    prompts
}

/// A copy of a fixture, with another of its configurations as `config.json`.
fn copy(name: &str, config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(fixture(name)).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(
        fixture(name).join(config),
        folder.path().join("config.json"),
    )
    .unwrap();
    folder
}

/// The model at `source`, converted to `model.kgl` in `folder`, with all matrices of a kind.
fn convert(source: &Path, kind: &str, folder: &Path) -> Model {
    let path = folder.join("model.kgl");
    kinglet_convert::convert(source, &path, &recipe(kind), &|_, _| ()).unwrap();
    Model::open(&path).unwrap()
}

/// In a context that the tokens just fill: LongRoPE goes by its length.
fn options(tokens: &[u32]) -> SessionOptions {
    SessionOptions {
        context: tokens.len(),
        kv: KvKind::F32,
        ..SessionOptions::default()
    }
}

/// Logits of every position, all tokens at once.
fn prefill(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut session = model.session(options(tokens)).unwrap();
    let mut all = vec![];
    session.begin(tokens).unwrap();
    session.logits_of(0..tokens.len(), |_, logits| all.extend_from_slice(logits));
    all
}

/// Logits of the last position, all tokens at once.
fn last(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut session = model.session(options(tokens)).unwrap();
    session.prefill(tokens).unwrap();
    session.logits().unwrap().to_vec()
}

/// Logits of every position, token by token.
fn decode(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut session = model.session(options(tokens)).unwrap();
    let mut all = vec![];
    for token in tokens {
        session.prefill(&[*token]).unwrap();
        all.extend_from_slice(session.logits().unwrap());
    }
    all
}

/// Both spellings of the configuration give the logits of `transformers`.
fn agrees(name: &str) {
    let mut found = vec![];
    for config in ["config.json", "config.transformers-4.json"] {
        let folder = copy(name, config);
        let model = convert(folder.path(), "f32", folder.path());
        for prompt in prompts(name) {
            let logits = prefill(&model, &prompt.tokens);
            close(&format!("{name}, {config}"), &prompt, &logits);
            found.push(logits);
        }
    }
    let (new, old) = found.split_at(found.len() / 2);
    assert!(new == old, "{name}: the old spelling gives other logits");
}

/// The GGUF of the same weights gives the same bits.
fn gguf_agrees(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let tokens = prompts(name).remove(0).tokens;
    let expected = prefill(&convert(&fixture(name), "f32", folder.path()), &tokens);
    let source = fixture(name).join(format!("{name}.gguf"));
    let model = convert(&source, "f32", folder.path());
    assert!(prefill(&model, &tokens) == expected, "{name}.gguf");
}

fn close(case: &str, prompt: &Prompt, found: &[f32]) {
    assert_eq!(found.len(), prompt.logits.len(), "{case}");
    let largest = prompt.logits.iter().fold(0f32, |max, x| max.max(x.abs()));
    let vocab = found.len() / prompt.tokens.len();
    let (mut worst, mut at) = (0f32, 0);
    for (index, (found, expected)) in found.iter().zip(&prompt.logits).enumerate() {
        let distance = (found - expected).abs();
        // A NaN is a difference too.
        if distance.is_nan() || distance > worst {
            (worst, at) = (distance, index);
        }
    }
    let relative = worst / largest;
    println!("{case}: {relative:.1e} of the largest logit");
    for bound in [REQUIRED, ROUNDING] {
        assert!(
            relative <= bound,
            "{case}: position {}, token {}: {} instead of {}, {relative:.1e} of the largest logit",
            at / vocab,
            at % vocab,
            found[at],
            prompt.logits[at]
        );
    }
}
