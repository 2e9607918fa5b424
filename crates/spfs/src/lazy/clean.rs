//! Removing what is here in part, and what no lazy runtime can use any more.
//!
//! What runtimes show (`uses.rs`; the records of this user's runtimes say the same of those that older versions have started),
//! and what a tag of a remote meant when it was last run, is kept with all below it, unless it has become whole: then
//! the repository itself has it. Parents go before what they refer to, each kind of object durably before the next: whatever kills
//! this, what is left has everything below it.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Serialize;
use spfs_repo::{Digest, Directory, Error as RepoError, Kind, Object, Repository};

use super::uses;
use crate::error::{Error, Result};
use crate::{Spfs, resolve, runtime, tracking};

/// What of it is not used.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Unused {
    /// Objects: platforms, layers and manifests.
    pub objects: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Objects that are used, or may be.
    pub kept: u64,
    /// Whether somebody who starts a lazy runtime, or cleans, kept us from looking.
    pub busy: bool,
}

/// Finds what of `repository` is here in part and used by no lazy runtime; removes it if `really`.
pub fn clean(spfs: &Spfs, repository: &Directory, really: bool) -> Result<Unused> {
    let Some(partial) = repository.partial()? else { return Ok(Unused::default()) };
    // Held until the end, so that nobody who starts finds what is about to go.
    let lock = if really { take(partial.root()) } else { None };
    if really && lock.is_none() {
        return Ok(Unused { busy: true, ..Unused::default() });
    }
    let mut roots = uses::needed(&partial, &spfs.env.hostname, really)?;
    roots.extend(runtime::list(spfs)?.into_iter().flat_map(|found| {
        let status = found.record.status;
        [status.stack, status.base, status.committed].concat()
    }));
    roots.extend(tracking::roots(repository));
    let here: HashSet<Digest> = repository.missing(&roots)?.into_iter().collect();
    roots.retain(|root| here.contains(root));
    let needed = below(&partial, roots)?;
    let all = partial.objects()?;
    let doomed: HashSet<Digest> = all.iter().filter(|digest| !needed.contains(digest)).copied().collect();
    let mut unused = Unused { kept: (all.len() - doomed.len()) as u64, ..Unused::default() };
    for digest in &doomed {
        let stat = std::fs::symlink_metadata(partial.object_path(digest));
        unused.objects += 1;
        unused.bytes += stat.map_or(0, |stat| stat.len());
    }
    if really {
        for same in in_order(&partial, &doomed)? {
            remove(&partial, &same)?;
        }
    }
    Ok(unused)
}

/// The lock of who cleans; `None` if it cannot be had now, or ever.
fn take(partial: &Path) -> Option<File> {
    let dir = File::open(partial).ok()?;
    rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(dir)
}

/// `roots` and everything below them, as far as it is here. What is damaged is of no use, and is fetched anew once it is
/// not here.
fn below(partial: &Directory, mut ahead: Vec<Digest>) -> Result<HashSet<Digest>> {
    let mut found = HashSet::new();
    while let Some(digest) = ahead.pop() {
        if !found.contains(&digest)
            && let Some(below) = children(partial, &digest)?
        {
            found.insert(digest);
            ahead.extend(below);
        }
    }
    Ok(found)
}

/// What an object refers to; nothing for a manifest. `None`: it is not here, or damaged.
fn children(partial: &Directory, digest: &Digest) -> Result<Option<Vec<Digest>>> {
    let children = resolve::kind(partial, digest).and_then(|kind| match kind {
        Kind::Manifest | Kind::Blob => Ok(Vec::new()),
        Kind::Layer | Kind::Platform => Ok(Object::children(&partial.read_object(digest)?)),
    });
    match children {
        Ok(children) => Ok(Some(children)),
        Err(Error::Repo(RepoError::Corrupt { .. } | RepoError::UnknownObject(_))) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `doomed` in groups, each of which nothing in a later group refers to: every platform by itself, layers, the rest.
fn in_order(partial: &Directory, doomed: &HashSet<Digest>) -> Result<Vec<Vec<Digest>>> {
    let (mut platforms, mut layers, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for digest in doomed {
        match resolve::kind(partial, digest) {
            Ok(Kind::Platform) => platforms.push(*digest),
            Ok(Kind::Layer) => layers.push(*digest),
            _ => rest.push(*digest),
        }
    }
    let mut groups: Vec<Vec<Digest>> = Vec::new();
    let mut done = HashSet::new();
    for platform in platforms {
        // Children first, from which the order is turned round below.
        let mut steps = vec![(platform, false)];
        while let Some((digest, children_done)) = steps.pop() {
            if children_done {
                groups.push(vec![digest]);
            } else if doomed.contains(&digest) && done.insert(digest) {
                steps.push((digest, true));
                let below = children(partial, &digest)?.unwrap_or_default();
                let nested =
                    below.into_iter().filter(|child| matches!(resolve::kind(partial, child), Ok(Kind::Platform)));
                steps.extend(nested.map(|child| (child, false)));
            }
        }
    }
    groups.reverse();
    groups.extend([layers, rest]);
    Ok(groups)
}

/// Removes objects, durably.
fn remove(partial: &Directory, objects: &[Digest]) -> Result<()> {
    let mut shards: HashSet<PathBuf> = HashSet::new();
    for digest in objects {
        partial.remove_object(digest)?;
        shards.extend(partial.object_path(digest).parent().map(Path::to_owned));
    }
    for shard in shards {
        // One that is gone, or cannot be opened, has nothing left to be made safe.
        let _ = File::open(&shard).and_then(|dir| dir.sync_all());
    }
    Ok(())
}
