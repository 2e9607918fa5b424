//! Taking in a list of files below one directory, on several threads.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode};

use super::Ingest;
use super::cache::Stamp;
use super::source::{CHANGED, Source};
use super::trouble::{Refusal, Troubles};
use super::walk::{DIRECTORY, kind_name, symlink};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Files that a thread takes at a time.
const CHUNK: usize = 16;

/// A file to be taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileRequest {
    /// Its path below the root: plain names, no `..`.
    pub path: PathBuf,
    /// What it was when it was last looked at; if it has changed since, that is an error.
    pub expect: Option<Stamp>,
}

/// A file that was taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileFound {
    /// Digest of its payload.
    pub digest: Digest,
    /// The full `st_mode`.
    pub mode: u32,
    /// Bytes in the payload.
    pub size: u64,
    /// Where it points, if it is a symlink.
    pub target: Option<Vec<u8>>,
}

/// What all threads share.
struct Work<'w> {
    ingest: Ingest<'w>,
    root: BorrowedFd<'w>,
    path: &'w Path,
    requests: &'w [FileRequest],
    next: AtomicUsize,
    found: Mutex<Vec<Option<FileFound>>>,
    troubles: Troubles,
    keep_access_time: AtomicBool,
}

/// Takes in `requests` and returns what they are, in order.
pub(super) fn take(
    ingest: &Ingest<'_>,
    root: BorrowedFd<'_>,
    path: &Path,
    requests: &[FileRequest],
) -> Result<Vec<FileFound>> {
    ingest.progress.expect(requests.len() as u64, 0);
    let work = Work {
        // Every one of them is to be read.
        ingest: Ingest { cache: None, ..*ingest },
        root,
        path,
        requests,
        next: AtomicUsize::new(0),
        found: Mutex::new(vec![None; requests.len()]),
        troubles: Troubles::default(),
        keep_access_time: AtomicBool::new(true),
    };
    let threads = ingest.thread_count().min(requests.len().div_ceil(CHUNK));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work.run());
        }
        work.run();
    });
    work.troubles.into_result()?;
    let found = work.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.into_iter().collect::<Option<Vec<_>>>().ok_or(Error::Interrupted)
}

impl Work<'_> {
    fn run(&self) {
        let mut source = Source::new(&self.ingest, &self.keep_access_time);
        // Neighbours are most often in the same directory.
        let mut directory: Option<(PathBuf, OwnedFd)> = None;
        loop {
            let start = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if start >= self.requests.len() {
                return;
            }
            for (at, request) in self.requests.iter().enumerate().skip(start).take(CHUNK) {
                if self.ingest.progress.interrupted() {
                    self.troubles.add(self.path.to_owned(), Refusal::Fatal(Error::Interrupted));
                }
                if self.troubles.stopped() {
                    return;
                }
                match self.one(&mut source, &mut directory, request) {
                    Ok(found) => {
                        self.ingest.progress.advance(1, found.size);
                        self.found.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(found);
                    }
                    Err(refusal) => self.troubles.add(self.path.join(&request.path), refusal),
                }
            }
        }
    }

    fn one(
        &self,
        source: &mut Source<'_>,
        directory: &mut Option<(PathBuf, OwnedFd)>,
        request: &FileRequest,
    ) -> Result<FileFound, Refusal> {
        let parent = request.path.parent().unwrap_or(Path::new(""));
        if directory.as_ref().is_none_or(|(path, _)| path != parent) {
            *directory = Some((parent.to_owned(), open_below(self.root, parent)?));
        }
        let Some((_, fd)) = directory else { return Err(Refusal::Unfit(CHANGED.to_owned())) };
        let name = c_string(request.path.file_name().unwrap_or_default())?;
        take_one(source, fd.as_fd(), &name, request.expect.as_ref())
    }
}

fn take_one(
    source: &mut Source<'_>,
    directory: BorrowedFd<'_>,
    name: &CStr,
    expect: Option<&Stamp>,
) -> Result<FileFound, Refusal> {
    let unchanged = || {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Refusal::of_errno)?;
        match expect.is_none_or(|expect| *expect == Stamp::of(&stat)) {
            true => Ok(stat),
            false => Err(Refusal::Unfit(CHANGED.to_owned())),
        }
    };
    let stat = unchanged()?;
    let (taken, target) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => (source.file(directory, name, Some(&stat))?, None),
        FileType::Symlink => symlink(source, directory, name).map(|(taken, target)| (taken, Some(target)))?,
        kind => {
            let what = if kind == FileType::Directory { "directory" } else { kind_name(kind) };
            return Err(Refusal::Unfit(format!("it is a {what}, which has no content to keep")));
        }
    };
    if expect.is_some() {
        unchanged()?;
    }
    Ok(FileFound { digest: taken.digest, mode: taken.mode, size: taken.size, target })
}

/// Opens the directory `path` below `root`, step by step and without following anything.
fn open_below(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Refusal> {
    let mut fd = rustix::fs::openat(root, c".", DIRECTORY, Mode::empty()).map_err(Refusal::of_errno)?;
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                fd = rustix::fs::openat(&fd, name, DIRECTORY, Mode::empty()).map_err(Refusal::of_errno)?;
            }
            Component::CurDir => {}
            _ => return Err(Refusal::Unfit("it is not below the directory".to_owned())),
        }
    }
    Ok(fd)
}

fn c_string(name: &OsStr) -> Result<CString, Refusal> {
    match CString::new(name.as_bytes()) {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => Err(Refusal::Unfit("it is not a file name".to_owned())),
    }
}
