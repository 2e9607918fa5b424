//! The directory of one runtime: its record, its locks and its socket.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};

use super::record::Record;
use crate::error::{Error, Result};

/// Where one runtime keeps its record, its locks and its socket while it runs.
///
/// A durable runtime has a second directory (`durable.rs`) with its changes and a copy of its record, which
/// [`RuntimeDir::save`] keeps the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir {
    /// The directory, named like the runtime.
    pub path: PathBuf,
}

/// The lock that a monitor holds for as long as it lives.
pub struct AliveLock(pub File);

/// The lock for changing the record, or the runtime's mounts. Held for as long as the value lives.
pub struct ChangeLock {
    _file: File,
}

/// Names of directories that are being made or removed; they are no runtimes.
const HIDDEN: char = '.';

/// The name of the file with the record.
pub const RECORD: &str = "record.json";

/// What the names of directories that are being made begin with.
const STAGED: &str = ".new-";

/// What the names of directories that are being removed begin with.
const REMOVED: &str = ".old-";

/// A directory that is being made has its lock sooner than this, or is made once more.
const ABANDONED: Duration = Duration::from_secs(1);

/// How often a directory is made before that is an error.
const ATTEMPTS: u32 = 100;

impl RuntimeDir {
    /// Makes the directory with its record inside, all at once, with the monitor's lock taken already.
    ///
    /// Errors: [`Error::Runtime`] if the name is taken.
    pub fn create(&self, record: &Record) -> Result<AliveLock> {
        make(&self.path, &record.name, |staged| {
            let path = staged.join(RECORD);
            write(&path, record, false).map_err(Error::io("write", &path))
        })
    }

    /// Whether its monitor holds the lock.
    pub fn is_alive(&self) -> bool {
        matches!(try_lock(&self.path), Ok(None))
    }

    /// Waits for the right to change the record or the mounts.
    pub fn lock_changes(&self) -> Result<ChangeLock> {
        let path = self.path.join("changes.lock");
        let file = open_lock(&path)?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(ChangeLock { _file: file })
    }

    /// Reads the record.
    pub fn load(&self) -> Result<Record> {
        let path = self.record_path();
        Record::parse(&fs::read(&path).map_err(Error::io("read", &path))?, &path)
    }

    /// Replaces the record, all at once; a durable runtime's copy too.
    pub fn save(&self, record: &Record) -> Result<()> {
        save(&self.path, record, false)?;
        match &record.config.durable_dir {
            Some(durable) => save(durable, record, true),
            None => Ok(()),
        }
    }

    /// Removes everything here, all at once for whoever looks.
    pub fn remove(&self) -> Result<()> {
        remove(&self.path)
    }

    /// The record's file.
    pub fn record_path(&self) -> PathBuf {
        self.path.join(RECORD)
    }

    /// The monitor's socket.
    pub fn socket_path(&self) -> PathBuf {
        self.path.join("socket")
    }
}

/// Makes the directory of the runtime `name` with the monitor's lock in it, held, and what `fill` writes there. Nobody
/// sees it before it is complete.
///
/// Errors: [`Error::Runtime`] if the name is taken.
pub fn make(path: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<AliveLock> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    make_private(parent)?;
    let (staged, lock) = stage(parent)?;
    let made = fill(&staged).and_then(|()| publish(&staged, path, name));
    if made.is_err() {
        let _ = remove_tree(&staged);
    }
    made.map(|()| lock)
}

/// Makes a directory in `parent` under a name that is no runtime's, with the lock in it.
///
/// [`sweep`] may take it for abandoned until it is locked, and on a busy machine that may take any time: it is made anew
/// then.
fn stage(parent: &Path) -> Result<(PathBuf, AliveLock)> {
    for _ in 0..ATTEMPTS {
        let path = parent.join(format!("{STAGED}{}", spfs_repo::unique()));
        make_private(&path)?;
        match try_lock(&path) {
            Ok(Some(lock)) if path.exists() => return Ok((path, lock)),
            Err(error) if path.exists() => {
                let _ = remove_tree(&path);
                return Err(error);
            }
            _ => {}
        }
    }
    let reason = io::Error::other("it is removed again and again");
    Err(Error::io("make a directory in", parent)(reason))
}

