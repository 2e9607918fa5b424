//! Creating a lock file with its owner inside, both at once: a process that is killed in between would leave a lock
//! without an owner, which blocks for a minute.
//!
//! Written as an unnamed file, or, where there are none (NFS, FUSE), as a work file beside it, the lock gets its name by
//! a hard link, which fails if somebody has it. Only where there are no hard links either, it takes two steps.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::layout::Medium;
use super::lock::work_path;
use super::owner::Owner;
use crate::regular::{LONGEST_NOTE, read_regular};

/// How often a refusal without a reason is taken for somebody else's lock, though none is seen.
const REFUSALS: u32 = 4;

/// An attempt to take a lock, until it is dropped.
pub(super) struct Claim<'a> {
    path: &'a Path,
    text: String,
    way: Way,
    medium: Medium,
    /// The work file, once it is written; it serves for all attempts.
    beside: PathBuf,
    written: Option<Written>,
    refusals: u32,
}

/// How the lock is created.
#[derive(PartialEq, Eq)]
enum Way {
    Unnamed,
    Beside,
    TwoSteps,
}

/// When the work file was written, by both clocks.
struct Written {
    time: i64,
    since: Instant,
}

impl<'a> Claim<'a> {
    /// A claim of `owner` on the lock file `path`.
    pub fn new(path: &'a Path, owner: &Owner, medium: Medium) -> Self {
        let way = if medium == Medium::Local { Way::Unnamed } else { Way::Beside };
        let beside = work_path(path, owner);
        Claim { path, text: owner.lock_text(), way, medium, beside, written: None, refusals: 0 }
    }

    /// Tries once. [`Errno::EXIST`]: somebody has it. [`Errno::NOENT`]: there is no such directory.
    pub fn take(&mut self) -> Result<(), Errno> {
        // Only looked at to spare the work; naming the file is what decides. What others know of it may be old.
        if self.medium == Medium::Local && rustix::fs::lstat(self.path).is_ok() {
            return Err(Errno::EXIST);
        }
        if self.way == Way::Unnamed {
            match create_unnamed(self.path, &self.text) {
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                    self.way = Way::Beside;
                }
                result => return result,
            }
        }
        if self.way == Way::Beside {
            match self.link() {
                Err(Errno::PERM) if self.is_taken() => return Err(Errno::EXIST),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::MLINK) => self.way = Way::TwoSteps,
                result => return result,
            }
        }
        match write_new(self.path, &self.text) {
            Err(Errno::PERM) if self.is_taken() => Err(Errno::EXIST),
            result => result,
        }
    }

    /// Whether EPERM may mean that somebody has the lock, or had it a moment ago: sftp has one word for all failures.
    fn is_taken(&mut self) -> bool {
        self.refusals += 1;
        self.medium != Medium::Local && (rustix::fs::lstat(self.path).is_ok() || self.refusals <= REFUSALS)
    }

    /// The time in seconds by the file system's clock, if that is known already.
    pub fn now(&self) -> Option<i64> {
        let written = self.written.as_ref()?;
        Some(written.time.saturating_add(written.since.elapsed().as_secs() as i64))
    }

    fn link(&mut self) -> Result<(), Errno> {
        if self.written.is_none() {
            write_new(&self.beside, &self.text)?;
            let time = rustix::fs::lstat(&self.beside).map_or(0, |stat| stat.st_mtime);
            self.written = Some(Written { time, since: Instant::now() });
        }
        match rustix::fs::link(&self.beside, self.path) {
            // Asked twice by a network that lost the first answer: the text names this very lock.
            Err(Errno::EXIST)
                if read_regular(self.path, LONGEST_NOTE).is_ok_and(|there| there == self.text.as_bytes()) =>
            {
                Ok(())
            }
            result => result,
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.written.is_some() {
            let _ = rustix::fs::unlink(&self.beside);
        }
    }
}

/// Writes `text` into an unnamed file, and names it `path` unless that exists.
fn create_unnamed(path: &Path, text: &str) -> Result<(), Errno> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    // Readable for everyone, so that others can name the owner and judge it.
    let fd = rustix::fs::open(directory, flags, Mode::from_raw_mode(0o644))?;
    if rustix::io::write(&fd, text.as_bytes())? != text.len() {
        return Err(Errno::NOSPC);
    }
    let unnamed = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

/// Writes a new file; one that exists is an error.
fn write_new(path: &Path, text: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
    match rustix::io::write(&fd, text.as_bytes()) {
        Ok(n) if n == text.len() => Ok(()),
        result => {
            let _ = rustix::fs::unlink(path);
            Err(result.err().unwrap_or(Errno::NOSPC))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_way_excludes_the_others_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name.tag.lock");
        let (me, other) = (Owner::current(), Owner::current());
        let claim = |owner: &Owner, way: usize| {
            let medium = [Medium::Local, Medium::Network, Medium::Loose][way];
            let mut claim = Claim::new(&path, owner, medium);
            if way == 2 {
                claim.way = Way::TwoSteps;
            }
            let taken = claim.take();
            assert_eq!(claim.take(), if way == 1 && taken.is_ok() { Ok(()) } else { Err(Errno::EXIST) });
            taken
        };
        for first in 0..3 {
            assert_eq!(claim(&me, first), Ok(()));
            for second in 0..3 {
                assert_eq!(claim(&other, second), Err(Errno::EXIST), "{second} after {first}");
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), me.lock_text());
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let absent = directory.path().join("no/name.tag.lock");
        for medium in [Medium::Local, Medium::Network] {
            assert_eq!(Claim::new(&absent, &me, medium).take(), Err(Errno::NOENT));
        }
    }
}
