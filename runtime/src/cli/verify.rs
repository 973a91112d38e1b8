//! `kinglet verify`

use super::args::VerifyArgs;
use super::error::CliError;
use super::{print, units};
use crate::format::ModelFile;
use indicatif::{ProgressBar, ProgressStyle};

/// Checks a file and says so.
pub fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let model = ModelFile::open(&args.model)?;
    file(&model)?;
    let tensors = model.tensors().count();
    let size = units::bytes(model.file_bytes());
    print(&format!(
        "{}: {tensors} tensors, {size}: all checksums match\n",
        args.model.display()
    ))
}

/// Checks an open file, with a progress bar on standard error.
pub fn file(model: &ModelFile) -> Result<(), CliError> {
    let style = ProgressStyle::with_template("checking {bar:30} {bytes} of {total_bytes}");
    let bar = ProgressBar::new(model.file_bytes()).with_style(style.expect("a valid template"));
    let result = model.verify(|done, _| bar.set_position(done));
    bar.finish_and_clear();
    Ok(result?)
}