/// Gives a directory that was made elsewhere its name, unless that is taken.
fn publish(staged: &Path, path: &Path, name: &str) -> Result<()> {
    rustix::fs::renameat_with(CWD, staged, CWD, path, RenameFlags::NOREPLACE).map_err(|e| match e {
        rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY => {
            let reason = "a runtime of this name exists already".to_owned();
            Error::Runtime { action: "start", name: name.to_owned(), reason }
        }
        e => Error::io("make", path)(e),
    })
}

/// Takes the lock in a runtime's directory; `None` if somebody holds it.
pub fn try_lock(directory: &Path) -> Result<Option<AliveLock>> {
    let path = directory.join("lock");
    let file = open_lock(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(AliveLock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", &path)(e)),
    }
}

/// Replaces the record in `directory`, all at once; `durable`: so that a power cut does not lose it.
pub fn save(directory: &Path, record: &Record, durable: bool) -> Result<()> {
    let path = directory.join(RECORD);
    let staged = directory.join("record.new");
    let written = write(&staged, record, durable).and_then(|()| fs::rename(&staged, &path));
    written.map_err(Error::io("write", &path))
}

fn write(path: &Path, record: &Record, durable: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(record.to_json().as_bytes())?;
    if durable { file.sync_all() } else { Ok(()) }
}

/// Removes a runtime's directory, all at once for whoever looks; nothing there is no error.
pub fn remove(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let doomed = parent.join(format!("{REMOVED}{}", spfs_repo::unique()));
    match fs::rename(path, &doomed) {
        Ok(()) => remove_tree(&doomed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("remove", path)(e)),
    }
}

/// Whether this is the name of a directory that is being made or removed.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with(HIDDEN)
}

/// Removes what a process that was killed in the middle of making or removing a runtime left in `parent`.
pub fn sweep(parent: &Path) {
    sweep_older(parent, ABANDONED);
}

fn sweep_older(parent: &Path, limit: Duration) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        // One that is being made is locked, but for the first moment of its life.
        let is_old = || {
            let made = entry.metadata().and_then(|meta| meta.modified());
            made.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > limit))
        };
        if name.starts_with(REMOVED) {
            let _ = remove_tree(&path);
        } else if name.starts_with(STAGED) && is_old() {
            // Renamed under its lock: who was making it after all sees that it has gone.
            if let Ok(Some(_lock)) = try_lock(&path) {
                let _ = remove(&path);
            }
        }
    }
}

/// Makes a directory that only its owner may enter, with its parents.
pub fn make_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("make", path))
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(Error::io("open", path))
}

/// Removes a tree whose directories may be closed to their owner: overlayfs leaves such a work directory behind.
pub fn remove_tree(path: &Path) -> Result<()> {
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    open_directories(path);
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

fn open_directories(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            open_directories(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A machine so slow that every directory seems abandoned before it is locked.
    #[test]
    fn what_is_taken_for_abandoned_is_made_anew() {
        let temporary = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        sweep_older(temporary.path(), Duration::ZERO);
                    }
                });
            }
            for number in 0..200 {
                let path = temporary.path().join(number.to_string());
                let made = make(&path, "name", |staged| {
                    fs::write(staged.join("content"), "x").map_err(Error::io("write", staged))
                });
                let held = made.map(|_lock| path.join("content").exists() && try_lock(&path).unwrap().is_none());
                if !matches!(held, Ok(true)) {
                    done.store(true, Ordering::Relaxed);
                    panic!("{number}: {held:?}");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 200);
    }
}
