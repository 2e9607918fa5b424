//! The private work directory of one batch in one store: where files are written before they get their final name.
//!
//! `STORE/work/spfs-PID-…-ID/`, mode 0700, made when the first file is written. In it:
//!
//! * `QU/77SN…`: a two-character directory as it will be, made where the store has none yet. It gets its final place
//!   in one piece, by one rename for all files in it; if another writer has made that directory meanwhile, its files
//!   go one by one.
//! * `0` … `7`: everything else, under its digest once that is known. Eight keep many threads from queueing for one
//!   directory's lock.
//!
//! The kernel does one rename between directories of a file system at a time, so many single files are linked to
//! their final names instead, on several threads, and then removed here (`docs/performance.md`).

use std::fs::File;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;

use super::layout::{Medium, Modes, Store, StoreName, make_dir, sync_fd};
use super::owner::{Liveness, Owner};
use super::scan;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Directories in a work directory for files that go one by one; a power of two.
const LANES: usize = 8;
/// Two-character directories in a store: 32 characters, twice.
const SHARDS: usize = 1024;
/// Leftovers of a process that is out of sight are removed when they are older than this, in seconds.
const FOREIGN_AGE: i64 = 24 * 3600;

/// Where one batch writes the files of one store.
pub(super) struct Area<'a> {
    store: &'a Store,
    modes: Modes,
    name: String,
    path: PathBuf,
    root: OnceLock<OwnedFd>,
    lanes: [OnceLock<()>; LANES],
    /// For each two-character directory that was needed, whether it is made here.
    whole: Box<[OnceLock<bool>]>,
    /// Whether the umask leaves [`Modes::CONTENT`] alone, so that no file needs a chmod.
    exact: OnceLock<bool>,
    streams: AtomicU64,
    /// Whether the file system has hard links, as far as is known.
    links: AtomicBool,
}

/// A file that is being written before its digest is known.
pub(super) struct Stream {
    pub file: File,
    /// Its path in the work directory.
    name: String,
}

