//! Filling one directory with a merged tree: directories and symlinks by one thread, files by several.
//!
//! Works relative to directory descriptors, of which it holds one and those of the files that wait: neither the
//! depth of a tree nor the length of its paths is limited.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use spfs_repo::{Digest, Directory, Entry, Error as RepoError, Progress, open_regular};

use super::proxy::Proxies;
use super::summary::{Counter, Did, Summary};
use super::{Options, Strategy};
use crate::error::{Error, Result};
use crate::merged::{Item, Merged, MergedDir, Steps};

/// Files that may wait for a thread; each holds its directory open.
const WAITING: usize = 256;

/// Longest target of a symlink on Linux.
const LONGEST_TARGET: u64 = 4095;

pub(super) struct Engine<'a> {
    repository: &'a Directory,
    merged: &'a Merged,
    strategy: Strategy,
    replace: bool,
    threads: usize,
    proxies: Option<&'a Proxies<'a>>,
    progress: &'a dyn Progress,
    counter: Counter,
    /// The time of all that is made, where that is to be a certain one.
    time: Option<Timestamps>,
}

/// One file to be made.
struct Job<'a> {
    dir: Arc<OwnedFd>,
    entry: &'a Entry,
    /// For messages.
    path: String,
}

impl<'a> Engine<'a> {
    pub fn new(
        repository: &'a Directory,
        merged: &'a Merged,
        options: &Options<'_>,
        proxies: Option<&'a Proxies<'a>>,
        progress: &'a dyn Progress,
    ) -> Engine<'a> {
        let (strategy, replace, threads) = (options.strategy, options.allow_existing, super::threads(options));
        Engine {
            repository,
            merged,
            strategy,
            replace,
            threads,
            proxies,
            progress,
            counter: Counter::default(),
            time: None,
        }
    }

    /// Gives all that is made this time, in seconds.
    pub fn with_time(self, seconds: u64) -> Self {
        Engine { time: Some(times(seconds)), ..self }
    }

    pub fn summary(&self) -> Summary {
        self.counter.get()
    }

    /// Gives new proxies their names, once their content is on disk.
    pub fn publish_proxies(&self) -> Result<()> {
        self.proxies.map_or(Ok(()), Proxies::publish)
    }

    /// Makes the whole tree in `root`, whose path is for messages.
    pub fn fill(&self, root: &OwnedFd, path: &Path) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel::<Job<'_>>(WAITING);
        let receiver = Mutex::new(receiver);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let fail = |error: Error| {
            lock(&failed).get_or_insert(error);
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    while let Some(job) = next(&receiver) {
                        // After a failure jobs are only taken away, so that the walk does not wait for ever.
                        if lock(&failed).is_none() {
                            self.file(&job).unwrap_or_else(fail);
                        }
                    }
                });
            }
            self.make_directories(root, path, sender, &failed).unwrap_or_else(fail);
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            return Err(error);
        }
        self.set_modes(root, path)
    }

    /// Makes directories and symlinks, and sends the files to the other threads.
    fn make_directories(
        &self,
        root: &OwnedFd,
        path: &Path,
        files: SyncSender<Job<'a>>,
        failed: &Mutex<Option<Error>>,
    ) -> Result<()> {
        let enter = |dir: &Arc<OwnedFd>, item: &Item<'a>, path: &Path| -> Result<()> {
            if self.progress.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            if lock(failed).is_some() {
                return Err(RepoError::Interrupted.into());
            }
            let entry = item.entry;
            if item.dir.is_some() {
                self.counter.directory();
                return match rustix::fs::mkdirat(&**dir, &entry.name, Mode::RWXU) {
                    Err(Errno::EXIST) if self.replace => Ok(()),
                    other => other.map_err(Error::io("create", path)),
                };
            }
            self.progress.expect(1, entry.size);
            if entry.is_symlink() {
                return self.symlink(dir.as_fd(), entry, path);
            }
            let job = Job { dir: dir.clone(), entry, path: path.display().to_string() };
            files.send(job).map_err(|_| RepoError::Interrupted.into())
        };
        walk(self.merged.root(), root, path, enter, |_, _, _| Ok(()))
    }

    /// Gives the directories their modes, the innermost first: a directory may become closed even to its owner.
    fn set_modes(&self, root: &OwnedFd, path: &Path) -> Result<()> {
        let leave = |dir: &OwnedFd, entry: &Entry, path: &Path| {
            let mode = Mode::from_raw_mode(entry.mode & 0o7777);
            self.set_time(dir.as_fd(), path)?;
            rustix::fs::fchmod(dir, mode).map_err(Error::io("set the mode of", path))
        };
        walk(self.merged.root(), root, path, |_, _, _| Ok(()), leave)
    }

    fn set_time(&self, file: BorrowedFd<'_>, path: &Path) -> Result<()> {
        self.time
            .as_ref()
            .map_or(Ok(()), |time| rustix::fs::futimens(file, time))
            .map_err(Error::io("set the time of", path))
    }

    fn symlink(&self, dir: BorrowedFd<'_>, entry: &Entry, path: &Path) -> Result<()> {
        let payload = self.repository.payload_path(&entry.object);
        let file = open_regular(&payload).map_err(missing(&entry.object, &payload))?;
        let mut target = Vec::new();
        file.take(LONGEST_TARGET + 1).read_to_end(&mut target).map_err(Error::io("read", &payload))?;
        if target.is_empty() || target.len() as u64 > LONGEST_TARGET || target.contains(&0) {
            let reason = "it cannot be the target of a symlink";
            return Err(RepoError::corrupt(format!("payload {}", entry.object), reason).into());
        }
        let existed = match rustix::fs::symlinkat(&*target, dir, &entry.name) {
            Ok(()) => false,
            Err(Errno::EXIST) if self.replace && self.strategy == Strategy::Copy => {
                let temporary = temporary();
                rustix::fs::symlinkat(&*target, dir, &temporary).map_err(Error::io("create", path))?;
                replace(dir, &temporary, &entry.name, path)?;
                false
            }
            Err(Errno::EXIST) if self.replace => true,
            Err(error) => return Err(Error::io("create", path)(error)),
        };
        if let Some(time) = &self.time {
            let set = rustix::fs::utimensat(dir, &entry.name, time, AtFlags::SYMLINK_NOFOLLOW);
            set.map_err(Error::io("set the time of", path))?;
        }
        self.counter.symlink(existed);
        self.progress.advance(1, entry.size);
        Ok(())
    }

    fn file(&self, job: &Job<'_>) -> Result<()> {
        let did = match self.strategy {
            Strategy::Copy => self.copy(job, Did::Copied)?,
            Strategy::HardLinkNoProxy => {
                let payload = self.repository.payload_path(&job.entry.object);
                let linked = link(&payload, job);
                if linked == Err(Errno::NOENT) {
                    return Err(RepoError::MissingPayload(job.entry.object).into());
                }
                self.linked_or_copied(job, linked)?
            }
            Strategy::HardLink => match self.proxies {
                Some(proxies) => {
                    let linked = proxies.with(job.entry, &self.counter, |proxy| link(proxy, job))?;
                    self.linked_or_copied(job, linked)?
                }
                None => self.copy(job, Did::Copied)?,
            },
        };
        self.counter.file(did, job.entry.size);
        self.progress.advance(1, job.entry.size);
        Ok(())
    }

    fn linked_or_copied(&self, job: &Job<'_>, linked: Result<(), Errno>) -> Result<Did> {
        match linked {
            Ok(()) => self.check(job).map(|()| Did::Linked),
            Err(Errno::EXIST) if self.replace => Ok(Did::Existed),
            Err(Errno::MLINK) => self.copy(job, Did::CopiedForLinkLimit),
            // The kernel lets nobody link another's file (`fs.protected_hardlinks`).
            Err(Errno::PERM) => self.copy(job, Did::CopiedForOwner),
            Err(error) => Err(Error::io("link to", &job.path)(error)),
        }
    }

    /// Makes sure that what was linked has the length that it should have: content that was cut short is no render.
    fn check(&self, job: &Job<'_>) -> Result<()> {
        let stat = rustix::fs::statat(&*job.dir, &job.entry.name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(Error::io("look at", &job.path))?;
        if stat.st_size as u64 != job.entry.size {
            let reason = format!("it has {} bytes instead of {}", stat.st_size, job.entry.size);
            return Err(RepoError::corrupt(format!("payload {}", job.entry.object), reason).into());
        }
        match &self.time {
            // What is still a link of the payload keeps the payload's time: by its age it is cleaned.
            Some(time) if time.last_modification.tv_sec != stat.st_mtime && !self.is_payload(job, &stat) => {
                let set = rustix::fs::utimensat(&*job.dir, &job.entry.name, time, AtFlags::SYMLINK_NOFOLLOW);
                set.map_err(Error::io("set the time of", &job.path))
            }
            _ => Ok(()),
        }
    }

    fn is_payload(&self, job: &Job<'_>, stat: &Stat) -> bool {
        let payload = rustix::fs::stat(self.repository.payload_path(&job.entry.object));
        payload.is_ok_and(|payload| (payload.st_dev, payload.st_ino) == (stat.st_dev, stat.st_ino))
    }

    fn copy(&self, job: &Job<'_>, did: Did) -> Result<Did> {
        let payload = self.repository.payload_path(&job.entry.object);
        let (dir, path) = (job.dir.as_fd(), Path::new(&job.path));
        match copy_new(dir, Path::new(&job.entry.name), path, &payload, job.entry) {
            // Never written over in place: what is there may be a link of something that must not change.
            Err(Error::Io { source, .. }) if self.replace && source.kind() == io::ErrorKind::AlreadyExists => {
                let temporary = temporary();
                copy_new(dir, Path::new(&temporary), path, &payload, job.entry)?;
                replace(dir, &temporary, &job.entry.name, path)?;
            }
            other => other?,
        }
        Ok(did)
    }
}

