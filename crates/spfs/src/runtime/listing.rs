//! The active changes as a sorted list, for people.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use spfs_mount::view::{NodeId, S_IFLNK, View};
use spfs_repo::Digest;

use super::changes::{Before, Item, Scan, UpperFile, before};
use crate::diff::{self, Change, ChangeKind, Difference};

/// Lists what differs, in path order. `digests` are those of the files whose content had to be looked at.
pub fn list(scan: &Scan, committed: &View, digests: &HashMap<PathBuf, Digest>) -> Vec<Change> {
    let mut list = List { committed, files: &scan.files, digests, changes: Vec::new() };
    list.directory("", &scan.root);
    for (path, _) in &scan.refused {
        list.report(&path.to_string_lossy(), ChangeKind::Added, false);
    }
    list.changes.sort_by(|(a, a_dir), (b, b_dir)| diff::path_order((&a.path, *a_dir), (&b.path, *b_dir)));
    list.changes.into_iter().map(|(change, _)| change).collect()
}

struct List<'a> {
    committed: &'a View,
    files: &'a [UpperFile],
    digests: &'a HashMap<PathBuf, Digest>,
    /// Each with whether it is, or was, a directory.
    changes: Vec<(Change, bool)>,
}

impl List<'_> {
    fn directory(&mut self, path: &str, items: &BTreeMap<String, Item>) {
        for (name, item) in items {
            self.item(&join(path, name), item);
        }
    }

    fn item(&mut self, path: &str, item: &Item) {
        match item {
            Item::File(index) => {
                let file = &self.files[*index];
                let digest = self.digests.get(&file.path);
                let same = file.before.is_some_and(|before| digest.is_some() && before.digest.as_ref() == digest);
                self.compare(path, file.mode, file.size, file.before, !same);
            }
            Item::Symlink { target, before } => {
                let same = before.is_some_and(|before| before.digest == Some(Digest::of(target)));
                self.compare(path, S_IFLNK | 0o777, target.len() as u64, *before, !same);
            }
            Item::Base { digest, mode, size, before } => {
                let same = before.is_some_and(|before| before.digest.as_ref() == Some(digest));
                self.compare(path, *mode, *size, *before, !same);
            }
            Item::Directory { mode, before, entries } => {
                self.compare(path, *mode, 0, *before, false);
                self.directory(path, entries);
            }
            Item::Gone(before) => self.gone(path, before.node),
        }
    }

    /// Reports one path that is there now.
    fn compare(&mut self, path: &str, mode: u32, size: u64, before: Option<Before>, content: bool) {
        let is_directory = mode & spfs_mount::view::S_IFMT == spfs_mount::view::S_IFDIR;
        let Some(before) = before else {
            self.report(path, ChangeKind::Added, is_directory);
            return;
        };
        let was_directory = before.digest.is_none();
        let difference = Difference {
            mode: (before.mode != mode).then_some((before.mode, mode)),
            content: content && !was_directory,
            size: (!was_directory && !is_directory && before.size != size).then_some((before.size, size)),
        };
        if difference != Difference::default() {
            self.report(path, ChangeKind::Changed(difference), was_directory || is_directory);
        }
        if was_directory && !is_directory {
            self.children_gone(path, before.node);
        }
    }

    fn gone(&mut self, path: &str, node: NodeId) {
        let was_directory = before(self.committed, node).is_some_and(|before| before.digest.is_none());
        self.report(path, ChangeKind::Removed, was_directory);
        if was_directory {
            self.children_gone(path, node);
        }
    }

    fn children_gone(&mut self, path: &str, node: NodeId) {
        for child in self.committed.children(node) {
            let name = String::from_utf8_lossy(self.committed.name(child)).into_owned();
            self.gone(&join(path, &name), child);
        }
    }

    fn report(&mut self, path: &str, kind: ChangeKind, directory: bool) {
        self.changes.push((Change { path: path.to_owned(), kind }, directory));
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}
