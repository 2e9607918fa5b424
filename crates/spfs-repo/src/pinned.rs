//! The pinned repository: another one, with its tags as they were at some time (`when=`).
//!
//! Records that are younger do not exist here, so versions are counted from that time, and a stream that was not there
//! yet is nowhere seen. Tags cannot be changed. Objects and payloads are those of the other one, to read and to write.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::digest::{Digest, DigestPrefix};
use crate::error::{Error, Result};
use crate::object::Object;
use crate::repository::{Batch, EachObject, EachPayload, PayloadReader, Repository, TagListing};
use crate::tag::{Tag, TagName};

/// A repository with its tags as they were at some time.
pub struct Pinned {
    repository: Arc<dyn Repository>,
    time: Timestamp,
}

impl Pinned {
    /// `repository` as it was at `time`, with what was written at that very instant.
    pub fn new(repository: Arc<dyn Repository>, time: Timestamp) -> Self {
        Pinned { repository, time }
    }

    /// The time that is looked at.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    fn refused<T>(&self) -> Result<T> {
        Err(Error::Unsupported {
            what: format!("changing tags in {}", self.address()),
            reason: "it shows the tags of an earlier time".to_owned(),
        })
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

impl Repository for Pinned {
    /// With the time in the form that is read back: `@`, RFC 3339, `Z`.
    fn address(&self) -> String {
        let address = self.repository.address();
        let separator = if address.contains('?') { '&' } else { '?' };
        format!("{address}{separator}when=@{}", self.time)
    }

    fn read_object(&self, digest: &Digest) -> Result<Object> {
        self.repository.read_object(digest)
    }

    fn read_encoded(&self, digests: &[Digest], each: &mut EachObject<'_>) -> Result<()> {
        self.repository.read_encoded(digests, each)
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.repository.missing(digests)
    }

    fn find(&self, prefix: &DigestPrefix) -> Result<Vec<Digest>> {
        self.repository.find(prefix)
    }

    fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.repository.remove_object(digest)
    }

    fn open_payload(&self, digest: &Digest) -> Result<PayloadReader> {
        self.repository.open_payload(digest)
    }

    fn open_payload_at(&self, digest: &Digest, offset: u64) -> Result<PayloadReader> {
        self.repository.open_payload_at(digest, offset)
    }

    fn read_payloads(&self, digests: &[Digest], each: &mut EachPayload<'_>) -> Result<()> {
        self.repository.read_payloads(digests, each)
    }

    fn missing_payloads(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.repository.missing_payloads(digests)
    }

    fn payloads(&self) -> Result<Vec<Digest>> {
        self.repository.payloads()
    }

    fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.repository.remove_payload(digest)
    }

    fn begin(&self) -> Result<Box<dyn Batch + '_>> {
        self.repository.begin()
    }

    fn in_namespace(&self, namespace: Option<&str>) -> Result<Box<dyn Repository>> {
        Ok(Box::new(Pinned::new(self.repository.in_namespace(namespace)?.into(), self.time)))
    }

    fn history(&self, name: &TagName) -> Result<Vec<Tag>> {
        let mut history = self.repository.history(name)?;
        history.retain(|tag| tag.time <= self.time);
        Ok(history)
    }

    fn insert_tag(&self, _tag: &Tag) -> Result<()> {
        self.refused()
    }

    fn push_tag(&self, _tag: &Tag) -> Result<Tag> {
        self.refused()
    }

    /// Namespaces are shown even if all in them is younger: their tags are out of sight from here.
    fn list_tags(&self, folder: &str) -> Result<Vec<TagListing>> {
        let mut listed = self.repository.list_tags(folder)?;
        if listed.iter().all(|item| matches!(item, TagListing::Namespace(_))) {
            return Ok(listed);
        }
        let folder: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        let prefix = folder.iter().map(|part| format!("{part}/")).collect::<String>();
        let mut folders = BTreeSet::new();
        let mut tags = BTreeSet::new();
        for name in self.repository.tag_names()? {
            let Some(rest) = name.as_str().strip_prefix(&prefix) else { continue };
            let first = rest.split_once('/').map_or(rest, |(first, _)| first);
            let found = if first.len() == rest.len() { &mut tags } else { &mut folders };
            if !found.contains(first) && !self.history(&name)?.is_empty() {
                found.insert(first.to_owned());
            }
        }
        listed.retain(|item| match item {
            TagListing::Folder(name) => folders.contains(name),
            TagListing::Tag(name) => tags.contains(name),
            TagListing::Namespace(_) => true,
        });
        Ok(listed)
    }

    fn tag_names(&self) -> Result<Vec<TagName>> {
        let mut found = Vec::new();
        for name in self.repository.tag_names()? {
            if !self.history(&name)?.is_empty() {
                found.push(name);
            }
        }
        Ok(found)
    }

    fn remove_tag(&self, _tag: &Tag) -> Result<()> {
        self.refused()
    }

    fn remove_tag_stream(&self, _name: &TagName) -> Result<()> {
        self.refused()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::directory::Directory;

    fn tag(name: &str, target: &str, second: i64) -> Tag {
        let time = Timestamp::from_second(second).unwrap();
        let target = Digest::of(target.as_bytes());
        Tag { name: name.parse().unwrap(), target, parent: Digest::NULL, user: "me@host".to_owned(), time }
    }

    #[test]
    fn content_conforms() {
        let place = tempfile::tempdir().unwrap();
        let mut count = 0;
        crate::conformance::run_content(&mut || {
            count += 1;
            let repository = Directory::create(place.path().join(count.to_string())).unwrap();
            Box::new(Pinned::new(Arc::new(repository), Timestamp::UNIX_EPOCH))
        });
    }

    #[test]
    fn tags_are_those_of_the_time() {
        let place = tempfile::tempdir().unwrap();
        let repository = Arc::new(Directory::create(place.path()).unwrap());
        for (name, target, second) in [
            ("t", "1", 10),
            ("t", "2", 20),
            ("t", "3", 30),
            ("young", "1", 30),
            ("o/old", "1", 5),
            ("o/young", "1", 30),
            ("p/q/young", "1", 30),
        ] {
            repository.push_tag(&tag(name, target, second)).unwrap();
        }
        let spaced = repository.as_ref().clone().with_namespace(Some("space")).unwrap();
        spaced.push_tag(&tag("in", "1", 30)).unwrap();
        let pinned = Pinned::new(repository.clone(), Timestamp::from_second(20).unwrap());
        let name = |text: &str| text.parse::<TagName>().unwrap();
        let targets: Vec<Digest> = pinned.history(&name("t")).unwrap().iter().map(|tag| tag.target).collect();
        assert_eq!(targets, [Digest::of(b"2"), Digest::of(b"1")]);
        assert_eq!(pinned.history(&name("young")).unwrap(), []);
        assert_eq!(pinned.tag_names().unwrap(), [name("o/old"), name("t")]);
        let listing = [
            TagListing::Folder("o".to_owned()),
            TagListing::Tag("t".to_owned()),
            TagListing::Namespace("space".to_owned()),
        ];
        assert_eq!(pinned.list_tags("").unwrap(), listing);
        assert_eq!(pinned.list_tags("/o/").unwrap(), [TagListing::Tag("old".to_owned())]);
        assert_eq!(pinned.list_tags("p").unwrap(), []);
        let early = Pinned::new(repository.clone(), Timestamp::from_second(4).unwrap());
        assert_eq!((early.tag_names().unwrap(), early.list_tags("o").unwrap()), (vec![], vec![]));
        for error in [
            pinned.push_tag(&tag("t", "2", 20)).unwrap_err(),
            pinned.insert_tag(&tag("new", "2", 20)).unwrap_err(),
            pinned.remove_tag(&tag("t", "1", 10)).unwrap_err(),
            pinned.remove_tag_stream(&name("t")).unwrap_err(),
        ] {
            assert!(error.to_string().contains("when=@1970-01-01T00:00:20Z"), "{error}");
        }
        assert_eq!(repository.history(&name("t")).unwrap().len(), 3);
    }
}
