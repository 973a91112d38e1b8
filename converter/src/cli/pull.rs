//! `kinglet-convert pull`

use super::args::PullArgs;
use super::{note, print};
use crate::Error;
use crate::pull::{CATALOGUE, pull};

/// Fetches a model and prints where it is.
pub fn run(args: &PullArgs) -> Result<(), Error> {
    if args.list {
        let line = |entry: &crate::pull::Entry| format!("{:<24} {}\n", entry.name, entry.about);
        let list: String = CATALOGUE.iter().map(line).collect();
        return print(list.as_bytes());
    }
    let name = args.name.as_deref().unwrap_or_default();
    let path = pull(name, args.from, &|line| note(line))?;
    print(format!("{}\n", path.display()).as_bytes())
}
