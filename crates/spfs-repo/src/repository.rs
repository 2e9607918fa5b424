//! The one trait of this crate: a place that keeps objects, payloads and tags.

use std::io::Read;

use crate::digest::{Digest, DigestPrefix};
use crate::error::Result;
use crate::object::Object;
use crate::tag::{Tag, TagName};

/// The bytes of one payload, from the beginning.
pub type PayloadReader = Box<dyn Read + Send>;

/// A place that keeps objects, payloads and tags. Shared between threads.
///
/// **Present means complete**: an object is there only if everything that it refers to is there too, so a walk may
/// stop at the first object that it finds. The tag namespace is chosen when a repository is opened.
pub trait Repository: Send + Sync {
    /// Where it is, as a URL that opens it again: `file:///abs/path/`.
    fn address(&self) -> String;

    /// Reads one object. Unknown: [`crate::Error::UnknownObject`].
    fn read_object(&self, digest: &Digest) -> Result<Object>;

    /// Those of `digests` that are not here as objects, in the given order.
    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>>;

    /// The objects whose digest begins with `prefix`, sorted.
    fn find(&self, prefix: &DigestPrefix) -> Result<Vec<Digest>>;

    /// Removes one object; one that is not there is no error.
    fn remove_object(&self, digest: &Digest) -> Result<()>;

    /// Opens one payload. Unknown: [`crate::Error::MissingPayload`].
    fn open_payload(&self, digest: &Digest) -> Result<PayloadReader>;

    /// Those of `digests` that are not here as payloads, in the given order.
    fn missing_payloads(&self, digests: &[Digest]) -> Result<Vec<Digest>>;

    /// Every payload, sorted.
    fn payloads(&self) -> Result<Vec<Digest>>;

    /// Removes one payload; one that is not there is no error.
    fn remove_payload(&self, digest: &Digest) -> Result<()>;

    /// Begins a batch, the one way in for payloads and objects.
    fn begin(&self) -> Result<Box<dyn Batch + '_>>;

    /// The records of one tag stream, newest first; empty if there is no such stream.
    fn history(&self, name: &TagName) -> Result<Vec<Tag>>;

    /// Adds `tag` to its stream at its place in time order; an equal record is dropped. Durable on return.
    fn insert_tag(&self, tag: &Tag) -> Result<()>;

    /// Adds each of `tags` as [`Repository::insert_tag`] does; all at once, where that is cheaper.
    fn insert_tags(&self, tags: &[Tag]) -> Result<()> {
        tags.iter().try_for_each(|tag| self.insert_tag(tag))
    }

    /// Makes `tag` the newest of its stream, unless the newest has the same target already.
    ///
    /// The parent is set here, under the lock; a time that is not later than the newest record's is moved just
    /// behind it. Returns the record that is the newest now. Durable on return.
    fn push_tag(&self, tag: &Tag) -> Result<Tag>;

    /// What is directly below `folder` (`""` or `/` for the top), sorted; a missing folder is empty.
    fn list_tags(&self, folder: &str) -> Result<Vec<TagListing>>;

    /// The names of all streams, sorted.
    fn tag_names(&self) -> Result<Vec<TagName>>;

    /// Removes one record from its stream. Not there: [`crate::Error::UnknownReference`].
    fn remove_tag(&self, tag: &Tag) -> Result<()>;

    /// Removes a whole stream. Not there: [`crate::Error::UnknownReference`].
    fn remove_tag_stream(&self, name: &TagName) -> Result<()>;
}

/// One item of [`Repository::list_tags`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TagListing {
    /// A folder that holds more; printed with a `/` behind it.
    Folder(String),
    /// A tag stream.
    Tag(String),
    /// A tag namespace; printed with `#ns` behind it.
    Namespace(String),
}

/// Payloads and objects on their way in. Shared between threads; dropped without [`Batch::finish`], nothing remains.
///
/// What was added becomes visible, all of it safe on disk, in `finish`: children before parents.
pub trait Batch: Send + Sync {
    /// Adds one payload, hashing it as it is read, and returns its digest and size. If `expected` is given and the
    /// content has another digest, that is [`crate::Error::Corrupt`] and nothing is kept.
    fn add_payload(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)>;

    /// Adds one object and returns its digest. Its children must be here already, or in this batch before it.
    fn add_object(&self, object: &Object) -> Result<Digest>;

    /// Makes everything durable, then visible.
    fn finish(self: Box<Self>) -> Result<()>;
}
