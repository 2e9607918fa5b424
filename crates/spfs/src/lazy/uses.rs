//! Who uses what is here only in part, so that it is not cleaned away from under them.
//!
//! `<repository>/partial/uses/` has a small JSON file for each lazy runtime: what it shows. Its monitor and its servers
//! hold a shared lock (`flock`) on that file as long as one of them lives; a durable runtime's file counts for as long as
//! the runtime is kept. `partial` itself is locked too: shared by who starts a lazy runtime, from before it looks at
//! what is here until its use is noted, and exclusively by who cleans. The kernel ends each lock with its process.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use spfs_repo::{Digest, Directory, open_regular, read_regular};

use crate::error::{Error, Result};
use crate::render::make_dirs;
use crate::runtime::Record;
use crate::tracking::MOST_AGE;

/// The longest note that makes sense; others may write to the directory.
const LONGEST: u64 = 4 << 20;
/// What the names of notes begin with that are being written.
const STAGED: char = '.';

/// What one runtime shows.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Platforms, layers and manifests.
    stack: Vec<Digest>,
    /// The host on which it was last started.
    host: String,
    /// Where a durable runtime is kept.
    #[serde(default, with = "crate::json_path::option")]
    durable_dir: Option<PathBuf>,
}

/// Holds off who cleans, from before it is asked what is here until the use of it is noted.
#[derive(Default)]
pub struct Gate(Mutex<Option<File>>);

impl Gate {
    fn held(&self) -> MutexGuard<'_, Option<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for whoever cleans, which takes a moment. Where there are no locks nobody cleans.
    pub(super) fn enter(&self, partial: &Directory) {
        let mut held = self.held();
        if held.is_some() {
            return;
        }
        let Ok(dir) = File::open(partial.root()) else { return };
        while let Err(Errno::INTR) = rustix::fs::flock(&dir, FlockOperation::LockShared) {}
        *held = Some(dir);
    }

    /// What was asked for is noted, or not needed.
    pub(super) fn leave(&self) {
        *self.held() = None;
    }
}

/// What a lazy runtime uses, noted and locked.
pub struct Use {
    file: File,
    path: PathBuf,
    durable: bool,
}

impl Use {
    /// Notes what the runtime of `record` shows.
    pub(super) fn note(partial: &Directory, record: &Record) -> Result<Use> {
        let directory = directory(partial);
        make_dirs(partial, &directory)?;
        let durable = record.config.durable_dir.clone();
        // A durable runtime has one note for all its runs.
        let name = match &durable {
            Some(home) => Digest::of(format!("{}\0{}", record.config.host, home.display()).as_bytes()).short(32),
            None => spfs_repo::unique().to_string(),
        };
        let path = directory.join(name);
        let stack = [record.status.stack.clone(), record.status.base.clone()].concat();
        let note = Note { stack, host: record.config.host.clone(), durable_dir: durable.clone() };
        let staged = directory.join(format!("{STAGED}{}", spfs_repo::unique()));
        let write = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&staged)?;
            // Without locks it is as if it were locked for ever.
            let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
            std::io::Write::write_all(&mut file, &serde_json::to_vec(&note)?)?;
            fs::rename(&staged, &path)?;
            Ok(file)
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        let file = written.map_err(Error::io("write", &path))?;
        Ok(Use { file, path, durable: durable.is_some() })
    }

    /// What the monitor and its servers keep open.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The runtime has ended, or was not started after all.
    pub fn end(&self) {
        if !self.durable {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What all users of `partial` need, as far as it is noted. `sweep`: removes notes of those that are no more, for who
/// keeps new ones out.
pub(super) fn needed(partial: &Directory, host: &str, sweep: bool) -> Result<Vec<Digest>> {
    let mut needed = Vec::new();
    for path in list(&directory(partial))? {
        let is_staged = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(STAGED));
        match if is_staged { None } else { read(&path, host)? } {
            Some(note) => needed.extend(note.stack),
            None if sweep => drop(fs::remove_file(&path)),
            None => {}
        }
    }
    Ok(needed)
}

/// A note that counts.
///
/// Errors: somebody uses what is here, and what that is cannot be read.
fn read(path: &Path, host: &str) -> Result<Option<Note>> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path)(e)),
    };
    let is_used = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
    let note: Option<Note> = match read_regular(path, LONGEST) {
        Ok(text) => serde_json::from_slice(&text).ok(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    match note {
        Some(note) => Ok((is_used || is_kept(&note, path, host)).then_some(note)),
        None if is_used => Err(Error::io("read", path)(std::io::Error::other("it is in use, and damaged"))),
        None => Ok(None),
    }
}

/// Whether the note in `path` is of a durable runtime that may run again.
fn is_kept(note: &Note, path: &Path, host: &str) -> bool {
    let Some(home) = &note.durable_dir else { return false };
    if note.host == host {
        // One that may not be looked at is another user's.
        return !matches!(fs::symlink_metadata(home), Err(e) if e.kind() == std::io::ErrorKind::NotFound);
    }
    // Its directory may be one that only that host has.
    let age = fs::metadata(path).and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
    age.is_ok_and(|age| age.unwrap_or_default() < MOST_AGE)
}

fn directory(partial: &Directory) -> PathBuf {
    partial.root().join("uses")
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("list", directory)(e)),
    }
}
