//! The command line: a thin client of the library.

mod args;
mod compare;
mod convert;
mod pull;
mod quickstart;

use crate::Error;
use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use std::error::Error as _;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads standard output has seen enough.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            note(format_args!("error: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Some(Command::Quickstart(args)) => quickstart::run(&args),
        Some(Command::Pull(args)) => pull::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Probe(args)) => compare::run_probe(&args),
        Some(Command::Completions { shell }) => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "kinglet-convert", &mut script);
            print(&script)
        }
        None => convert::run(&cli.convert),
    }
}

/// An error and what caused it, where its own message does not say so already.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// Writes a line to standard error. Nobody needs to read it.
fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes to standard output; a closed pipe is an error that [`main`] takes for success.
fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|e| Error::io("standard output", e))
}
