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
    /// A remote could not be reached, or the connection to it did not hold.
    #[error("could not reach {address}: {trouble}")]
    Unreachable {
        /// The repository's address.
        address: String,
        /// What was in the way.
        trouble: NetTrouble,
        /// What the system or the other side said.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A remote does not let us do this.
    #[error("{address} refuses: {reason}")]
    Denied {
        /// The repository's address.
        address: String,
        /// What it said.
        reason: String,
        /// Whether it wants to know who asks: no token was given, or one that it does not know.
        unauthenticated: bool,
    },
    /// A remote was reached and could not do what it was asked.
    #[error("{address} could not {action}: {reason}")]
    Remote {
        /// The repository's address.
        address: String,
        /// What it was asked for, as a verb with its object.
        action: String,
        /// What it said.
        reason: String,
    },
    /// The caller asked for the work to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What is in the way of a remote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetTrouble {
    /// Its name means no address.
    #[error("its name cannot be resolved")]
    Unresolved,
    /// Nothing listens there.
    #[error("the connection was refused")]
    Refused,
    /// There is no way to it: no route, host or network down, a socket that is not there.
    #[error("there is no way to it")]
    NoRoute,
    /// It did not answer in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection was lost")]
    Lost,
    /// No agreement on TLS: a certificate that is not trusted, another name in it, no TLS at all.
    #[error("no secure connection could be made")]
    Tls,
    /// The program that makes the connection (`ssh`) could not be started, or ended.
    #[error("the program that makes the connection failed")]
    Program,
    /// What listens there speaks another protocol.
    #[error("what answers there is no spfs server")]
    Protocol,
}

impl NetTrouble {
    /// Whether trying again later may help: a server that is being restarted, a network that comes back.
    pub fn is_passing(self) -> bool {
        use NetTrouble::{Lost, NoRoute, Refused, TimedOut};
        matches!(self, Refused | NoRoute | TimedOut | Lost)
    }
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

    /// Whether a remote could not be reached, so that another may be asked.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Unreachable { .. })
    }

    /// Whether the same call may succeed if it is tried again in a moment.
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Unreachable { trouble, .. } if trouble.is_passing())
    }

    /// Whether the thing simply is not there (another repository may have it).
    pub fn is_unknown(&self) -> bool {
        matches!(self, Error::UnknownReference { .. } | Error::UnknownObject(_) | Error::MissingPayload(_))
    }
}
