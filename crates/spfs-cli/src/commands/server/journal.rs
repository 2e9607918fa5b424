//! Where the words of a server go: remarks to standard error, the access log there too or to a file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

use crate::errors::{Failure, Result};

/// The journal of one server.
pub struct Journal {
    access: Option<Access>,
}

enum Access {
    Stderr,
    File(PathBuf, Mutex<File>),
}

impl Journal {
    /// With an access log in `path`, or on standard error for `-`; with none, if nothing is said.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let access = match path {
            None => None,
            Some(path) if path == Path::new("-") => Some(Access::Stderr),
            Some(path) => {
                let file = open(path).map_err(|e| Failure::io("open", path, e))?;
                Some(Access::File(path.to_owned(), Mutex::new(file)))
            }
        };
        Ok(Journal { access })
    }
}

/// Nobody waits for whoever reads the log: a pipe that is not read from is an error, one that is full loses lines.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().append(true).create(true).custom_flags(flags.bits().cast_signed()).open(path)
}

impl spfs_net::server::Journal for Journal {
    fn note(&self, message: &str) {
        // Nobody to tell is no reason to fail.
        let _ = writeln!(anstream::stderr(), "spfs server: {message}");
    }

    fn access(&self, line: &str) {
        let line = format!("{line}\n");
        // A full disk is no reason to serve nobody.
        let _ = match &self.access {
            None => Ok(()),
            Some(Access::Stderr) => std::io::stderr().write_all(line.as_bytes()),
            Some(Access::File(_, file)) => {
                file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
            }
        };
    }

    fn wants_access(&self) -> bool {
        self.access.is_some()
    }

    fn reopen(&self) {
        let Some(Access::File(path, file)) = &self.access else { return };
        match open(path) {
            Ok(fresh) => *file.lock().unwrap_or_else(PoisonError::into_inner) = fresh,
            Err(error) => self.note(&format!("the access log stays where it was: {}: {error}", path.display())),
        }
    }
}
