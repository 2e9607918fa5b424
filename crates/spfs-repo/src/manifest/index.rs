//! Finding one's way in a manifest: trees by digest, entries by path, all paths in order.

use std::collections::HashMap;

use super::{Entry, EntryKind, Manifest, Tree};
use crate::digest::Digest;

/// The trees of a manifest by digest. Making one hashes all of them; questions are cheap then.
pub struct Index<'m> {
    trees: HashMap<Digest, &'m Tree>,
    root: Option<(Digest, &'m Tree)>,
}

impl<'m> Index<'m> {
    /// Hashes every tree of `manifest`.
    pub fn new(manifest: &'m Manifest) -> Self {
        let mut trees = HashMap::with_capacity(manifest.trees.len());
        let mut root = None;
        for tree in &manifest.trees {
            let digest = tree.digest();
            trees.entry(digest).or_insert(tree);
            root.get_or_insert((digest, tree));
        }
        Index { trees, root }
    }

    /// The digest of the root tree.
    pub fn root_digest(&self) -> Option<Digest> {
        self.root.map(|(digest, _)| digest)
    }

    /// The tree with this digest.
    pub fn tree(&self, digest: &Digest) -> Option<&'m Tree> {
        self.trees.get(digest).copied()
    }

    /// The entry at `path`, with or without `/` before it; the root has none.
    pub fn lookup(&self, path: &str) -> Option<&'m Entry> {
        let mut tree = self.root.map(|(_, tree)| tree);
        let mut found = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let entry = tree?.get(name)?;
            tree = if entry.kind == EntryKind::Tree { self.tree(&entry.object) } else { None };
            found = Some(entry);
        }
        found
    }

    /// Every path, as [`Paths`].
    pub fn paths(&self) -> Paths<'_, 'm> {
        let first = self.root.map(|(_, tree)| Level::new(tree, 0));
        Paths { index: self, path: String::new(), levels: first.into_iter().collect() }
    }
}

/// Every path of a manifest with its entry: each directory, then what is in it, names in byte order.
///
/// Trees that are used in several places are walked in each of them, but only those on the way to the present path
/// take memory. A tree that is missing counts as empty.
pub struct Paths<'i, 'm> {
    index: &'i Index<'m>,
    path: String,
    levels: Vec<Level<'m>>,
}

/// One directory on the way to the present path.
struct Level<'m> {
    /// Those that are still to come, the next one last.
    entries: Vec<&'m Entry>,
    /// Bytes of the directory's own path.
    prefix: usize,
}

impl<'m> Level<'m> {
    fn new(tree: &'m Tree, prefix: usize) -> Self {
        let mut entries: Vec<&Entry> = tree.entries.iter().collect();
        entries.sort_by(|a, b| b.name.cmp(&a.name));
        Level { entries, prefix }
    }
}

impl<'m> Iterator for Paths<'_, 'm> {
    type Item = (String, &'m Entry);

    /// The next path, without `/` before it.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let level = self.levels.last_mut()?;
            let Some(entry) = level.entries.pop() else {
                self.levels.pop();
                continue;
            };
            self.path.truncate(level.prefix);
            if !self.path.is_empty() {
                self.path.push('/');
            }
            self.path.push_str(&entry.name);
            if entry.kind == EntryKind::Tree
                && let Some(tree) = self.index.tree(&entry.object)
            {
                self.levels.push(Level::new(tree, self.path.len()));
            }
            return Some((self.path.clone(), entry));
        }
    }
}
