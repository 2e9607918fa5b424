//! The private work directory of one batch in one store: where files are written before they get their final name.
//!
//! `STORE/work/spfs-PID-…-ID/SHARD/NAME`, mode 0700, made when the first file is written. Eight shards keep many
//! threads from queueing for one directory's lock. Once a file's digest is known it is named by it.

use std::fs::File;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;

use super::layout::{Modes, Store, StoreName, make_dir};
use super::owner::{Liveness, Owner};
use super::scan;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Directories in a work directory; a power of two.
const SHARDS: usize = 8;
/// Leftovers of a process that is out of sight are removed when they are older than this, in seconds.
const FOREIGN_AGE: i64 = 24 * 3600;

/// Where one batch writes the files of one store.
pub(super) struct Area<'a> {
    store: &'a Store,
    modes: Modes,
    name: String,
    path: PathBuf,
    root: OnceLock<OwnedFd>,
    shards: [OnceLock<OwnedFd>; SHARDS],
    /// Whether the umask leaves [`Modes::CONTENT`] alone, so that no file needs a chmod.
    exact: OnceLock<bool>,
    streams: AtomicU64,
}

/// A file that is being written before its digest is known.
pub(super) struct Stream {
    pub file: File,
    shard: usize,
    name: String,
}

/// What happened to a file at publication.
#[derive(PartialEq, Eq)]
pub(super) enum Published {
    /// It has its final name now.
    New,
    /// Another one is there under its name, and stays.
    Existing,
}

impl<'a> Area<'a> {
    /// The area of `owner` in `store`. Touches nothing yet.
    pub fn new(store: &'a Store, modes: Modes, owner: &Owner) -> Self {
        let name = owner.work_name();
        let path = store.path.join("work").join(&name);
        Area {
            store,
            modes,
            name,
            path,
            root: OnceLock::new(),
            shards: [const { OnceLock::new() }; SHARDS],
            exact: OnceLock::new(),
            streams: AtomicU64::new(0),
        }
    }

    /// The store that it belongs to.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Writes `bytes`, whose digest is `digest`; with `sync` also to the disk.
    pub fn write(&self, digest: &Digest, bytes: &[u8], sync: bool) -> Result<()> {
        let shard = shard_of(digest);
        let name = digest.to_string();
        let mut file = self.create(shard, &name)?;
        let written = file.write_all(bytes).and_then(|()| if sync { file.sync_all() } else { Ok(()) });
        written.map_err(|e| {
            self.unlink(shard, &name);
            Error::io("write", self.path_of(shard, &name))(e)
        })
    }

