//! The cache of flat views: what a stack looks like once its layers are merged, ready to be mapped.
//!
//! All views are files in `<cache>/views`, named by a key: of the view format's version and the digests of the stack
//! as the runtime names it. So a warm start opens one file and reads no object. On a miss the stack is taken apart,
//! and the key of its trees tried (another name for the same stack then becomes a hard link); then the trees' own
//! views are merged, each built from its manifest if it is not there. A view that is damaged, or of another version,
//! counts as missing.
//!
//! The cache is never needed: where it cannot be written the view lives in memory, as an unnamed file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::fs::MemfdFlags;
use spfs_mount::view::{self, View};
use spfs_repo::{Digest, Hasher, Manifest, ObjectBody, Repository};

use crate::Spfs;
use crate::error::{Error, Result};
use crate::live::LiveBind;
use crate::{cache, places, stack};

/// A view, and where other processes can open it.
pub struct CachedView {
    /// The view, mapped.
    pub view: View,
    /// Its file; if [`CachedView::is_cached`] is false, a name that is good in this process and its forks only, and
    /// as long as this value lives.
    pub path: PathBuf,
    /// What identifies its content, whatever the stack is called: for what is made from it.
    pub key: String,
    held: Option<File>,
}

impl CachedView {
    /// Whether it is in the cache, where the next run finds it.
    pub fn is_cached(&self) -> bool {
        self.held.is_none()
    }
}

/// Longer symlink targets than Linux takes (4095 bytes) are refused when a view is built; this much is read of them.
const MOST_TARGET: u64 = 8192;

/// What `stack` (layers, platforms, manifests, bottom-most first) looks like, with a mount point for each of `live`.
///
/// Errors: objects that are missing or of the wrong kind (on a miss only; payloads are not looked at, but for symlinks),
/// live sources that are gone.
pub fn merged(spfs: &Spfs, stack: &[Digest], live: &[LiveBind]) -> Result<CachedView> {
    let shelf = Shelf::of(spfs);
    let plain = key(b"stack", stack);
    if live.is_empty() {
        return merge_stack(spfs, &shelf, &plain, stack);
    }
    let placed = places::key(&plain, live)?;
    if let Some(found) = shelf.open(&placed) {
        return Ok(found);
    }
    let base = merge_stack(spfs, &shelf, &plain, stack)?;
    match places::view(&base.view, live)? {
        Some(points) => shelf.keep(&placed, view::merge(&[&base.view, &points])?),
        None => {
            shelf.link(&plain, &placed);
            Ok(base)
        }
    }
}

/// What one layer (or manifest) adds, with its masks.
pub fn layer(spfs: &Spfs, digest: &Digest) -> Result<View> {
    let manifest = match spfs.shown()?.read_object(digest)?.body {
        ObjectBody::Layer(layer) => layer.manifest,
        ObjectBody::Manifest(_) => Some(*digest),
        other => {
            let (found, wanted) = (spfs_repo::Object::new(other).kind().name(), "layer");
            return Err(spfs_repo::Error::WrongKind { digest: *digest, found, wanted }.into());
        }
    };
    match manifest {
        Some(manifest) => tree(spfs, &Shelf::of(spfs), &manifest),
        None => Ok(View::from_bytes(view::merge(&[])?)?),
    }
}

/// Makes the views of a layer that was just committed or pulled, so that its first run is a warm one. `manifest` is
/// its tree with its digest; `targets` are the targets of symlinks by payload, as far as they are at hand.
///
/// Errors: of building the view. Where the cache cannot be written nothing is kept, and that is no error.
pub fn ensure_layer(
    spfs: &Spfs,
    layer: &Digest,
    manifest: (&Digest, &Manifest),
    targets: &HashMap<Digest, Vec<u8>>,
) -> Result<()> {
    let shelf = Shelf::of(spfs);
    let name = key(b"tree", &[*manifest.0]);
    if shelf.open(&name).is_none() {
        let target = |digest: &Digest| targets.get(digest).map_or_else(|| target(spfs, digest), |t| Ok(t.clone()));
        shelf.put(&name, &view::build_manifest(manifest.1, target)?);
    }
    ensure(spfs, &[*layer])
}

/// Makes the merged view of a stack that was just committed, so that its first run is a warm one.
///
/// Errors: as [`merged`].
pub fn ensure(spfs: &Spfs, stack: &[Digest]) -> Result<()> {
    merged(spfs, stack, &[]).map(drop)
}

fn merge_stack(spfs: &Spfs, shelf: &Shelf<'_>, wanted: &str, stack: &[Digest]) -> Result<CachedView> {
    if let Some(found) = shelf.open(wanted) {
        return Ok(found);
    }
    let manifests = stack::manifests(&*spfs.shown()?, stack)?;
    let name = key(b"stack", &manifests);
    let made = match shelf.open(&name) {
        Some(found) => found,
        None => merge_trees(spfs, shelf, &name, &manifests)?,
    };
    if wanted != name {
        shelf.link(&name, wanted);
    }
    cache::trim(spfs);
    Ok(made)
}

