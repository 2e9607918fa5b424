//! What can go wrong in what people do: what failed, on what, and why.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of something that a person asked for.
///
/// Messages are lowercase fragments; [`std::error::Error::source`] carries the cause. What to type next is the
/// program's to say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A repository failed, or does not know what was asked for.
    #[error(transparent)]
    Repo(#[from] spfs_repo::Error),
    /// Namespaces, mounts, views or images failed.
    #[error(transparent)]
    Mount(#[from] spfs_mount::Error),
    /// A runtime's monitor could not do what it was asked.
    #[error("{}", .0.message)]
    Monitor(crate::failure::Failure),
    /// The command of a runtime could not be started.
    #[error("could not run {}", program.display())]
    Exec {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
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
    /// A configuration file or variable that cannot be used.
    #[error("invalid configuration in {place}: {reason}")]
    Config {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        reason: String,
    },
    /// A live layer, run spec or annotation file that cannot be used.
    #[error("invalid {what} {place}: {reason}")]
    SpecFile {
        /// What the file should have been, as in "live layer".
        what: &'static str,
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that a spec file names could not be found or used.
    #[error("in {place}")]
    Within {
        /// Where it is named.
        place: Place,
        /// What went wrong.
        source: Box<Error>,
    },
    /// A text that is not what it should be.
    #[error("invalid {what} {text:?}: {reason}")]
    Invalid {
        /// What it should have been, as in "annotation".
        what: &'static str,
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory that would not be safe to use: somebody else's, open to others, or a symlink.
    #[error("refusing to use {}: {reason}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no place for the records of live runtimes.
    #[error(transparent)]
    Records(Box<Error>),
    /// There is no runtime around the caller, and the verb needs one.
    #[error("no active runtime")]
    NoRuntime,
    /// No runtime has this name.
    #[error("unknown runtime {name:?}")]
    UnknownRuntime {
        /// The name as given.
        name: String,
        /// Near names that do exist.
        similar: Vec<String>,
    },
    /// The runtime is not in the state that the verb needs.
    #[error("cannot {action} runtime {name:?}: {reason}")]
    Runtime {
        /// What was tried, as a verb: `enter`, `remove`, …
        action: &'static str,
        /// The runtime's name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A path of a stored tree that is not there, or not what the verb needs.
    #[error("/spfs{}{path}: {reason}", if path.is_empty() { "" } else { "/" })]
    Path {
        /// Relative to /spfs.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A commit that would hold nothing.
    #[error("nothing to commit: {reason}")]
    NothingToCommit {
        /// What was looked at, and found the same or empty.
        reason: String,
    },
    /// There is no shell to start.
    #[error("found no shell: SHELL names none of {known}, and none of them is on the PATH or in /bin")]
    NoShell {
        /// The shells whose ways we know.
        known: &'static str,
    },
    /// Something that this version, or this machine, cannot do.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// What went wrong, without the places that led to it.
    pub fn innermost(&self) -> &Error {
        match self {
            Error::Within { source, .. } => source.innermost(),
            other => other,
        }
    }

    /// An [`Error::Path`].
    pub fn path(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Path { path: path.into(), reason: reason.into() }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(what: &'static str, text: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Invalid { what, text: text.into(), reason: reason.into() }
    }

    /// Makes an [`Error::Io`] of whatever the operating system said; for `map_err`.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { action, path, source: source.into() }
    }
}

/// A place in a file, or the name of an environment variable: `/etc/spfs.toml:3:7`, `SPFS_STORAGE_ROOT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file, or the variable's name.
    pub source: PathBuf,
    /// Line and column, counted from 1, where they are known.
    pub position: Option<(u64, u64)>,
}

impl Place {
    /// A file or variable as a whole.
    pub fn whole(source: impl Into<PathBuf>) -> Self {
        Place { source: source.into(), position: None }
    }

    /// A line and a column (from 1) of a file.
    pub fn at(source: impl Into<PathBuf>, line: u64, column: u64) -> Self {
        Place { source: source.into(), position: Some((line, column)) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source.display())?;
        match self.position {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

/// Something that does not stop the work, and that a person should hear of.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A variable that looks like configuration and is none.
    #[error("unknown environment variable {name}{}", perhaps(similar.as_deref()))]
    UnknownVariable {
        /// Its name.
        name: String,
        /// The nearest variable that has a meaning.
        similar: Option<String>,
    },
    /// A key in a configuration file that has no meaning.
    #[error("unknown key {key:?} in {}{}", file.display(), perhaps(similar.as_deref()))]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The whole name of the key.
        key: String,
        /// The nearest key that has a meaning.
        similar: Option<String>,
    },
    /// A configuration file that is not read.
    #[error("{} is not read: {reason}", file.display())]
    UnreadFile {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A remote that says neither where nor what it is.
    #[error("remote {name:?} has neither an address nor a scheme")]
    IncompleteRemote {
        /// The remote's name.
        name: String,
    },
    /// A `fallback:` repository found something in a secondary that its primary lacked.
    #[error("{}", repaired(digest, *is_payload, from, error.as_deref()))]
    Repaired {
        /// The object or payload.
        digest: spfs_repo::Digest,
        /// Whether it is a payload.
        is_payload: bool,
        /// The address of the repository that has it.
        from: String,
        /// Why it could not be copied; it was read from there then.
        error: Option<String>,
    },
    /// A tag that is also the beginning of digests; the tag was taken.
    #[error("{name:?} is a tag and also the beginning of {}; the tag was taken", list(digests))]
    ShadowedDigests {
        /// As typed.
        name: String,
        /// The objects that it could have meant.
        digests: Vec<spfs_repo::Digest>,
    },
}

fn repaired(digest: &spfs_repo::Digest, is_payload: bool, from: &str, error: Option<&str>) -> String {
    let what = if is_payload { "payload" } else { "object" };
    match error {
        None => format!("repaired a missing {what}: {digest} came from {from}"),
        Some(error) => format!("a missing {what}, {digest}, is in {from} and could not be copied: {error}"),
    }
}

fn perhaps(similar: Option<&str>) -> String {
    similar.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

fn list(digests: &[spfs_repo::Digest]) -> String {
    digests.iter().map(|digest| digest.short(10)).collect::<Vec<_>>().join(", ")
}
