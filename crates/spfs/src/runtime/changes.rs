//! What has changed in a runtime: the difference between what it shows and what is committed.
//!
//! Two views are never mixed. The *base* lies below the upper directory since it was mounted; the *committed* view is
//! the base and every layer committed since. What a process sees is upper over base, so a change is where that differs
//! from the committed view. It is found by walking the upper directory and whatever was committed since: everything
//! else is the same by construction. Masks come from the difference, not from whiteouts alone: a file that was made,
//! committed and deleted in one runtime leaves no whiteout behind, and a directory that was removed and made again
//! hides what the base has in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat};
use spfs_mount::view::{NodeId, NodeKind, ROOT, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, View};
use spfs_repo::Digest;

use crate::error::{Error, Result};

/// The mode of a mask entry: overlayfs shows a whiteout as a character device.
pub const MASK_MODE: u32 = 0o020_000;

/// The changes, before the content of files was looked at.
pub struct Scan {
    /// What differs, or may differ, by name.
    pub root: BTreeMap<String, Item>,
    /// Regular files of the upper directory, as numbered in [`Item::File`].
    pub files: Vec<UpperFile>,
    /// What no layer can hold, with the reason.
    pub refused: Vec<(PathBuf, &'static str)>,
}

impl Scan {
    /// The payloads of the base that stand in the difference, with their sizes.
    pub fn base_payloads(&self) -> Vec<(Digest, u64)> {
        let mut found = Vec::new();
        let mut ahead: Vec<&BTreeMap<String, Item>> = vec![&self.root];
        while let Some(items) = ahead.pop() {
            for item in items.values() {
                match item {
                    Item::Base { digest, size, .. } => found.push((*digest, *size)),
                    Item::Directory { entries, .. } => ahead.push(entries),
                    _ => {}
                }
            }
        }
        found
    }
}

/// One name that differs, or may differ.
pub enum Item {
    /// A regular file of the upper directory; only its content tells whether it differs.
    File(usize),
    /// A symlink of the upper directory.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
        /// What was committed under this name.
        before: Option<Before>,
    },
    /// A file or symlink of the base which the committed view shows differently.
    Base {
        /// The payload.
        digest: Digest,
        /// Full mode.
        mode: u32,
        /// Bytes.
        size: u64,
        /// What was committed under this name.
        before: Option<Before>,
    },
    /// A directory, with what differs in it.
    Directory {
        /// Full mode.
        mode: u32,
        /// What was committed under this name.
        before: Option<Before>,
        /// What differs below it.
        entries: BTreeMap<String, Item>,
    },
    /// Something committed that is gone.
    Gone(Before),
}

/// A regular file of the upper directory.
pub struct UpperFile {
    /// Relative to the upper directory.
    pub path: PathBuf,
    /// Full mode.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// What was committed under this name.
    pub before: Option<Before>,
}

/// What the committed view has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// The node in the committed view.
    pub node: NodeId,
    /// Full mode.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// The payload of a file or symlink.
    pub digest: Option<Digest>,
}

impl Before {
    /// Whether it is the same file or symlink.
    pub fn is(&self, mode: u32, digest: &Digest) -> bool {
        self.mode == mode && self.digest.as_ref() == Some(digest)
    }
}

/// Finds what differs between `upper` over `base` and `committed`, where `since` are the views, with masks, of the
/// layers committed since the base was mounted.
///
/// `upper` may be `O_PATH`. Files are looked at, not read.
pub fn scan(upper: BorrowedFd<'_>, base: &View, committed: &View, since: &[View]) -> Result<Scan> {
    raise_descriptor_limit();
    let scan = Scan { root: BTreeMap::new(), files: Vec::new(), refused: Vec::new() };
    let mut scanner = Scanner { base, committed, since, scan };
    let all: Vec<(usize, NodeId)> = (0..since.len()).map(|layer| (layer, ROOT)).collect();
    let upper = open_directory(upper, OsStr::new("."), Path::new("/"))?;
    let place = Place { base: Some(ROOT), committed: Some(ROOT), since: all };
    scanner.scan.root = scanner.directory(Some(upper), Path::new(""), &place)?;
    Ok(scanner.scan)
}

/// One directory, as each side has it.
struct Place {
    base: Option<NodeId>,
    committed: Option<NodeId>,
    since: Vec<(usize, NodeId)>,
}

struct Scanner<'a> {
    base: &'a View,
    committed: &'a View,
    since: &'a [View],
    scan: Scan,
}

