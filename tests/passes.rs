//! Passes before quantization leave what a model computes as it is, and change how well it quantizes.

use kinglet::config::ModelConfig;
use kinglet::format::names::layer;
use kinglet::{EmbedOptions, Model, SessionOptions};
use kinglet_convert::calibrate::Calibration;
use kinglet_convert::checkpoint::Checkpoint;
use kinglet_convert::passes::awq;
use kinglet_convert::passes::rotate::{Rotate, rotate};
use kinglet_convert::recipe::{Method, Passes, Recipe};
use kinglet_convert::source;
use kinglet_kernels::kv::KvKind;
use kinglet_tests::{Floats, checkpoint, divergence, recipe, tiny_config, write};
use std::path::Path;
use std::sync::Arc;

const ARCHITECTURES: [&str; 10] = [
    "llama",
    "llama3_rope",
    "smollm2",
    "mistral",
    "qwen2",
    "qwen2_yarn",
    "qwen3",
    "gemma3",
    "phi3",
    "phi3_longrope",
];

fn fixture(name: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    source::open(&folder.join(name)).unwrap()
}

fn text() -> String {
    (0..40)
        .map(|i| format!("{} bottles of {}. ", 99 - i % 90, i * i))
        .collect()
}

fn scaled(checkpoint: &Checkpoint) -> Checkpoint {
    let calibration = Calibration::new(checkpoint, &text(), 2).unwrap();
    let kinds = recipe("q4").kinds().unwrap();
    awq::scale(checkpoint, &calibration, &kinds, Method::Search, &|_| ()).unwrap()
}

/// Logits of some tokens, from a file of floats.
fn logits(checkpoint: &Checkpoint, path: &Path) -> Vec<f32> {
    write(checkpoint, path, "f32");
    let model = Model::open(path).unwrap();
    let options = SessionOptions {
        kv: KvKind::F32,
        context: 40,
        ..SessionOptions::default()
    };
    let mut session = model.session(options).unwrap();
    let tokens: Vec<u32> = (0..40).map(|i| 3 + i * 71 % 250).collect();
    let mut all = vec![];
    session.begin(&tokens).unwrap();
    session.logits_of(0..tokens.len(), |_, logits| all.extend_from_slice(logits));
    all
}

/// What rounding to f32 leaves is about 1e-6 of the largest logit, as in tests/parity.rs; ten times as much
/// for other processors.
const ROUNDING: f32 = 1e-5;

/// The passed model computes what the model does, with other weights in `changed`.
fn preserved(name: &str, pass: impl Fn(&Checkpoint) -> Checkpoint, changed: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = fixture(&format!("architectures/{name}"));
    let passed = pass(&checkpoint);
    for part in changed {
        let weight = layer(1, part);
        let (before, after) = (
            checkpoint.read(&weight).unwrap(),
            passed.read(&weight).unwrap(),
        );
        let pairs = before.iter().zip(&after);
        let moved = pairs
            .filter(|(a, b)| (*a - *b).abs() > 0.01 * a.abs())
            .count();
        assert!(moved > before.len() / 4, "{name}: {weight} is as before");
    }
    let [expected, found] = [("plain", &checkpoint), ("passed", &passed)]
        .map(|(file, checkpoint)| logits(checkpoint, &folder.path().join(file)));
    let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    let differences = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0f32, |max, x| if x.is_nan() { x } else { max.max(x) });
    println!("{name}: {:.1e} of the largest logit", worst / largest);
    assert!(worst <= ROUNDING * largest, "{name}: {worst} of {largest}");
}

#[test]
fn rotated_heads_compute_the_same() {
    for name in ARCHITECTURES {
        let pass = |checkpoint: &_| rotate(checkpoint, Rotate::Heads).unwrap();
        preserved(name, pass, &["v", "o"]);
    }
}

