//! Files that appear whole or not at all: written under another name beside their own, synced, renamed.

use crate::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf, is_separator};

/// A file that is being written. Nothing appears under its name before [`Output::finish`]; dropped before, it
/// leaves nothing. In a process, a name can have one at a time.
pub struct Output {
    target: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
    is_finished: bool,
}

impl Output {
    /// Starts a file that will be `target`, in place of one that is there.
    ///
    /// # Errors
    /// A folder that cannot be written to, a target that is there and no file, or one that names a folder.
    pub fn create(target: &Path) -> Result<Output, Error> {
        let refuse = |kind, reason| Err(Error::io(target, io::Error::new(kind, reason)));
        if fs::metadata(target).is_ok_and(|there| !there.is_file()) {
            let reason = "it is there and is not a file: choose another name";
            return refuse(io::ErrorKind::AlreadyExists, reason);
        }
        let name = target.to_string_lossy();
        let folder = name.strip_suffix('.').unwrap_or(&name);
        if target.file_name().is_none() || folder.ends_with(is_separator) {
            let reason = "it names a folder: expected the name of a file";
            return refuse(io::ErrorKind::InvalidInput, reason);
        }
        let (target, temporary) = (followed(target), Output::temporary(target));
        let file = File::create(&temporary).map_err(|e| match (e.kind(), target.parent()) {
            (io::ErrorKind::NotFound, Some(folder)) => Error::io(folder, e),
            _ => Error::io(&temporary, e),
        })?;
        Ok(Output {
            target,
            temporary,
            file: Some(BufWriter::with_capacity(1 << 20, file)),
            is_finished: false,
        })
    }

    /// Whether `target` can be written, before what is to be written is there.
    ///
    /// # Errors
    /// As [`Output::create`].
    pub fn check(target: &Path) -> Result<(), Error> {
        Output::create(target).map(drop)
    }

    /// Where this process writes what will be `target`.
    pub fn temporary(target: &Path) -> PathBuf {
        let target = followed(target);
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        target.with_file_name(name)
    }

    /// Writes more.
    ///
    /// # Errors
    /// A disk that is full or fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let file = self.file.as_mut().expect("open until finished");
        file.write_all(bytes)
            .map_err(|e| Error::io(&self.temporary, e))
    }

    /// Syncs the file and gives it its name. Returns its length in bytes.
    ///
    /// # Errors
    /// A disk that is full or fails.
    pub fn finish(mut self) -> Result<u64, Error> {
        let at = |e| Error::io(&self.temporary, e);
        let file = self.file.take().expect("open until finished");
        let file = file.into_inner().map_err(|e| at(e.into_error()))?;
        file.sync_all().map_err(at)?;
        let length = file.metadata().map_err(at)?.len();
        drop(file);
        fs::rename(&self.temporary, &self.target).map_err(|e| Error::io(&self.target, e))?;
        self.is_finished = true;
        sync_folder(&self.target);
        Ok(length)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_finished {
            drop(self.file.take());
            // Best effort: what writes has failed already, with an error of its own.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a whole file.
///
/// # Errors
/// As [`Output`].
pub fn write(target: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut output = Output::create(target)?;
    output.write(bytes)?;
    output.finish().map(|_| ())
}

/// What a link leads to, for that to be replaced and not the link.
fn followed(target: &Path) -> PathBuf {
    let is_link = fs::symlink_metadata(target).is_ok_and(|there| there.is_symlink());
    let end = is_link.then(|| fs::canonicalize(target).ok()).flatten();
    end.unwrap_or_else(|| target.to_owned())
}

/// A rename lasts only when its folder is on disk; some file systems cannot sync folders, and the
/// file itself is safe by then.
fn sync_folder(path: &Path) {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "old").unwrap();
        let mut output = Output::create(&target).unwrap();
        output.write(b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        drop(output);
        assert_eq!(names(folder.path()), ["a"]);
        write(&target, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn names_of_folders_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a/", "a/.", "a/..", "", "."] {
            // Not `join`, which would add one.
            let target = format!("{}/{name}", folder.path().display());
            assert!(Output::check(Path::new(&target)).is_err(), "{name}");
        }
        for name in ["a.", ".a", "a..", "b//../a"] {
            fs::create_dir_all(folder.path().join("b")).unwrap();
            let target = format!("{}/{name}", folder.path().display());
            assert!(Output::check(Path::new(&target)).is_ok(), "{name}");
        }
        assert!(Output::check(Path::new("")).is_err());
        assert_eq!(names(folder.path()), ["b"]);
    }

    #[cfg(unix)]
    #[test]
    fn what_a_link_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [link, target] = ["link", "target"].map(|name| folder.path().join(name));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_folder_is_not_replaced_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let output = Output::create(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("b"), "").unwrap();
        assert!(output.finish().is_err());
        assert_eq!(names(folder.path()), ["a"]);
        let error = Output::create(&target).err().expect("a folder").to_string();
        assert!(error.contains("not a file"), "{error}");
    }
}
