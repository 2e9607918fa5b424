//! What a stack looks like once its layers are merged: a flat array that is mapped, not read.
//!
//! A view lists one directory tree: names, modes, sizes, digests and symlink targets, but no file data. Nodes are
//! numbered breadth first, so that a directory's children stand together, sorted by name: a lookup is a binary search,
//! and a node's number ([`NodeId`]) is all that a server has to remember. Per entry a view costs 36 bytes, the name,
//! and 32 bytes for each digest that did not occur before: about 60 bytes, 60 MB for a million entries, all of them
//! clean file pages that the kernel may drop. The bytes are drawn in `format.rs`.
//!
//! There are two kinds, equal in form. A *layer's* view ([`build()`]) keeps masks; a *merged* view ([`merge()`]) has none.
//! Opening one takes microseconds whatever its size: a file that carries the current boot's id is trusted
//! ([`crate::BootId`]), any other is verified by its checksum once and stamped. A trusted file may still hold nonsense
//! (the disk is somebody else's code): then names are missing, but nothing here panics, loops for ever or leaves the
//! file's bounds.

mod build;
mod format;
mod merge;
mod walk;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;

use spfs_repo::Digest;

use crate::BootId;
use crate::error::{Error, Result};
use crate::publish::publish;
use crate::sys::map::Map;

pub use build::{build, build_manifest};
pub use format::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, VERSION};
pub use merge::merge;
pub use walk::Walk;

use format::{BODY, DIGEST_LEN, HEADER_LEN, Header, MASK, MAX_NAME, MAX_TARGET, NODE_LEN, RawNode, STAMP};

/// The number of a node: 0 is the root, and every node has a greater one than its parent.
pub type NodeId = u32;

/// The root directory.
pub const ROOT: NodeId = 0;

/// One directory tree, in memory or mapped from a file.
pub struct View {
    bytes: Bytes,
    header: Header,
}

enum Bytes {
    Mapped(Map),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// What stands under one name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// The full `st_mode`, type bits included.
    pub mode: u32,
    /// Bytes of a regular file, or of a symlink's target; 0 for others.
    pub size: u64,
    /// The directory that holds it; the root's is the root.
    pub parent: NodeId,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    /// A directory.
    Directory {
        /// Number of its subdirectories.
        subdirectories: u32,
    },
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// "Deleted here"; only in the view of a layer.
    Mask,
}

impl Node {
    /// `st_nlink`: a directory is linked from its parent, from its own `.` and from each subdirectory's `..`.
    pub fn links(&self) -> u32 {
        match self.kind {
            NodeKind::Directory { subdirectories } => subdirectories.saturating_add(2),
            _ => 1,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory { .. })
    }
}

