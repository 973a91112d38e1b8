//! `kinglet`: see [`kinglet::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    kinglet::cli::main()
}
