//! Builds the view of one layer.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use spfs_repo::manifest::{Dir, Node};
use spfs_repo::{Digest, EntryKind, Manifest};

use super::format::{BODY, DIGEST_LEN, HEADER_LEN, Header, MASK, MAX_NAME, MAX_TARGET, NODE_LEN, RawNode};
use super::{NodeId, ROOT, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, checksum};
use crate::error::{Error, Result};

/// Most nodes of one view; a manifest that says more by repeating trees is not honest.
const MAX_NODES: usize = 1 << 25;
/// The mode of the root directory, which no manifest stores.
const ROOT_MODE: u32 = S_IFDIR | 0o755;

/// The bytes of the view of `root`. `targets` reads the payload of a symlink.
///
/// Fails for names, targets and sizes of trees that Linux cannot show, and when `targets` does.
pub fn build(root: &Dir, mut targets: impl FnMut(&Digest) -> spfs_repo::Result<Vec<u8>>) -> Result<Vec<u8>> {
    let mut builder = Builder::new();
    let mut queue = VecDeque::from([(ROOT, root)]);
    while let Some((id, dir)) = queue.pop_front() {
        builder.open(id);
        for (name, node) in &dir.entries {
            match node {
                Node::Blob { digest, mode, size } => {
                    builder.blob(name.as_bytes(), *mode, *size, digest, &mut targets)?;
                }
                Node::Dir { mode, dir } => queue.push_back((builder.directory(name.as_bytes(), *mode)?, dir)),
                Node::Mask { mode } => builder.mask(name.as_bytes(), *mode)?,
            }
        }
    }
    Ok(builder.finish())
}

/// The bytes of the view of `manifest`, like [`build`], but without expanding it first.
pub fn build_manifest(
    manifest: &Manifest,
    mut targets: impl FnMut(&Digest) -> spfs_repo::Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    let corrupt = |reason: String| Error::Repository(spfs_repo::Error::corrupt("manifest", reason));
    let numbers: HashMap<Digest, usize> =
        manifest.trees.iter().enumerate().map(|(number, tree)| (tree.digest(), number)).collect();
    let mut builder = Builder::new();
    let mut queue = VecDeque::from([(ROOT, 0)]);
    let mut sorted = Vec::new();
    while let Some((id, number)) = queue.pop_front() {
        let tree = manifest.trees.get(number).ok_or_else(|| corrupt("it has no tree".into()))?;
        sorted.clear();
        sorted.extend(&tree.entries);
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(corrupt(format!("the name {:?} stands twice in one directory", pair[0].name)));
        }
        builder.open(id);
        for entry in &sorted {
            let name = entry.name.as_bytes();
            match entry.kind {
                EntryKind::Blob => builder.blob(name, entry.mode, entry.size, &entry.object, &mut targets)?,
                EntryKind::Mask => builder.mask(name, entry.mode)?,
                EntryKind::Tree => {
                    let child = numbers.get(&entry.object).ok_or_else(|| {
                        corrupt(format!("the tree {} of directory {:?} is missing", entry.object, entry.name))
                    })?;
                    queue.push_back((builder.directory(name, entry.mode)?, *child));
                }
            }
        }
    }
    Ok(builder.finish())
}

/// Takes nodes in their final order: directory by directory ([`Builder::open`]), breadth first, names ascending.
pub(super) struct Builder {
    /// The header's room, then the nodes.
    bytes: Vec<u8>,
    digests: Vec<Digest>,
    numbers: HashMap<Digest, u32, BuildHasherDefault<DigestHasher>>,
    strings: Vec<u8>,
    count: u32,
    masks: u32,
    file_bytes: u64,
    /// The directory that takes what comes, its first child, and how many subdirectories it has so far.
    directory: NodeId,
    first: NodeId,
    subdirectories: u32,
}

impl Builder {
    /// A view with nothing but a root, which is open.
    pub fn new() -> Builder {
        let mut builder = Builder {
            bytes: vec![0; HEADER_LEN],
            digests: Vec::new(),
            numbers: HashMap::default(),
            strings: Vec::new(),
            count: 1,
            masks: 0,
            file_bytes: 0,
            directory: ROOT,
            first: 1,
            subdirectories: 0,
        };
        builder.bytes.extend(RawNode { mode: ROOT_MODE, ..RawNode::default() }.encode());
        builder
    }

    /// Says that what follows are the children of directory `id`.
    pub fn open(&mut self, id: NodeId) {
        self.close();
        (self.directory, self.first, self.subdirectories) = (id, self.count, 0);
    }

