//! Reading one file: opened without following, hashed once while it is stored, and checked for changes.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Ingest;
use super::cache::Stamp;
use super::trouble::{Refusal, reason};
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::manifest::MODE_SYMLINK;
use crate::object::{Blob, Object};

/// What is said of a file that is not the same before and after.
pub(super) const CHANGED: &str = "it changed while being read";
/// Files up to this many bytes are read whole; longer ones in pieces of this size.
const PIECE: usize = 256 * 1024;
/// How often a file that changes is read again.
const ATTEMPTS: usize = 4;

/// What one file turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taken {
    pub digest: Digest,
    /// The full `st_mode`.
    pub mode: u32,
    pub size: u64,
    /// Whether the cache knew it, so that it was not read.
    pub cached: bool,
}

/// Takes in files, one after the other; every thread has its own.
pub(super) struct Source<'a> {
    ingest: &'a Ingest<'a>,
    /// Whether opening without touching the access time is allowed, as far as known.
    keep_access_time: &'a AtomicBool,
    buffer: Vec<u8>,
}

impl<'a> Source<'a> {
    /// A source for one thread; `keep_access_time` is shared.
    pub fn new(ingest: &'a Ingest<'a>, keep_access_time: &'a AtomicBool) -> Self {
        Source { ingest, keep_access_time, buffer: Vec::new() }
    }

