//! Models quantized for the inputs that a calibration text gives: every kind runs, the result is
//! closer than rounding, and files fit the size asked for.

use kinglet::eval::{EvalOptions, evaluate};
use kinglet::{Model, Tokenizer};
use kinglet_convert::recipe::{Method, Recipe};
use kinglet_kernels::kv::KvKind;
use kinglet_tests::{checkpoint, tiny_config};
use std::path::Path;

fn text() -> String {
    (0..120)
        .map(|i| format!("{} bottles of {}. ", 99 - i % 90, i * i))
        .collect()
}

fn write(path: &Path, change: impl FnOnce(&mut Recipe)) -> kinglet_convert::report::Report {
    let calibration = path.with_extension("txt");
    std::fs::write(&calibration, text()).unwrap();
    let mut recipe = Recipe::default();
    recipe.quantize.method = Some(Method::Gptq);
    recipe.quantize.calibration = Some(calibration);
    change(&mut recipe);
    kinglet_convert::write(&checkpoint(tiny_config()), path, &recipe, &|_, _| ()).unwrap()
}

fn divergence(path: &Path, reference: &Path) -> f64 {
    let (model, reference) = (Model::open(path).unwrap(), Model::open(reference).unwrap());
    let tokens = Tokenizer::of(model.file())
        .unwrap()
        .encode(&text(), false)
        .unwrap();
    let options = EvalOptions {
        window: 64,
        windows: None,
        kv: KvKind::F32,
    };
    let evaluation = evaluate(&model, Some(&reference), &tokens, options, |_, _| ()).unwrap();
    evaluation.against_reference.unwrap().kl_mean
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
