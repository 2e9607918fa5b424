//! The chained repository: one that is written to, and others behind it that are asked for what it does not have.
//!
//! * Reads of one object, payload or tag stream ask the primary, then the secondaries in order, as long as the answer
//!   is "unknown". If one of them could not answer, and none of the others knows, its error is the answer.
//! * Writing, removing, listing objects and payloads, and prefixes of digests concern the primary alone.
//! * Listings of tags are merged, unless [`Chain::with_secondary_tags`] says no. A stream comes from the first
//!   repository that has it, as a whole.
//! * What is added may refer to what only a secondary has: that is copied into the primary first, so that there too
//!   present means complete.
//! * A [repairing](Chain::repairing) chain (`fallback:`) copies what it found in a secondary into the primary before it
//!   is used: an object with all that it refers to, a payload by itself.
//!
//! A chain may be part of another one.

mod copy;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

use crate::codec::Encoded;
use crate::digest::{Digest, DigestPrefix};
use crate::error::{Error, Result};
use crate::object::Object;
use crate::query::encode;
use crate::repository::{Batch, EachObject, EachPayload, PayloadReader, Repository, TagListing};
use crate::tag::{Tag, TagName};

/// Several repositories that are read as one.
pub struct Chain {
    primary: Arc<dyn Repository>,
    secondaries: Vec<Arc<dyn Repository>>,
    secondary_tags: bool,
    repair: Option<Report>,
}

/// Hears of every repair.
type Report = Arc<dyn Fn(&Repair) + Send + Sync>;

/// What a repairing chain has copied into its primary, or could not.
#[derive(Debug)]
pub struct Repair {
    /// The object or payload.
    pub digest: Digest,
    /// Whether it is a payload.
    pub is_payload: bool,
    /// The address of the repository that has it.
    pub from: String,
    /// Why it could not be copied; it was read from there then.
    pub error: Option<Error>,
}

impl Chain {
    /// A chain (`proxy:`) that writes to `primary`.
    pub fn new(primary: Arc<dyn Repository>, secondaries: Vec<Arc<dyn Repository>>) -> Self {
        Chain { primary, secondaries, secondary_tags: true, repair: None }
    }

    /// Whether listings show the tags of the secondaries too, which they do if nothing else is said. A stream that is
    /// asked for by name is found in any case.
    pub fn with_secondary_tags(mut self, shown: bool) -> Self {
        self.secondary_tags = shown;
        self
    }

    /// A chain (`fallback:`) that copies what the primary lacks into it. `report` hears of each repair.
    pub fn repairing(mut self, report: impl Fn(&Repair) + Send + Sync + 'static) -> Self {
        self.repair = Some(Arc::new(report));
        self
    }

    /// The repository that is written to.
    pub fn primary(&self) -> &Arc<dyn Repository> {
        &self.primary
    }

    /// The repositories behind it, in the order in which they are asked.
    pub fn secondaries(&self) -> &[Arc<dyn Repository>] {
        &self.secondaries
    }

    /// Asks the secondaries in order. `unknown` is the answer if all of them say so.
    fn ask<T>(&self, unknown: Error, read: impl Fn(&dyn Repository) -> Result<T>) -> Result<(T, &dyn Repository)> {
        let mut trouble = None;
        for secondary in &self.secondaries {
            match read(&**secondary) {
                Ok(found) => return Ok((found, &**secondary)),
                Err(e) if e.is_unknown() => {}
                Err(e) => trouble = trouble.or(Some(e)),
            }
        }
        Err(trouble.unwrap_or(unknown))
    }

    /// Those of `digests` that no repository of the chain has.
    fn missing_everywhere(
        &self,
        digests: &[Digest],
        missing: impl Fn(&dyn Repository, &[Digest]) -> Result<Vec<Digest>>,
    ) -> Result<Vec<Digest>> {
        let mut left = missing(&*self.primary, digests)?;
        let mut trouble = None;
        for secondary in &self.secondaries {
            if left.is_empty() {
                break;
            }
            match missing(&**secondary, &left) {
                Ok(still) => left = still,
                Err(e) => trouble = trouble.or(Some(e)),
            }
        }
        match trouble {
            // Whether it is missing cannot be said.
            Some(e) if !left.is_empty() => Err(e),
            _ => Ok(left),
        }
    }

