//! Files inside a stored tree: listing a directory, reading one file, and storing one.

use std::io::Read;

use serde::Serialize;
use spfs_repo::repository::PayloadReader;
use spfs_repo::{Blob, Digest, EntryKind, Error as RepoError, Hasher, Kind, Object, ObjectBody, Repository, TagName};

use crate::error::{Error, Result};
use crate::merged::{Item, Merged, MergedDir, Steps};
use crate::tags::{self, Author};

/// One directory of a stored tree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Listing {
    /// Relative to /spfs, without a leading slash; empty for /spfs itself.
    pub path: String,
    /// What is in it, by name.
    pub entries: Vec<Listed>,
}

/// One name of a [`Listing`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Listed {
    /// The file name.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// The full `st_mode`.
    pub mode: u32,
    /// Bytes of a file or of a symlink's target; of a directory, the sum below it (0 unless sizes were asked for).
    pub size: u64,
    /// The payload of a file or symlink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Digest>,
}

/// What a name in a tree is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

impl FileKind {
    /// The kind of a merged item.
    pub fn of(item: &Item<'_>) -> FileKind {
        match item.entry.kind {
            EntryKind::Tree => FileKind::Directory,
            _ if item.entry.mode & 0o170000 == 0o120000 => FileKind::Symlink,
            _ => FileKind::File,
        }
    }
}

/// The directory at `path` (as [`crate::merged::relative`] makes it). `sizes` adds up what is below directories.
pub fn list(merged: &Merged, path: &str, sizes: bool) -> Result<Listing> {
    listing(path.to_owned(), &directory(merged, path)?, sizes)
}

/// The directory at `path` and all below it, breadth first; directories with nothing in them are left out.
/// `report` gets one after the other, so that a big tree is never in memory as text.
pub fn list_below(
    merged: &Merged,
    path: &str,
    sizes: bool,
    mut report: impl FnMut(Listing) -> Result<()>,
) -> Result<()> {
    let mut level = vec![(path.to_owned(), directory(merged, path)?)];
    let mut steps = Steps::default();
    while !level.is_empty() {
        let mut next = Vec::new();
        for (path, dir) in level {
            steps.step()?;
            let found = listing(path.clone(), &dir, sizes)?;
            for item in dir.items()? {
                let below =
                    if path.is_empty() { item.entry.name.clone() } else { format!("{path}/{}", item.entry.name) };
                next.extend(item.dir.map(|dir| (below, dir)));
            }
            if !found.entries.is_empty() {
                report(found)?;
            }
        }
        level = next;
    }
    Ok(())
}

fn directory<'a>(merged: &'a Merged, path: &str) -> Result<MergedDir<'a>> {
    if path.is_empty() {
        return Ok(merged.root());
    }
    let Some(item) = merged.lookup(path)? else { return Err(missing(merged, path)?) };
    item.dir.ok_or_else(|| Error::path(path, "is not a directory"))
}

fn listing(path: String, dir: &MergedDir<'_>, sizes: bool) -> Result<Listing> {
    let listed = |item: Item<'_>| {
        let size = match &item.dir {
            Some(dir) if sizes => dir.size()?,
            Some(_) => 0,
            None => item.entry.size,
        };
        let payload = item.dir.is_none().then_some(item.entry.object);
        let kind = FileKind::of(&item);
        Ok(Listed { name: item.entry.name.clone(), kind, mode: item.entry.mode, size, payload })
    };
    Ok(Listing { path, entries: dir.items()?.into_iter().map(listed).collect::<Result<_>>()? })
}

/// The payload of the file at `path`; of a symlink, the one that holds its target.
pub fn payload_at(merged: &Merged, path: &str) -> Result<Digest> {
    let item = if path.is_empty() { None } else { Some(merged.lookup(path)?) };
    match item {
        None => Err(Error::path(path, "is a directory")),
        Some(None) => Err(missing(merged, path)?),
        Some(Some(item)) if item.dir.is_some() => Err(Error::path(path, "is a directory")),
        Some(Some(item)) => Ok(item.entry.object),
    }
}

/// What is said of a path that is not there: beside it there may be what was meant.
fn missing(merged: &Merged, path: &str) -> Result<Error> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let beside = match merged.lookup(above)?.and_then(|item| item.dir) {
        Some(dir) => dir.items()?,
        None if above.is_empty() => merged.root().items()?,
        None => Vec::new(),
    };
    let near = crate::similar::nearest(name, beside.iter().map(|item| item.entry.name.as_str()));
    let near = near.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    Ok(Error::path(path, format!("no such file or directory{near}")))
}

/// The content of one payload, checked as it is read.
pub struct Content {
    digest: Digest,
    reader: PayloadReader,
    hasher: Option<Hasher>,
}

impl Content {
    /// Opens a payload.
    pub fn open(repository: &dyn Repository, digest: &Digest) -> Result<Content> {
        Ok(Content { digest: *digest, reader: repository.open_payload(digest)?, hasher: Some(Hasher::new()) })
    }

    /// Reads the next bytes; 0 at the end. Content that turns out not to be what its digest says is
    /// [`RepoError::Corrupt`], at the end: what was read before cannot be trusted either.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let what = || format!("payload {}", self.digest);
        let count = loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other.map_err(Error::io("read", what()))?,
            }
        };
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
        } else if let Some(hasher) = self.hasher.take() {
            let found = hasher.finish();
            if found != self.digest {
                return Err(RepoError::corrupt(what(), format!("its content has the digest {found}")).into());
            }
        }
        Ok(count)
    }
}

/// A file that was stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Written {
    /// The blob.
    pub digest: Digest,
    /// Bytes in it.
    pub size: u64,
    /// The tags that point to it now.
    pub tags: Vec<TagName>,
}

/// Stores what `content` holds as a blob, and tags it.
pub fn write(
    repository: &dyn Repository,
    content: &mut dyn Read,
    tags: &[TagName],
    author: &Author,
) -> Result<Written> {
    let batch = repository.begin()?;
    let (digest, size) = batch.add_payload(content, None)?;
    batch.add_object(&Object::new(ObjectBody::Blob(Blob { payload: digest, size })))?;
    batch.finish()?;
    tags::tag(repository, &digest, tags, author)?;
    Ok(Written { digest, size, tags: tags.to_vec() })
}

/// Whether `digest` is a blob: then `read` needs no path.
pub fn is_blob(repository: &dyn Repository, digest: &Digest) -> Result<bool> {
    Ok(repository.read_object(digest)?.kind() == Kind::Blob)
}
