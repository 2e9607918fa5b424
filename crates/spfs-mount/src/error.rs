//! What can go wrong on the way to a mounted `/spfs`.

use std::io;
use std::path::PathBuf;

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure to make, enter or change a runtime's namespaces and mounts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a step; `detail` is what its file system context said, if anything.
    #[error("could not {action}{}", detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    System {
        /// What was tried, as a verb phrase.
        action: String,
        /// The kernel's own words, from the file system context.
        detail: Option<String>,
        /// Why it failed.
        source: io::Error,
    },
    /// A file could not be used.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// No user namespace may be made here.
    #[error("user namespaces are not permitted here")]
    UserNamespaceForbidden {
        /// What the kernel said.
        source: io::Error,
    },
    /// User namespaces are nested too deep (the kernel allows about 32), or too many exist.
    #[error("no further user namespace: runtimes are nested too deep, or the limit on namespaces is reached")]
    NamespaceLimit {
        /// What the kernel said.
        source: io::Error,
    },
    /// `/dev/fuse` cannot be opened, so that the metadata server cannot be used.
    #[error("could not open /dev/fuse")]
    NoFuse {
        /// Why.
        source: io::Error,
    },
    /// The kernel cannot mount what is needed.
    #[error("this kernel cannot show a runtime: {missing}")]
    KernelTooOld {
        /// What is missing.
        missing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Overlayfs cannot be used, so that there is no place for changes.
    #[error("overlayfs cannot be mounted here, so nothing in /spfs could be changed")]
    NoOverlay {
        /// What the kernel said.
        source: io::Error,
    },
    /// The one strategy that was asked for cannot be used.
    #[error("/spfs cannot be shown by the backend `{name}` here")]
    Backend {
        /// The strategy's name.
        name: &'static str,
        /// Why.
        source: Box<Error>,
    },
    /// No strategy can be used.
    #[error("/spfs cannot be shown here; {tried}; backend `{name}`")]
    NoBackend {
        /// The strategies that were tried before the last, with what each lacked.
        tried: String,
        /// The name of the last.
        name: &'static str,
        /// Why not even that one.
        source: Box<Error>,
    },
    /// `/spfs` cannot be made read-only while a file in it is open for writing.
    #[error("a file in /spfs is open for writing")]
    Busy,
    /// The monitor ended before it was ready.
    #[error("the runtime's monitor ended before it was ready")]
    MonitorGone,
    /// The process is not in the runtime's namespace.
    #[error("this process is not inside the runtime")]
    NotInside,
    /// A view, image or cache file is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest or a symlink's target could not be used.
    #[error(transparent)]
    Repository(#[from] spfs_repo::Error),
    /// More than a format can hold, or a value that it cannot express.
    #[error("{0}")]
    Limit(String),
}

impl Error {
    /// An [`Error::System`] without the kernel's own words; for `map_err`.
    pub fn system<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Error::System { action, detail: None, source: source.into() }
    }

    /// An [`Error::Io`]; for `map_err`.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Error::Io { action, path, source: source.into() }
    }
}
