//! The directory repository: objects, payloads and tags as files below one root, as `docs/format.md` draws it.
//!
//! ```text
//! VERSION                      objects/QU/77SN…====        tags/org/name.tag
//!                              payloads/QU/77SN…====       tags/space#ns/org/name.tag
//!                              {objects,payloads}/work/…   not yet published
//! ```
//!
//! * Nothing under its final name ever changes, and it stands there only when it is safe on disk (`batch.rs`).
//! * Readers take no lock. Tag streams are rewritten under a lock file (`lock.rs`).
//! * Payloads and objects are 0444; the rest is 0755/0644, or 0777/0666 where the root is writable for others.
//! * Objects and payloads are reached through descriptors that were opened once, so an open repository keeps
//!   working when the process changes its root or its mounts.

mod area;
mod batch;
mod claim;
mod fetching;
pub(crate) mod layout;
pub(crate) mod lock;
pub(crate) mod owner;
mod scan;
mod spread;
mod tags;

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use rustix::io::Errno;

pub use fetching::{Claims, Part};
pub use layout::FORMAT_VERSION;
use layout::{Medium, Modes, Store};

use crate::content;
use crate::digest::{Digest, DigestPrefix};
use crate::error::{Error, Result};
use crate::object::Object;
use crate::regular;
use crate::repository::{Batch, EachObject, PayloadReader, Repository, TagListing};
use crate::tag::{Tag, TagName};

/// The directory of what is here only in part.
const PARTIAL: &str = "partial";
/// Bytes that a payload is read in.
const READ_SIZE: usize = 256 * 1024;

/// A repository in a directory. Cheap to clone; clones share the open descriptors.
#[derive(Clone, Debug)]
pub struct Directory {
    inner: Arc<Inner>,
    namespace: Option<String>,
}

#[derive(Debug)]
struct Inner {
    /// Absolute, without symlinks.
    root: PathBuf,
    objects: Store,
    payloads: Store,
    modes: Modes,
    /// Whether manifests may stand here without their blobs: see [`Directory::partial`].
    partial: bool,
    /// What its file system is like, the worse of both stores.
    medium: Medium,
    /// Whether this program has looked for the leftovers of killed processes already.
    swept: AtomicBool,
}

