//! Tags: making, moving, removing, listing and searching them.

use jiff::Timestamp;
use serde::Serialize;
use spfs_repo::{Digest, Error as RepoError, Repository, Tag, TagListing, TagName, TagSpec};

use crate::error::{Error, Result};
use crate::remotes;

/// Who does something and when; both are told, never looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Author {
    /// `name@domain`, or just the name.
    pub user: String,
    /// Now.
    pub time: Timestamp,
}

/// What to remove of a tag stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Untag {
    /// The whole stream.
    All,
    /// One version; 0 is the newest.
    Version(u64),
}

/// A tag and what it points to now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Pointer {
    /// The tag.
    pub tag: TagName,
    /// What its newest version points to.
    pub target: Digest,
}

/// One version of a tag.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Version {
    /// The tag, with `~N` for all but the newest.
    pub tag: TagSpec,
    /// What it pointed to.
    pub target: Digest,
    /// Who made it.
    pub user: String,
    /// Since when.
    pub time: Timestamp,
}

/// Points every one of `names` to `target`, in order. The first failure stops; what was tagged before it stays.
///
/// A tag that points there already keeps its record.
pub fn tag(repository: &dyn Repository, target: &Digest, names: &[TagName], author: &Author) -> Result<Vec<Tag>> {
    names.iter().map(|name| Ok(repository.push_tag(&record(name, target, author))?)).collect()
}

/// A new record for `name`; the repository sets its parent.
fn record(name: &TagName, target: &Digest, author: &Author) -> Tag {
    Tag { name: name.clone(), target: *target, parent: Digest::NULL, user: author.user.clone(), time: author.time }
}

/// Removes one version, or all, of a tag. Returns what was removed.
pub fn untag(repository: &dyn Repository, name: &TagName, what: Untag) -> Result<Vec<Version>> {
    match what {
        Untag::All => {
            let all = match history(repository, name) {
                // A damaged stream can be removed too; what it held is lost already.
                Err(Error::Repo(RepoError::Corrupt { .. })) => Vec::new(),
                other => other?,
            };
            repository.remove_tag_stream(name)?;
            Ok(all.into_iter().map(|(version, _)| version).collect())
        }
        Untag::Version(number) => {
            let all = history(repository, name)?;
            let found = all.into_iter().find(|(version, _)| version.tag.version == number);
            let spec = TagSpec { name: name.clone(), version: number };
            let (version, record) = found.ok_or_else(|| unknown(repository, &spec))?;
            repository.remove_tag(&record)?;
            Ok(vec![version])
        }
    }
}

/// Every version of a tag, newest first. A tag that does not exist is [`RepoError::UnknownReference`].
pub fn log(repository: &dyn Repository, name: &TagName) -> Result<Vec<Version>> {
    Ok(history(repository, name)?.into_iter().map(|(version, _)| version).collect())
}

fn history(repository: &dyn Repository, name: &TagName) -> Result<Vec<(Version, Tag)>> {
    let records = repository.history(name)?;
    if records.is_empty() {
        return Err(unknown(repository, &name.clone().into()));
    }
    let version = |(number, record): (usize, Tag)| {
        let tag = TagSpec { name: name.clone(), version: number as u64 };
        (Version { tag, target: record.target, user: record.user.clone(), time: record.time }, record)
    };
    Ok(records.into_iter().enumerate().map(version).collect())
}

fn unknown(repository: &dyn Repository, spec: &TagSpec) -> Error {
    let searched = vec![repository.address()];
    let error = RepoError::UnknownReference { reference: spec.to_string(), searched, similar: Vec::new() };
    remotes::with_similar(repository, error).into()
}

/// Every tag with what it points to, sorted by name, and why any could not be read. A stream without versions is left
/// out.
pub fn tags(repository: &dyn Repository) -> Result<(Vec<Pointer>, Vec<RepoError>)> {
    let (mut pointers, mut damaged) = (Vec::new(), Vec::new());
    for name in repository.tag_names()? {
        match repository.history(&name) {
            Ok(records) => {
                pointers.extend(records.into_iter().next().map(|newest| Pointer { tag: name, target: newest.target }));
            }
            Err(error @ RepoError::Corrupt { .. }) => damaged.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((pointers, damaged))
}

/// What is directly below `folder`, sorted, or with `recursive` every tag below it. Namespaces are left out.
///
/// Names are relative to `folder`; folders end in `/`.
pub fn list(repository: &dyn Repository, folder: &str, recursive: bool) -> Result<Vec<String>> {
    let folder = folder.trim_matches('/');
    let listed = repository.list_tags(folder)?;
    let mut names = Vec::new();
    for item in listed {
        match item {
            TagListing::Tag(name) => names.push(name),
            TagListing::Namespace(_) => {}
            TagListing::Folder(name) if recursive => {
                let below = list(repository, &format!("{folder}/{name}"), true)?;
                names.extend(below.into_iter().map(|inner| format!("{name}/{inner}")));
            }
            TagListing::Folder(name) => names.push(format!("{name}/")),
        }
    }
    names.sort();
    Ok(names)
}

/// The tags of `repository` whose name contains `term`, sorted.
pub fn search(repository: &dyn Repository, term: &str) -> Result<Vec<TagName>> {
    let names = repository.tag_names()?;
    Ok(names.into_iter().filter(|name| name.as_str().contains(term)).collect())
}
