//! What can go wrong in a repository: what failed, on what, and why.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a repository or of something read from one.
///
/// Messages are lowercase fragments; [`std::error::Error::source`] carries the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something; `action` says what was tried, as in "could not *open*".
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `rename`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A text that is not what it should be: a digest, tag, reference, namespace, time…
    #[error("invalid {what} {text:?}: {reason}")]
    Invalid {
        /// What it should have been, as in "tag".
        what: &'static str,
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is known by this name.
    #[error("unknown reference {reference:?}")]
    UnknownReference {
        /// The reference as given.
        reference: String,
        /// The addresses of the repositories that were asked.
        searched: Vec<String>,
        /// Near names that do exist.
        similar: Vec<String>,
    },
    /// A prefix that several objects share.
    #[error("ambiguous reference {reference:?}")]
    AmbiguousReference {
        /// The prefix as given.
        reference: String,
        /// The objects that it could mean, sorted.
        candidates: Vec<Digest>,
    },
    /// There is no object with this digest.
    #[error("unknown object {0}")]
    UnknownObject(Digest),
    /// There is no payload with this digest.
    #[error("missing payload {0}")]
    MissingPayload(Digest),
    /// The object is of another kind than the caller needs.
    #[error("{digest} is a {found}, not a {wanted}")]
    WrongKind {
        /// The object.
        digest: Digest,
        /// What it is.
        found: &'static str,
        /// What was wanted.
        wanted: &'static str,
    },
    /// Bytes that are not what they claim to be: cut short, altered, or of an unknown version.
    #[error("{what} is damaged: {reason}")]
    Corrupt {
        /// What, with its path or digest.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that this version cannot do or read.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What.
        what: String,
        /// Why, and from which version it is.
        reason: String,
    },
    /// A file that changed while it was read, or a special file in a tree.
    #[error("cannot commit {}: {reason}", path.display())]
    Uncommittable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process holds the lock, and still lives.
    #[error("{} is locked by {owner}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who, as the lock file says.
        owner: String,
    },
    /// The caller asked for the work to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(what: &'static str, text: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Invalid { what, text: text.into(), reason: reason.into() }
    }

    /// An [`Error::Corrupt`].
    pub fn corrupt(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Corrupt { what: what.into(), reason: reason.into() }
    }

    /// Makes an [`Error::Io`] of whatever the operating system said; for `map_err`.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { action, path, source: source.into() }
    }

    /// Whether the cause is a full disk or an exceeded quota.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Error::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether the thing simply is not there (another repository may have it).
    pub fn is_unknown(&self) -> bool {
        matches!(self, Error::UnknownReference { .. } | Error::UnknownObject(_) | Error::MissingPayload(_))
    }
}
