//! How objects are named to people: short digests, and the tags that point to them.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;

use serde::Serialize;
use spfs_repo::{Digest, DigestPrefix, Repository, TagSpec};

use crate::error::Result;

/// Characters of a short digest, and by how many it grows while another object shares them: five bytes each.
const STEP: usize = 8;

/// An object with the names that people know it by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Named {
    /// The full digest.
    pub digest: Digest,
    /// Its first 8 characters, or 16, 24… where another object shares them.
    pub short: String,
    /// Of every tag stream that points to it: the newest version that does, sorted.
    pub tags: Vec<TagSpec>,
}

/// Names objects of one repository. Reads every tag stream once, when made.
pub struct Names<'a> {
    repository: &'a dyn Repository,
    tags: HashMap<Digest, Vec<TagSpec>>,
    asked: Cell<usize>,
    all: OnceCell<Vec<Digest>>,
}

/// After so many short forms it is cheaper to list all objects once than to look up each.
const LOOKUPS: usize = 64;

impl<'a> Names<'a> {
    /// Reads the tags of `repository`; a damaged one names nothing.
    pub fn load(repository: &'a dyn Repository) -> Result<Names<'a>> {
        let mut tags: HashMap<Digest, Vec<TagSpec>> = HashMap::new();
        for name in repository.tag_names()? {
            let records = match repository.history(&name) {
                Err(spfs_repo::Error::Corrupt { .. }) => continue,
                other => other?,
            };
            for (version, record) in records.iter().enumerate() {
                let specs = tags.entry(record.target).or_default();
                // One per stream, the newest: its older versions come right behind it.
                if specs.last().is_none_or(|last| last.name != name) {
                    specs.push(TagSpec { name: name.clone(), version: version as u64 });
                }
            }
        }
        Ok(Names { repository, tags, asked: Cell::new(0), all: OnceCell::new() })
    }

    /// The tags that point to `digest`, at most one per stream, sorted.
    pub fn tags(&self, digest: &Digest) -> &[TagSpec] {
        self.tags.get(digest).map_or(&[], Vec::as_slice)
    }

    /// The shortest printed form of `digest` that no other object of the repository shares.
    pub fn short(&self, digest: &Digest) -> Result<String> {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get() <= LOOKUPS {
            return short(self.repository, digest);
        }
        if self.all.get().is_none() {
            let _ = self.all.set(self.repository.find(&DigestPrefix::any())?);
        }
        Ok(short_among(self.all.get().map_or(&[], Vec::as_slice), digest))
    }

    /// The repository that they are names in.
    pub fn repository(&self) -> &'a dyn Repository {
        self.repository
    }

    /// All names of `digest`.
    pub fn name(&self, digest: &Digest) -> Result<Named> {
        Ok(Named { digest: *digest, short: self.short(digest)?, tags: self.tags(digest).to_vec() })
    }
}

/// The shortest printed form of `digest` that no other object of `repository` shares: 8 characters, or 16, 24…
pub fn short(repository: &dyn Repository, digest: &Digest) -> Result<String> {
    let mut length = STEP;
    loop {
        let text = digest.short(length);
        if length >= spfs_repo::digest::SIGNIFICANT_LEN {
            return Ok(text);
        }
        let sharing = repository.find(&text.parse::<DigestPrefix>()?)?;
        if sharing.iter().all(|other| other == digest) {
            return Ok(text);
        }
        length += STEP;
    }
}

/// The short forms of many objects, given every object of the repository, sorted. Text order is byte order, so
/// only neighbours can share the longest prefix.
pub fn short_among(all: &[Digest], digest: &Digest) -> String {
    let at = all.partition_point(|other| other < digest);
    let before = at.checked_sub(1).and_then(|i| all.get(i));
    let after = all[at.min(all.len())..].iter().find(|other| *other != digest);
    let text = digest.short(usize::MAX);
    let shared = |other: &Digest| {
        let other = other.short(usize::MAX);
        text.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
    };
    let longest = before.into_iter().chain(after).map(shared).max().unwrap_or(0);
    digest.short((longest / STEP + 1) * STEP)
}
