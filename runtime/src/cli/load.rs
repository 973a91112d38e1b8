//! From flags to models and sessions.

use super::args::{Affinity, ContextArgs, EngineArgs, ModelArgs, SamplingArgs};
use super::error::CliError;
use super::{note, verify};
use crate::complete::Limits;
use crate::format::ModelFile;
use crate::model::Model;
use crate::sampler::SamplerOptions;
use crate::session::SessionOptions;
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::pool::{self, ThreadPool};
use kinglet_kernels::topology::Topology;
use std::path::Path;

/// The default context where the model would allow more.
const CONTEXT: usize = 4096;

/// Threads beyond this are a typing error.
const MAX_THREADS: usize = 1024;

/// Opens a model as the flags say.
pub fn model(args: &ModelArgs) -> Result<Model, CliError> {
    let file = ModelFile::open(&args.model)?;
    if args.verify {
        verify::file(&file)?;
    }
    Ok(Model::new(file, engine(&args.engine)?)?)
}

/// Opens a model that continues texts.
pub fn decoder(args: &ModelArgs) -> Result<Model, CliError> {
    let model = model(args)?;
    model.check_decoder()?;
    Ok(model)
}

/// Opens another model, on the threads of an engine that is there.
pub fn model_on(engine: &Engine, path: &Path) -> Result<Model, CliError> {
    Ok(Model::new(ModelFile::open(path)?, engine.clone())?)
}

fn engine(args: &EngineArgs) -> Result<Engine, CliError> {
    let threads = args
        .threads
        .unwrap_or_else(|| Topology::read().default_threads());
    engine_of(threads, args.affinity)
}

/// An engine of `threads` threads, but at most one for each core that they may run on.
pub fn engine_of(threads: usize, affinity: Affinity) -> Result<Engine, CliError> {
    if threads == 0 || threads > MAX_THREADS {
        return Err(CliError::Usage(format!(
            "--threads {threads}: expected 1 to {MAX_THREADS}"
        )));
    }
    let isa = Isa::from_env().map_err(crate::Error::from)?;
    let topology = Topology::read();
    let performance = topology.performance_cores();
    let all_alike = performance.len() == topology.cores().len();
    let running = threads.min(pool::room(&[]).unwrap_or(threads));
    let cores = match affinity {
        Affinity::None => vec![],
        // Another program can have a core to itself, whichever the system finds best.
        Affinity::Auto if all_alike && running < performance.len() => vec![],
        // It cannot: on their way to a better core threads would end up on one of each other's.
        Affinity::Auto | Affinity::Performance => performance,
    };
    let room = pool::room(&cores).unwrap_or(threads);
    if threads > room {
        note(format_args!(
            "note: --threads {threads}: more than the {room} cores to run on would slow each other \
             down, so {room} run"
        ));
    }
    let pool = ThreadPool::with_affinity(threads.min(room), &cores);
    Ok(Engine::new(isa, pool))
}

/// Session options as the flags say.
pub fn session_options(
    model: &Model,
    context: &ContextArgs,
    sampling: &SamplingArgs,
) -> Result<SessionOptions, CliError> {
    Ok(SessionOptions {
        context: context_of(model.config().max_positions, context)?,
        kv: context.kv,
        sampling: sampling_of(sampling)?,
    })
}

/// The context that the flags ask for, of a model trained for so many positions.
pub fn context_of(trained: usize, args: &ContextArgs) -> Result<usize, CliError> {
    let context = args.ctx.unwrap_or(CONTEXT.min(trained));
    if context == 0 {
        return Err(CliError::Usage(format!(
            "--ctx 0: expected 1 to {trained}, the positions that the model was trained for"
        )));
    }
    if context > trained {
        note(format_args!(
            "warning: a context of {context} tokens is beyond the {trained} that the model was \
             trained for: expect nonsense at its end"
        ));
    }
    Ok(context)
}

fn sampling_of(args: &SamplingArgs) -> Result<SamplerOptions, CliError> {
    let check = |flag: &str, value: f32, valid: bool, expected: &str| {
        if valid {
            return Ok(());
        }
        Err(CliError::Usage(format!(
            "--{flag} {value}: expected {expected}"
        )))
    };
    let part = |value: f32| (0.0..=1.0).contains(&value);
    let temp = args.temp;
    check("temp", temp, temp.is_finite() && temp >= 0.0, "0 or more")?;
    check("top-p", args.top_p, part(args.top_p), "0 to 1")?;
    check("min-p", args.min_p, part(args.min_p), "0 to 1")?;
    let penalty = args.repeat_penalty;
    check(
        "repeat-penalty",
        penalty,
        penalty.is_finite() && penalty > 0.0,
        "more than 0",
    )?;
    Ok(SamplerOptions {
        temperature: temp,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: penalty,
        repeat_last_n: args.repeat_last_n,
        seed: args.seed.unwrap_or_else(random_seed),
    })
}

/// From the clock: different each time is all that it takes.
fn random_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// What ends a text; a `predict` of -1 is no limit.
pub fn limits(
    model: &Model,
    predict: i64,
    stop: &[String],
    ignore_eos: bool,
) -> Result<Limits, CliError> {
    if predict < -1 {
        return Err(CliError::Usage(format!(
            "--predict {predict}: expected -1 or more"
        )));
    }
    Ok(Limits {
        max_tokens: usize::try_from(predict).ok(),
        stop: stop.to_vec(),
        eos_tokens: if ignore_eos {
            vec![]
        } else {
            model.config().eos_tokens.clone()
        },
    })
}
