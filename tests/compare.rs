//! `compare`: the report of tiny models, and what it refuses.

use kinglet::eval::{EvalOptions, evaluate};
use kinglet::{Model, Tokenizer};
use kinglet_convert::compare::{Comparison, Options, Quality, compare};
use kinglet_convert::recipe::Recipe;
use kinglet_kernels::kv::KvKind;
use kinglet_tests::{checkpoint, tiny_config, write};
use std::path::{Path, PathBuf};

const TEXT: &str = "a wren\nThe kinglet is a small bird, and its crown is gold!\nfinch sparrow\n";

/// A folder with a tiny decoder as f32, q8 and q4, a tiny encoder as f32 and q8, and texts.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let decoder = checkpoint(tiny_config());
        for kind in ["f32", "q8", "q4"] {
            write(&decoder, &folder.path(&format!("decoder-{kind}.kgl")), kind);
        }
        for (name, kind) in [("bert", "f32"), ("bert", "q8"), ("roberta", "q8")] {
            let source = format!("{}/fixtures/encoders/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut recipe = Recipe::default();
            recipe.quantize.kind = kind.to_owned();
            let target = folder.path(&format!("{name}-{kind}.kgl"));
            kinglet_convert::convert(Path::new(&source), &target, &recipe, &|_, _| ()).unwrap();
        }
        std::fs::write(folder.path("text.txt"), TEXT).unwrap();
        std::fs::write(folder.path("docs.txt"), b"wren\nfinch\n\xffgold\n").unwrap();
        std::fs::write(folder.path("judged.txt"), "1 0.8 0.1\n0 1 0.2\n0 0 1\n").unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self) -> Options {
        Options {
            text: self.path("text.txt"),
            similarity: None,
            window: 16,
            windows: Some(2),
            rows: vec![],
            prompt: 8,
            generate: 4,
            repeat: 2,
            threads: Some(1),
            prober: None,
        }
    }

    fn compare(&self, names: &[&str], options: &Options) -> Result<Comparison, String> {
        let paths: Vec<PathBuf> = names.iter().map(|name| self.path(name)).collect();
        compare(&paths[0], &paths[1..], options, &|_| ()).map_err(|error| error.to_string())
    }
}

#[test]
fn decoders_are_compared_as_eval_does() {
    let folder = Folder::new();
    let names = ["decoder-f32.kgl", "decoder-q8.kgl", "decoder-q4.kgl"];
    let options = folder.options();
    let found = folder.compare(&names, &options).unwrap();
    assert_eq!(found.models.len(), 3);
    let reference = Model::open(&folder.path(names[0])).unwrap();
    for (entry, name) in found.models.iter().zip(names) {
        let model = Model::open(&folder.path(name)).unwrap();
        let tokens = Tokenizer::of(model.file())
            .unwrap()
            .encode(TEXT, false)
            .unwrap();
        let windows = EvalOptions {
            window: 16,
            windows: Some(2),
            kv: KvKind::default(),
        };
        let expected = evaluate(&model, Some(&reference), &tokens, windows, |_, _| ()).unwrap();
        let Quality::Decoder(quality) = &entry.quality else {
            panic!("{name} is a decoder");
        };
        assert_eq!(quality.perplexity, expected.perplexity, "{name}");
        let distance = quality.against_reference.as_ref().map(|d| d.kl_mean);
        let expected = expected.against_reference.map(|d| d.kl_mean);
        assert_eq!(distance, expected.filter(|_| name != names[0]), "{name}");
        assert_eq!(
            entry.bytes,
            std::fs::metadata(folder.path(name)).unwrap().len()
        );
        assert_eq!(entry.parameters, model.file().parameters());
        assert!(entry.speed.felt() > 0.0 && entry.first_result_seconds > 0.0);
    }
    assert_eq!(found.models[2].kinds, ["q4g32"]);
    assert_eq!(found.conditions.samples, 2);

    found.write(&folder.path("report")).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path("report").join(name)).unwrap();
    let markdown = read("report.md");
    for part in [
        "decoder-f32 (reference)",
        "decoder-q4",
        "perplexity",
        "KL p99",
        "text.txt",
    ] {
        assert!(markdown.contains(part), "no {part:?} in {markdown}");
    }
    let html = read("report.html");
    // Divergence (without the reference) and perplexity, each against size and speed.
    assert_eq!(html.matches("<svg").count(), 4);
    assert_eq!(html.matches("<circle").count(), 10);
    // One file: nothing is fetched from elsewhere.
    assert!(!html.contains("src=") && !html.contains("href=") && !html.contains("NaN"));
    let json: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(json["models"][1]["name"], "decoder-q8");
    assert!(json["models"][1]["quality"]["kl_mean"].as_f64().unwrap() > 0.0);
    assert_eq!(json["conditions"]["threads"], 1);
}