/// A time of last access and change.
fn times(seconds: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or_default(), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Copies a payload to the new file `name` in `dir` with the mode of `entry`. `path` is for messages.
pub(super) fn copy_new(dir: BorrowedFd<'_>, name: &Path, path: &Path, payload: &Path, entry: &Entry) -> Result<()> {
    let source = open_regular(payload).map_err(missing(&entry.object, payload))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(Error::io("create", path))?;
    let file = File::from(file);
    let copied = copy_content(&source, &file).map_err(Error::io("write", path))?;
    if copied != entry.size {
        let reason = format!("it has {copied} bytes instead of {}", entry.size);
        return Err(RepoError::corrupt(format!("payload {}", entry.object), reason).into());
    }
    // Last: writing takes a set-uid bit away.
    let mode = Mode::from_raw_mode(entry.mode & 0o7777);
    rustix::fs::fchmod(&file, mode).map_err(Error::io("set the mode of", path))
}

/// Files below this length are copied as they are.
const MAY_HAVE_HOLES: u64 = 64 << 10;

/// Copies what is in a file, and leaves its holes out. The result is the length.
fn copy_content(mut source: &File, mut to: &File) -> io::Result<u64> {
    let length = source.metadata()?.len();
    if length < MAY_HAVE_HOLES {
        return io::copy(&mut source, &mut to);
    }
    let mut at = 0;
    while at < length {
        let begin = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            // Not every file system knows its holes.
            found => found.unwrap_or(at),
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(begin)).unwrap_or(length);
        rustix::fs::seek(source, SeekFrom::Start(begin))?;
        rustix::fs::seek(to, SeekFrom::Start(begin))?;
        let copied = io::copy(&mut source.take(end - begin), &mut to)?;
        at = begin + copied;
        if at < end {
            return Ok(at);
        }
    }
    to.set_len(length)?;
    Ok(length)
}