#[test]
fn a_rotated_residual_stream_computes_the_same() {
    for name in ARCHITECTURES.iter().filter(|name| **name != "gemma3") {
        let pass = |checkpoint: &_| {
            let rotated = rotate(checkpoint, Rotate::All).unwrap();
            assert!(!rotated.config.tied_head);
            rotated
        };
        let changed = ["q", "k", "v", "o", "gate", "up", "down"];
        preserved(name, pass, &changed);
    }
}

#[test]
fn scaled_channels_compute_the_same() {
    for name in ARCHITECTURES {
        let pass = |checkpoint: &Checkpoint| {
            let scaled = scaled(checkpoint);
            let mut names = checkpoint.weights.keys();
            let other =
                |name: &String| checkpoint.read(name).unwrap() != scaled.read(name).unwrap();
            assert!(names.any(other), "{name}: nothing is scaled");
            scaled
        };
        preserved(name, pass, &[]);
    }
}

#[test]
fn passes_compute_the_same_together() {
    for name in ["llama", "smollm2", "qwen2"] {
        let pass = |checkpoint: &_| scaled(&rotate(checkpoint, Rotate::All).unwrap());
        preserved(name, pass, &["q", "o", "up", "down"]);
    }
}

#[test]
fn rotated_heads_of_an_encoder_compute_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let embedding = |checkpoint: &Checkpoint| {
        let path = folder.path().join("encoder.kgl");
        write(checkpoint, &path, "f32");
        let model = Model::open(&path).unwrap();
        let mut encoder = model.encoder().unwrap();
        let embedded = encoder.embed(&["a small bird"], &EmbedOptions::default());
        embedded.unwrap().remove(0).values
    };
    for name in ["bert", "distilbert", "roberta"] {
        let plain = fixture(&format!("encoders/{name}"));
        let rotated = rotate(&plain, Rotate::Heads).unwrap();
        let (plain, rotated) = (embedding(&plain), embedding(&rotated));
        assert!(plain != rotated, "{name}");
        let largest = plain.iter().fold(0f32, |max, x| max.max(x.abs()));
        for (a, b) in plain.iter().zip(&rotated) {
            assert!((a - b).abs() <= ROUNDING * largest, "{name}: {a} {b}");
        }
    }
}

#[test]
fn what_cannot_be_rotated_is_said() {
    for (name, reason) in [
        ("architectures/gemma3", "post norms"),
        ("encoders/bert", "LayerNorm"),
    ] {
        let error = rotate(&fixture(name), Rotate::All).err().unwrap();
        let message = error.to_string();
        assert!(
            message.starts_with("--rotate") && message.contains(reason),
            "{message}"
        );
    }
}

/// A small decoder, each value of its weights changed: by name, position and value.
fn changed(change: impl Fn(&str, usize, f32) -> f32) -> Checkpoint {
    let mut checkpoint = checkpoint(ModelConfig {
        hidden_size: 64,
        intermediate_size: 96,
        ..tiny_config()
    });
    let names: Vec<String> = checkpoint.weights.keys().cloned().collect();
    for name in names {
        let shape = checkpoint.weight(&name).unwrap().shape().to_vec();
        let values = checkpoint.read(&name).unwrap();
        let values = values.iter().enumerate();
        let values = values.map(|(at, &w)| change(&name, at, w)).collect();
        let weight = Arc::new(Floats { shape, values });
        checkpoint.weights.insert(name, weight);
    }
    checkpoint
}

/// Divergence of the layers in a kind from full precision, without passes and with some.
fn divergences(checkpoint: &Checkpoint, kind: &str, passes: Passes) -> [f64; 2] {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    write(checkpoint, &file("f32"), "f32");
    std::fs::write(file("text"), text()).unwrap();
    [Passes::default(), passes].map(|passes| {
        let mut recipe = Recipe {
            passes,
            ..recipe(kind)
        };
        recipe.quantize.embed = Some("f32".to_owned());
        recipe.quantize.calibration = Some(file("text"));
        kinglet_convert::write(checkpoint, &file("packed"), &recipe, &|_, _| ()).unwrap();
        divergence(&file("packed"), &file("f32"), &text())
    })
}

