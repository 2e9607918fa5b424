//! Tag streams in an archive: members of their own, replaced with the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;

use super::write::{Edit, Source, member};
use super::{Archive, Snapshot, index};
use crate::codec;
use crate::error::{Error, Result};
use crate::repository::{Repository as _, TagListing};
use crate::stream::{self, Change};
use crate::tag::{Tag, TagName};

impl Archive {
    /// The records of a stream, oldest first; none if there is no such stream.
    pub(super) fn read_stream(&self, snapshot: &Snapshot, name: &TagName) -> Result<Vec<Tag>> {
        let Some(stream) = snapshot.index.tags.get(&self.key(name)) else { return Ok(Vec::new()) };
        let bytes = index::read_all(&snapshot.file, self.path(), *stream)?;
        codec::tag::decode_stream(&bytes).map_err(|e| {
            let reason = match e {
                Error::Corrupt { reason, .. } => reason,
                other => other.to_string(),
            };
            Error::corrupt(format!("tag stream {name} in {}", self.path().display()), reason)
        })
    }

    pub(super) fn insert_streams(&self, tags: &[Tag]) -> Result<()> {
        self.rewrite(|snapshot| {
            let mut changed = BTreeMap::new();
            for tag in tags {
                let old = match changed.remove(&tag.name) {
                    Some(records) => records,
                    None => self.read_stream(snapshot, &tag.name)?,
                };
                let unchanged = old.clone();
                match stream::insert(old, tag) {
                    Change::Write(records, ()) => changed.insert(tag.name.clone(), records),
                    // It may be one that was changed before.
                    Change::Keep(()) => changed.insert(tag.name.clone(), unchanged),
                };
            }
            changed.retain(|name, records| self.read_stream(snapshot, name).ok().as_ref() != Some(records));
            Ok(((!changed.is_empty()).then(|| self.edit(snapshot, changed)), ()))
        })
    }

    pub(super) fn push_stream(&self, tag: &Tag) -> Result<Tag> {
        // Most often answered without a lock, also where nothing can be written.
        if let Some(newest) = self.read_stream(&*self.snapshot()?, &tag.name)?.pop()
            && newest.target == tag.target
        {
            return Ok(newest);
        }
        self.rewrite(|snapshot| {
            Ok(match stream::push(self.read_stream(snapshot, &tag.name)?, tag)? {
                Change::Keep(newest) => (None, newest),
                Change::Write(tags, newest) => (Some(self.edit(snapshot, [(tag.name.clone(), tags)])), newest),
            })
        })
    }

    pub(super) fn remove_record(&self, tag: &Tag) -> Result<()> {
        self.rewrite(|snapshot| match stream::remove(self.read_stream(snapshot, &tag.name)?, tag) {
            None => Err(self.unknown(&tag.name)),
            Some(Change::Keep(())) => Ok((None, ())),
            Some(Change::Write(tags, ())) => Ok((Some(self.edit(snapshot, [(tag.name.clone(), tags)])), ())),
        })
    }

    /// Not read first: a damaged stream can be removed too.
    pub(super) fn remove_stream(&self, name: &TagName) -> Result<()> {
        self.rewrite(|snapshot| match snapshot.index.tags.contains_key(&self.key(name)) {
            false => Err(self.unknown(name)),
            true => Ok((Some(self.edit(snapshot, [(name.clone(), Vec::new())])), ())),
        })
    }

    pub(super) fn stream_names(&self) -> Result<Vec<TagName>> {
        let snapshot = self.snapshot()?;
        let mut found = Vec::new();
        for (path, member) in &snapshot.index.tags {
            if let Some(name) = self.path_of(path).filter(|name| !name.contains("#ns"))
                && let Some(tag) = name.strip_suffix(".tag").and_then(|name| name.parse().ok())
                && member.len > 0
            {
                found.push(tag);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(super) fn list_streams(&self, folder: &str) -> Result<Vec<TagListing>> {
        let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| matches!(*part, "." | "..")) {
            return Err(Error::invalid("tag folder", folder, "'.' and '..' are no names"));
        }
        if parts.iter().any(|part| part.contains('#')) {
            return Ok(Vec::new());
        }
        let prefix: String = parts.iter().map(|part| format!("{part}/")).collect();
        let snapshot = self.snapshot()?;
        let mut found = BTreeSet::new();
        for path in snapshot.index.tags.keys() {
            let Some(rest) = self.path_of(path).and_then(|path| path.strip_prefix(&*prefix)) else { continue };
            match rest.split_once('/') {
                None => found.extend(stream::stem(rest).map(|name| TagListing::Tag(name.to_owned()))),
                Some((first, _)) => match first.find("#ns") {
                    Some(at) => _ = found.insert(TagListing::Namespace(first[..at].to_owned())),
                    None if first.parse::<TagName>().is_ok() => _ = found.insert(TagListing::Folder(first.to_owned())),
                    None => {}
                },
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Replaces streams by these records, oldest first; none removes a stream.
    fn edit(&self, snapshot: &Snapshot, changed: impl IntoIterator<Item = (TagName, Vec<Tag>)>) -> Edit<'static> {
        let mut edit = Edit::default();
        // By the file system's clock, as good as it is known.
        let time = snapshot.file.metadata().map_or(0, |metadata| metadata.mtime());
        for (name, tags) in changed {
            let key = self.key(&name);
            edit.drop.extend(snapshot.index.tags.get(&key));
            if !tags.is_empty() {
                let bytes = member(&format!("./tags/{key}"), &codec::tag::encode_stream(&tags), 0o644, time);
                edit.add.push(Source::Bytes(bytes));
            }
        }
        edit
    }

    /// The path of a stream below `tags/`.
    fn key(&self, name: &TagName) -> String {
        match &self.namespace {
            None => format!("{name}.tag"),
            Some(space) => format!("{space}#ns/{name}.tag"),
        }
    }

    /// The path below the directory of the namespace, if it is there.
    fn path_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        match &self.namespace {
            None => Some(path),
            Some(space) => path.strip_prefix(&**space)?.strip_prefix("#ns/"),
        }
    }

    fn unknown(&self, name: &TagName) -> Error {
        let searched = vec![self.address()];
        Error::UnknownReference { reference: name.to_string(), searched, similar: Vec::new() }
    }
}
