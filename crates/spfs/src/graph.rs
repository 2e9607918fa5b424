//! Walking the object graph once: what is reached, from where first, and what is missing or damaged on the way.
//!
//! Memory: about 130 bytes per object that is reached, whatever the size of the payloads, and the manifests that are
//! being read at the time.

use std::collections::HashMap;

use spfs_repo::{Digest, Error as RepoError, Kind, Object, ObjectBody, Progress, Repository, codec};

use crate::error::Result;
use crate::parallel;

/// What has been reached.
#[derive(Default)]
pub(crate) struct Graph {
    pub nodes: Vec<Node>,
    index: HashMap<Digest, u32>,
}

/// One object that has been reached.
pub(crate) struct Node {
    pub digest: Digest,
    pub owner: Owner,
    /// `None` before it has been read, or if it cannot be.
    pub kind: Option<Kind>,
    /// Bytes of a blob, as it says itself or the manifest that led to it.
    pub size: u64,
}

/// From where an object was reached first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// It was found in the repository, and nothing is known to need it.
    Nobody,
    /// The root of this number, by the caller's counting.
    Root(u32),
    /// The node of this number.
    Node(u32),
}

/// Something that is wrong with one object or payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub node: u32,
    pub missing: bool,
    pub reason: String,
}

/// What reading one object gave.
struct Reading {
    kind: Option<Kind>,
    /// Of a blob.
    size: Option<u64>,
    /// Children with the size and whether they are known to be blobs.
    children: Vec<(Digest, u64, bool)>,
    fault: Option<(bool, String)>,
}

/// How a walk is done.
pub(crate) struct Walker<'a> {
    pub repository: &'a dyn Repository,
    pub threads: usize,
    /// Whether an object's content is compared with its digest.
    pub verify: bool,
    pub progress: &'a dyn Progress,
}

impl Graph {
    /// The number of an object that has been reached.
    pub fn find(&self, digest: &Digest) -> Option<u32> {
        self.index.get(digest).copied()
    }

    /// Notes an object; returns its number if it is new. One that had no owner gets this one.
    pub fn add(&mut self, digest: Digest, owner: Owner, size: u64, kind: Option<Kind>) -> Option<u32> {
        if let Some(&known) = self.index.get(&digest) {
            let node = &mut self.nodes[known as usize];
            // Nothing owns itself, whatever a damaged object says.
            if node.owner == Owner::Nobody && owner != Owner::Node(known) {
                node.owner = owner;
            }
            return None;
        }
        let number = self.nodes.len() as u32;
        self.index.insert(digest, number);
        self.nodes.push(Node { digest, owner, kind, size });
        Some(number)
    }

    /// The nodes on the way from `number` up to a root, nearest first, and that root.
    pub fn owners(&self, number: u32) -> (Vec<u32>, Option<u32>) {
        /// Objects cannot refer to themselves, but what has been altered may: stop at some point.
        const MOST: usize = 64;
        let mut chain = Vec::new();
        let mut owner = self.nodes[number as usize].owner;
        while chain.len() < MOST {
            match owner {
                Owner::Nobody => return (chain, None),
                Owner::Root(root) => return (chain, Some(root)),
                Owner::Node(above) => {
                    chain.push(above);
                    owner = self.nodes[above as usize].owner;
                }
            }
        }
        (chain, None)
    }

    /// Reads the objects `from` and everything below them. Blobs that a manifest names are noted, not read.
    pub fn walk(&mut self, walker: &Walker<'_>, from: Vec<u32>) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        let mut level = from;
        while !level.is_empty() {
            walker.progress.expect(level.len() as u64, 0);
            let digests: Vec<Digest> = level.iter().map(|&number| self.nodes[number as usize].digest).collect();
            let mut next = Vec::new();
            let read = |at: usize| if walker.progress.interrupted() { None } else { Some(walker.read(&digests[at])) };
            parallel::each(walker.threads, digests.len(), read, |at, reading| -> Result<()> {
                let Some(reading) = reading else { return Err(RepoError::Interrupted.into()) };
                let number = level[at];
                let node = &mut self.nodes[number as usize];
                node.kind = reading.kind;
                node.size = reading.size.unwrap_or(node.size);
                faults.extend(reading.fault.map(|(missing, reason)| Fault { node: number, missing, reason }));
                for (digest, size, blob) in reading.children {
                    let kind = blob.then_some(Kind::Blob);
                    let new = self.add(digest, Owner::Node(number), size, kind);
                    next.extend(new.filter(|_| !blob));
                }
                walker.progress.advance(1, 0);
                Ok(())
            })?;
            level = next;
        }
        Ok(faults)
    }
}

impl Walker<'_> {
    fn read(&self, digest: &Digest) -> Reading {
        let object = match self.repository.read_object(digest) {
            Ok(object) => object,
            Err(error) => {
                let missing = error.is_unknown();
                let reason = if missing { "it is not in the repository".to_owned() } else { chain(&error) };
                return Reading { kind: None, size: None, children: Vec::new(), fault: Some((missing, reason)) };
            }
        };
        // Blobs have no digest of their own to compare: whoever reads the payload looks at both.
        let compare = self.verify && object.kind() != Kind::Blob;
        let fault = if compare { mismatch(&object, digest).map(|reason| (false, reason)) } else { None };
        let size = match object.body {
            ObjectBody::Blob(blob) => Some(blob.size),
            _ => None,
        };
        Reading { kind: Some(object.kind()), size, children: children(&object), fault }
    }
}

/// Why `object` is not what its digest says, if it is not.
pub(crate) fn mismatch(object: &Object, digest: &Digest) -> Option<String> {
    match codec::digest(object) {
        Ok(found) if found == *digest => None,
        Ok(found) => Some(format!("its content has the digest {found}")),
        Err(error) => Some(chain(&error)),
    }
}

fn children(object: &Object) -> Vec<(Digest, u64, bool)> {
    match &object.body {
        ObjectBody::Manifest(manifest) => {
            let entries = manifest.trees.iter().flat_map(|tree| &tree.entries);
            let blobs = entries.filter(|entry| entry.kind == spfs_repo::EntryKind::Blob);
            blobs.map(|entry| (entry.object, entry.size, true)).collect()
        }
        ObjectBody::Layer(layer) => {
            let is_manifest = |digest: &Digest| Some(*digest) == layer.manifest;
            layer.children().into_iter().map(|digest| (digest, 0, !is_manifest(&digest))).collect()
        }
        _ => object.children().into_iter().map(|digest| (digest, 0, false)).collect(),
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