fn merge_trees(spfs: &Spfs, shelf: &Shelf<'_>, name: &str, manifests: &[Digest]) -> Result<CachedView> {
    let layers = manifests.iter().map(|manifest| tree(spfs, shelf, manifest)).collect::<Result<Vec<_>>>()?;
    if let ([manifest], [only]) = (manifests, &layers[..]) {
        // A tree without masks looks the same on its own.
        if only.mask_count() == 0
            && shelf.link(&key(b"tree", &[*manifest]), name)
            && let Some(found) = shelf.open(name)
        {
            return Ok(found);
        }
    }
    shelf.keep(name, view::merge(&layers.iter().collect::<Vec<_>>())?)
}

/// The view of one manifest, masks included.
fn tree(spfs: &Spfs, shelf: &Shelf<'_>, manifest: &Digest) -> Result<View> {
    let name = key(b"tree", &[*manifest]);
    if let Some(found) = shelf.open(&name) {
        return Ok(found.view);
    }
    let object = spfs.shown()?.read_object(manifest)?;
    let found = object.kind().name();
    let ObjectBody::Manifest(tree) = object.body else {
        return Err(spfs_repo::Error::WrongKind { digest: *manifest, found, wanted: "manifest" }.into());
    };
    let bytes = view::build_manifest(&tree, |digest| target(spfs, digest))?;
    drop(tree);
    match shelf.put(&name, &bytes) {
        Some(kept) => Ok(kept.view),
        None => Ok(View::from_bytes(bytes)?),
    }
}

/// The target of a symlink, read from its payload.
fn target(spfs: &Spfs, digest: &Digest) -> spfs_repo::Result<Vec<u8>> {
    let mut target = Vec::new();
    let payload = spfs.local.open_payload(digest)?;
    let path = spfs.local.payload_path(digest);
    payload.take(MOST_TARGET).read_to_end(&mut target).map_err(spfs_repo::Error::io("read", &path))?;
    let found = Digest::of(&target);
    if found != *digest && target.len() < MOST_TARGET as usize {
        let reason = format!("its content has the digest {found}");
        return Err(spfs_repo::Error::corrupt(format!("payload {digest} ({})", path.display()), reason));
    }
    Ok(target)
}

/// The file name of the view of `what`.
fn key(what: &[u8], digests: &[Digest]) -> String {
    let mut hasher = Hasher::new();
    hasher.update(what);
    hasher.update(&view::VERSION.to_le_bytes());
    digests.iter().for_each(|digest| hasher.update(digest.as_bytes()));
    hasher.finish().short(spfs_repo::digest::SIGNIFICANT_LEN)
}

/// The directory of views, if there is one.
struct Shelf<'a> {
    spfs: &'a Spfs,
    dir: Option<PathBuf>,
}

impl<'a> Shelf<'a> {
    fn of(spfs: &'a Spfs) -> Self {
        Shelf { spfs, dir: spfs.dirs.cache_sub("views") }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(name))
    }

    /// The view of this name, if it is there and good.
    fn open(&self, name: &str) -> Option<CachedView> {
        let path = self.path(name)?;
        let view = View::open(&path, &self.spfs.env.boot().ok()?).ok()?;
        cache::touch(&path, self.spfs.env.now());
        Some(CachedView { key: identity(&view), view, path, held: None })
    }

    /// Writes a view to the cache, if that can be done.
    fn put(&self, name: &str, bytes: &[u8]) -> Option<CachedView> {
        let path = self.path(name)?;
        view::write(&path, bytes, &self.spfs.env.boot().ok()?).ok()?;
        self.open(name)
    }

    /// Writes a view to the cache, or else to an unnamed file.
    fn keep(&self, name: &str, bytes: Vec<u8>) -> Result<CachedView> {
        match self.put(name, &bytes) {
            Some(kept) => Ok(kept),
            None => self.hold(&bytes),
        }
    }

    fn hold(&self, bytes: &[u8]) -> Result<CachedView> {
        let io = |action| Error::io(action, "a view in memory");
        let file = rustix::fs::memfd_create("spfs-view", MemfdFlags::CLOEXEC).map_err(|e| io("make")(e.into()))?;
        let mut file = File::from(file);
        file.write_all(bytes).map_err(io("write"))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let view = View::open(&path, &self.spfs.env.boot()?)?;
        Ok(CachedView { key: identity(&view), view, path, held: Some(file) })
    }

    /// Gives the view `from` the further name `to`. Whether that was possible.
    fn link(&self, from: &str, to: &str) -> bool {
        let (Some(from), Some(to)) = (self.path(from), self.path(to)) else { return false };
        let link = || std::fs::hard_link(&from, &to);
        // What is in the way was not good.
        link().or_else(|_| std::fs::remove_file(&to).and_then(|()| link())).is_ok()
    }
}

fn identity(view: &View) -> String {
    view.identity().short(spfs_repo::digest::SIGNIFICANT_LEN)
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
