//! Which repository a command works on, and finding things in it.

use std::sync::Arc;

use spfs::repo::reference::{Reference, Resolved};
use spfs::repo::{Digest, Directory, Repository};
use spfs::tags::Author;
use spfs::{EnvSpec, Spfs};

use crate::errors::{Failure, Result, warn};

// `-r/--remote`, for every command that can work on another repository than the local one.
#[derive(clap::Args)]
pub struct Choice {
    /// Work on this repository instead of the local one: a configured remote, an address, or a path with a `/`
    #[arg(short, long, value_name = "NAME_OR_ADDRESS")]
    pub remote: Option<String>,
}

impl Choice {
    /// Opens it.
    pub fn open(&self, spfs: &Spfs) -> Result<Arc<dyn Repository>> {
        Ok(spfs::remotes::open(spfs, self.remote.as_deref())?)
    }

    /// The objects that an env spec means in `repository`, which is this one: bottom-most first, not taken apart.
    pub fn stack(&self, spfs: &Spfs, repository: &dyn Repository, text: &str) -> Result<Vec<Digest>> {
        let spec: EnvSpec = text.parse()?;
        if self.remote.is_none() {
            let stack = spfs::resolve(spfs, &spec)?;
            stack.warnings.iter().for_each(|warning| warn(&warning.to_string()));
            return Ok(stack.digests);
        }
        let mut stack = Vec::new();
        for item in &spec.items {
            if matches!(item, Reference::Path(_)) {
                return Err(Failure::new(format!("{item} is a file of this machine, not something in a repository")));
            }
            spfs::stack::push(&mut stack, find(repository, item)?.digest);
        }
        Ok(stack)
    }

    /// The layers of [`Choice::stack`], bottom-most first.
    pub fn layers(&self, spfs: &Spfs, repository: &dyn Repository, text: &str) -> Result<Vec<Digest>> {
        Ok(spfs::stack::expand(repository, &self.stack(spfs, repository, text)?)?)
    }
}

/// The directory that `repository` is, for a command that works on files.
pub fn directory<'a>(repository: &'a dyn Repository, what: &str) -> Result<&'a Directory> {
    repository.as_directory().ok_or_else(|| {
        let reason = format!("{what} works on a directory; do it here, and `spfs push` or `spfs pull`");
        let what = format!("this for {}", repository.address());
        spfs::Error::Unsupported { what, reason }.into()
    })
}

/// Finds the object that `text` names, and warns where it could have meant another.
pub fn resolve(repository: &dyn Repository, text: &str) -> Result<Resolved> {
    find(repository, &text.parse()?)
}

fn find(repository: &dyn Repository, reference: &Reference) -> Result<Resolved> {
    let resolved = spfs::remotes::resolve(repository, reference)?;
    if !resolved.shadowed.is_empty() {
        let (name, digests) = (reference.to_string(), resolved.shadowed.clone());
        warn(&spfs::Warning::ShadowedDigests { name, digests }.to_string());
    }
    Ok(resolved)
}

/// Who makes tags, and when: now.
pub fn author(spfs: &Spfs) -> Author {
    Author { user: spfs.user(), time: spfs.env.now() }
}
