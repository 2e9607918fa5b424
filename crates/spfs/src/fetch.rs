//! Finding in the remotes what is not here, and bringing it.

use std::sync::Arc;

use spfs_repo::reference::{Reference, Resolved};
use spfs_repo::{Error as RepoError, Repository};

use crate::error::{Error, Result};
use crate::resolve::Fetch;
use crate::sync::{self, Wanted};
use crate::{Spfs, lazy, remotes, tracking};

/// A remote, what it is called, and what was found in it.
pub type Found = (Arc<dyn Repository>, String, Vec<Wanted>);

/// The names of the remotes that are asked, in order: `origin`, then the others.
pub fn order(spfs: &Spfs) -> Vec<String> {
    let others = spfs.config.remotes.keys().filter(|name| *name != "origin");
    let origin = spfs.config.remotes.contains_key("origin").then(|| "origin".to_owned());
    origin.into_iter().chain(others.cloned()).collect()
}

/// Finds every one of `references` in the remote `from`, or in the first of all remotes that has it.
///
/// Errors: one that none has; if a remote could not be asked, why not.
pub fn find_all(spfs: &Spfs, from: Option<&str>, references: &[Reference]) -> Result<Vec<Found>> {
    let mut all: Vec<Found> = Vec::new();
    for reference in references {
        let (remote, name, wanted) = find(spfs, from, reference)?;
        match all.iter_mut().find(|(_, known, _)| *known == name) {
            Some((.., list)) => list.push(wanted),
            None => all.push((remote, name, vec![wanted])),
        }
    }
    Ok(all)
}

fn find(spfs: &Spfs, from: Option<&str>, reference: &Reference) -> Result<(Arc<dyn Repository>, String, Wanted)> {
    let names = from.map_or_else(|| order(spfs), |name| vec![name.to_owned()]);
    if names.is_empty() {
        let reason = "no remote is configured, and none was given with --remote";
        return Err(Error::invalid("reference", reference.to_string(), reason));
    }
    let (mut searched, mut trouble, mut near) = (Vec::new(), None, Vec::new());
    for name in names {
        let asked = remotes::open(spfs, Some(&name)).and_then(|remote| match sync::want(&*remote, reference) {
            Ok(wanted) => Ok((remote, wanted)),
            Err(error) => Err(error),
        });
        match asked {
            Ok((remote, wanted)) => return Ok((remote, name, wanted)),
            Err(Error::Repo(RepoError::UnknownReference { searched: address, similar, .. })) => {
                searched.extend(address);
                near.extend(similar);
            }
            // A remote that cannot be asked is no reason not to ask the next; but if none has it, it is the reason.
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    let reference = reference.to_string();
    Err(trouble.unwrap_or_else(|| RepoError::UnknownReference { reference, searched, similar: near }.into()))
}

/// What [`bring`] has done.
#[derive(Debug)]
pub struct Brought {
    /// What the reference means.
    pub found: Resolved,
    /// What happened, for people; or nothing.
    pub remark: String,
    /// The remotes that have the rest, if it was brought in part only.
    pub lazy: Vec<String>,
}

/// Brings what `reference` means in the remotes here, without a tag; for a tag, notes what it meant.
///
/// If no remote can be asked, what was noted the last time counts, if all of it is still here.
pub fn bring(spfs: &Spfs, reference: &Reference, fetch: &Fetch<'_>) -> Result<Brought> {
    let (remote, name, wanted) = match find(spfs, fetch.from, reference) {
        Ok(found) => found,
        // All remotes have answered: what it once meant there does not count any more.
        Err(error @ Error::Repo(RepoError::UnknownReference { .. })) => return Err(error),
        Err(error) => return tracking::recall(spfs, reference, fetch).ok_or(error),
    };
    let (options, progress) = (&fetch.options, fetch.progress);
    let mut remark = String::new();
    let mut lazy = Vec::new();
    if fetch.lazy && lazy::bring(spfs, &*remote, &wanted.digest, options, progress)? {
        lazy.push(lazy::name(spfs, &name, &*remote));
        remark = format!("{reference} is fetched from {name} as it is opened");
    } else {
        let bare = Wanted { digest: wanted.digest, tag: None };
        let plan = sync::plan(&*remote, &spfs.local, &[bare], options, progress)?;
        sync::apply(&*remote, &spfs.local, &plan, options, progress)?;
        if !plan.is_empty() {
            remark = format!("pulled {reference} from {name}");
        }
    }
    let spec = wanted.tag.and_then(|_| reference.to_string().parse().ok());
    // Everything is here: that it cannot be noted (a full disk, another user's directory) keeps nobody from using it.
    if let Some(spec) = &spec
        && let Err(error) = tracking::remember(spfs, &name, spec, wanted.digest)
    {
        let words = if remark.is_empty() { format!("{reference} was found in {name}") } else { remark };
        remark = format!("{words}; it cannot be noted for when {name} is away: {error}");
    }
    Ok(Brought { found: Resolved { digest: wanted.digest, tag: spec, shadowed: Vec::new() }, remark, lazy })
}
