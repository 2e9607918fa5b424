//! The one trait of this crate: a place that keeps objects, payloads and tags.

use std::io::Read;

use crate::codec::Encoded;
use crate::digest::{Digest, DigestPrefix};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::object::Object;
use crate::tag::{Tag, TagName};

/// The bytes of one payload, from the beginning.
pub type PayloadReader = Box<dyn Read + Send>;

/// What [`Repository::read_payloads`] calls for every payload: its digest and its content.
pub type EachPayload<'a> = dyn FnMut(&Digest, &mut dyn Read) -> Result<()> + 'a;

/// What [`Repository::read_encoded`] calls for every object.
pub type EachObject<'a> = dyn FnMut(&Digest, Encoded) -> Result<()> + 'a;

/// A place that keeps objects, payloads and tags. Shared between threads.
///
/// **Present means complete**: an object is there only if everything that it refers to is there too, so a walk may
/// stop at the first object that it finds. The tag namespace is chosen when a repository is opened.
pub trait Repository: Send + Sync {
    /// Where it is, as a URL that opens it again: `file:///abs/path/`.
    fn address(&self) -> String;

    /// The directory that it is, if it is one on this machine: for what needs paths, and for faster ways.
    fn as_directory(&self) -> Option<&Directory> {
        None
    }

    /// Reads one object. Unknown: [`crate::Error::UnknownObject`].
    fn read_object(&self, digest: &Digest) -> Result<Object>;

    /// Gives many objects to `each`, in the given order, as their bytes, which are sound and of the digest that was
    /// asked for; a remote sends them in a few round trips. The first that is unknown or damaged, or the first error of
    /// `each`, ends it.
    fn read_encoded(&self, digests: &[Digest], each: &mut EachObject<'_>) -> Result<()> {
        digests.iter().try_for_each(|digest| each(digest, Encoded::of(&self.read_object(digest)?)?))
    }

    /// Those of `digests` that are not here as objects, in the given order.
    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>>;

    /// The objects whose digest begins with `prefix`, sorted.
    fn find(&self, prefix: &DigestPrefix) -> Result<Vec<Digest>>;

    /// Removes one object; one that is not there is no error.
    fn remove_object(&self, digest: &Digest) -> Result<()>;

    /// Opens one payload. Unknown: [`crate::Error::MissingPayload`].
    fn open_payload(&self, digest: &Digest) -> Result<PayloadReader>;

    /// Opens one payload at `offset`, to go on where an earlier reader stopped; a remote sends only what follows. An
    /// offset beyond the end leaves nothing to read.
    fn open_payload_at(&self, digest: &Digest, offset: u64) -> Result<PayloadReader> {
        let mut reader = self.open_payload(digest)?;
        std::io::copy(&mut reader.by_ref().take(offset), &mut std::io::sink())
            .map_err(Error::io("read", format!("payload {digest}")))?;
        Ok(reader)
    }

    /// Gives many payloads to `each`, one after the other in the given order, each with a reader of its content, which
    /// `each` need not read to its end; a remote sends them in one stream. The first payload that is unknown, or the
    /// first error of `each`, ends it.
    ///
    /// The content is not verified here: `each` passes it on to [`Batch::add_payload`], or hashes it.
    fn read_payloads(&self, digests: &[Digest], each: &mut EachPayload<'_>) -> Result<()> {
        digests.iter().try_for_each(|digest| each(digest, &mut *self.open_payload(digest)?))
    }

    /// Those of `digests` that are not here as payloads, in the given order.
    fn missing_payloads(&self, digests: &[Digest]) -> Result<Vec<Digest>>;

    /// Every payload, sorted.
    fn payloads(&self) -> Result<Vec<Digest>>;

    /// Removes one payload; one that is not there is no error.
    fn remove_payload(&self, digest: &Digest) -> Result<()>;

    /// Begins a batch, the one way in for payloads and objects.
    ///
    /// A batch of a remote gathers what is small and sends it many at a time, so an error may come with a later call,
    /// or with [`Batch::finish`].
    fn begin(&self) -> Result<Box<dyn Batch + '_>>;

    /// The same repository with its tags in `namespace`, whatever it was opened with; `None` for none.
    ///
    /// Errors: [`Error::Invalid`] for what is no name; [`Error::Unsupported`] where tags have one place only.
    fn in_namespace(&self, namespace: Option<&str>) -> Result<Box<dyn Repository>> {
        let reason = "its tags are in one place only".to_owned();
        let what = format!("the tag namespace {:?} in {}", namespace.unwrap_or_default(), self.address());
        Err(Error::Unsupported { what, reason })
    }

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

    /// Adds one object as its bytes; those of a large manifest are not taken apart where that can be helped.
    fn add_encoded(&self, object: &Encoded) -> Result<Digest> {
        self.add_object(&object.object()?)
    }

    /// Makes everything durable, then visible.
    fn finish(self: Box<Self>) -> Result<()>;
}
