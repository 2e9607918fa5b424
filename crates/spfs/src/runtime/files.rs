//! The files of an upper directory: opened however deep, hashed, stored.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use spfs_repo::ingest::{FileFound, FileRequest, Ingest};
use spfs_repo::{Batch, Digest};

use super::changes::UpperFile;
use super::jobs::Job;
use crate::error::{Error, Result};

/// Longest path that one system call takes, with room to spare.
const LONGEST: usize = 4000;

/// Opens a regular file below `directory`, in as many steps as the length of its path needs.
pub fn open(directory: BorrowedFd<'_>, path: &Path) -> Result<File> {
    let mut bytes = path.as_os_str().as_bytes();
    let mut held: Option<OwnedFd> = None;
    while bytes.len() > LONGEST {
        let cut = bytes[..LONGEST].iter().rposition(|b| *b == b'/').unwrap_or(LONGEST);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = held.as_ref().map_or(directory, AsFd::as_fd);
        let next = rustix::fs::openat(from, OsStr::from_bytes(&bytes[..cut]), flags, Mode::empty());
        held = Some(next.map_err(Error::io("open", path))?);
        bytes = bytes.get(cut + 1..).unwrap_or_default();
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let from = held.as_ref().map_or(directory, AsFd::as_fd);
    let file = rustix::fs::openat(from, OsStr::from_bytes(bytes), flags, Mode::empty());
    Ok(file.map_err(Error::io("open", path))?.into())
}

/// The digests of `files`, without storing anything.
pub fn hash(job: &Job<'_>, files: &[&UpperFile]) -> Result<Vec<Digest>> {
    let found = take(job, None, files.iter().map(|file| file.path.clone()))?;
    Ok(found.into_iter().map(|file| file.digest).collect())
}

/// Puts `files` into `batch`, and says what each was when it was read.
pub fn store(job: &Job<'_>, batch: &dyn Batch, files: &[UpperFile]) -> Result<Vec<FileFound>> {
    take(job, Some(batch), files.iter().map(|file| file.path.clone()))
}

fn take(job: &Job<'_>, batch: Option<&dyn Batch>, paths: impl Iterator<Item = PathBuf>) -> Result<Vec<FileFound>> {
    let requests: Vec<FileRequest> = paths.map(|path| FileRequest { path, expect: None }).collect();
    let format = job.spfs.config.storage.format;
    let ingest = Ingest { batch, format, cache: None, threads: 0, progress: &job.progress };
    // O_PATH descriptors cannot be listed, but files are opened below them like any other.
    Ok(ingest.files(job.upper.as_fd(), Path::new("/spfs"), &requests)?)
}