impl Directory {
    /// Opens the repository at `root`, which must have `objects` and `payloads`; nothing is written.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_as(root, false)
    }

    fn open_as(root: impl AsRef<Path>, partial: bool) -> Result<Self> {
        let root = root.as_ref();
        let root = std::fs::canonicalize(root).map_err(Error::io("open repository", root))?;
        let stat = rustix::fs::stat(&root).map_err(Error::io("open repository", &root))?;
        layout::check_version(&root)?;
        let objects = Store::open(&root, "objects")?;
        let payloads = Store::open(&root, "payloads")?;
        let medium = objects.medium.max(payloads.medium);
        let modes = Modes { shared: stat.st_mode & 0o022 != 0 };
        let inner = Inner { root, objects, payloads, modes, partial, medium, swept: AtomicBool::new(false) };
        Ok(Directory { inner: Arc::new(inner), namespace: None })
    }

    /// Opens the repository at `root`, after making whatever of it is missing: the directory itself (0755, and those
    /// above it), `objects`, `payloads`, `tags`, VERSION. A complete one is opened without writing.
    pub fn create(root: impl AsRef<Path>) -> Result<Self> {
        let root = std::path::absolute(root.as_ref()).map_err(Error::io("create", root.as_ref()))?;
        let mut parents = layout::make_dirs(&root, Mode::from_raw_mode(0o755))?;
        // Before anything is made in it: a newer repository is left alone.
        let versioned = layout::check_version(&root)?;
        let stat = rustix::fs::stat(&root).map_err(Error::io("open repository", &root))?;
        let modes = Modes { shared: stat.st_mode & 0o022 != 0 };
        for name in ["objects", "payloads", "tags"] {
            parents.extend(layout::make_dirs(&root.join(name), modes.directory())?);
        }
        parents.dedup();
        for parent in &parents {
            layout::sync_dir(parent)?;
        }
        if !versioned {
            match layout::write_version(&root, modes) {
                // Missing means "current", so one that cannot be written is as good where all else is there.
                Err(Error::Io { source, .. }) if parents.is_empty() && is_read_only(&source) => {}
                result => result?,
            }
        }
        Self::open(root)
    }

    /// The same repository with its tags in `namespace`: one plain name, kept in the directory `tags/NAME#ns`.
    pub fn with_namespace(mut self, namespace: Option<&str>) -> Result<Self> {
        check_namespace(namespace)?;
        self.namespace = namespace.map(str::to_owned);
        Ok(self)
    }

    /// The namespace that tags are read from and written to, if any.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The repository's directory: absolute, symlinks resolved.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The directory below which all payloads are: `ROOT/payloads`.
    pub fn payload_dir(&self) -> &Path {
        &self.inner.payloads.path
    }

    /// Where the payload is, if it is here: `ROOT/payloads/QU/77SN…====`.
    pub fn payload_path(&self, digest: &Digest) -> PathBuf {
        self.inner.payloads.path_of(digest)
    }

    /// Where the object is, if it is here: `ROOT/objects/QU/77SN…====`.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        self.inner.objects.path_of(digest)
    }

    /// Whether the root is writable for group or others, so that what is made in it is writable for everyone.
    pub fn is_shared(&self) -> bool {
        self.inner.modes.shared
    }

    /// Where what is here only in part is kept apart, if there is any: a repository of its own in `ROOT/partial`, whose
    /// manifests, layers and platforms are whole, while blobs and payloads, if they are here, are in this one.
    pub fn partial(&self) -> Result<Option<Directory>> {
        let root = self.inner.root.join(PARTIAL);
        match rustix::fs::stat(&root) {
            Ok(_) => Self::open_as(root, true).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::io("open repository", root)(e)),
        }
    }

    /// The same; made if it is not there.
    pub fn make_partial(&self) -> Result<Directory> {
        let root = self.inner.root.join(PARTIAL);
        layout::make_dirs(&root, self.inner.modes.directory())?;
        Self::create(&root)?;
        Self::open_as(root, true)
    }

    /// Every object, sorted.
    pub fn objects(&self) -> Result<Vec<Digest>> {
        scan::find(&self.inner.objects, &DigestPrefix::any())
    }

    /// Opens a payload as a plain file.
    pub fn open_payload_file(&self, digest: &Digest) -> Result<File> {
        open_in(&self.inner.payloads, digest)?.ok_or(Error::MissingPayload(*digest))
    }

    /// What the file of an object holds, and where that is.
    fn object_bytes(&self, digest: &Digest) -> Result<(Vec<u8>, PathBuf)> {
        let path = self.object_path(digest);
        let file = open_in(&self.inner.objects, digest)?.ok_or(Error::UnknownObject(*digest))?;
        let bytes = regular::read_whole(&file, regular::LONGEST_OBJECT).map_err(Error::io("read", &path))?;
        Ok((bytes, path))
    }

    /// The tags, which are found by name each time: they must be those of the stores that were opened once. Where a
    /// repository was moved away or unmounted under a server, none of its tags is to be made in what is left there.
    fn tags(&self) -> Result<tags::TagStore<'_>> {
        self.inner.objects.check_place()?;
        Ok(tags::TagStore::new(self))
    }
}

impl Repository for Directory {
    fn address(&self) -> String {
        let namespace = self.namespace.as_ref().map(|name| format!("?tag_namespace={name}")).unwrap_or_default();
        format!("file://{}/{namespace}", self.inner.root.display().to_string().trim_end_matches('/'))
    }

    fn as_directory(&self) -> Option<&Directory> {
        Some(self)
    }

    /// Beyond reading and decoding, checks that the object is the one that its name promises.
    fn read_object(&self, digest: &Digest) -> Result<Object> {
        let (bytes, path) = self.object_bytes(digest)?;
        content::decode(&bytes, digest, &path)
    }

