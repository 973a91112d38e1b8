//! `kinglet-convert INPUT`

use super::args::ConvertArgs;
use super::{note, print};
use crate::pull::{CATALOGUE, names, pull};
use crate::recipe::{Method, Quantize, Recipe};
use crate::report::Report;
use crate::{Error, convert};
use indicatif::{ProgressBar, ProgressStyle};
use kinglet::output::Output;
use std::path::{Path, PathBuf};

/// The exit status of a program that Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Converts a model and prints the report.
pub fn run(args: &ConvertArgs) -> Result<(), Error> {
    let recipe = recipe(args)?;
    let named = args.input.as_deref().unwrap_or(Path::new(""));
    let output = args.output.clone();
    let output = output.unwrap_or_else(|| default_output(named, &recipe.quantize));
    // Before anything is fetched for it.
    Output::check(&output)?;
    let input = input(named)?;
    let report = with_progress(&input, &output, &recipe)?;
    if args.json {
        let json = serde_json::to_string_pretty(&report).expect("a report is plain data");
        return print(format!("{json}\n").as_bytes());
    }
    print(report.to_string().as_bytes())
}

/// [`convert()`] with a progress bar on standard error. Ctrl-C leaves nothing of the file.
pub fn with_progress(input: &Path, output: &Path, recipe: &Recipe) -> Result<Report, Error> {
    let temporary = Output::temporary(output);
    // Where there is no such thing, what is left has to be removed by hand. A shell may have this program ignore it.
    let _ = ctrlc::try_set_handler(move || {
        let _ = std::fs::remove_file(&temporary);
        std::process::exit(INTERRUPTED);
    });
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
    // A kind in place of a size, too.
    if args.size.is_some() || args.bpw.is_some() || args.quant.is_some() {
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
    if named.exists() {
        return Ok(named.to_owned());
    }
    if !known && !name.starts_with("hf:") {
        let names = names();
        let reason =
            format!("there is no such folder or file: expected one, hf:OWNER/NAME, or {names}");
        return Err(Error::source(named, reason));
    }
    pull(&name, None, &|line| note(line))
}

/// `NAME-KIND.kgl`, or `NAME-SIZE.kgl`, in the current folder.
fn default_output(input: &Path, quantize: &Quantize) -> PathBuf {
    // `.` and `..` have names of their own.
    let own = input.file_name().is_none().then(|| input.canonicalize());
    let own = own.and_then(Result::ok);
    let input = own.as_deref().unwrap_or(input);
    let kind = match (&quantize.size, quantize.bpw) {
        (Some(size), _) => size.replace(char::is_whitespace, ""),
        (None, Some(bpw)) => format!("{bpw}bpw"),
        (None, None) => quantize.kind.clone(),
    };
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
        let named = |input: &str| {
            let output = default_output(Path::new(input), &Quantize::default());
            output.display().to_string()
        };
        assert_eq!(named("a/model.Q8_0.gguf"), "model.Q8_0-q4.kgl");
        assert_eq!(named("models/SmolLM2-1.7B"), "SmolLM2-1.7B-q4.kgl");
        assert_eq!(named("hf:Qwen/Qwen3-0.6B"), "Qwen3-0.6B-q4.kgl");
        let here = std::env::current_dir().unwrap();
        let here = here.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(named("."), format!("{here}-q4.kgl"));
        let sized = Quantize {
            size: Some("77.5 MB".to_owned()),
            ..Quantize::default()
        };
        let output = default_output(Path::new("a"), &sized);
        assert_eq!(output, Path::new("a-77.5MB.kgl"));
    }
}
