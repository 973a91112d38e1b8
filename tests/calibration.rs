//! Models quantized for the inputs that a calibration text gives: every kind runs, the result is
//! closer than rounding, and files fit the size asked for.

use kinglet::config::ModelConfig;
use kinglet::format::{Activations, ModelFile};
use kinglet::{Model, SessionOptions, Tokenizer};
use kinglet_convert::recipe::{Method, Recipe};
use kinglet_convert::report::Report;
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::pool::ThreadPool;
use kinglet_tests::{checkpoint, tiny_config};
use std::path::Path;

fn text() -> String {
    (0..120)
        .map(|i| format!("{} bottles of {}. ", 99 - i % 90, i * i))
        .collect()
}

fn write(path: &Path, change: impl FnOnce(&mut Recipe)) -> Report {
    write_model(tiny_config(), path, change)
}

fn write_model(config: ModelConfig, path: &Path, change: impl FnOnce(&mut Recipe)) -> Report {
    let calibration = path.with_extension("txt");
    std::fs::write(&calibration, text()).unwrap();
    let mut recipe = Recipe::default();
    recipe.quantize.method = Some(Method::Gptq);
    recipe.quantize.calibration = Some(calibration);
    change(&mut recipe);
    kinglet_convert::write(&checkpoint(config), path, &recipe, &|_, _| ()).unwrap()
}

fn divergence(path: &Path, reference: &Path) -> f64 {
    kinglet_tests::divergence(path, reference, &text())
}

#[test]
fn errors_are_made_up_for_in_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    write(&file("f32.kgl"), |recipe| {
        recipe.quantize.kind = "f32".to_owned()
    });
    for kind in ["q3", "q4", "q5", "q6"] {
        let [gptq, rtn] = [Method::Gptq, Method::Rtn].map(|method| {
            let path = file(&format!("{kind}-{method:?}.kgl"));
            write(&path, |recipe| {
                recipe.quantize.kind = kind.to_owned();
                recipe.quantize.method = Some(method);
            });
            divergence(&path, &file("f32.kgl"))
        });
        assert!(gptq < rtn, "{kind}: {gptq} against {rtn}");
    }
}

#[test]
fn files_fit_the_size_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sized.kgl");
    let smallest = 20_000;
    for size in [24_000, 28_000, 34_000] {
        let report = write(&path, |recipe| {
            recipe.quantize.size = Some(size.to_string())
        });
        let found = std::fs::metadata(&path).unwrap().len();
        assert_eq!(found, report.output_bytes);
        assert!((smallest..=size).contains(&found), "{found} for {size}");
    }
    let mut recipe = Recipe::default();
    recipe.quantize.size = Some("1kB".to_owned());
    let error = kinglet_convert::write(&checkpoint(tiny_config()), &path, &recipe, &|_, _| ());
    let message = error.unwrap_err().to_string();
    assert!(
        message.starts_with("--size") && message.contains("smallest"),
        "{message}"
    );
}

/// With biases, whose place in the sum matters.
fn biased() -> ModelConfig {
    ModelConfig {
        qkv_biases: true,
        ..tiny_config()
    }
}

#[test]
fn inputs_taken_twice_bring_a_model_closer() {
    let folder = tempfile::tempdir().unwrap();
    let [reference, plain, precise] =
        ["f32", "q8", "precise"].map(|name| folder.path().join(format!("{name}.kgl")));
    write_model(biased(), &reference, |recipe| {
        recipe.quantize.kind = "f32".to_owned()
    });
    for (path, precise) in [(&plain, false), (&precise, true)] {
        let report = write_model(biased(), path, |recipe| {
            recipe.quantize.kind = "q8".to_owned();
            recipe.quantize.precise = precise;
        });
        let file = ModelFile::open(path).unwrap();
        let weights = file.header().weights.values();
        let twice = weights.filter(|info| info.activations == Activations::Q8x2);
        assert_eq!(twice.count(), report.precise);
        assert_eq!(report.precise > 0, precise);
        assert_eq!(file.header().version(), 1 + u32::from(precise));
    }
    let (plain, precise) = (
        divergence(&plain, &reference),
        divergence(&precise, &reference),
    );
    assert!(precise < plain, "{precise} against {plain}");
}

#[test]
fn inputs_taken_twice_give_the_same_bits_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precise.kgl");
    write_model(biased(), &path, |recipe| {
        recipe.quantize.kind = "q8".to_owned();
        recipe.quantize.precise = true;
    });
    same_bits_everywhere(&path);
}

/// All tokens at once, or one after the other; on any number of threads, by any instruction set.
fn same_bits_everywhere(path: &Path) {
    let tokens = Tokenizer::of(&ModelFile::open(path).unwrap())
        .unwrap()
        .encode(&text()[..100], false)
        .unwrap();
    let logits = |isa: Isa, threads: usize, step: usize| -> Vec<u32> {
        let engine = Engine::new(isa, ThreadPool::new(threads));
        let model = Model::new(ModelFile::open(path).unwrap(), engine).unwrap();
        let mut session = model.session(SessionOptions::default()).unwrap();
        for tokens in tokens.chunks(step) {
            session.prefill(tokens).unwrap();
        }
        session
            .logits()
            .unwrap()
            .iter()
            .map(|x| x.to_bits())
            .collect()
    };
    let expected = logits(Isa::Scalar, 1, tokens.len());
    for isa in Isa::available() {
        for (threads, step) in [(1, tokens.len()), (3, 1)] {
            assert_eq!(
                logits(isa, threads, step),
                expected,
                "{isa} {threads} {step}"
            );
        }
    }
}

