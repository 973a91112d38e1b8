//! `kinglet-convert`: see [`kinglet_convert::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    kinglet_convert::cli::main()
}
