//! What went wrong while several threads read a tree: collected, so that one error names several files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// So many files are named in one error.
const HANDFUL: usize = 5;

/// Why a file cannot be taken in.
pub(super) enum Refusal {
    /// It is not fit to be committed.
    Unfit(String),
    /// Something is wrong that has nothing to do with this file; the work ends.
    Fatal(Error),
}

impl Refusal {
    /// An [`Refusal::Unfit`] of what the operating system said when the file was opened or listed.
    pub fn of_errno(e: Errno) -> Self {
        match e {
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO => {
                Refusal::Unfit("it was removed or replaced while being read".to_owned())
            }
            e => Refusal::Unfit(reason(&std::io::Error::from(e))),
        }
    }
}

/// What the operating system said, without its number.
pub(super) fn reason(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::PermissionDenied => "permission to read it is denied".to_owned(),
        _ => format!("it could not be read: {e}"),
    }
}

/// The troubles of one piece of work. Shared between its threads.
#[derive(Default)]
pub(super) struct Troubles {
    unfit: Mutex<Vec<(PathBuf, String)>>,
    fatal: Mutex<Option<Error>>,
    stop: AtomicBool,
}

impl Troubles {
    /// Adds one trouble with the file `path`.
    pub fn add(&self, path: PathBuf, refusal: Refusal) {
        match refusal {
            Refusal::Fatal(error) => {
                self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.stop.store(true, Ordering::Relaxed);
            }
            Refusal::Unfit(reason) => {
                let mut unfit = self.unfit.lock().unwrap_or_else(PoisonError::into_inner);
                unfit.push((path, reason));
                if unfit.len() >= HANDFUL {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// Whether there is no use in going on.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// All troubles as one error, if there are any.
    pub fn into_result(self) -> Result<()> {
        if let Some(error) = self.fatal.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut unfit = self.unfit.into_inner().unwrap_or_else(PoisonError::into_inner);
        unfit.sort();
        let mut unfit = unfit.into_iter();
        let Some((path, mut reason)) = unfit.next() else { return Ok(()) };
        for (other, why) in unfit {
            reason.push_str(&format!("; nor {}: {why}", other.display()));
        }
        Err(Error::Uncommittable { path, reason })
    }
}

/// `name` as UTF-8, or `directory/name` with its odd bytes written out, and why that is a trouble.
pub(super) fn check_name(name: &[u8], directory: impl FnOnce() -> PathBuf) -> Result<&str, (PathBuf, Refusal)> {
    std::str::from_utf8(name).map_err(|_| {
        let path = directory().join(Path::new(OsStr::from_bytes(name)));
        (path, Refusal::Unfit(format!("its name, \"{}\", is not UTF-8", name.escape_ascii())))
    })
}
