//! The lazy repository: one that is opened when it is first used, so that what is away matters only to whoever needs it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::digest::{Digest, DigestPrefix};
use crate::directory::Directory;
use crate::error::Result;
use crate::object::Object;
use crate::repository::{Batch, EachObject, EachPayload, PayloadReader, Repository, TagListing};
use crate::tag::{Tag, TagName};

/// How the repository is opened.
type Open = Box<dyn Fn() -> Result<Arc<dyn Repository>> + Send + Sync>;

/// A repository that is opened when it is first used. As long as that fails, each use says why, and the next tries again.
pub struct Lazy {
    address: String,
    open: Open,
    opened: OnceLock<Arc<dyn Repository>>,
}

impl Lazy {
    /// The repository that `open` opens; `address` is what it is called until then.
    pub fn new(
        address: impl Into<String>,
        open: impl Fn() -> Result<Arc<dyn Repository>> + Send + Sync + 'static,
    ) -> Self {
        Lazy { address: address.into(), open: Box::new(open), opened: OnceLock::new() }
    }

    fn get(&self) -> Result<&dyn Repository> {
        if let Some(opened) = self.opened.get() {
            return Ok(&**opened);
        }
        let opened = (self.open)()?;
        Ok(&**self.opened.get_or_init(|| opened))
    }
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

impl Repository for Lazy {
    fn address(&self) -> String {
        self.opened.get().map_or_else(|| self.address.clone(), |opened| opened.address())
    }

    fn as_directory(&self) -> Option<&Directory> {
        self.get().ok()?.as_directory()
    }

    fn read_object(&self, digest: &Digest) -> Result<Object> {
        self.get()?.read_object(digest)
    }

    fn read_encoded(&self, digests: &[Digest], each: &mut EachObject<'_>) -> Result<()> {
        self.get()?.read_encoded(digests, each)
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.get()?.missing(digests)
    }

    fn find(&self, prefix: &DigestPrefix) -> Result<Vec<Digest>> {
        self.get()?.find(prefix)
    }

    fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.get()?.remove_object(digest)
    }

    fn open_payload(&self, digest: &Digest) -> Result<PayloadReader> {
        self.get()?.open_payload(digest)
    }

    fn open_payload_at(&self, digest: &Digest, offset: u64) -> Result<PayloadReader> {
        self.get()?.open_payload_at(digest, offset)
    }

    fn read_payloads(&self, digests: &[Digest], each: &mut EachPayload<'_>) -> Result<()> {
        self.get()?.read_payloads(digests, each)
    }

    fn missing_payloads(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.get()?.missing_payloads(digests)
    }

    fn payloads(&self) -> Result<Vec<Digest>> {
        self.get()?.payloads()
    }

    fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.get()?.remove_payload(digest)
    }

    fn begin(&self) -> Result<Box<dyn Batch + '_>> {
        self.get()?.begin()
    }

    fn in_namespace(&self, namespace: Option<&str>) -> Result<Box<dyn Repository>> {
        self.get()?.in_namespace(namespace)
    }

    fn history(&self, name: &TagName) -> Result<Vec<Tag>> {
        self.get()?.history(name)
    }

    fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.get()?.insert_tag(tag)
    }

    fn insert_tags(&self, tags: &[Tag]) -> Result<()> {
        self.get()?.insert_tags(tags)
    }

    fn push_tag(&self, tag: &Tag) -> Result<Tag> {
        self.get()?.push_tag(tag)
    }

    fn list_tags(&self, folder: &str) -> Result<Vec<TagListing>> {
        self.get()?.list_tags(folder)
    }

    fn tag_names(&self) -> Result<Vec<TagName>> {
        self.get()?.tag_names()
    }

    fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.get()?.remove_tag(tag)
    }

    fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.get()?.remove_tag_stream(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lazy_directory_conforms() {
        let place = tempfile::tempdir().unwrap();
        let mut count = 0;
        crate::conformance::run(&mut || {
            count += 1;
            let root = place.path().join(count.to_string());
            Box::new(Lazy::new("file:later", move || Ok(Arc::new(Directory::create(&root)?))))
        });
    }

    #[test]
    fn it_is_opened_when_it_comes_back() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("r");
        let at = root.clone();
        let lazy = Lazy::new("file:/later", move || Ok(Arc::new(Directory::open(&at)?)));
        assert_eq!(lazy.address(), "file:/later");
        assert!(lazy.payloads().unwrap_err().to_string().contains("could not open repository"));
        Directory::create(&root).unwrap();
        assert_eq!(lazy.payloads().unwrap(), []);
        assert!(lazy.address().starts_with("file:///"));
    }
}
