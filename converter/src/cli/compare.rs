//! `kinglet-convert compare`

use super::args::{CompareArgs, ProbeArgs};
use super::{note, print};
use crate::Error;
use crate::compare::{Comparison, Options, compare, probe};
use kinglet_kernels::pool;

/// Compares models, writes the report and prints its table.
pub fn run(args: &CompareArgs) -> Result<(), Error> {
    let program = std::env::current_exe().map_err(|e| Error::io("kinglet-convert", e))?;
    let at_least = |flag: &'static str, found: usize, least: usize| {
        let reason = || format!("{found}: expected {least} or more");
        let check = (found >= least).then_some(());
        check.ok_or_else(|| Error::Setting {
            flag,
            reason: reason(),
        })
    };
    at_least("ctx", args.ctx, 4)?;
    at_least("chunks", args.chunks.unwrap_or(1), 1)?;
    at_least("prompt", args.prompt, 1)?;
    at_least("n", args.n, 1)?;
    at_least("repeat", args.repeat, 1)?;
    at_least("threads", args.threads.unwrap_or(1), 1)?;
    Comparison::check(&args.out)?;
    let options = Options {
        text: args.text.clone(),
        similarity: match args.similarity.as_slice() {
            [documents, judgements] => Some((documents.clone(), judgements.clone())),
            _ => None,
        },
        window: args.ctx,
        windows: args.chunks,
        rows: args.rows.clone(),
        prompt: args.prompt,
        generate: args.n,
        repeat: args.repeat,
        threads: args.threads.map(with_room),
        prober: Some(vec![
            program.to_string_lossy().into_owned(),
            "probe".to_owned(),
        ]),
    };
    let comparison = compare(&args.reference, &args.variants, &options, &|line| {
        note(line);
    })?;
    // What was measured is worth keeping in either place.
    let printed = print(comparison.markdown().as_bytes());
    comparison.write(&args.out)?;
    printed?;
    note(format_args!(
        "wrote report.html, report.md and report.json to {}",
        args.out.display()
    ));
    Ok(())
}

/// At most one thread for each core.
fn with_room(threads: usize) -> usize {
    let room = pool::room(&[]).unwrap_or(threads);
    if threads > room {
        note(format_args!(
            "note: --threads {threads}: there are {room} cores, so {room} run"
        ));
    }
    threads.min(room)
}

/// What one model costs this process, as JSON, for [`run`].
pub fn run_probe(args: &ProbeArgs) -> Result<(), Error> {
    let found = probe(&args.model, args.threads, args.prompt)?;
    let json = serde_json::to_string(&found).expect("plain data");
    print(format!("{json}\n").as_bytes())
}