    fn read_encoded(&self, digests: &[Digest], each: &mut EachObject<'_>) -> Result<()> {
        digests.iter().try_for_each(|digest| {
            let (bytes, path) = self.object_bytes(digest)?;
            each(digest, content::read_encoded(bytes, digest, &path)?)
        })
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        scan::missing(&self.inner.objects, digests)
    }

    fn find(&self, prefix: &DigestPrefix) -> Result<Vec<Digest>> {
        scan::find(&self.inner.objects, prefix)
    }

    fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.inner.objects.remove(digest)
    }

    fn open_payload(&self, digest: &Digest) -> Result<PayloadReader> {
        Ok(Box::new(BufReader::with_capacity(READ_SIZE, self.open_payload_file(digest)?)))
    }

    fn missing_payloads(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        scan::missing(&self.inner.payloads, digests)
    }

    fn payloads(&self) -> Result<Vec<Digest>> {
        scan::find(&self.inner.payloads, &DigestPrefix::any())
    }

    fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.inner.payloads.remove(digest)
    }

    fn begin(&self) -> Result<Box<dyn Batch + '_>> {
        if !self.inner.swept.swap(true, Ordering::Relaxed) {
            area::sweep(&self.inner.objects);
            area::sweep(&self.inner.payloads);
            fetching::sweep(&self.inner.payloads);
        }
        Ok(Box::new(batch::DirectoryBatch::new(self)))
    }

    fn open_payload_at(&self, digest: &Digest, offset: u64) -> Result<PayloadReader> {
        let mut file = self.open_payload_file(digest)?;
        let read = || Error::io("read", self.payload_path(digest));
        file.seek(SeekFrom::Start(offset)).map_err(|e| read()(e))?;
        Ok(Box::new(BufReader::with_capacity(READ_SIZE, file)))
    }

    fn in_namespace(&self, namespace: Option<&str>) -> Result<Box<dyn Repository>> {
        Ok(Box::new(self.clone().with_namespace(namespace)?))
    }

    fn history(&self, name: &TagName) -> Result<Vec<Tag>> {
        self.tags()?.history(name)
    }

    fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.tags()?.insert(tag)
    }

    fn push_tag(&self, tag: &Tag) -> Result<Tag> {
        self.tags()?.push(tag)
    }

    fn list_tags(&self, folder: &str) -> Result<Vec<TagListing>> {
        self.tags()?.list(folder)
    }

    fn tag_names(&self) -> Result<Vec<TagName>> {
        self.tags()?.names()
    }

    fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.tags()?.remove(tag)
    }

    fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.tags()?.remove_stream(name)
    }
}

/// Refuses what is not one plain name.
pub(crate) fn check_namespace(namespace: Option<&str>) -> Result<()> {
    let Some(name) = namespace else { return Ok(()) };
    // The grammar of a tag name fits: plain ASCII, no `.` or `..`, no `#`.
    let parsed: TagName = name.parse().map_err(|_| Error::invalid("tag namespace", name, "use A-Z a-z 0-9 - _ ."))?;
    if parsed.as_str() != name || name.contains('/') {
        return Err(Error::invalid("tag namespace", name, "it must be a single name without '/'"));
    }
    Ok(())
}

/// Opens `digest` in `store` for reading, if it is there.
fn open_in(store: &Store, digest: &Digest) -> Result<Option<File>> {
    let name = layout::StoreName::of(digest);
    match regular::open_regular_at(&store.fd, name.as_str()) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("open", store.path_of(digest))(e)),
    }
}

fn is_read_only(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(e.kind(), PermissionDenied | ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn conforms(namespace: Option<&str>) {
        let place = tempfile::tempdir().unwrap();
        let mut count = 0;
        crate::conformance::run(&mut || {
            count += 1;
            let root = place.path().join(count.to_string());
            Box::new(Directory::create(root).unwrap().with_namespace(namespace).unwrap())
        });
    }

    #[test]
    fn a_directory_conforms() {
        conforms(None);
    }

    #[test]
    fn a_directory_with_a_namespace_conforms() {
        conforms(Some("space"));
    }
}