impl View {
    /// Maps the view at `path`: at once if its stamp is `boot`, else once its checksum was verified, which also
    /// stamps it (where the file can be written).
    ///
    /// A damaged file, or one of another version, is [`Error::Damaged`]: the caller builds it again.
    pub fn open(path: &Path, boot: &BootId) -> Result<View> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let file = File::open(path).map_err(Error::io("open", path))?;
        if file.metadata().map_err(Error::io("read", path))?.len() < HEADER_LEN as u64 {
            return Err(damaged("it is too short".into()));
        }
        let map = Map::of(&file).map_err(Error::io("map", path))?;
        let header = Header::decode(&map).map_err(damaged)?;
        if header.stamp != *boot {
            if checksum(&map) != map[BODY - DIGEST_LEN..BODY] {
                return Err(damaged("its checksum differs".into()));
            }
            // A view that cannot be stamped (not ours) is as good, and verified again next time.
            let _ = OpenOptions::new().write(true).open(path).and_then(|f| f.write_all_at(boot, STAMP as u64));
        }
        Ok(View { bytes: Bytes::Mapped(map), header })
    }

    /// The view with these bytes, as [`build()`] and [`merge()`] make them. The checksum is not looked at.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<View> {
        let damaged = |reason| Error::Damaged { path: "view".into(), reason };
        let header = Header::decode(&bytes).map_err(damaged)?;
        Ok(View { bytes: Bytes::Owned(bytes), header })
    }

    /// The bytes of the whole view.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What identifies the content: the checksum that the view carries. Equal trees have equal ones.
    pub fn identity(&self) -> Digest {
        let mut checksum = [0; DIGEST_LEN];
        checksum.copy_from_slice(&self.bytes[BODY - DIGEST_LEN..BODY]);
        Digest::from_bytes(checksum)
    }

    /// Number of nodes, the root included; ids are smaller.
    #[allow(clippy::len_without_is_empty, reason = "a view always has its root")]
    pub fn len(&self) -> u32 {
        self.header.nodes
    }

    /// Number of distinct digests.
    pub fn digest_count(&self) -> u32 {
        self.header.digests
    }

    /// Number of masks; 0 in a merged view.
    pub fn mask_count(&self) -> u32 {
        self.header.masks
    }

    /// Sum of the sizes of all regular files, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.header.file_bytes
    }

    /// The node `id`.
    pub fn node(&self, id: NodeId) -> Option<Node> {
        let raw = self.raw(id)?;
        let kind = match raw.mode & S_IFMT {
            _ if raw.flags & MASK != 0 => NodeKind::Mask,
            S_IFDIR => NodeKind::Directory { subdirectories: raw.c },
            S_IFLNK => NodeKind::Symlink,
            _ => NodeKind::File,
        };
        Some(Node { mode: raw.mode, size: raw.size, parent: raw.parent, kind })
    }

    /// The name of `id` in its directory. Empty for the root (and for nonsense).
    pub fn name(&self, id: NodeId) -> &[u8] {
        self.raw(id).and_then(|raw| self.name_of(&raw)).unwrap_or_default()
    }

    /// The children of directory `id`, sorted by the bytes of their names. Empty for anything else.
    pub fn children(&self, id: NodeId) -> Range<NodeId> {
        self.raw(id).map_or(0..0, |raw| self.children_of(id, &raw))
    }

    /// The child of directory `id` called `name`. In a layer's view it may be a mask.
    pub fn lookup(&self, id: NodeId, name: &[u8]) -> Option<NodeId> {
        let Range { start: mut low, end: mut high } = self.children(id);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(name) {
                Ordering::Equal => return Some(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// What symlink `id` points to. `None` for anything else.
    pub fn target(&self, id: NodeId) -> Option<&[u8]> {
        let raw = self.raw(id).filter(|raw| raw.mode & S_IFMT == S_IFLNK && raw.flags & MASK == 0)?;
        self.string(raw.a, raw.size, MAX_TARGET)
    }

    /// The payload of file or symlink `id`. `None` for anything else.
    pub fn digest(&self, id: NodeId) -> Option<Digest> {
        self.digest_at(self.digest_index(id)?)
    }

    /// The number of that payload among the distinct digests of this view.
    fn digest_index(&self, id: NodeId) -> Option<u32> {
        let raw = self.raw(id).filter(|raw| raw.flags & MASK == 0)?;
        match raw.mode & S_IFMT {
            S_IFDIR => None,
            S_IFLNK => Some(raw.b),
            _ => Some(raw.a),
        }
    }

    /// The distinct digests, numbered from 0.
    fn digest_at(&self, index: u32) -> Option<Digest> {
        if index >= self.header.digests {
            return None;
        }
        let at = self.header.digests_at() + index as usize * DIGEST_LEN;
        let bytes = self.bytes.get(at..)?.first_chunk::<DIGEST_LEN>()?;
        Some(Digest::from_bytes(*bytes))
    }

    /// The stored node `id`.
    fn raw(&self, id: NodeId) -> Option<RawNode> {
        if id >= self.header.nodes {
            return None;
        }
        let at = HEADER_LEN + id as usize * NODE_LEN;
        self.bytes.get(at..)?.first_chunk::<NODE_LEN>().map(RawNode::decode)
    }

    /// The children of `raw`, whose number is `id`. Only greater numbers are believed, so that no walk is endless.
    fn children_of(&self, id: NodeId, raw: &RawNode) -> Range<NodeId> {
        let end = raw.a.checked_add(raw.b).filter(|&end| end <= self.header.nodes && raw.a > id);
        match end {
            Some(end) if raw.mode & S_IFMT == S_IFDIR && raw.flags & MASK == 0 => raw.a..end,
            _ => 0..0,
        }
    }

    /// The name of `raw`.
    fn name_of(&self, raw: &RawNode) -> Option<&[u8]> {
        self.string(raw.name_at, raw.name_len.into(), MAX_NAME)
    }

    /// `len` bytes of the strings from `at` on, if that is not more than `max`.
    fn string(&self, at: u32, len: u64, max: usize) -> Option<&[u8]> {
        let len = usize::try_from(len).ok().filter(|len| *len <= max)?;
        let start = self.header.strings_at().checked_add(at as usize)?;
        self.bytes.get(start..start.checked_add(len)?)
    }
}

/// Publishes a view's `bytes` at `path`, trusted until the next boot (`boot` is the current one's id).
pub fn write(path: &Path, bytes: &[u8], boot: &BootId) -> Result<()> {
    let damaged = |reason| Error::Damaged { path: path.to_owned(), reason };
    Header::decode(bytes).map_err(damaged)?;
    publish(path, |file| {
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&bytes[..HEADER_LEN]);
        header[STAMP..STAMP + boot.len()].copy_from_slice(boot);
        file.write_all(&header).and_then(|()| file.write_all(&bytes[HEADER_LEN..])).map_err(Error::io("write", path))
    })?;
    Ok(())
}

/// The checksum that belongs into the header of a view.
fn checksum(bytes: &[u8]) -> [u8; DIGEST_LEN] {
    *Digest::of(&bytes[BODY..]).as_bytes()
}
