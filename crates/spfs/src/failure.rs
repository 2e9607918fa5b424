//! An error that happened in another process: what a monitor's child tells the command that asked.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An error of another process, as it is sent and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind it is; decides exit codes and hints.
    pub kind: FailureKind,
    /// The message.
    pub message: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
}

/// The kinds that a program treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is nothing to commit.
    NothingToCommit,
    /// A file that no layer can hold, or that changed while it was read.
    Uncommittable,
    /// A disk, or the memory for changes, is full.
    OutOfSpace,
    /// The caller may not write there, or nobody may.
    Denied,
    /// A file in /spfs is open for writing.
    Busy,
    /// Overlayfs is missing, without which nothing can be changed.
    NoOverlay,
    /// The process that asked is not in the runtime.
    NotInside,
    /// Stopped on request.
    Interrupted,
    /// Any other.
    Other,
}

impl Failure {
    /// What is to be told of `error`.
    pub fn of(error: &Error) -> Self {
        if let Error::Monitor(failure) = error {
            return failure.clone();
        }
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        Failure { kind: kind(error), message: error.to_string(), causes }
    }

    /// A failure with a message and nothing else to say.
    pub fn unexplained(message: &str) -> Self {
        Failure { kind: FailureKind::Other, message: message.to_owned(), causes: Vec::new() }
    }
}

fn kind(error: &Error) -> FailureKind {
    use spfs_repo::Error as Repo;
    match error {
        Error::NothingToCommit { .. } => FailureKind::NothingToCommit,
        Error::Repo(Repo::Uncommittable { .. }) => FailureKind::Uncommittable,
        Error::Repo(Repo::Interrupted) => FailureKind::Interrupted,
        Error::Mount(spfs_mount::Error::Busy) => FailureKind::Busy,
        Error::Mount(spfs_mount::Error::NotInside) => FailureKind::NotInside,
        Error::Mount(spfs_mount::Error::NoBackend { source, .. } | spfs_mount::Error::Backend { source, .. })
            if matches!(**source, spfs_mount::Error::NoOverlay { .. }) =>
        {
            FailureKind::NoOverlay
        }
        _ if is_caused_by(error, &[ErrorKind::StorageFull, ErrorKind::QuotaExceeded]) => FailureKind::OutOfSpace,
        _ if is_caused_by(error, &[ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied]) => FailureKind::Denied,
        _ => FailureKind::Other,
    }
}

/// Whether the operating system said one of `kinds` somewhere among the causes.
fn is_caused_by(error: &Error, kinds: &[ErrorKind]) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| kinds.contains(&io.kind())) {
            return true;
        }
        cause = error.source();
    }
    false
}