    /// Writes down what the open directory holds.
    fn close(&mut self) {
        let at = HEADER_LEN + self.directory as usize * NODE_LEN;
        if let Some(bytes) = self.bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<NODE_LEN>()) {
            let (a, b) = (self.first, self.count - self.first);
            *bytes = RawNode { a, b, c: self.subdirectories, ..RawNode::decode(bytes) }.encode();
        }
    }

    /// Adds a subdirectory.
    pub fn directory(&mut self, name: &[u8], mode: u32) -> Result<NodeId> {
        self.subdirectories += 1;
        self.push(name, RawNode { mode: S_IFDIR | mode & !S_IFMT, ..RawNode::default() })
    }

    /// Adds a regular file of `size` bytes.
    pub fn file(&mut self, name: &[u8], mode: u32, size: u64, digest: &Digest) -> Result<()> {
        self.file_bytes = self.file_bytes.saturating_add(size);
        let a = self.number(digest);
        self.push(name, RawNode { mode: S_IFREG | mode & !S_IFMT, size, a, ..RawNode::default() })?;
        Ok(())
    }

    /// Adds a symlink.
    pub fn symlink(&mut self, name: &[u8], mode: u32, target: &[u8], digest: &Digest) -> Result<()> {
        if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
            return Err(Error::Limit(format!(
                "the target of symlink {:?} cannot be shown: it has {} bytes (1 to {MAX_TARGET}, none of them NUL, are possible)",
                String::from_utf8_lossy(name),
                target.len()
            )));
        }
        let (a, b) = (self.store(target)?, self.number(digest));
        let mode = S_IFLNK | mode & !S_IFMT;
        self.push(name, RawNode { mode, size: target.len() as u64, a, b, ..RawNode::default() })?;
        Ok(())
    }

    /// Adds a mask.
    pub fn mask(&mut self, name: &[u8], mode: u32) -> Result<()> {
        self.masks += 1;
        self.push(name, RawNode { mode, flags: MASK, ..RawNode::default() })?;
        Ok(())
    }

    /// The finished view, with an unset boot stamp.
    pub fn finish(mut self) -> Vec<u8> {
        self.close();
        let mut bytes = self.bytes;
        let header = Header {
            stamp: [0; 16],
            nodes: self.count,
            digests: self.digests.len() as u32,
            strings: self.strings.len() as u32,
            masks: self.masks,
            file_bytes: self.file_bytes,
        };
        bytes.reserve_exact(self.digests.len() * DIGEST_LEN + self.strings.len());
        for digest in &self.digests {
            bytes.extend_from_slice(digest.as_bytes());
        }
        bytes.extend_from_slice(&self.strings);
        header.encode(&mut bytes);
        let sum = checksum(&bytes);
        bytes[BODY - DIGEST_LEN..BODY].copy_from_slice(&sum);
        bytes
    }

    /// A blob of a manifest: its mode tells whether it is a symlink.
    fn blob(
        &mut self,
        name: &[u8],
        mode: u32,
        size: u64,
        digest: &Digest,
        targets: &mut impl FnMut(&Digest) -> spfs_repo::Result<Vec<u8>>,
    ) -> Result<()> {
        if mode & S_IFMT == S_IFLNK {
            self.symlink(name, mode, &targets(digest)?, digest)
        } else {
            self.file(name, mode, size, digest)
        }
    }

    /// Adds a node to the open directory.
    fn push(&mut self, name: &[u8], mut raw: RawNode) -> Result<NodeId> {
        if name.is_empty() || name == b"." || name == b".." || name.iter().any(|&b| b == b'/' || b == 0) {
            let reason = format!("{:?} is not a file name", String::from_utf8_lossy(name));
            return Err(spfs_repo::Error::corrupt("manifest", reason).into());
        }
        if name.len() > MAX_NAME {
            let name = String::from_utf8_lossy(name);
            return Err(Error::Limit(format!("the file name {name:?} is longer than {MAX_NAME} bytes")));
        }
        if self.count as usize >= MAX_NODES {
            return Err(Error::Limit(format!("a view holds at most {MAX_NODES} files")));
        }
        raw.name_at = self.store(name)?;
        raw.name_len = name.len() as u16;
        raw.parent = self.directory;
        self.bytes.extend_from_slice(&raw.encode());
        self.count += 1;
        Ok(self.count - 1)
    }

    /// Adds `text` to the strings, and says where.
    fn store(&mut self, text: &[u8]) -> Result<u32> {
        let at = self.strings.len();
        if at + text.len() > u32::MAX as usize {
            return Err(Error::Limit("the names and symlink targets of a view exceed 4 GiB".into()));
        }
        self.strings.extend_from_slice(text);
        Ok(at as u32)
    }

    /// The number of `digest` among the distinct ones.
    fn number(&mut self, digest: &Digest) -> u32 {
        let next = self.digests.len() as u32;
        *self.numbers.entry(*digest).or_insert_with(|| {
            self.digests.push(*digest);
            next
        })
    }
}

/// Hashes a digest by its first eight bytes, which are as random as any.
#[derive(Default)]
pub(super) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length that slices and arrays hash before their content says nothing here.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