#[test]
fn encoders_are_compared_by_cosine_and_judgements() {
    let folder = Folder::new();
    let options = Options {
        similarity: Some((folder.path("docs.txt"), folder.path("judged.txt"))),
        ..folder.options()
    };
    let names = ["bert-f32.kgl", "bert-q8.kgl"];
    let found = folder.compare(&names, &options).unwrap();
    let quality = |index: usize| match &found.models[index].quality {
        Quality::Encoder(quality) => quality.clone(),
        Quality::Decoder(_) => panic!("an encoder"),
    };
    assert!(quality(0).cosine_to_reference.is_none());
    let cosines = quality(1).cosine_to_reference.unwrap();
    // As in the parity tests: 1 % errors of weights and activations.
    assert!(cosines.min > 0.99 && cosines.min <= cosines.mean && cosines.mean < 1.0);
    assert!((-1.0..=1.0).contains(&quality(1).spearman.unwrap()));
    assert_eq!(quality(1).texts, 3);
    let markdown = found.markdown();
    assert!(
        markdown.contains("Spearman") && markdown.contains("texts/s"),
        "{markdown}"
    );
    // Correlation and cosine, each against size and speed.
    assert_eq!(found.html().matches("<svg").count(), 4);
}

/// A file of rows as `benches/peers/rows.py` writes it, for what `compare` found without it.
fn rows(found: &Comparison) -> serde_json::Value {
    let conditions = &found.conditions;
    let mut rows = serde_json::json!({
        "conditions": {
            "cpu": conditions.cpu, "threads": conditions.threads, "samples": conditions.samples,
            "text_sha256": conditions.text_sha256, "prompt": conditions.prompt,
        },
        "notes": ["The other one was slow."],
        "rows": [{
            "name": "other <1>", "engine": "engine 2.0", "file": "x.gguf", "bytes": 1000,
            "kinds": ["Q4_0"], "first_result_seconds": 0.5, "peak_memory": 2_000_000,
        }],
    });
    let (row, conditions) = match conditions.tokens_scored {
        Some(scored) => (
            serde_json::json!({
                "speed": {
                    "prefill_tokens_per_second": [10.0, 30.0, 20.0],
                    "decode_tokens_per_second": [1e9],
                },
                "quality": {"perplexity": 300.0, "kl_mean": 0.5, "kl_p99": 2.0, "top1_agreement": 0.25},
            }),
            serde_json::json!({
                "window": conditions.window, "generate": conditions.generate, "tokens_scored": scored,
            }),
        ),
        None => (
            serde_json::json!({
                "speed": {"batch_texts_per_second": [3.0], "single_texts_per_second": [4.0]},
                "quality": {"spearman": 0.5, "cosine_mean": 0.9, "cosine_min": 0.8},
            }),
            serde_json::json!({"similarity_sha256": conditions.similarity_sha256}),
        ),
    };
    let extend = |target: &mut serde_json::Value, more: serde_json::Value| {
        let fields = more.as_object().unwrap().clone();
        target.as_object_mut().unwrap().extend(fields);
    };
    extend(&mut rows["rows"][0], row);
    extend(&mut rows["conditions"], conditions);
    rows
}

