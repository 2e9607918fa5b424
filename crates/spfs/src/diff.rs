//! Two trees → what was added, removed and changed between them, in path order.

use std::cmp::Ordering;
use std::fmt;

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};
use spfs_repo::ingest::Ingest;
use spfs_repo::{Digest, Entry, Format, Manifest, Progress};

use crate::error::{Error, Result};
use crate::merged::{Item, Merged, MergedDir, Steps};
use crate::runtime::{self, Reply, Request};
use crate::spfs::Spfs;

/// One path that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Relative to /spfs, without a leading slash.
    pub path: String,
    /// How it differs.
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// How a path differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is there in both, and not the same.
    Changed(Difference),
}

/// What is not the same about a path that is there in both trees; at least one of the three.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Difference {
    /// The full `st_mode` before and after, where it differs; a change of type shows here too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<(u32, u32)>,
    /// Whether the content differs. A directory's content is told by the paths below it.
    pub content: bool,
    /// Bytes before and after, where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<(u64, u64)>,
}

impl ChangeKind {
    /// The sign it is printed with: `+`, `-` or `~`.
    pub const fn sign(&self) -> char {
        match self {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Changed(_) => '~',
        }
    }
}

impl fmt::Display for Change {
    /// `+/spfs/path`, `-/spfs/path`, `~/spfs/path [mode {100644=>100755}, content, size {2=>4}]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/spfs/{}", self.kind.sign(), self.path)?;
        match &self.kind {
            ChangeKind::Changed(difference) => write!(f, " [{difference}]"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.mode.map(|(old, new)| format!("mode {{{old:06o}=>{new:06o}}}"));
        let content = self.content.then(|| "content".to_owned());
        let size = self.size.map(|(old, new)| format!("size {{{old}=>{new}}}"));
        let parts: Vec<String> = [mode, content, size].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

impl Difference {
    /// What differs between two entries of one name; `None` if nothing does.
    pub fn between(old: &Entry, new: &Entry) -> Option<Difference> {
        let difference = Difference {
            mode: (old.mode != new.mode).then_some((old.mode, new.mode)),
            content: match (is_dir(old), is_dir(new)) {
                (true, true) => false,
                _ => old.object != new.object,
            },
            size: match (is_dir(old), is_dir(new)) {
                (false, false) if old.size != new.size => Some((old.size, new.size)),
                _ => None,
            },
        };
        (difference != Difference::default()).then_some(difference)
    }
}

fn is_dir(entry: &Entry) -> bool {
    entry.kind == spfs_repo::EntryKind::Tree
}

/// What was changed in the runtime around the caller since it began, or since its last commit.
pub fn active(spfs: &Spfs, progress: &dyn Progress) -> Result<Vec<Change>> {
    let found = runtime::active(spfs)?;
    match runtime::ask(&found.dir, &Request::Changes, progress)? {
        Reply::Changes(changes) => Ok(changes),
        _ => {
            let reason = "its monitor is of another version of spfs".to_owned();
            Err(Error::Runtime { action: "ask", name: found.record.name, reason })
        }
    }
}

/// What is in the real directory `path` now, hashed and not stored.
pub fn on_disk(path: &Path, progress: &dyn Progress) -> Result<Merged> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::io("open", path))?;
    let ingest = Ingest { batch: None, format: Format::default(), cache: None, threads: 0, progress };
    let manifest = Manifest::from_dir(&ingest.tree(root.as_fd(), path)?.dir);
    Ok(Merged::single(manifest, Digest::NULL))
}

/// The order of two paths, each with whether it is a directory: a directory before what is in it, at each level
/// directories before the rest, then by name.
pub fn path_order(a: (&str, bool), b: (&str, bool)) -> Ordering {
    let mut names = (a.0.split('/').peekable(), b.0.split('/').peekable());
    loop {
        match (names.0.next(), names.1.next()) {
            (Some(x), Some(y)) if x == y => {}
            (Some(x), Some(y)) => {
                // What is not the last name of its path is a directory.
                let other = (!a.1 && names.0.peek().is_none(), !b.1 && names.1.peek().is_none());
                return other.0.cmp(&other.1).then_with(|| x.cmp(y));
            }
            (x, y) => return x.cmp(&y),
        }
    }
}

/// Every difference between two trees, in path order: at each level directories first, then the rest, by name.
pub fn diff(from: &Merged, to: &Merged) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    each(from, to, |change| changes.push(change))?;
    Ok(changes)
}

/// Hands every difference between two trees to `report`, in path order. Parts that both share are not descended.
pub fn each(from: &Merged, to: &Merged, mut report: impl FnMut(Change)) -> Result<()> {
    let mut pending = Vec::new();
    let (mut path, mut steps) = (String::new(), Steps::default());
    push_level(&mut pending, 0, Some(&from.root()), Some(&to.root()))?;
    while let Some((parent_len, old, new)) = pending.pop() {
        steps.step()?;
        let Some(name) = old.as_ref().or(new.as_ref()).map(|item| &item.entry.name) else { continue };
        path.truncate(parent_len);
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(name);
        let kind = match (&old, &new) {
            (None, _) => Some(ChangeKind::Added),
            (_, None) => Some(ChangeKind::Removed),
            (Some(old), Some(new)) => Difference::between(old.entry, new.entry).map(ChangeKind::Changed),
        };
        if let Some(kind) = kind {
            report(Change { path: path.clone(), kind });
        }
        push_level(&mut pending, path.len(), dir_of(&old), dir_of(&new))?;
    }
    Ok(())
}

type Pair<'a, 'b> = (usize, Option<Item<'a>>, Option<Item<'b>>);

fn dir_of<'i, 'a>(item: &'i Option<Item<'a>>) -> Option<&'i MergedDir<'a>> {
    item.as_ref().and_then(|item| item.dir.as_ref())
}

/// Pairs the items of two directories by name and puts them on the stack, the first in path order on top.
fn push_level<'a, 'b>(
    pending: &mut Vec<Pair<'a, 'b>>,
    parent_len: usize,
    from: Option<&MergedDir<'a>>,
    to: Option<&MergedDir<'b>>,
) -> Result<()> {
    // Equal trees in equal order merge to equal content: nothing to see below.
    if from.map(MergedDir::identity) == to.map(MergedDir::identity) {
        return Ok(());
    }
    let mut old = from.map_or(Ok(Vec::new()), MergedDir::items)?.into_iter().peekable();
    let mut new = to.map_or(Ok(Vec::new()), MergedDir::items)?.into_iter().peekable();
    let mut pairs: Vec<Pair<'a, 'b>> = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.entry.name.cmp(&b.entry.name),
        };
        pairs.push((
            parent_len,
            if order.is_le() { old.next() } else { None },
            if order.is_ge() { new.next() } else { None },
        ));
    }
    pairs.sort_by_key(|(_, old, new)| dir_of(old).is_none() && dir_of(new).is_none());
    pending.extend(pairs.into_iter().rev());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_order() {
        let expected = ["a/", "a/z/", "a/z/f", "a/b", "b/", "b/f", "B", "a.txt", "aa"];
        let split = |path: &'static str| (path.trim_end_matches('/'), path.ends_with('/'));
        let mut sorted = expected;
        sorted.reverse();
        sorted.sort_by(|a, b| path_order(split(a), split(b)));
        assert_eq!(sorted, expected);
    }
}