#[test]
fn scales_help_where_some_channels_are_large() {
    let checkpoint = changed(|name, at, w| match name.ends_with("_norm") {
        true if at % 23 == 3 => 4.0,
        true => 0.3 + 0.1 * w,
        false => 0.3 * w,
    });
    for kind in ["q4", "q5", "q8"] {
        let passes = Passes {
            awq: Some(true),
            ..Passes::default()
        };
        let [plain, scaled] = divergences(&checkpoint, kind, passes);
        assert!(scaled < 0.8 * plain, "{kind}: {scaled} against {plain}");
    }
}

/// Weights of 8 bits lose less than inputs, which share a step with one that is far larger.
#[test]
fn rotations_help_where_some_inputs_are_large() {
    let checkpoint = changed(|name, at, w| match name {
        "embed" if at % 64 == 5 => 20.0 + w,
        name if name.contains("norm") => 1.0,
        _ => 0.3 * w,
    });
    let passes = Passes {
        rotate: Some(Rotate::All),
        ..Passes::default()
    };
    let [plain, rotated] = divergences(&checkpoint, "q8", passes);
    assert!(rotated < 0.5 * plain, "{rotated} against {plain}");
}

#[test]
fn a_head_beside_the_embedding_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(tiny_config());
    let written = |rotate| {
        let recipe = Recipe {
            passes: Passes {
                rotate: Some(rotate),
                ..Passes::default()
            },
            ..recipe("q8")
        };
        let path = folder.path().join("rotated.kgl");
        kinglet_convert::write(&checkpoint, &path, &recipe, &|_, _| ()).unwrap()
    };
    let (heads, all) = (written(Rotate::Heads), written(Rotate::All));
    assert_eq!(heads.head_beside, None);
    let head = all.tensors.iter().find(|tensor| tensor.name == "head");
    assert_eq!(all.head_beside, Some(head.unwrap().bytes));
    assert_eq!(heads.parameters, all.parameters);
    assert!(all.output_bytes >= heads.output_bytes + head.unwrap().bytes);
}

/// Scales are the default here, so a recipe has to say where there are none.
#[test]
fn a_stored_recipe_says_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let (path, text_path) = (folder.path().join("m.kgl"), folder.path().join("text"));
    std::fs::write(&text_path, text()).unwrap();
    for (asked, done) in [(None, true), (Some(true), true), (Some(false), false)] {
        let mut recipe = recipe("q8");
        recipe.passes.awq = asked;
        recipe.quantize.method = Some(Method::Gptq);
        recipe.quantize.calibration = Some(text_path.clone());
        kinglet_convert::write(&checkpoint(tiny_config()), &path, &recipe, &|_, _| ()).unwrap();
        let file = Model::open(&path).unwrap();
        let stored = &file.file().header().provenance.recipe;
        assert!(stored.contains(&format!("awq = {done}")), "{stored}");
    }
}

#[test]
fn passes_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.kgl");
    let checkpoint = checkpoint(tiny_config());
    let refused = |checkpoint: &Checkpoint, kind: &str, keep_grid: bool, words: &[&str]| {
        let mut recipe = recipe(kind);
        recipe.passes.awq = Some(true);
        recipe.quantize.keep_grid = keep_grid;
        let error = kinglet_convert::write(checkpoint, &path, &recipe, &|_, _| ());
        let message = error.unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message}");
        }
    };
    refused(&checkpoint, "f16", false, &["--awq", "f16", "--quant"]);
    refused(&checkpoint, "q4", true, &["--awq", "--keep-grid"]);
    let bert = fixture("encoders/bert");
    refused(&bert, "q8", false, &["--awq", "encoder"]);
}