    /// Opens a new file for content that arrives in pieces.
    pub fn stream(&self) -> Result<Stream> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let shard = number as usize % SHARDS;
        let name = format!("stream-{number}");
        Ok(Stream { file: self.create(shard, &name)?, shard, name })
    }

    /// The full path of `stream`, for messages.
    pub fn stream_path(&self, stream: &Stream) -> PathBuf {
        self.path_of(stream.shard, &stream.name)
    }

    /// Drops `stream` and its file.
    pub fn abandon(&self, stream: Stream) {
        self.unlink(stream.shard, &stream.name);
    }

    /// Ends `stream`, whose content turned out to be `digest`.
    pub fn keep(&self, stream: Stream, digest: &Digest, sync: bool) -> Result<()> {
        let path = self.stream_path(&stream);
        if sync {
            stream.file.sync_all().map_err(Error::io("sync", &path))?;
        }
        let to = shard_of(digest);
        let (from, to) = (self.shard(stream.shard)?, self.shard(to)?);
        rustix::fs::renameat(from, &stream.name, to, digest.to_string()).map_err(Error::io("rename", path))
    }

    /// Makes the content of `digest`, which was written here, durable.
    pub fn sync(&self, digest: &Digest) -> Result<()> {
        let shard = shard_of(digest);
        let name = digest.to_string();
        let path = || self.path_of(shard, &name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.shard(shard)?, &name, flags, Mode::empty())
            .map_err(|e| Error::io("open", path())(e))?;
        rustix::fs::fsync(fd).map_err(|e| Error::io("sync", path())(e))
    }

    /// Gives `digest`, which was written here, its final name. Something good that is there already stays; `good`
    /// judges it by its size and that of ours.
    pub fn publish(&self, digest: &Digest, good: impl Fn(u64, u64) -> bool) -> Result<Published> {
        let shard = self.shard(shard_of(digest))?;
        let from = digest.to_string();
        let to = StoreName::of(digest);
        let fail = |e: Errno| Error::io("create", self.store.path_of(digest))(e);
        let rename =
            || rustix::fs::renameat_with(shard, from.as_str(), &self.store.fd, to.as_str(), RenameFlags::NOREPLACE);
        let mut result = rename();
        if result == Err(Errno::NOENT) {
            self.make_store_dir(to.shard())?;
            result = rename();
        }
        match result {
            Ok(()) => return Ok(Published::New),
            // INVAL and friends: the file system knows no RENAME_NOREPLACE (NFS, some FUSE).
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            Err(e) => return Err(fail(e)),
        }
        if let Some((size, _)) = self.store.stat(digest)? {
            let ours = rustix::fs::statat(shard, from.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            if good(size, ours.st_size as u64) {
                return Ok(Published::Existing);
            }
        }
        rustix::fs::renameat(shard, from.as_str(), &self.store.fd, to.as_str()).map_err(fail)?;
        Ok(Published::New)
    }

    /// The time in seconds by the file system's clock, as the work directory's fresh stamp shows it.
    pub fn now(&self) -> Result<i64> {
        let fd = self.root()?;
        Ok(rustix::fs::fstat(fd).map_err(Error::io("read the time of", &self.path))?.st_mtime)
    }

    /// Makes the two-character directory `shard` of the store.
    fn make_store_dir(&self, shard: &str) -> Result<bool> {
        make_dir(self.store.fd.as_fd(), shard, self.modes.directory(), &self.store.path.join(shard))
    }

    fn create(&self, shard: usize, name: &str) -> Result<File> {
        let path = || self.path_of(shard, name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.shard(shard)?, name, flags, Modes::CONTENT)
            .map_err(|e| Error::io("create", path())(e))?;
        let exact = match self.exact.get() {
            Some(exact) => *exact,
            None => {
                let mode = rustix::fs::fstat(&fd).map_err(|e| Error::io("create", path())(e))?.st_mode & 0o7777;
                *self.exact.get_or_init(|| mode == Modes::CONTENT.as_raw_mode())
            }
        };
        if !exact {
            rustix::fs::fchmod(&fd, Modes::CONTENT).map_err(|e| Error::io("set the mode of", path())(e))?;
        }
        Ok(File::from(fd))
    }

    fn root(&self) -> Result<&OwnedFd> {
        if let Some(fd) = self.root.get() {
            return Ok(fd);
        }
        let work = self.store.path.join("work");
        make_dir(self.store.fd.as_fd(), "work", self.modes.directory(), &work)?;
        let name = format!("work/{}", self.name);
        make_dir(self.store.fd.as_fd(), &name, Mode::RWXU, &self.path)?;
        let fd = rustix::fs::openat(&self.store.fd, &name, DIRECTORY, Mode::empty())
            .map_err(Error::io("open", &self.path))?;
        Ok(self.root.get_or_init(|| fd))
    }

    fn shard(&self, number: usize) -> Result<&OwnedFd> {
        let cell = &self.shards[number % SHARDS];
        if let Some(fd) = cell.get() {
            return Ok(fd);
        }
        let root = self.root()?;
        let name = shard_name(number);
        let path = self.path.join(&name);
        make_dir(root.as_fd(), &name, Mode::RWXU, &path)?;
        let fd = rustix::fs::openat(root, &name, DIRECTORY, Mode::empty()).map_err(Error::io("open", path))?;
        Ok(cell.get_or_init(|| fd))
    }

    fn path_of(&self, shard: usize, name: &str) -> PathBuf {
        self.path.join(shard_name(shard)).join(name)
    }

    fn unlink(&self, shard: usize, name: &str) {
        if let Ok(fd) = self.shard(shard) {
            let _ = rustix::fs::unlinkat(fd, name, AtFlags::empty());
        }
    }
}