    /// The repositories whose tags are listed.
    fn listed(&self) -> impl Iterator<Item = &Arc<dyn Repository>> {
        let secondaries = if self.secondary_tags { &self.secondaries[..] } else { &[] };
        std::iter::once(&self.primary).chain(secondaries)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

impl Repository for Chain {
    fn address(&self) -> String {
        let scheme = if self.repair.is_some() { "fallback" } else { "proxy" };
        let mut address = format!("{scheme}:?primary={}", encode(&self.primary.address()));
        for (n, secondary) in self.secondaries.iter().enumerate() {
            address += &format!("&secondary[{n}]={}", encode(&secondary.address()));
        }
        if !self.secondary_tags {
            address += "&include_secondary_tags=false";
        }
        address
    }

    fn read_object(&self, digest: &Digest) -> Result<Object> {
        let unknown = match self.primary.read_object(digest) {
            Err(e) if e.is_unknown() => e,
            result => return result,
        };
        let (object, from) = self.ask(unknown, |secondary| secondary.read_object(digest))?;
        if let Some(report) = &self.repair {
            let error = self.repair_object(digest).err();
            report(&Repair { digest: *digest, is_payload: false, from: from.address(), error });
        }
        Ok(object)
    }

    /// Asks the primary for all at once, if it has them all.
    fn read_encoded(&self, digests: &[Digest], each: &mut EachObject<'_>) -> Result<()> {
        match self.primary.missing(digests)?.is_empty() {
            true => self.primary.read_encoded(digests, each),
            false => digests.iter().try_for_each(|digest| each(digest, Encoded::of(&self.read_object(digest)?)?)),
        }
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.missing_everywhere(digests, |repository, digests| repository.missing(digests))
    }

    fn find(&self, prefix: &DigestPrefix) -> Result<Vec<Digest>> {
        self.primary.find(prefix)
    }

    fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.primary.remove_object(digest)
    }

    fn open_payload(&self, digest: &Digest) -> Result<PayloadReader> {
        let unknown = match self.primary.open_payload(digest) {
            Err(e) if e.is_unknown() => e,
            result => return result,
        };
        let (reader, from) = self.ask(unknown, |secondary| secondary.open_payload(digest))?;
        let Some(report) = &self.repair else { return Ok(reader) };
        drop(reader);
        let repaired = self.repair_payload(digest);
        let is_repaired = repaired.is_ok();
        report(&Repair { digest: *digest, is_payload: true, from: from.address(), error: repaired.err() });
        if is_repaired { self.primary.open_payload(digest) } else { from.open_payload(digest) }
    }

    fn open_payload_at(&self, digest: &Digest, offset: u64) -> Result<PayloadReader> {
        match self.primary.open_payload_at(digest, offset) {
            Err(e) if e.is_unknown() => {}
            result => return result,
        }
        if self.repair.is_some() {
            self.open_payload(digest)?;
            return self.primary.open_payload_at(digest, offset);
        }
        Ok(self.ask(Error::MissingPayload(*digest), |secondary| secondary.open_payload_at(digest, offset))?.0)
    }

    /// Asks the primary for all at once, if it has them all.
    fn read_payloads(&self, digests: &[Digest], each: &mut EachPayload<'_>) -> Result<()> {
        match self.primary.missing_payloads(digests)?.is_empty() {
            true => self.primary.read_payloads(digests, each),
            false => digests.iter().try_for_each(|digest| each(digest, &mut *self.open_payload(digest)?)),
        }
    }

    fn missing_payloads(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.missing_everywhere(digests, |repository, digests| repository.missing_payloads(digests))
    }

    fn payloads(&self) -> Result<Vec<Digest>> {
        self.primary.payloads()
    }

    fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.primary.remove_payload(digest)
    }

    fn begin(&self) -> Result<Box<dyn Batch + '_>> {
        Ok(Box::new(ChainBatch { chain: self, inner: self.primary.begin()? }))
    }

    /// The same chain with each of its parts in that namespace.
    fn in_namespace(&self, namespace: Option<&str>) -> Result<Box<dyn Repository>> {
        let move_in = |part: &Arc<dyn Repository>| Ok(part.in_namespace(namespace)?.into());
        let secondaries = self.secondaries.iter().map(move_in).collect::<Result<Vec<Arc<dyn Repository>>>>()?;
        let (secondary_tags, repair) = (self.secondary_tags, self.repair.clone());
        Ok(Box::new(Chain { primary: move_in(&self.primary)?, secondaries, secondary_tags, repair }))
    }

    fn history(&self, name: &TagName) -> Result<Vec<Tag>> {
        let history = self.primary.history(name)?;
        if !history.is_empty() {
            return Ok(history);
        }
        let mut trouble = None;
        for secondary in &self.secondaries {
            match secondary.history(name) {
                Ok(history) if history.is_empty() => {}
                Ok(history) => return Ok(history),
                Err(e) => trouble = trouble.or(Some(e)),
            }
        }
        trouble.map_or(Ok(history), Err)
    }

    fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.primary.insert_tag(tag)
    }

    fn insert_tags(&self, tags: &[Tag]) -> Result<()> {
        self.primary.insert_tags(tags)
    }

    fn push_tag(&self, tag: &Tag) -> Result<Tag> {
        self.primary.push_tag(tag)
    }

    fn list_tags(&self, folder: &str) -> Result<Vec<TagListing>> {
        let mut found = BTreeSet::new();
        for repository in self.listed() {
            found.extend(repository.list_tags(folder)?);
        }
        Ok(found.into_iter().collect())
    }

    fn tag_names(&self) -> Result<Vec<TagName>> {
        let mut found = BTreeSet::new();
        for repository in self.listed() {
            found.extend(repository.tag_names()?);
        }
        Ok(found.into_iter().collect())
    }

    fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.primary.remove_tag(tag)
    }

    fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.primary.remove_tag_stream(name)
    }
}

/// A batch of the primary, into which the secondaries' things are copied when they are needed.
struct ChainBatch<'a> {
    chain: &'a Chain,
    inner: Box<dyn Batch + 'a>,
}

impl Batch for ChainBatch<'_> {
    fn add_payload(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        self.inner.add_payload(content, expected)
    }

    fn add_object(&self, object: &Object) -> Result<Digest> {
        match self.inner.add_object(object) {
            Err(e) if e.is_unknown() && !self.chain.secondaries.is_empty() => {
                self.chain.copy_children(&*self.inner, object)?;
                self.inner.add_object(object)
            }
            result => result,
        }
    }

    fn add_encoded(&self, object: &Encoded) -> Result<Digest> {
        match self.inner.add_encoded(object) {
            Err(e) if e.is_unknown() && !self.chain.secondaries.is_empty() => self.add_object(&object.object()?),
            result => result,
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.inner.finish()
    }
}

#[cfg(test)]
mod tests;
