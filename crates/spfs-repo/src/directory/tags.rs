//! Tag streams as files: reading, listing, and rewriting under the lock.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Directory;
use super::layout::{Medium, Modes, make_dirs, sync_dir, write_file};
use super::lock::{NewName, PATIENCE, TagLock, work_path};
use super::owner::Owner;
use crate::codec;
use crate::error::{Error, Result};
use crate::regular::{LONGEST_STREAM, read_regular};
use crate::repository::{Repository as _, TagListing};
use crate::stream::{self, Change};
use crate::tag::{Tag, TagName};

/// How often a rewrite starts again because its lock was broken or its directory removed meanwhile.
const ATTEMPTS: usize = 8;

/// The tag streams of one repository, in one namespace.
pub(super) struct TagStore<'a> {
    repository: &'a Directory,
    /// `ROOT/tags` or `ROOT/tags/NAME#ns`: never removed.
    root: PathBuf,
    modes: Modes,
}

impl<'a> TagStore<'a> {
    /// The tags of `repository` in its namespace.
    pub fn new(repository: &'a Directory) -> Self {
        let mut root = repository.root().join("tags");
        if let Some(name) = repository.namespace() {
            root.push(format!("{name}#ns"));
        }
        TagStore { repository, root, modes: repository.inner.modes }
    }

    /// The records, newest first.
    pub fn history(&self, name: &TagName) -> Result<Vec<Tag>> {
        let path = self.path_of(name);
        let read = match read(&path, &path) {
            // Perhaps a length and a content that do not belong together.
            Err(Error::Corrupt { .. }) if self.is_loose() => {
                self.read_fresh(&path, work_path(&path, &Owner::current()))
            }
            result => result,
        };
        let mut tags = read?.unwrap_or_default();
        tags.reverse();
        Ok(tags)
    }

    /// Adds `tag` at its place.
    pub fn insert(&self, tag: &Tag) -> Result<()> {
        self.rewrite(&tag.name, |tags| Ok(stream::insert(tags, tag)))
    }

    /// Makes `tag` the newest, unless the newest has its target.
    pub fn push(&self, tag: &Tag) -> Result<Tag> {
        // Most often answered without a lock, also where nothing can be written.
        if !self.is_loose()
            && let Some(newest) = self.history(&tag.name)?.into_iter().next()
            && newest.target == tag.target
        {
            return Ok(newest);
        }
        self.rewrite(&tag.name, |tags| stream::push(tags, tag))
    }

    /// Removes one record.
    pub fn remove(&self, tag: &Tag) -> Result<()> {
        if !self.is_loose() && !self.history(&tag.name)?.contains(tag) {
            return Err(self.unknown(&tag.name));
        }
        self.rewrite(&tag.name, |tags| stream::remove(tags, tag).ok_or_else(|| self.unknown(&tag.name)))
    }