#[test]
fn rows_of_other_engines_stand_in_the_report() {
    let folder = Folder::new();
    let judged = Options {
        similarity: Some((folder.path("docs.txt"), folder.path("judged.txt"))),
        ..folder.options()
    };
    for (names, options) in [
        (["decoder-f32.kgl", "decoder-q4.kgl"], folder.options()),
        (["bert-f32.kgl", "bert-q8.kgl"], judged),
    ] {
        let without = folder.compare(&names, &options).unwrap();
        std::fs::write(folder.path("rows.json"), rows(&without).to_string()).unwrap();
        let options = Options {
            rows: vec![folder.path("rows.json")],
            ..options
        };
        let found = folder.compare(&names, &options).unwrap();
        let other = &found.models[2];
        assert_eq!(other.engine.as_deref(), Some("engine 2.0"));
        assert_eq!(other.parameters, found.models[0].parameters);
        assert_eq!(other.bits_per_weight, 8000.0 / other.parameters as f64);
        let is_decoder = found.conditions.tokens_scored.is_some();
        assert_eq!(other.speed.felt(), if is_decoder { 1e9 } else { 4.0 });
        let markdown = found.markdown();
        let figures = match is_decoder {
            // The median of three runs; the best decoder of all.
            true => ["| 20.0 |", "| **1000000000** |", "300.000", "25.00"],
            false => ["| 3.00 |", "| 4.00 |", "0.5000", "0.80000"],
        };
        for part in figures {
            assert!(markdown.contains(part), "no {part:?} in {markdown}");
        }
        for part in [
            "| other <1> † |",
            "†: run by engine 2.0",
            "The other one was slow.",
        ] {
            assert!(markdown.contains(part), "no {part:?} in {markdown}");
        }
        let html = found.html();
        assert!(html.contains("other &lt;1&gt; †") && !html.contains("other <1>"));
        assert_eq!(html.matches("<rect").count(), 4);
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let names = ["decoder-f32.kgl", "decoder-q4.kgl"];
    let sound = rows(&folder.compare(&names, &folder.options()).unwrap());
    let options = Options {
        rows: vec![folder.path("rows.json")],
        ..folder.options()
    };
    let refused = |text: String, parts: &[&str]| {
        std::fs::write(folder.path("rows.json"), text).unwrap();
        let message = folder.compare(&names, &options).expect_err("a refusal");
        for part in ["rows.json"].iter().chain(parts) {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    };
    let changed = |pointer: &str, value: serde_json::Value, parts: &[&str]| {
        let mut rows = sound.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        rows.pointer_mut(parent).unwrap()[key] = value;
        refused(rows.to_string(), parts);
    };
    use serde_json::json;
    refused("{".to_owned(), &["EOF"]);
    refused("{}".to_owned(), &["conditions"]);
    changed(
        "/conditions/threads",
        json!(7),
        &["threads is 7, but 1", "alike"],
    );
    changed("/conditions/cpu", json!("abacus"), &["cpu is abacus"]);
    changed(
        "/conditions/text_sha256",
        json!("00"),
        &["text_sha256 is 00"],
    );
    changed("/conditions/window", json!(512), &["window is 512, but 16"]);
    changed("/conditions/samples", json!(3), &["samples is 3, but 2"]);
    changed(
        "/conditions/generate",
        json!(null),
        &["generate is none, but 4"],
    );
    changed(
        "/conditions/similarity_sha256",
        json!(["a", "b"]),
        &["similarity_sha256 is a, b, but none"],
    );
    changed(
        "/conditions/speed",
        json!(1),
        &["conditions", "unknown field `speed`"],
    );
    changed("/rows/0/bytes", json!("many"), &["rows[0].bytes", "many"]);
    changed("/rows/0/bytes", json!(0), &["other <1>", "bytes is 0"]);
    changed(
        "/rows/0/quality/perplexity",
        json!(0.5),
        &["perplexity is 0.5"],
    );
    changed(
        "/rows/0/quality/kl_p99",
        json!(null),
        &["kl_p99", "go together"],
    );
    changed(
        "/rows/0/quality/top1_agreement",
        json!(25),
        &["top1_agreement is 25"],
    );
    changed(
        "/rows/0/quality/spearman",
        json!(1),
        &["quality", "unknown field `spearman`"],
    );
    changed(
        "/rows/0/speed/decode_tokens_per_second",
        json!([]),
        &["decode_tokens_per_second has no runs"],
    );
    changed(
        "/rows/0/speed/decode_tokens_per_second",
        json!([1.0, -1.0]),
        &["decode_tokens_per_second is -1"],
    );
    let row = sound["rows"][0].clone();
    changed(
        "/rows",
        json!([row, row]),
        &["two rows are named \"other <1>\""],
    );
    let missing = Options {
        rows: vec![folder.path("none.json")],
        ..folder.options()
    };
    let message = folder.compare(&names, &missing).expect_err("a refusal");
    assert!(message.contains("none.json"), "{message}");
}

#[test]
fn what_cannot_be_compared_is_named() {
    let folder = Folder::new();
    let options = folder.options();
    let refused = |names: &[&str], options: &Options, parts: &[&str]| {
        let message = folder.compare(names, options).expect_err("a refusal");
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    };
    refused(
        &["decoder-f32.kgl", "bert-q8.kgl"],
        &options,
        &["bert-q8.kgl", "an encoder", "decoder-f32.kgl", "a decoder"],
    );
    refused(
        &["bert-f32.kgl", "roberta-q8.kgl"],
        &options,
        &[
            "roberta-q8.kgl",
            "vocabulary of",
            "only variants of one model",
        ],
    );
    let mut other = checkpoint(tiny_config());
    let text = String::from_utf8(other.tokenizer_json).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["normalizer"] = serde_json::json!({"type": "Lowercase"});
    other.tokenizer_json = json.to_string().into_bytes();
    write(&other, &folder.path("lower.kgl"), "q8");
    refused(
        &["decoder-f32.kgl", "lower.kgl"],
        &options,
        &["lower.kgl", "tokenizer differs", "token 8"],
    );
    refused(&["decoder-f32.kgl", "none.kgl"], &options, &["none.kgl"]);
    let short = Options {
        window: 512,
        ..options.clone()
    };
    refused(
        &["decoder-f32.kgl", "decoder-q8.kgl"],
        &short,
        &["text.txt", "one window of 512"],
    );
    std::fs::write(folder.path("blank.txt"), "\n \n").unwrap();
    let blank = Options {
        text: folder.path("blank.txt"),
        ..options.clone()
    };
    refused(
        &["bert-f32.kgl", "bert-q8.kgl"],
        &blank,
        &["blank.txt", "no text in it"],
    );
    std::fs::write(folder.path("judged.txt"), "1 2\n3 4\n").unwrap();
    let judged = Options {
        similarity: Some((folder.path("docs.txt"), folder.path("judged.txt"))),
        ..options
    };
    refused(
        &["bert-f32.kgl", "bert-q8.kgl"],
        &judged,
        &["judged.txt", "2 lines"],
    );
}
