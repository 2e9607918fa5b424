//! What in a repository nothing needs any more, and how big that is. Looking only: nothing in here deletes.

use serde::Serialize;
use spfs_repo::{Digest, DigestPrefix, Directory, Progress, Repository, TagListing};

use crate::error::Result;
use crate::graph::{Graph, Owner, Walker};
use crate::{lazy, parallel};

/// How many of the biggest things a plan names.
const LARGEST: usize = 10;

/// What cleaning would remove.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Plan {
    /// Versions of tags, in every namespace, and other roots that were walked from.
    pub roots: u64,
    /// Objects that nothing needs.
    pub objects: Unneeded,
    /// Payloads that nothing needs.
    pub payloads: Unneeded,
    /// What could not be read on the way from the roots: what it refers to is not known, so the plan may name too
    /// much. Cleaning must not go by a plan that has any.
    pub unreadable: Vec<Unreadable>,
}

/// Things of one sort that nothing needs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Unneeded {
    /// How many there are, needed or not.
    pub visited: u64,
    /// How many nothing needs.
    pub count: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// The biggest of those, the biggest first.
    pub largest: Vec<Piece>,
}

/// One thing that nothing needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Piece {
    /// Its digest.
    pub digest: Digest,
    /// Its file's length.
    pub bytes: u64,
}

/// Something that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unreadable {
    /// A digest, or the name of a tag.
    pub what: String,
    /// Why not.
    pub reason: String,
}

/// Looks for what neither a tag, in any namespace, nor one of `extra_roots` (what runtimes use) needs.
pub fn plan(repository: &Directory, extra_roots: &[Digest], progress: &dyn Progress) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut roots: Vec<Digest> = extra_roots.to_vec();
    collect(&repository.clone().with_namespace(None)?, &mut roots, &mut plan)?;
    plan.roots = roots.len() as u64;
    let mut graph = Graph::default();
    let new = roots.into_iter().filter_map(|root| graph.add(root, Owner::Root(0), 0, None)).collect();
    // What runtimes show may be here in part.
    let shown = lazy::with_partial(repository)?;
    let walker = Walker { repository: &*shown, threads: parallel::cores(), verify: false, progress };
    for fault in graph.walk(&walker, new)? {
        // What is not there needs nothing: `check` is for that.
        if !fault.missing {
            let what = graph.nodes[fault.node as usize].digest.to_string();
            plan.unreadable.push(Unreadable { what, reason: fault.reason });
        }
    }
    let needed = |digest: &Digest| graph.find(digest).is_some();
    plan.objects = unneeded(repository.find(&DigestPrefix::any())?, needed, |digest| repository.object_path(digest));
    plan.payloads = unneeded(repository.payloads()?, needed, |digest| repository.payload_path(digest));
    Ok(plan)
}

/// Adds the targets of every version of every tag of `repository`, and of the namespaces in it.
fn collect(repository: &Directory, roots: &mut Vec<Digest>, plan: &mut Plan) -> Result<()> {
    for name in repository.tag_names()? {
        match repository.history(&name) {
            Ok(records) => roots.extend(records.into_iter().map(|record| record.target)),
            Err(error) => {
                let reason = crate::graph::chain(&error);
                plan.unreadable.push(Unreadable { what: name.to_string(), reason });
            }
        }
    }
    for item in repository.list_tags("")? {
        if let TagListing::Namespace(inner) = item {
            match (repository.namespace(), repository.clone().with_namespace(Some(&inner))) {
                (None, Ok(namespace)) => collect(&namespace, roots, plan)?,
                // Upstream takes any path for a namespace; what is in such a one cannot be opened.
                (outer, opened) => {
                    let what = format!("tag namespace {}{inner}", outer.map(|o| format!("{o}/")).unwrap_or_default());
                    let reason = opened.map_or_else(|e| e.to_string(), |_| "namespaces do not nest".to_owned());
                    plan.unreadable.push(Unreadable { what, reason });
                }
            }
        }
    }
    Ok(())
}

fn unneeded(
    all: Vec<Digest>,
    needed: impl Fn(&Digest) -> bool,
    path: impl Fn(&Digest) -> std::path::PathBuf,
) -> Unneeded {
    let mut found = Unneeded { visited: all.len() as u64, ..Unneeded::default() };
    for digest in all.into_iter().filter(|digest| !needed(digest)) {
        // One that has gone meanwhile takes no space.
        let Ok(metadata) = std::fs::symlink_metadata(path(&digest)) else { continue };
        let bytes = metadata.len();
        found.count += 1;
        found.bytes += bytes;
        let at = found.largest.partition_point(|piece| piece.bytes >= bytes);
        if at < LARGEST {
            found.largest.insert(at, Piece { digest, bytes });
            found.largest.truncate(LARGEST);
        }
    }
    found
}
