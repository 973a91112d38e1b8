//! The command line: a thin client of the library.

mod args;
mod bench;
mod chat;
mod embed;
mod error;
mod eval;
mod info;
mod load;
mod run;
mod units;
mod verify;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use error::CliError;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    match run_command(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads standard output has seen enough.
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run_command(command: Command) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Classify(args) => embed::classify(&args),
        Command::Info(args) => info::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "kinglet", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Writes a line to standard error. Nobody needs to read it.
fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes to standard output at once.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

/// Writes a value as indented JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value).expect("plain data");
    print(&format!("{json}\n"))
}
