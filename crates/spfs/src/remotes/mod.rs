//! Opening the repository that a name or an address means, and finding things in it.

mod address;
mod check;
mod open;
mod probe;
#[cfg(test)]
mod tests;

pub(crate) use check::problems;
pub use probe::{Part, probe};

use std::path::Path;
use std::sync::Arc;

use spfs_repo::reference::{Reference, Resolved};
use spfs_repo::{Error as RepoError, Repository};

use crate::error::Result;
use crate::resolve::near_tags;
use crate::spfs::Spfs;

/// Opens the repository that `name` means: the local one if nothing is given, else a configured remote, a URL, or a
/// path with a `/` in it. The parts of chains are names or addresses themselves.
///
/// Errors: a name that is not configured; an address that is wrong; a remote that contains itself; a repository that
/// is not there, unless it is lazy or stands behind another one.
pub fn open(spfs: &Spfs, name: Option<&str>) -> Result<Arc<dyn Repository>> {
    match name {
        None => Ok(Arc::new(spfs.local.clone())),
        Some(name) => open::Opener::new(spfs).open(name, false),
    }
}

/// Checks that `text` is an address that could be opened, and returns it in the form that may stand in a configuration
/// file: a path made absolute from `cwd`.
pub fn check_address(text: &str, cwd: &Path) -> Result<String> {
    address::absolute(text, cwd)
}

/// Finds what `reference` names in `repository`; if that is unknown, the error knows tags with near names.
pub fn resolve(repository: &dyn Repository, reference: &Reference) -> Result<Resolved> {
    reference.resolve(repository).map_err(|error| with_similar(repository, error).into())
}

/// Adds the tags with near names to an error about an unknown reference.
pub fn with_similar(repository: &dyn Repository, error: RepoError) -> RepoError {
    match error {
        RepoError::UnknownReference { reference, searched, .. } => {
            let similar = near_tags(&[repository], &reference);
            RepoError::UnknownReference { reference, searched, similar }
        }
        other => other,
    }
}
