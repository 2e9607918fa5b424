//! The nested form of a tree: what is walked, merged and edited.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Entry, EntryKind, Index, MAX_DEPTH, MAX_PATHS, Manifest, Tree};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// One directory with all that is below it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dir {
    /// What is in it, sorted by the bytes of the names.
    pub entries: BTreeMap<String, Node>,
}

/// One name in a [`Dir`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A regular file or a symlink.
    Blob {
        /// Digest of its payload.
        digest: Digest,
        /// The full `st_mode`.
        mode: u32,
        /// Bytes in the payload.
        size: u64,
    },
    /// A directory.
    Dir {
        /// The full `st_mode`.
        mode: u32,
        /// What is in it.
        dir: Dir,
    },
    /// "Deleted here".
    Mask {
        /// The full `st_mode` of the whiteout that says so, usually [`super::MODE_MASK`].
        mode: u32,
    },
}

impl Node {
    /// The full `st_mode`.
    pub fn mode(&self) -> u32 {
        match self {
            Node::Blob { mode, .. } | Node::Dir { mode, .. } | Node::Mask { mode } => *mode,
        }
    }
}

impl Dir {
    /// What is at `path`, with or without `/` before it. The directory itself is no node: `None` for an empty path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        let mut dir = self;
        let mut found: Option<&Node> = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if let Some(node) = found {
                let Node::Dir { dir: below, .. } = node else { return None };
                dir = below;
            }
            found = Some(dir.entries.get(name)?);
        }
        found
    }

    /// How many names there are in it and below it.
    pub fn count(&self) -> usize {
        let below = |node: &Node| if let Node::Dir { dir, .. } = node { dir.count() } else { 0 };
        self.entries.values().map(|node| 1 + below(node)).sum()
    }
}

impl Manifest {
    /// The manifest of `dir`: equal directories once, in depth-first pre-order of their first appearance.
    pub fn from_dir(dir: &Dir) -> Manifest {
        let mut trees = HashMap::new();
        let root = collect(dir, &mut trees);
        let mut manifest = Manifest { trees: Vec::with_capacity(trees.len()) };
        let mut waiting = vec![root];
        while let Some(digest) = waiting.pop() {
            // Gone already: an equal directory was listed before, and all that is below it.
            let Some(tree) = trees.remove(&digest) else { continue };
            let directories = tree.entries.iter().filter(|entry| entry.kind == EntryKind::Tree);
            waiting.extend(directories.rev().map(|entry| entry.object));
            manifest.trees.push(tree);
        }
        manifest
    }

    /// The nested form; trees used in several places are written out in each of them.
    ///
    /// Sizes that very old data gives to directories and masks are dropped, so such a manifest may get another digest
    /// when it is made again from the result.
    ///
    /// Errors: [`Error::Corrupt`] if a tree is missing, if it nests deeper than [`MAX_DEPTH`], or if it would have
    /// more than [`MAX_PATHS`] paths.
    pub fn to_dir(&self) -> Result<Dir> {
        let index = Index::new(self);
        check_expansion(&index)?;
        let root = self.root().ok_or_else(|| Error::corrupt("manifest", "it has no root tree"))?;
        expand(&index, root)
    }
}

/// Adds the trees of `dir` and of everything below it to `trees`, and returns its digest.
fn collect(dir: &Dir, trees: &mut HashMap<Digest, Tree>) -> Digest {
    let mut tree = Tree { entries: Vec::with_capacity(dir.entries.len()) };
    for (name, node) in &dir.entries {
        let (kind, object, size) = match node {
            Node::Blob { digest, size, .. } => (EntryKind::Blob, *digest, *size),
            Node::Dir { dir, .. } => (EntryKind::Tree, collect(dir, trees), 0),
            Node::Mask { .. } => (EntryKind::Mask, Digest::NULL, 0),
        };
        tree.entries.push(Entry { kind, object, mode: node.mode(), size, name: name.clone() });
    }
    let digest = tree.digest();
    tree.sort();
    trees.entry(digest).or_insert(tree);
    digest
}

/// Checks the limits on depth and number of paths, visiting every tree once.
fn check_expansion(index: &Index<'_>) -> Result<()> {
    let corrupt = |reason: String| Error::corrupt("manifest", reason);
    let missing = |digest: Digest| corrupt(format!("the tree {digest} is not in it"));
    // (paths, depth) of each tree whose children are all known; `open` are those on the way from the root.
    let mut known: HashMap<Digest, (u64, usize)> = HashMap::new();
    let mut open = HashSet::new();
    let Some(root) = index.root_digest() else { return Ok(()) };
    let mut waiting = vec![root];
    while let Some(&digest) = waiting.last() {
        if known.contains_key(&digest) {
            waiting.pop();
            continue;
        }
        let tree = index.tree(&digest).ok_or_else(|| missing(digest))?;
        let children = tree.entries.iter().filter(|entry| entry.kind == EntryKind::Tree).map(|entry| entry.object);
        if open.insert(digest) {
            waiting.extend(children.filter(|child| !known.contains_key(child)));
            continue;
        }
        let (mut paths, mut depth) = (tree.entries.len() as u64, 1);
        for child in children {
            let (below, deep) =
                known.get(&child).ok_or_else(|| corrupt(format!("the tree {child} contains itself")))?;
            paths = paths.saturating_add(*below);
            depth = depth.max(deep + 1);
        }
        if depth > MAX_DEPTH {
            return Err(corrupt(format!("its directories nest deeper than {MAX_DEPTH}")));
        }
        if paths > MAX_PATHS {
            return Err(corrupt(format!("written out, it has more than {MAX_PATHS} paths")));
        }
        known.insert(digest, (paths, depth));
        waiting.pop();
    }
    Ok(())
}

fn expand(index: &Index<'_>, tree: &Tree) -> Result<Dir> {
    let node = |entry: &Entry| {
        let mode = entry.mode;
        Ok(match entry.kind {
            EntryKind::Blob => Node::Blob { digest: entry.object, mode, size: entry.size },
            EntryKind::Mask => Node::Mask { mode },
            EntryKind::Tree => {
                let missing = || Error::corrupt("manifest", format!("the tree {} is not in it", entry.object));
                Node::Dir { mode, dir: expand(index, index.tree(&entry.object).ok_or_else(missing)?)? }
            }
        })
    };
    let entries = tree.entries.iter().map(|entry| Ok((entry.name.clone(), node(entry)?))).collect::<Result<_>>()?;
    Ok(Dir { entries })
}
