//! Moving layers, platforms and tags from one repository to another: the one engine of push, pull and run.
//!
//! A [`Plan`] is made first: it walks the graph from the source, many objects in a round trip, and stops at what the
//! destination has, where present means complete. [`apply()`] then moves
//!
//! 1. large payloads into a directory, each gathered in a file of its own, so that it goes on where it stopped;
//! 2. the other payloads, many in a stream, with all blobs, in rounds of a few seconds, each of which is safe on disk
//!    before the next begins;
//! 3. the objects, children first, then the tags.
//!
//! Every byte is hashed on arrival, every object when it is read. Of two processes that fetch the same into one
//! directory, the second waits for what the first has claimed (`spfs_repo::directory::Claims`), and takes over if that
//! one ends. A connection that breaks is made again, and goes on where it was; what cannot pass is an error at once.
//!
//! Memory: 52 bytes for each blob that moves, the bytes of the manifest that each thread reads, which are copied as they
//! are, a few megabytes for each stream.

mod apply;
mod large;
mod objects;
mod plan;
mod retry;
mod small;

use serde::Serialize;
use spfs_repo::reference::Reference;
use spfs_repo::{Digest, Format, Repository, Tag, TagName};

use crate::error::Result;
use crate::remotes;

pub use apply::apply;
pub(crate) use objects::read_verified;
pub use plan::{plan, plan_blobs};
pub(crate) use retry::again;

/// What of that which the destination has is looked at again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Policy {
    /// Nothing: tags stay as they are, what is present is complete.
    #[default]
    MissingOnly,
    /// Tags: they are brought up to date.
    LatestTags,
    /// Tags, and every object and payload below what is asked for: what is missing is filled in.
    Check,
    /// The same, and what the destination has is read and compared; what is damaged is replaced.
    Resync,
}

/// How to move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// What is looked at again.
    pub policy: Policy,
    /// Payloads and objects on their way at the same time; 0 for a few.
    pub threads: usize,
}

/// Something to move: an object with all that it needs, and perhaps the record of the tag that led to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The object.
    pub digest: Digest,
    /// The record in the source.
    pub tag: Option<Tag>,
}

/// What will move, and what is there already.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Plan {
    /// Tag records to add.
    pub tags: Vec<TagMove>,
    /// Tags that stay as they are in the destination.
    pub tags_skipped: Vec<TagName>,
    /// Layers, platforms and manifests to add.
    pub objects: u64,
    /// Objects that are there already, as far as the walk went: what is below one that is there is not looked at.
    pub objects_skipped: u64,
    /// Payloads to move.
    pub payloads: u64,
    /// Payloads that are there already.
    pub payloads_skipped: u64,
    /// Bytes of the payloads to move.
    pub bytes: u64,
    #[serde(skip)]
    records: Vec<Tag>,
    /// Children first.
    #[serde(skip)]
    order: Vec<Digest>,
    #[serde(skip)]
    blobs: Vec<Piece>,
    #[serde(skip)]
    policy: Policy,
}

/// A tag that moves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TagMove {
    /// Its name.
    pub tag: TagName,
    /// What the record points to.
    pub target: Digest,
    /// Whether the destination has a younger record, so that the tag goes on meaning that.
    pub behind: bool,
}

/// A blob that moves, and whether its payload does.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Piece {
    digest: Digest,
    size: u64,
    format: Format,
    object: bool,
    payload: bool,
}

impl Plan {
    /// Whether nothing has to move.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.order.is_empty() && self.blobs.is_empty()
    }
}

/// Finds what `reference` means in `source`, with the record of the tag if it is one.
pub fn want(source: &dyn Repository, reference: &Reference) -> Result<Wanted> {
    let found = retry::first(|| reference.resolve(source)).map_err(|error| remotes::with_similar(source, error))?;
    let Some(spec) = found.tag else { return Ok(Wanted { digest: found.digest, tag: None }) };
    let history = retry::again(|| source.history(&spec.name))?;
    let record = history.into_iter().nth(usize::try_from(spec.version).unwrap_or(usize::MAX));
    // A record may have been made under another name; it goes on under the one that was asked for.
    let tag = record.map(|record| Tag { name: spec.name, ..record });
    // Between the two looks the tag may have moved: then the newer one is as good.
    Ok(Wanted { digest: tag.as_ref().map_or(found.digest, |tag| tag.target), tag })
}