    /// Removes a stream.
    pub fn remove_stream(&self, name: &TagName) -> Result<()> {
        let path = self.path_of(name);
        if !self.is_loose() && std::fs::symlink_metadata(&path).is_err() {
            return Err(self.unknown(name));
        }
        // Not read: a damaged stream can be removed too.
        let lock = self.lock(name)?;
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                drop(lock);
                // What was made for the lock.
                self.after_removal(&path)?;
                return Err(self.unknown(name));
            }
            Err(e) => return Err(Error::io("remove", path)(e)),
        }
        drop(lock);
        self.after_removal(&path)
    }

    /// What is directly below `folder`.
    pub fn list(&self, folder: &str) -> Result<Vec<TagListing>> {
        let mut directory = self.root.clone();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            if part == "." || part == ".." {
                return Err(Error::invalid("tag folder", folder, "'.' and '..' are no names"));
            }
            if part.contains('#') {
                return Ok(Vec::new());
            }
            directory.push(part);
        }
        let mut found = Vec::new();
        each_entry(&directory, |name, is_directory| {
            if !is_directory {
                if let Some(stem) = stream::stem(name) {
                    found.push(TagListing::Tag(stem.to_owned()));
                }
            } else if let Some(at) = name.find("#ns") {
                found.push(TagListing::Namespace(name[..at].to_owned()));
            } else if name.parse::<TagName>().is_ok() {
                found.push(TagListing::Folder(name.to_owned()));
            }
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Every stream that has a record, and what stands in the place of one and is no file.
    pub fn names(&self) -> Result<Vec<TagName>> {
        let mut found = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let directory = self.root.join(&folder);
            let prefix = if folder.is_empty() { folder } else { folder + "/" };
            each_entry(&directory, |name, is_directory| {
                if is_directory && !name.contains("#ns") {
                    folders.push(format!("{prefix}{name}"));
                } else if !is_directory
                    && let Some(stem) = stream::stem(name)
                    && let Ok(tag) = format!("{prefix}{stem}").parse()
                    && std::fs::metadata(directory.join(name)).is_ok_and(|file| file.len() > 0 || !file.is_file())
                {
                    found.push(tag);
                }
            })?;
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Whether a stream may be another one than it seems, until it is looked at in the way of [`Self::read_fresh`].
    fn is_loose(&self) -> bool {
        self.repository.inner.medium == Medium::Loose
    }

    /// The records of a stream as they certainly are, if there is one.
    fn read_fresh(&self, path: &Path, aside: PathBuf) -> Result<Option<Vec<Tag>>> {
        match NewName::give(path, aside)? {
            Some(aside) => read(aside.path(), path),
            None => read(path, path),
        }
    }

    fn path_of(&self, name: &TagName) -> PathBuf {
        self.root.join(format!("{name}.tag"))
    }

    fn unknown(&self, name: &TagName) -> Error {
        let searched = vec![self.repository.address()];
        Error::UnknownReference { reference: name.to_string(), searched, similar: Vec::new() }
    }

    /// Takes the lock of a stream, after making the directories above it.
    fn lock(&self, name: &TagName) -> Result<TagLock> {
        let path = self.root.join(format!("{name}.tag.lock"));
        let directory = path.parent().unwrap_or(&self.root);
        for _ in 0..ATTEMPTS {
            if let Some(lock) = TagLock::acquire(&path, PATIENCE, self.repository.inner.medium)? {
                return Ok(lock);
            }
            match make_dirs(directory, self.modes.directory()) {
                Ok(parents) => parents.iter().try_for_each(|parent| sync_dir(parent).or_else(ignore_missing))?,
                // Whoever removes the last tag of a folder removes the folder, even while it is being made.
                Err(e) => ignore_missing(e)?,
            }
        }
        Err(Error::io("create lock", path)(std::io::Error::from(ErrorKind::NotFound)))
    }

    /// Reads a stream under its lock, has it changed, and writes it durably. `change` may run several times.
    fn rewrite<T>(&self, name: &TagName, change: impl Fn(Vec<Tag>) -> Result<Change<T>>) -> Result<T> {
        let path = self.path_of(name);
        for _ in 0..ATTEMPTS {
            let lock = self.lock(name)?;
            let old = if self.is_loose() { self.read_fresh(&path, lock.other_path())? } else { read(&path, &path)? };
            let existed = old.is_some();
            let (tags, result) = match change(old.unwrap_or_default()) {
                Ok(Change::Keep(result)) => return Ok(result),
                Ok(Change::Write(tags, result)) => (tags, result),
                Err(e) => {
                    drop(lock);
                    if !existed {
                        self.after_removal(&path)?;
                    }
                    return Err(e);
                }
            };
            if tags.is_empty() {
                if existed && lock.is_held() {
                    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                    drop(lock);
                    self.after_removal(&path)?;
                    return Ok(result);
                }
            } else if self.replace(&path, &lock, &tags)? {
                return Ok(result);
            }
        }
        Err(Error::Locked { path, owner: "others, who broke our lock again and again".to_owned() })
    }

    /// Replaces the stream by `tags`, unless the lock was broken meanwhile; returns whether it was not.
    fn replace(&self, path: &Path, lock: &TagLock, tags: &[Tag]) -> Result<bool> {
        // Upstream appends to this one, so a stale one would spoil its next write.
        match std::fs::remove_file(path.with_extension("tag.work")) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(Error::io("remove the stale work file of", path)(e));
            }
            _ => {}
        }
        let work = lock.work_path();
        write_file(&work, &codec::tag::encode_stream(tags), self.modes.file())?;
        if !lock.is_held() {
            let _ = std::fs::remove_file(&work);
            return Ok(false);
        }
        std::fs::rename(&work, path).map_err(|e| {
            let _ = std::fs::remove_file(&work);
            Error::io("replace", path)(e)
        })?;
        sync_dir(path.parent().unwrap_or(&self.root))?;
        Ok(true)
    }

    /// Removes the directories above `path` that are empty now, up to the root, and makes the removal durable.
    fn after_removal(&self, path: &Path) -> Result<()> {
        let mut directory = path.parent();
        while let Some(at) = directory.filter(|at| at.starts_with(&self.root) && *at != self.root) {
            if std::fs::remove_dir(at).is_err() {
                break;
            }
            directory = at.parent();
        }
        directory.map_or(Ok(()), |at| sync_dir(at).or_else(ignore_missing))
    }
}

/// The records of the stream file `path`, oldest first, if there is one; `name` is its name in messages.
fn read(path: &Path, name: &Path) -> Result<Option<Vec<Tag>>> {
    let mut bytes = read_regular(path, LONGEST_STREAM);
    for _ in 0..ATTEMPTS {
        if !matches!(&bytes, Err(e) if e.kind() == ErrorKind::StaleNetworkFileHandle) {
            break;
        }
        // Replaced since it was opened, over a network.
        bytes = read_regular(path, LONGEST_STREAM);
    }
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        // No file, or an absurdly long one.
        Err(e) if e.raw_os_error().is_none() => {
            return Err(Error::corrupt(format!("tag stream {}", name.display()), e.to_string()));
        }
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    codec::tag::decode_stream(&bytes).map(Some).map_err(|e| {
        let reason = match e {
            Error::Corrupt { reason, .. } => reason,
            other => other.to_string(),
        };
        Error::corrupt(format!("tag stream {}", name.display()), reason)
    })
}

/// Calls `each` with every name in `directory`, and whether it is a directory. A missing one is empty.
fn each_entry(directory: &Path, mut each: impl FnMut(&str, bool)) -> Result<()> {
    let fail = |e| Error::io("list", directory)(e);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(fail(e)),
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if let Some(name) = entry.file_name().to_str() {
            each(name, entry.file_type().is_ok_and(|kind| kind.is_dir()));
        }
    }
    Ok(())
}

fn ignore_missing(e: Error) -> Result<()> {
    match e {
        Error::Io { ref source, .. } if source.kind() == ErrorKind::NotFound => Ok(()),
        other => Err(other),
    }
}
