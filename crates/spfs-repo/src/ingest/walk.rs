//! Walking a whole tree on several threads.

use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};

use super::queue::Queue;
use super::source::{Source, Taken};
use super::trouble::{Refusal, Troubles, check_name};
use super::{Ingest, Scanned};
use crate::error::{Error, Result};
use crate::manifest::{Dir, MAX_DEPTH, Node};

/// Files that one task reads.
const CHUNK: usize = 32;
/// From this many open directories on, none is kept open for those below it; they are opened from the nearest one
/// that is still open when their turn comes.
const MAX_OPEN: usize = 256;

/// Flags that every directory is opened with.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One directory: its place in the results, and its way from the root.
struct Folder<'w> {
    id: usize,
    depth: usize,
    name: CString,
    parent: Option<Arc<Folder<'w>>>,
    /// The directory itself, while somebody keeps it open.
    handle: Mutex<Weak<Handle<'w>>>,
}

/// An open directory, counted while it is open.
struct Handle<'w> {
    fd: OwnedFd,
    open: &'w AtomicUsize,
}

/// What waits to be done.
enum Task<'w> {
    /// List a directory. It is opened in `parent`, or in the nearest one above that is open.
    List { folder: Arc<Folder<'w>>, parent: Option<Arc<Handle<'w>>> },
    /// Take in some files of an open directory.
    Read { folder: Arc<Folder<'w>>, handle: Arc<Handle<'w>>, files: Vec<File> },
}

/// A regular file that waits to be read.
struct File {
    name: CString,
    stat: Option<Stat>,
}

/// One directory as far as it is known. Directories come after their parents.
struct Found {
    parent: usize,
    name: String,
    mode: u32,
    entries: Vec<(String, Node)>,
}

/// What all threads share.
struct Walk<'w> {
    ingest: &'w Ingest<'w>,
    root: BorrowedFd<'w>,
    path: &'w Path,
    open: &'w AtomicUsize,
    queue: Queue<Task<'w>>,
    found: Mutex<Vec<Found>>,
    totals: Mutex<Scanned>,
    troubles: Troubles,
    keep_access_time: AtomicBool,
}