impl Scanner<'_> {
    fn directory(&mut self, upper: Option<OwnedFd>, path: &Path, place: &Place) -> Result<BTreeMap<String, Item>> {
        let mut items = BTreeMap::new();
        for name in self.names(upper.as_ref(), path, place)? {
            let below = path.join(OsStr::from_bytes(&name));
            let found = match &upper {
                Some(upper) => stat_below(upper, OsStr::from_bytes(&name), &below)?,
                None => None,
            };
            let item = match (&upper, found) {
                (Some(upper), Some(stat)) => self.in_upper(upper, &name, &stat, &below, place)?,
                _ => self.not_in_upper(&name, &below, place)?,
            };
            let Some(item) = item else { continue };
            match String::from_utf8(name) {
                Ok(name) => _ = items.insert(name, item),
                Err(_) => self.scan.refused.push((below, "its name is not UTF-8")),
            }
        }
        Ok(items)
    }

    /// The names that may differ in one directory.
    fn names(&self, upper: Option<&OwnedFd>, path: &Path, place: &Place) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        if let Some(upper) = upper {
            let entries = Dir::read_from(upper).map_err(Error::io("list", path))?;
            for entry in entries {
                let entry = entry.map_err(Error::io("list", path))?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.insert(name.to_vec());
                }
            }
        }
        for (layer, node) in &place.since {
            let view = &self.since[*layer];
            names.extend(view.children(*node).map(|child| view.name(child).to_vec()));
        }
        // Nothing of the base shows here, so whatever is committed and not in the upper directory is gone.
        if let (None, Some(committed)) = (place.base, place.committed) {
            names.extend(self.committed.children(committed).map(|child| self.committed.name(child).to_vec()));
        }
        Ok(names)
    }

    fn in_upper(
        &mut self,
        upper: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        path: &Path,
        place: &Place,
    ) -> Result<Option<Item>> {
        let before = self.before(name, place);
        let mode = stat.st_mode;
        let name = OsStr::from_bytes(name);
        match mode & S_IFMT {
            S_IFREG => {
                let size = stat.st_size.unsigned_abs();
                self.scan.files.push(UpperFile { path: path.to_owned(), mode, size, before });
                Ok(Some(Item::File(self.scan.files.len() - 1)))
            }
            S_IFLNK => {
                let target = rustix::fs::readlinkat(upper, name, Vec::new()).map_err(Error::io("read", path))?;
                Ok(Some(Item::Symlink { target: target.into_bytes(), before }))
            }
            S_IFDIR => {
                let directory = open_directory(upper.as_fd(), name, path)?;
                let opaque = is_opaque(&directory);
                let inner = self.inner(name.as_bytes(), place, opaque);
                let entries = self.directory(Some(directory), path, &inner)?;
                Ok(Some(Item::Directory { mode, before, entries }))
            }
            MASK_MODE if stat.st_rdev == 0 => Ok(before.map(Item::Gone)),
            _ => {
                self.scan.refused.push((path.to_owned(), "it is a socket, fifo or device"));
                Ok(None)
            }
        }
    }

    fn not_in_upper(&mut self, name: &[u8], path: &Path, place: &Place) -> Result<Option<Item>> {
        let before = self.before(name, place);
        let child = place.base.and_then(|base| self.base.lookup(base, name));
        let Some((child, node)) = child.and_then(|child| Some((child, self.base.node(child)?))) else {
            return Ok(before.map(Item::Gone));
        };
        if node.is_directory() {
            let inner = self.inner(name, place, false);
            let entries = self.directory(None, path, &inner)?;
            return Ok(Some(Item::Directory { mode: node.mode, before, entries }));
        }
        let digest = self.base.digest(child).unwrap_or(Digest::NULL);
        if before.is_some_and(|b| b.is(node.mode, &digest)) {
            return Ok(None);
        }
        Ok(Some(Item::Base { digest, mode: node.mode, size: node.size, before }))
    }

    /// What each side has under `name`, where it is a directory.
    fn inner(&self, name: &[u8], place: &Place, opaque: bool) -> Place {
        let directory = |view: &View, parent: Option<NodeId>| {
            let child = view.lookup(parent?, name)?;
            view.node(child)?.is_directory().then_some(child)
        };
        let since = place.since.iter().filter_map(|(layer, node)| {
            let child = directory(&self.since[*layer], Some(*node))?;
            Some((*layer, child))
        });
        Place {
            base: if opaque { None } else { directory(self.base, place.base) },
            committed: directory(self.committed, place.committed),
            since: since.collect(),
        }
    }

    fn before(&self, name: &[u8], place: &Place) -> Option<Before> {
        let id = self.committed.lookup(place.committed?, name)?;
        before(self.committed, id)
    }
}

/// What `committed` has at node `id`.
pub fn before(committed: &View, id: NodeId) -> Option<Before> {
    let node = committed.node(id)?;
    let digest = match node.kind {
        NodeKind::File | NodeKind::Symlink => committed.digest(id),
        NodeKind::Directory { .. } | NodeKind::Mask => None,
    };
    Some(Before { node: id, mode: node.mode, size: node.size, digest })
}

fn open_directory(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::io("open", path))
}

fn stat_below(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::io("look at", path)(e)),
    }
}

/// Whether overlayfs shows nothing of the lower directory here.
fn is_opaque(directory: &OwnedFd) -> bool {
    // The second is root's, where tmpfs has no attributes of users (before Linux 6.6).
    ["user.overlay.opaque", "trusted.overlay.opaque"].into_iter().any(|mark| {
        let mut value = [0u8; 8];
        let found = rustix::fs::fgetxattr(directory, mark, &mut value);
        found.is_ok_and(|n| value[..n] == *b"y")
    })
}

/// One descriptor per level of the tree: deep trees need more than the usual soft limit.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