/// Where in the area a file waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// With all others of its two-character directory, if the store has none yet: they become visible together.
    Shard,
    /// By itself.
    Alone,
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
            lanes: [const { OnceLock::new() }; LANES],
            whole: (0..SHARDS).map(|_| OnceLock::new()).collect(),
            exact: OnceLock::new(),
            streams: AtomicU64::new(0),
            links: AtomicBool::new(true),
        }
    }

    /// The store that it belongs to.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Writes `bytes`, whose digest is `digest`; with `sync` also to the disk.
    pub fn write(&self, digest: &Digest, bytes: &[u8], company: Company, sync: bool) -> Result<()> {
        let place = self.place(digest, company)?;
        let mut file = self.create(&place)?;
        let written = file.write_all(bytes).and_then(|()| if sync { file.sync_all() } else { Ok(()) });
        written.map_err(|e| {
            self.unlink(&place);
            Error::io("write", self.path.join(&place))(e)
        })
    }

    /// Opens a new file for content that arrives in pieces.
    pub fn stream(&self) -> Result<Stream> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let lane = number as usize % LANES;
        self.lane(lane)?;
        let name = format!("{lane:x}/stream-{number}");
        Ok(Stream { file: self.create(&name)?, name })
    }

    /// The full path of `stream`, for messages.
    pub fn stream_path(&self, stream: &Stream) -> PathBuf {
        self.path.join(&stream.name)
    }

    /// Drops `stream` and its file.
    pub fn abandon(&self, stream: Stream) {
        self.unlink(&stream.name);
    }

    /// Ends `stream`, whose content turned out to be `digest`.
    pub fn keep(&self, stream: Stream, digest: &Digest, company: Company, sync: bool) -> Result<()> {
        let path = self.stream_path(&stream);
        if sync {
            stream.file.sync_all().map_err(Error::io("sync", &path))?;
        }
        let (root, place) = (self.root()?, self.place(digest, company)?);
        rustix::fs::renameat(root, &stream.name, root, place).map_err(Error::io("rename", path))
    }

    /// Takes the finished file `name`, a path in the store, as `digest`. It keeps its old name too, where it can.
    pub fn adopt(&self, name: &str, digest: &Digest, company: Company, sync: bool) -> Result<()> {
        let (root, place, store) = (self.root()?, self.place(digest, company)?, &self.store.fd);
        let fail = |action| Error::io(action, self.store.path.join(name));
        rustix::fs::chmodat(store, name, Modes::CONTENT, AtFlags::empty()).map_err(fail("set the mode of"))?;
        match rustix::fs::linkat(store, name, root, place.as_str(), AtFlags::empty()) {
            Ok(()) => {}
            Err(_) => rustix::fs::renameat(store, name, root, place.as_str()).map_err(fail("rename"))?,
        }
        if sync { self.sync(digest, company) } else { Ok(()) }
    }

    /// Makes the content of `digest`, which was written here, durable.
    pub fn sync(&self, digest: &Digest, company: Company) -> Result<()> {
        let place = self.place(digest, company)?;
        let path = self.path.join(&place);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.root()?, place, flags, Mode::empty()).map_err(Error::io("open", &path))?;
        rustix::fs::fsync(fd).map_err(Error::io("sync", path))
    }

    /// Makes the names in the two-character directory `shard` durable, if it waits here as a whole.
    pub fn sync_shard(&self, shard: &str) -> Result<()> {
        let path = self.path.join(shard);
        match rustix::fs::openat(self.root()?, shard, DIRECTORY, Mode::empty()) {
            Ok(fd) => sync_fd(fd.as_fd(), &path),
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io("open", path)(e)),
        }
    }

    /// Whether the store had no directory for `digest` when it was first asked: then it does not have `digest`, or it
    /// shows when that is published.
    pub fn is_new_shard(&self, digest: &Digest) -> bool {
        self.whole[shard_of(digest)].get() == Some(&true)
    }

    /// Gives all files of `shard`, the directory of `digest`, their final names at once, if it waits here as a whole
    /// and the store still has none. Returns whether it was so; if not, each file is to be published by itself.
    pub fn publish_shard(&self, digest: &Digest, shard: &str) -> Result<bool> {
        if !self.is_new_shard(digest) {
            return Ok(false);
        }
        let (root, store) = (self.root()?, &self.store.fd);
        match rustix::fs::renameat_with(root, shard, store, shard, RenameFlags::NOREPLACE) {
            // The file system knows no RENAME_NOREPLACE; a directory replaces an empty one at most.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                Ok(rustix::fs::renameat(root, shard, store, shard).is_ok())
            }
            // Whatever else is wrong is met again, and said, by the first of its files.
            result => Ok(result.is_ok()),
        }
    }

    /// Gives `digest`, which was written here, its final name. Something good that is there already stays; `good`
    /// judges it by its size and that of ours. With `link`, the file is linked there first and then removed here.
    pub fn publish(
        &self,
        digest: &Digest,
        company: Company,
        link: bool,
        good: impl Fn(u64, u64) -> bool,
    ) -> Result<Published> {
        let (root, from) = (self.root()?, self.place(digest, company)?);
        let to = StoreName::of(digest);
        let fail = |e: Errno| Error::io("create", self.store.path_of(digest))(e);
        let link = link && self.links.load(Ordering::Relaxed);
        let name = || match link {
            true => self.link(root, &from, &to),
            false => {
                rustix::fs::renameat_with(root, from.as_str(), &self.store.fd, to.as_str(), RenameFlags::NOREPLACE)
            }
        };
        let mut result = name();
        if result == Err(Errno::NOENT) {
            self.make_store_dir(to.shard())?;
            result = name();
        }
        match result {
            Ok(()) => return Ok(Published::New),
            // INVAL and friends: the file system knows no RENAME_NOREPLACE (NFS, some FUSE), or no links.
            Err(Errno::EXIST) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM | Errno::MLINK) => {
                self.links.store(false, Ordering::Relaxed);
            }
            Err(e) => return Err(fail(e)),
        }
        if let Some((size, _)) = self.store.stat(digest)? {
            let ours = rustix::fs::statat(root, from.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            if good(size, ours.st_size as u64) {
                return Ok(Published::Existing);
            }
        }
        rustix::fs::renameat(root, from.as_str(), &self.store.fd, to.as_str()).map_err(fail)?;
        Ok(Published::New)
    }

    fn link(&self, root: &OwnedFd, from: &str, to: &StoreName) -> Result<(), Errno> {
        rustix::fs::linkat(root, from, &self.store.fd, to.as_str(), AtFlags::empty())?;
        // One that stays is removed with the whole area.
        let _ = rustix::fs::unlinkat(root, from, AtFlags::empty());
        Ok(())
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

    /// Creates the file `place`, a path in the work directory.
    fn create(&self, place: &str) -> Result<File> {
        let path = || self.path.join(place);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.root()?, place, flags, Modes::CONTENT)
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

    /// Where `digest` waits in the work directory; its directory is made there.
    fn place(&self, digest: &Digest, company: Company) -> Result<String> {
        let name = StoreName::of(digest);
        if company == Company::Shard && self.is_whole(digest, name.shard())? {
            return Ok(name.as_str().to_owned());
        }
        // Not the first byte: that one orders the publication, and would fill the lanes one after another.
        let lane = digest.as_bytes()[31] as usize % LANES;
        self.lane(lane)?;
        Ok(format!("{lane:x}/{digest}"))
    }

    /// Whether `shard`, the directory of `digest`, is made here as a whole. Decided once.
    fn is_whole(&self, digest: &Digest, shard: &str) -> Result<bool> {
        let cell = &self.whole[shard_of(digest)];
        if let Some(whole) = cell.get() {
            return Ok(*whole);
        }
        let whole = match rustix::fs::statat(&self.store.fd, shard, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => false,
            Err(Errno::NOENT) => {
                make_dir(self.root()?.as_fd(), shard, self.modes.directory(), &self.path.join(shard))?;
                true
            }
            Err(e) => return Err(Error::io("look for", self.store.path.join(shard))(e)),
        };
        Ok(*cell.get_or_init(|| whole))
    }

    fn lane(&self, number: usize) -> Result<()> {
        let cell = &self.lanes[number];
        if cell.get().is_none() {
            let name = format!("{number:x}");
            make_dir(self.root()?.as_fd(), &name, Mode::RWXU, &self.path.join(&name))?;
            cell.get_or_init(|| ());
        }
        Ok(())
    }

    fn unlink(&self, place: &str) {
        if let Ok(fd) = self.root() {
            let _ = rustix::fs::unlinkat(fd, place, AtFlags::empty());
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

/// How a directory is opened.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The number of `digest`'s two-character directory: its first ten bits.
fn shard_of(digest: &Digest) -> usize {
    let bytes = digest.as_bytes();
    usize::from(bytes[0]) << 2 | usize::from(bytes[1]) >> 6
}

/// Removes the work directories that killed processes left in `store`. What cannot be removed, stays.
///
/// Only ours, by their name, and only where the owner is certainly gone, or out of sight and untouched for a day.
/// Upstream's temporary files are left to its own cleaning.
pub(super) fn sweep(store: &Store) {
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
        let gone = match owner.liveness(&me, store.medium == Medium::Local) {
            Liveness::Alive => false,
            Liveness::Gone => true,
            Liveness::Unknown => is_older(&work, &name, FOREIGN_AGE).unwrap_or(false),
        };
        if gone {
            remove_work(store, &name);
        }
    }
}

/// Whether `name` in the directory `work`, and every directory in it, is older than `age` seconds by the file system's clock.
pub(super) fn is_older(work: &OwnedFd, name: &str, age: i64) -> Option<bool> {
    let probe = format!("probe-{}", crate::unique().simple());
    rustix::fs::mkdirat(work, &probe, Mode::RWXU).ok()?;
    let now = rustix::fs::statat(work, &probe, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_mtime);
    let _ = rustix::fs::unlinkat(work, &probe, AtFlags::REMOVEDIR);
    let mut newest = rustix::fs::statat(work, name, AtFlags::SYMLINK_NOFOLLOW).ok()?.st_mtime;
    match rustix::fs::openat(work, name, DIRECTORY, Mode::empty()) {
        Ok(fd) => scan::names(fd.as_fd(), Path::new(name), |directory| {
            if let Ok(stat) = rustix::fs::statat(&fd, directory, AtFlags::SYMLINK_NOFOLLOW) {
                newest = newest.max(stat.st_mtime);
            }
        })
        .ok()?,
        Err(Errno::NOTDIR) => {}
        Err(_) => return None,
    }
    Some(now.ok()?.saturating_sub(newest) > age)
}

/// Removes one work directory: the directories in it, and the files in them.
fn remove_work(store: &Store, name: &str) {
    let name = format!("work/{name}");
    let Ok(root) = rustix::fs::openat(&store.fd, &name, DIRECTORY, Mode::empty()) else { return };
    let mut directories = Vec::new();
    // What cannot be listed cannot be removed.
    let _ = scan::names(root.as_fd(), &store.path, |directory| directories.push(directory.to_owned()));
    for directory in directories {
        // A finished batch leaves them empty, so most often this is all.
        if rustix::fs::unlinkat(&root, &directory, AtFlags::REMOVEDIR) == Err(Errno::NOTEMPTY) {
            if let Ok(fd) = rustix::fs::openat(&root, &directory, DIRECTORY, Mode::empty()) {
                empty_directory(&fd);
            }
            let _ = rustix::fs::unlinkat(&root, &directory, AtFlags::REMOVEDIR);
        }
    }
    let _ = rustix::fs::unlinkat(&store.fd, &name, AtFlags::REMOVEDIR);
}

fn empty_directory(directory: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let _ = rustix::fs::unlinkat(directory, entry.file_name(), AtFlags::empty());
    }
}