/// Takes in everything below `root`.
pub(super) fn walk(ingest: &Ingest<'_>, root: BorrowedFd<'_>, path: &Path) -> Result<Scanned> {
    let open = AtomicUsize::new(0);
    let top = Arc::new(Folder { id: 0, depth: 0, name: CString::default(), parent: None, handle: Mutex::default() });
    let walk = Walk {
        ingest,
        root,
        path,
        open: &open,
        queue: Queue::new(Task::List { folder: top, parent: None }),
        found: Mutex::new(vec![Found { parent: 0, name: String::new(), mode: 0, entries: Vec::new() }]),
        totals: Mutex::default(),
        troubles: Troubles::default(),
        keep_access_time: AtomicBool::new(true),
    };
    let threads = ingest.thread_count();
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    walk.troubles.into_result()?;
    let mut scanned = walk.totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    scanned.dir = assemble(walk.found.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(scanned)
}

/// Puts every directory into its parent, last ones first. No recursion: a tree may be deep.
fn assemble(mut found: Vec<Found>) -> Dir {
    while let Some(last) = found.pop() {
        let dir = Dir { entries: last.entries.into_iter().collect() };
        match found.get_mut(last.parent) {
            Some(parent) => parent.entries.push((last.name, Node::Dir { mode: last.mode, dir })),
            None => return dir,
        }
    }
    Dir::default()
}

impl<'w> Walk<'w> {
    fn work(&self) {
        let mut source = Source::new(self.ingest, &self.keep_access_time);
        // The last directory with others in it stays open: its children most often come next.
        let mut recent = None;
        let stopped = || {
            if self.ingest.progress.interrupted() {
                self.troubles.add(self.path.to_owned(), Refusal::Fatal(Error::Interrupted));
            }
            self.troubles.stopped()
        };
        self.queue.work(stopped, |task| match task {
            Task::Read { folder, handle, files } => self.read(&mut source, &folder, &handle, &files),
            Task::List { folder, parent } => match self.list(&mut source, &folder, parent) {
                Ok(None) => {}
                Ok(handle) => recent = handle,
                Err(refusal) => self.troubles.add(self.path_of(&folder), refusal),
            },
        });
    }

    /// Lists a directory: takes in what is small there and then, and leaves the rest as tasks. Returns the directory
    /// if there are others in it.
    fn list(
        &self,
        source: &mut Source<'_>,
        folder: &Arc<Folder<'w>>,
        parent: Option<Arc<Handle<'w>>>,
    ) -> Result<Option<Arc<Handle<'w>>>, Refusal> {
        if folder.depth >= MAX_DEPTH {
            return Err(Refusal::Unfit(format!("directories nest deeper than {MAX_DEPTH} levels")));
        }
        let handle = Arc::new(self.open(folder, parent.as_deref())?);
        drop(parent);
        *folder.handle.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&handle);
        let stat = rustix::fs::fstat(&handle.fd).map_err(Refusal::of_errno)?;
        self.found()[folder.id].mode = stat.st_mode;

        let mut listing = Listing::default();
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut entries = RawDir::new(&handle.fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(Refusal::of_errno)?;
            if self.troubles.stopped() {
                return Ok(None);
            }
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.sort(source, folder, &handle, name, entry.file_type(), &mut listing);
            }
        }
        self.ingest.progress.expect(listing.files.len() as u64, 0);
        self.add(folder.id, listing.entries, listing.totals);
        let recent = (!listing.directories.is_empty()).then(|| handle.clone());
        self.leave_tasks(source, folder, handle, listing.directories, listing.files);
        Ok(recent)
    }

    /// Decides what to do with one name in a directory.
    fn sort(
        &self,
        source: &Source<'_>,
        folder: &Arc<Folder<'w>>,
        handle: &Handle<'_>,
        name: &CStr,
        kind: FileType,
        listing: &mut Listing,
    ) {
        let text = match check_name(name.to_bytes(), || self.path_of(folder)) {
            Ok(text) => text,
            Err((path, refusal)) => return self.troubles.add(path, refusal),
        };
        match kind {
            FileType::Directory => return listing.directories.push(name.to_owned()),
            FileType::RegularFile => return listing.files.push(File { name: name.to_owned(), stat: None }),
            _ => {}
        }
        let refused = |refusal| self.troubles.add(self.path_of(folder).join(text), refusal);
        let stat = match rustix::fs::statat(&handle.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(e) => return refused(Refusal::of_errno(e)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => listing.directories.push(name.to_owned()),
            FileType::RegularFile => listing.files.push(File { name: name.to_owned(), stat: Some(stat) }),
            FileType::Symlink => match symlink(source, handle.fd.as_fd(), name) {
                Ok((taken, target)) => {
                    listing.totals.files += 1;
                    listing.totals.symlinks.insert(taken.digest, target);
                    listing.entries.push((text.to_owned(), blob(&taken)));
                }
                Err(refusal) => refused(refusal),
            },
            _ if is_whiteout(&stat) => {
                listing.totals.files += 1;
                listing.entries.push((text.to_owned(), Node::Mask { mode: stat.st_mode }));
            }
            kind => refused(Refusal::Unfit(format!("it is a {}, which has no content to keep", kind_name(kind)))),
        }
    }

    /// Leaves what a listing found as tasks; a few files are read at once.
    fn leave_tasks(
        &self,
        source: &mut Source<'_>,
        folder: &Arc<Folder<'w>>,
        handle: Arc<Handle<'w>>,
        directories: Vec<CString>,
        mut files: Vec<File>,
    ) {
        if !directories.is_empty() {
            let keep_open = self.open.load(Ordering::Relaxed) < MAX_OPEN;
            let parent = keep_open.then_some(&handle);
            let mut tasks = Vec::with_capacity(directories.len());
            {
                let mut found = self.found();
                for name in directories {
                    let id = found.len();
                    let text = name.to_string_lossy().into_owned();
                    found.push(Found { parent: folder.id, name: text, mode: 0, entries: Vec::new() });
                    let parent_folder = Some(folder.clone());
                    let (depth, handle) = (folder.depth + 1, Mutex::default());
                    let folder = Arc::new(Folder { id, depth, name, parent: parent_folder, handle });
                    tasks.push(Task::List { folder, parent: parent.cloned() });
                }
            }
            self.queue.add(tasks);
        }
        while files.len() > CHUNK {
            let files = files.split_off(files.len() - CHUNK);
            self.queue.add([Task::Read { folder: folder.clone(), handle: handle.clone(), files }]);
        }
        self.read(source, folder, &handle, &files);
    }

    /// Takes in some files of one directory.
    fn read(&self, source: &mut Source<'_>, folder: &Arc<Folder<'w>>, handle: &Handle<'_>, files: &[File]) {
        let mut entries = Vec::with_capacity(files.len());
        let mut totals = Scanned::default();
        for file in files {
            if self.troubles.stopped() {
                return;
            }
            let name = file.name.to_string_lossy();
            match source.file(handle.fd.as_fd(), &file.name, file.stat.as_ref()) {
                Ok(taken) => {
                    self.ingest.progress.advance(1, taken.size);
                    totals.files += 1;
                    totals.bytes += taken.size;
                    if taken.cached {
                        totals.cached.insert(taken.digest);
                    }
                    entries.push((name.into_owned(), blob(&taken)));
                }
                Err(refusal) => self.troubles.add(self.path_of(folder).join(&*name), refusal),
            }
        }
        self.add(folder.id, entries, totals);
    }

    /// Opens a directory, in its parent if that is open.
    fn open(&self, folder: &Folder<'w>, parent: Option<&Handle<'_>>) -> Result<Handle<'w>, Refusal> {
        let fd = match parent {
            Some(parent) => rustix::fs::openat(&parent.fd, &*folder.name, DIRECTORY, Mode::empty()),
            None => self.open_from_above(folder),
        };
        let fd = fd.map_err(Refusal::of_errno)?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Handle { fd, open: self.open })
    }

    /// Opens a directory step by step from the nearest one above it that is open.
    fn open_from_above(&self, folder: &Folder<'w>) -> rustix::io::Result<OwnedFd> {
        let mut names = Vec::new();
        let mut at = folder;
        let mut fd = loop {
            let Some(parent) = &at.parent else {
                // The root is opened anew: reading it must not move the caller's position.
                break rustix::fs::openat(self.root, c".", DIRECTORY, Mode::empty())?;
            };
            names.push(&at.name);
            let open = parent.handle.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            if let Some(open) = open {
                break rustix::fs::openat(&open.fd, c".", DIRECTORY, Mode::empty())?;
            }
            at = parent;
        };
        for name in names.into_iter().rev() {
            fd = rustix::fs::openat(&fd, &**name, DIRECTORY, Mode::empty())?;
        }
        Ok(fd)
    }

    fn add(&self, id: usize, entries: Vec<(String, Node)>, totals: Scanned) {
        if !entries.is_empty() {
            self.found()[id].entries.extend(entries);
            let mut all = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
            all.files += totals.files;
            all.bytes += totals.bytes;
            all.symlinks.extend(totals.symlinks);
            all.cached.extend(totals.cached);
        }
    }

    fn found(&self) -> MutexGuard<'_, Vec<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, folder: &Folder<'w>) -> PathBuf {
        let mut names = Vec::new();
        let mut at = folder;
        while let Some(parent) = &at.parent {
            names.push(&at.name);
            at = parent;
        }
        let mut path = self.path.to_owned();
        path.extend(names.into_iter().rev().map(|name| OsStr::from_bytes(name.to_bytes())));
        path
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is in one directory.
#[derive(Default)]
struct Listing {
    directories: Vec<CString>,
    files: Vec<File>,
    /// What was taken in at once: symlinks and masks.
    entries: Vec<(String, Node)>,
    totals: Scanned,
}

fn blob(taken: &Taken) -> Node {
    Node::Blob { digest: taken.digest, mode: taken.mode, size: taken.size }
}

/// Takes in the symlink `name`; returns its target too.
pub(super) fn symlink(source: &Source<'_>, at: BorrowedFd<'_>, name: &CStr) -> Result<(Taken, Vec<u8>), Refusal> {
    let target: Vec<u8> = match rustix::fs::readlinkat(at, name, Vec::new()) {
        Ok(target) => target.into_bytes(),
        Err(e) => return Err(Refusal::of_errno(e)),
    };
    if std::str::from_utf8(&target).is_err() {
        return Err(Refusal::Unfit(format!("the target of this symlink, \"{}\", is not UTF-8", target.escape_ascii())));
    }
    Ok((source.symlink(&target)?, target))
}

/// Whether overlayfs says "deleted here" by this: a device 0:0 (`docs/format.md`, kept and lost).
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    // As upstream tests it: the bit of a character device, which a block device has too.
    stat.st_rdev == 0 && stat.st_mode & 0o020000 != 0
}

/// What a special file is called in messages.
pub(super) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "special file",
    }
}
