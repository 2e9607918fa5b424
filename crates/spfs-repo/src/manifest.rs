//! One complete directory tree: a list of trees, the first of which is the root.

use crate::digest::Digest;

/// A complete directory tree.
///
/// `trees[0]` is the root. Every other tree stands once, in depth-first pre-order of its first appearance
/// (`docs/format.md`, manifests): that order is hashed. A directory entry names its tree by [`Tree`] digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The directories; never empty.
    pub trees: Vec<Tree>,
}

/// One directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    /// Its names, in stored order: directories first, then the rest, each by the bytes of the name.
    pub entries: Vec<Entry>,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Payload digest of a blob, tree digest of a tree, [`Digest::NULL`] of a mask.
    pub object: Digest,
    /// The full `st_mode`, type bits included.
    pub mode: u32,
    /// Bytes of a blob (of a symlink: of its target). Zero for others, except in very old data, which is kept.
    pub size: u64,
    /// The file name, without `/` and NUL.
    pub name: String,
}

/// What an entry is. The values are those of the FlatBuffers encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// A regular file or a symlink.
    Blob = 0,
    /// A directory.
    Tree = 4,
    /// "Deleted here".
    Mask = 5,
}

impl Default for Manifest {
    /// The empty tree.
    fn default() -> Self {
        Manifest { trees: vec![Tree::default()] }
    }
}

impl Manifest {
    /// The digests of all blobs, without repetition, in stored order.
    pub fn blobs(&self) -> Vec<Digest> {
        let mut seen = std::collections::HashSet::new();
        let entries = self.trees.iter().flat_map(|tree| &tree.entries);
        entries.filter(|e| e.kind == EntryKind::Blob && seen.insert(e.object)).map(|e| e.object).collect()
    }
}