    /// Takes in the regular file `name` in `directory`. `stat` is asked for the cache's sake if it is not given.
    pub fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, stat: Option<&Stat>) -> Result<Taken, Refusal> {
        if let Some(cache) = self.ingest.cache.filter(|cache| !cache.is_empty()) {
            let stat = match stat {
                Some(stat) => *stat,
                None => rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(Refusal::of_errno)?,
            };
            let stamp = Stamp::of(&stat);
            if is_regular(&stat)
                && let Some(digest) = cache.lookup(&stamp)
            {
                return Ok(Taken { digest, mode: stat.st_mode, size: stamp.size, cached: true });
            }
        }
        for _ in 0..ATTEMPTS {
            if let Some(taken) = self.attempt(directory, name)? {
                return Ok(taken);
            }
        }
        Err(Refusal::Unfit(CHANGED.to_owned()))
    }

    /// Reads the file once. [`None`] if it changed meanwhile.
    fn attempt(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<Option<Taken>, Refusal> {
        let file = self.open(directory, name)?;
        let stat = rustix::fs::fstat(&file).map_err(Refusal::of_errno)?;
        if !is_regular(&stat) {
            return Err(Refusal::Unfit(CHANGED.to_owned()));
        }
        let stamp = Stamp::of(&stat);
        let digest = match stamp.size <= PIECE as u64 {
            true => self.small(&file, &stamp)?,
            false => self.large(&file, &stamp)?,
        };
        let Some(digest) = digest else { return Ok(None) };
        if let Some(cache) = self.ingest.cache {
            cache.insert(stamp, digest);
        }
        self.add_blob(digest, stamp.size)?;
        Ok(Some(Taken { digest, mode: stat.st_mode, size: stamp.size, cached: false }))
    }

    fn open(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<File, Refusal> {
        // Not blocking: should a pipe have taken the file's place, opening it returns.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if self.keep_access_time.load(Ordering::Relaxed) {
            match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
                Ok(fd) => return Ok(File::from(fd)),
                // Only an owner may; then it is no use to ask for every file.
                Err(Errno::PERM) => self.keep_access_time.store(false, Ordering::Relaxed),
                Err(e) => return Err(Refusal::of_errno(e)),
            }
        }
        rustix::fs::openat(directory, name, flags, Mode::empty()).map(File::from).map_err(Refusal::of_errno)
    }

    /// Reads a file that fits into the buffer.
    fn small(&mut self, file: &File, before: &Stamp) -> Result<Option<Digest>, Refusal> {
        // One byte more than expected: a file that does not fill it has ended.
        self.buffer.resize(PIECE + 1, 0);
        let mut filled = 0;
        while filled <= before.size as usize {
            match rustix::io::read(file, &mut self.buffer[filled..before.size as usize + 1]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(Refusal::Unfit(reason(&e.into()))),
            }
            if filled == before.size as usize {
                break;
            }
        }
        if filled as u64 != before.size || !is_unchanged(file, before) {
            return Ok(None);
        }
        self.add_bytes(&self.buffer[..filled]).map(Some)
    }

    /// Reads a long file in pieces.
    fn large(&mut self, file: &File, before: &Stamp) -> Result<Option<Digest>, Refusal> {
        let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
        let mut content = Watched { file, before, read: 0, ingest: self.ingest, ended: None };
        let result = match self.ingest.batch {
            Some(batch) => batch.add_payload(&mut content, None).map(|(digest, _)| digest),
            None => self.hash(&mut content),
        };
        match (content.ended, result) {
            (Some(Ended::Changed), _) => Ok(None),
            (Some(Ended::Interrupted), _) => Err(Refusal::Fatal(Error::Interrupted)),
            (Some(Ended::Failed(e)), _) => Err(Refusal::Unfit(reason(&e))),
            (None, Ok(digest)) => Ok(Some(digest)),
            (None, Err(e)) => Err(Refusal::Fatal(e)),
        }
    }

    /// Takes in content that is in memory: a symlink's target.
    pub fn symlink(&self, target: &[u8]) -> Result<Taken, Refusal> {
        let digest = self.add_bytes(target)?;
        let size = target.len() as u64;
        self.add_blob(digest, size)?;
        Ok(Taken { digest, mode: MODE_SYMLINK, size, cached: false })
    }

    fn add_bytes(&self, bytes: &[u8]) -> Result<Digest, Refusal> {
        match self.ingest.batch {
            None => Ok(Digest::of(bytes)),
            Some(batch) => {
                let mut content = bytes;
                batch.add_payload(&mut content, None).map(|(digest, _)| digest).map_err(Refusal::Fatal)
            }
        }
    }

    fn add_blob(&self, payload: Digest, size: u64) -> Result<(), Refusal> {
        if let Some(batch) = self.ingest.batch {
            let blob = Object { format: self.ingest.format, body: Blob { payload, size }.into() };
            batch.add_object(&blob).map_err(Refusal::Fatal)?;
        }
        Ok(())
    }

    fn hash(&mut self, content: &mut dyn Read) -> crate::Result<Digest> {
        self.buffer.resize(PIECE + 1, 0);
        let mut hasher = Hasher::new();
        loop {
            match content.read(&mut self.buffer).map_err(Error::io("read", "a file"))? {
                0 => return Ok(hasher.finish()),
                n => hasher.update(&self.buffer[..n]),
            }
        }
    }
}

/// Why a [`Watched`] file ended early.
enum Ended {
    Changed,
    Interrupted,
    Failed(std::io::Error),
}

/// A long file that fails at its end if it is not what it was at the beginning, so that nothing is kept of it.
struct Watched<'f> {
    file: &'f File,
    before: &'f Stamp,
    read: u64,
    ingest: &'f Ingest<'f>,
    ended: Option<Ended>,
}

impl Watched<'_> {
    fn end(&mut self, why: Ended) -> std::io::Error {
        self.ended = Some(why);
        std::io::Error::other("the file cannot be read to its end")
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.ingest.progress.interrupted() {
            return Err(self.end(Ended::Interrupted));
        }
        match self.file.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Err(e),
            Err(e) => Err(self.end(Ended::Failed(e))),
            Ok(0) if self.read != self.before.size || !is_unchanged(self.file, self.before) => {
                Err(self.end(Ended::Changed))
            }
            Ok(n) => {
                self.read += n as u64;
                // A file that grows as fast as it is read would never end.
                if self.read > self.before.size { Err(self.end(Ended::Changed)) } else { Ok(n) }
            }
        }
    }
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn is_unchanged(file: &File, before: &Stamp) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| Stamp::of(&stat) == *before)
}
