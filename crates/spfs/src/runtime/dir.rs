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

/// What the names of directories that are being made begin with.
pub const STAGED: &str = ".new-";

/// What the names of directories that are being removed begin with.
const REMOVED: &str = ".old-";

/// A directory that is being made has its lock much sooner than this.
const ABANDONED: Duration = Duration::from_secs(1);

impl RuntimeDir {
    /// Makes the directory with its record inside, all at once, with the monitor's lock taken already.
    ///
    /// Errors: [`Error::Runtime`] if the name is taken.
    pub fn create(&self, record: &Record) -> Result<AliveLock> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        make_private(parent)?;
        let staged = RuntimeDir { path: parent.join(format!("{STAGED}{}", spfs_repo::unique())) };
        make_private(&staged.path)?;
        let result = staged.fill(record).and_then(|alive| {
            publish(&staged.path, &self.path, &record.name)?;
            Ok(alive)
        });
        if result.is_err() {
            let _ = fs::remove_dir_all(&staged.path);
        }
        result
    }

    fn fill(&self, record: &Record) -> Result<AliveLock> {
        let path = self.path.join("lock");
        let file = open_lock(&path)?;
        file.try_lock().map_err(|e| Error::io("lock", &path)(io::Error::from(e)))?;
        // Nobody sees it before the whole directory gets its name.
        let path = self.record_path();
        write(&path, record, false).map_err(Error::io("write", &path))?;
        Ok(AliveLock(file))
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
        self.path.join("record.json")
    }

    /// The monitor's socket.
    pub fn socket_path(&self) -> PathBuf {
        self.path.join("socket")
    }
}

/// Gives a directory that was made elsewhere its name, unless that is taken.
pub fn publish(staged: &Path, path: &Path, name: &str) -> Result<()> {
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
    let path = directory.join("record.json");
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
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        // One that is being made is locked, but for the first moment of its life.
        let is_old = || {
            let made = entry.metadata().and_then(|meta| meta.modified());
            made.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED))
        };
        let abandoned =
            name.starts_with(REMOVED) || name.starts_with(STAGED) && is_old() && matches!(try_lock(&path), Ok(Some(_)));
        if abandoned {
            let _ = remove_tree(&path);
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
