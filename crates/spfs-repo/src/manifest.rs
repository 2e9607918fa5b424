//! One complete directory tree: a list of trees, the first of which is the root.
//!
//! [`Manifest`] is the stored form, [`Dir`] the nested one that is edited. A million entries take about 110 bytes each
//! as a manifest and about 130 as a [`Dir`], names of 17 bytes included.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::codec;
use crate::digest::Digest;

mod dir;
mod index;

pub use dir::{Dir, Node};
pub use index::{Index, Paths};

/// The file mode that a mask gets: a character device, as overlayfs makes them to say "deleted here".
pub const MODE_MASK: u32 = 0o020000;
/// The file mode of a symlink.
pub const MODE_SYMLINK: u32 = 0o120777;
/// The bits of a file mode that say what kind of file it is.
pub const MODE_TYPE: u32 = 0o170000;
/// The type bits of a directory.
pub const TYPE_DIRECTORY: u32 = 0o040000;
/// The type bits of a regular file.
pub const TYPE_REGULAR: u32 = 0o100000;
/// The type bits of a symlink.
pub const TYPE_SYMLINK: u32 = 0o120000;

/// How deep directories may nest in a [`Dir`]: no path that a program can name (4096 bytes) is deeper than 2048, and
/// half of that fits any thread's stack.
pub const MAX_DEPTH: usize = 1024;
/// How many paths a manifest may have once every tree that is used in several places is written out in each of them.
pub const MAX_PATHS: u64 = 1 << 24;

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
    /// The root directory, if there is one: a manifest that was decoded always has one.
    pub fn root(&self) -> Option<&Tree> {
        self.trees.first()
    }

    /// The digests of all blobs, without repetition, in stored order.
    pub fn blobs(&self) -> Vec<Digest> {
        let mut seen = HashSet::new();
        let entries = self.trees.iter().flat_map(|tree| &tree.entries);
        entries.filter(|e| e.kind == EntryKind::Blob && seen.insert(e.object)).map(|e| e.object).collect()
    }

    /// The tree with this digest. Hashes every tree until it is found: for many questions, make an [`Index`].
    pub fn tree(&self, digest: &Digest) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.digest() == *digest)
    }

    /// The entry at `path`, with or without `/` before it; the root has none. Hashes the trees on the way: for many
    /// questions, make an [`Index`].
    pub fn lookup(&self, path: &str) -> Option<&Entry> {
        Index::new(self).lookup(path)
    }
}

impl Tree {
    /// The digest that directory entries name this tree by: SHA-256 of its hashed body, under every strategy.
    pub fn digest(&self) -> Digest {
        codec::tree_digest(self)
    }

    /// Puts the entries into stored order.
    pub fn sort(&mut self) {
        self.entries.sort_by(Entry::stored_order);
    }

    /// The entry of this name, by binary search: the entries must be in stored order.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        let (directories, others) =
            self.entries.split_at(self.entries.partition_point(|entry| entry.kind == EntryKind::Tree));
        let find = |entries: &'_ [Entry]| entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok();
        find(directories).map(|at| &directories[at]).or_else(|| find(others).map(|at| &others[at]))
    }
}

impl Entry {
    /// The order of entries in a stored tree: directories first, then the rest, each by the bytes of the name.
    pub fn stored_order(&self, other: &Entry) -> Ordering {
        let key = |entry: &Entry| entry.kind != EntryKind::Tree;
        key(self).cmp(&key(other)).then_with(|| self.name.cmp(&other.name))
    }

    /// Whether this is a symlink: a blob whose payload is the target.
    pub fn is_symlink(&self) -> bool {
        self.kind == EntryKind::Blob && self.mode & MODE_TYPE == TYPE_SYMLINK
    }
}