/// Divergence of files of a kind, corrected and not, from the model with biases in `f32`.
fn corrected(method: Method, kind: &str, change: impl FnOnce(&mut Recipe)) -> (f64, Report) {
    let folder = tempfile::tempdir().unwrap();
    let [path, reference] = ["m", "f32"].map(|name| folder.path().join(format!("{name}.kgl")));
    write_model(biased(), &reference, |recipe| {
        recipe.quantize.kind = "f32".to_owned()
    });
    let report = write_model(biased(), &path, |recipe| {
        recipe.quantize.kind = kind.to_owned();
        recipe.quantize.embed = Some("f32".to_owned());
        recipe.quantize.method = Some(method);
        change(recipe);
    });
    let (file, full) = (
        ModelFile::open(&path).unwrap(),
        ModelFile::open(&reference).unwrap(),
    );
    let corrected = report.tensors.len() > full.tensors().count();
    assert_eq!(file.header().version(), if corrected { 3 } else { 1 });
    // What corrects is no weight of the model.
    assert_eq!(file.parameters(), full.parameters());
    assert_eq!(file.parameters(), report.parameters);
    (divergence(&path, &reference), report)
}

#[test]
fn corrections_bring_a_model_closer() {
    for method in [Method::Rtn, Method::Search, Method::Gptq] {
        let with = |rank: usize, biases: bool| {
            let change = move |recipe: &mut Recipe| {
                recipe.quantize.low_rank = rank;
                recipe.quantize.bias_correction = biases;
            };
            corrected(method, "q4", change).0
        };
        let [plain, low, higher] = [0, 4, 16].map(|rank| with(rank, false));
        assert!(low < plain, "{method:?}: {low} against {plain}");
        assert!(higher < low, "{method:?}: {higher} against {low}");
        let biased = with(0, true);
        assert!(biased < plain, "{method:?}: {biased} against {plain}");
    }
}

/// At 4 bits: the errors of 3 are so large that those of a layer's outputs say little of the model's.
#[test]
fn fitted_norms_bring_a_model_closer_at_no_cost() {
    for method in [Method::Rtn, Method::Search, Method::Gptq] {
        let with = |fitted: bool| {
            corrected(method, "q4", move |recipe: &mut Recipe| {
                recipe.quantize.norm_correction = fitted;
            })
        };
        let [(plain, before), (fitted, after)] = [false, true].map(with);
        assert!(fitted < plain, "{method:?}: {fitted} against {plain}");
        assert_eq!(before.tensors.len(), after.tensors.len());
    }
}

/// Only what 8 bits lose is left: of the correction, and of the inputs as in a file of `q8`.
#[test]
fn a_correction_of_full_rank_restores_a_model() {
    let (eight, _) = corrected(Method::Search, "q8", |_| ());
    let (plain, _) = corrected(Method::Search, "q4", |_| ());
    let (full, report) = corrected(Method::Search, "q4", |recipe| {
        recipe.quantize.low_rank = 1000;
    });
    assert!(full < 2.0 * eight, "{full} against {eight}");
    assert!(full < 0.1 * plain, "{full} against {plain}");
    let narrow = report
        .tensors
        .iter()
        .find(|t| t.name == "layers.1.down_narrow");
    assert_eq!(narrow.map(|t| &t.shape[..]), Some(&[32, 48][..]));
}

#[test]
fn corrections_count_in_the_size_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sized.kgl");
    for low_rank in [0, 8] {
        let report = write(&path, |recipe| {
            recipe.quantize.size = Some("50kB".to_owned());
            recipe.quantize.low_rank = low_rank;
            recipe.quantize.bias_correction = low_rank > 0;
        });
        assert_eq!(std::fs::metadata(&path).unwrap().len(), report.output_bytes);
        assert!(report.output_bytes <= 50_000, "{}", report.output_bytes);
        let narrow = report
            .tensors
            .iter()
            .filter(|t| t.name.ends_with("_narrow"));
        assert_eq!(narrow.count(), if low_rank > 0 { 14 } else { 0 });
    }
}

#[test]
fn corrections_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: fn(&mut Recipe)| {
        let mut recipe = Recipe::default();
        change(&mut recipe);
        let path = folder.path().join("m.kgl");
        let error = kinglet_convert::write(&checkpoint(tiny_config()), &path, &recipe, &|_, _| ());
        error.unwrap_err().to_string()
    };
    let message = refused(|recipe| {
        recipe.quantize.kind = "f16".to_owned();
        recipe.quantize.low_rank = 8;
    });
    assert!(
        message.starts_with("--low-rank: layers of f16"),
        "{message}"
    );
    let message = refused(|recipe| {
        recipe.quantize.norm_correction = true;
        recipe.quantize.low_rank = 8;
    });
    assert!(message.contains("--norm-correction"), "{message}");
    let message = refused(|recipe| {
        recipe.quantize.keep_grid = true;
        recipe.quantize.bias_correction = true;
    });
    assert!(
        message.starts_with("--bias-correction") && message.contains("--keep-grid"),
        "{message}"
    );
}

#[test]
fn corrections_give_the_same_bits_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corrected.kgl");
    // By rank, one half or the other of a correction is `f16` or `q8`.
    for (kind, rank, precise) in [("q4", 16, false), ("q8", 32, true), ("q3", 5, false)] {
        write_model(biased(), &path, |recipe| {
            recipe.quantize.kind = kind.to_owned();
            recipe.quantize.low_rank = rank;
            recipe.quantize.precise = precise;
            recipe.quantize.bias_correction = true;
        });
        same_bits_everywhere(&path);
    }
}