impl Drop for Area<'_> {
    /// Removes the work directory and whatever was not published.
    fn drop(&mut self) {
        if self.root.get().is_some() {
            remove_work(self.store, &self.name);
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn shard_of(digest: &Digest) -> usize {
    // Not the first byte: that one orders the publication, and would fill the shards one after another.
    digest.as_bytes()[31] as usize % SHARDS
}

fn shard_name(number: usize) -> String {
    format!("{:x}", number % SHARDS)
}

/// Removes the work directories that killed processes left in `store`. What cannot be removed, stays.
///
/// Only ours, by their name, and only where the owner is certainly gone, or out of sight and untouched for a day.
/// Upstream's temporary files are left to its own cleaning.
pub(super) fn sweep(store: &Store, local: bool) {
    let Ok(work) = rustix::fs::openat(&store.fd, "work", DIRECTORY, Mode::empty()) else { return };
    let mut found = Vec::new();
    let listed = scan::names(work.as_fd(), &store.path, |name| {
        if let Some(owner) = Owner::from_work_name(name) {
            found.push((name.to_owned(), owner));
        }
    });
    if listed.is_err() || found.is_empty() {
        return;
    }
    let me = Owner::current();
    for (name, owner) in found {
        let gone = match owner.liveness(&me, local) {
            Liveness::Alive => false,
            Liveness::Gone => true,
            Liveness::Unknown => is_older(&work, &name, FOREIGN_AGE).unwrap_or(false),
        };
        if gone {
            remove_work(store, &name);
        }
    }
}

/// Whether the newest directory of the work directory `name` is older than `age` seconds by the file system's clock.
fn is_older(work: &OwnedFd, name: &str, age: i64) -> Option<bool> {
    let probe = format!("probe-{}", crate::unique().simple());
    rustix::fs::mkdirat(work, &probe, Mode::RWXU).ok()?;
    let now = rustix::fs::statat(work, &probe, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_mtime);
    let _ = rustix::fs::unlinkat(work, &probe, AtFlags::REMOVEDIR);
    let newest = (0..SHARDS)
        .map(|number| format!("{name}/{}", shard_name(number)))
        .chain([name.to_owned()])
        .filter_map(|path| rustix::fs::statat(work, path, AtFlags::SYMLINK_NOFOLLOW).ok())
        .map(|stat| stat.st_mtime)
        .max()?;
    Some(now.ok()?.saturating_sub(newest) > age)
}

/// Removes one work directory: its shards, and the files in them.
fn remove_work(store: &Store, name: &str) {
    let Ok(root) = rustix::fs::openat(&store.fd, format!("work/{name}"), DIRECTORY, Mode::empty()) else { return };
    for number in 0..SHARDS {
        let shard = shard_name(number);
        // A finished batch leaves its shards empty, so most often this is all.
        if rustix::fs::unlinkat(&root, &shard, AtFlags::REMOVEDIR) == Err(Errno::NOTEMPTY) {
            if let Ok(fd) = rustix::fs::openat(&root, &shard, DIRECTORY, Mode::empty()) {
                empty_directory(&fd);
            }
            let _ = rustix::fs::unlinkat(&root, &shard, AtFlags::REMOVEDIR);
        }
    }
    let _ = rustix::fs::unlinkat(&store.fd, format!("work/{name}"), AtFlags::REMOVEDIR);
}

fn empty_directory(directory: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let _ = rustix::fs::unlinkat(directory, entry.file_name(), AtFlags::empty());
    }
}
