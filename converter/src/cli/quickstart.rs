//! `kinglet-convert quickstart`

use super::args::QuickstartArgs;
use super::convert::with_progress;
use super::{note, print};
use crate::Error;
use crate::pull::{cache, pull};
use crate::recipe::{Quantize, Recipe};
use crate::report::megabytes;
use kinglet::chat::{ChatTemplate, Message};
use kinglet::complete::{Limits, complete};
use kinglet::sampler::SamplerOptions;
use kinglet::{Model, SessionOptions, Tokenizer};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The model of the catalogue that the quick start runs.
const MODEL: &str = "smollm2-135m-instruct";

/// Fetches a model, converts it and answers the prompt; the answer alone goes to standard output.
pub fn run(args: &QuickstartArgs) -> Result<(), Error> {
    let file = converted()?;
    let model = Model::open(&file)?;
    let tokenizer = Tokenizer::of(model.file())?;
    let template = ChatTemplate::of(&model, &tokenizer)?;
    let prompt = template.tokens(&tokenizer, &[Message::new("user", &args.prompt)], true)?;
    let mut session = model.session(SessionOptions {
        context: SessionOptions::default()
            .context
            .min(model.config().max_positions),
        sampling: SamplerOptions::greedy(),
        ..SessionOptions::default()
    })?;

    let start = Instant::now();
    session.prefill(&prompt)?;
    let prefill = start.elapsed();
    let limits = Limits {
        max_tokens: Some(args.predict),
        eos_tokens: model.config().eos_tokens.clone(),
        ..Limits::default()
    };
    let mut output = Ok(());
    let start = Instant::now();
    let completion = complete(&mut session, &tokenizer, &limits, |piece| {
        output = print(piece.as_bytes());
        match output {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    let decode = start.elapsed();
    output?;
    print(b"\n")?;
    note(format_args!(
        "\n{} threads, {}: prompt of {} tokens at {}, answer of {} at {}\n\
         The model is {} ({}). Talk with it:\n\n  \
         cargo run --release -p kinglet -- chat -m {}",
        model.engine().pool().threads(),
        model.engine().isa(),
        prompt.len(),
        rate(prompt.len(), prefill),
        completion.tokens,
        rate(completion.tokens, decode),
        file.display(),
        megabytes(model.file().file_bytes()),
        file.display(),
    ));
    Ok(())
}

/// The converted model in the cache, made if it is not there; the report goes to standard error.
fn converted() -> Result<PathBuf, Error> {
    // The package's file lies on this grid already; the hub's is quantized to it.
    let recipe = Recipe {
        quantize: Quantize {
            minimum: true,
            keep_grid: true,
            ..Quantize::default()
        },
        ..Recipe::default()
    };
    let name = format!("{MODEL}-{}.kgl", recipe.quantize.kind);
    let file = cache()?.join("models").join(MODEL).join(name);
    if is_current(&file, &recipe) {
        return Ok(file);
    }
    let source = pull(MODEL, None, &|line| note(line))?;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    note(with_progress(&source, &file, &recipe)?);
    Ok(file)
}

/// Whether the file is there, whole, and made by this version with this recipe.
fn is_current(file: &Path, recipe: &Recipe) -> bool {
    let Ok(model) = kinglet::format::ModelFile::open(file) else {
        return false;
    };
    let provenance = &model.header().provenance;
    provenance.recipe == recipe.to_toml() && provenance.made_by == crate::convert::MADE_BY
}

fn rate(tokens: usize, time: Duration) -> String {
    let rate = tokens as f64 / time.as_secs_f64().max(1e-9);
    format!("{rate:.0} tokens/s")
}
