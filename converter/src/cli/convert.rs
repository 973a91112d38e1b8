//! `kinglet-convert INPUT`

use super::args::ConvertArgs;
use super::print;
use crate::pull::{CATALOGUE, pull};
use crate::recipe::{Method, Recipe};
use crate::report::Report;
use crate::{Error, convert};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

/// Converts a model and prints the report.
pub fn run(args: &ConvertArgs) -> Result<(), Error> {
    let recipe = recipe(args)?;
    let named = args.input.as_deref().unwrap_or(Path::new(""));
    let input = input(named)?;
    let output = args.output.clone();
    let output = output.unwrap_or_else(|| default_output(named, &recipe.quantize.kind));
    let report = with_progress(&input, &output, &recipe)?;
    if args.json {
        let json = serde_json::to_string_pretty(&report).expect("a report is plain data");
        return print(format!("{json}\n").as_bytes());
    }
    print(report.to_string().as_bytes())
}

/// [`convert()`] with a progress bar on standard error.
pub fn with_progress(input: &Path, output: &Path, recipe: &Recipe) -> Result<Report, Error> {
    let style = "{msg} {bar:30} {percent:>3} %  {human_pos} of {human_len} weights, {eta} left";
    let style = ProgressStyle::with_template(style).expect("a valid template");
    let bar = ProgressBar::new(0)
        .with_style(style)
        .with_message("converting");
    let report = convert(input, output, recipe, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    report
}

/// The recipe file, if any, with the flags on top.
fn recipe(args: &ConvertArgs) -> Result<Recipe, Error> {
    let mut recipe = match &args.recipe {
        Some(path) => Recipe::read(path)?,
        None => Recipe::default(),
    };
    recipe.passes.rotate = args.rotate.or(recipe.passes.rotate);
    recipe.passes.awq = args.awq.or(recipe.passes.awq);
    let quantize = &mut recipe.quantize;
    if let Some(kind) = &args.quant {
        quantize.kind.clone_from(kind);
    }
    if let Some(group) = args.group {
        quantize.group = group;
    }
    quantize.minimum |= args.min;
    quantize.precise |= args.precise;
    quantize.low_rank = args.low_rank.unwrap_or(quantize.low_rank);
    quantize.bias_correction |= args.bias_correction;
    quantize.norm_correction |= args.norm_correction;
    quantize.keep_grid |= args.keep_grid;
    quantize.embed = args.embed.clone().or(quantize.embed.take());
    quantize.head = args.head.clone().or(quantize.head.take());
    if args.size.is_some() || args.bpw.is_some() {
        quantize.size.clone_from(&args.size);
        quantize.bpw = args.bpw;
    }
    quantize.method = args.method.or(quantize.method).or(Some(Method::Gptq));
    quantize.calibration = args.calibration.clone().or(quantize.calibration.take());
    quantize.windows = args.windows.unwrap_or(quantize.windows);
    recipe.kinds()?;
    Ok(recipe)
}

/// The path itself where it exists, else what its name in the catalogue or on the hub stands for.
fn input(named: &Path) -> Result<PathBuf, Error> {
    let name = named.to_string_lossy();
    let known = CATALOGUE
        .iter()
        .any(|entry| entry.name == name.to_lowercase());
    if named.exists() || !(known || name.starts_with("hf:")) {
        return Ok(named.to_owned());
    }
    pull(&name, None, &|line| eprintln!("{line}"))
}

/// `NAME-KIND.kgl` in the current folder.
fn default_output(input: &Path, kind: &str) -> PathBuf {
    let name = match input.extension() {
        Some(gguf) if gguf == "gguf" => input.file_stem(),
        _ => input.file_name(),
    };
    let name = name.unwrap_or(input.as_os_str()).to_string_lossy();
    let name = name.rsplit('/').next().unwrap_or_default();
    PathBuf::from(format!("{name}-{kind}.kgl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_named_after_the_input() {
        let named = |input: &str| default_output(Path::new(input), "q4").display().to_string();
        assert_eq!(named("a/model.Q8_0.gguf"), "model.Q8_0-q4.kgl");
        assert_eq!(named("models/SmolLM2-1.7B"), "SmolLM2-1.7B-q4.kgl");
        assert_eq!(named("hf:Qwen/Qwen3-0.6B"), "Qwen3-0.6B-q4.kgl");
    }
}