/// The error of a payload that cannot be opened: missing, or whatever it is.
pub(super) fn missing<'e>(digest: &'e Digest, payload: &'e Path) -> impl FnOnce(io::Error) -> Error + 'e {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => RepoError::MissingPayload(*digest).into(),
        _ => Error::io("open", payload)(error),
    }
}

fn link(from: &Path, job: &Job<'_>) -> Result<(), Errno> {
    rustix::fs::linkat(CWD, from, &*job.dir, &job.entry.name, AtFlags::empty())
}

fn temporary() -> String {
    format!(".spfs-{}", spfs_repo::unique())
}

/// Puts the finished `temporary` in the place of `name`.
fn replace(dir: BorrowedFd<'_>, temporary: &str, name: &str, path: &Path) -> Result<()> {
    rustix::fs::renameat(dir, temporary, dir, name).map_err(|error| {
        let _ = rustix::fs::unlinkat(dir, temporary, AtFlags::empty());
        Error::io("replace", path)(error)
    })
}

/// Visits a merged tree along with the real directories of its paths: `enter` for every item (of a directory it must
/// see to it that it is there), `leave` for every directory once its content has been visited.
fn walk<'a>(
    top: MergedDir<'a>,
    root: &OwnedFd,
    path: &Path,
    mut enter: impl FnMut(&Arc<OwnedFd>, &Item<'a>, &Path) -> Result<()>,
    mut leave: impl FnMut(&OwnedFd, &Entry, &Path) -> Result<()>,
) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |dir: &OwnedFd, name: &str, path: &Path| {
        rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(Error::io("open", path))
    };
    let (mut path, mut steps) = (path.to_owned(), Steps::default());
    let mut dir = Arc::new(open(root, ".", &path)?);
    // The directories on the way to the present one, with what is still to be visited in them.
    let mut levels: Vec<(Option<&'a Entry>, std::vec::IntoIter<Item<'a>>)> =
        vec![(None, top.in_path_order()?.into_iter())];
    while let Some((entry, items)) = levels.last_mut() {
        match items.next() {
            Some(item) => {
                steps.step()?;
                path.push(&item.entry.name);
                enter(&dir, &item, &path)?;
                match item.dir {
                    Some(inner) => {
                        dir = Arc::new(open(&dir, &item.entry.name, &path)?);
                        levels.push((Some(item.entry), inner.in_path_order()?.into_iter()));
                    }
                    None => drop(path.pop()),
                }
            }
            None => {
                if let Some(entry) = entry {
                    let above = open(&dir, "..", &path)?;
                    leave(&dir, entry, &path)?;
                    dir = Arc::new(above);
                    path.pop();
                }
                levels.pop();
            }
        }
    }
    Ok(())
}

fn next<'a>(receiver: &Mutex<Receiver<Job<'a>>>) -> Option<Job<'a>> {
    lock(receiver).recv().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
