//! The archive: a directory repository's files as the members of one tar file, uncompressed.
//!
//! * It is read where it is: one pass over the headers when it is opened (`index.rs`), then each object, payload and tag
//!   stream by its place in the file. Reading writes nothing.
//! * It is never changed, only replaced: what is new is collected in unnamed files beside it (`batch.rs`), then under
//!   a lock (`PATH.lock`) a new archive is written with the members of the one that is there then, made durable, and
//!   renamed over it (`write.rs`). A crash leaves the old one or the new one; of two writers neither loses anything.
//! * So every change costs a copy of the archive (which a file system may make without copying any bytes): one for a
//!   batch, one for a tag, one for [`Repository::insert_tags`] however many.
//! * What another process has written is seen by the next call: the file's identity is looked at each time.
//! * Members that are no part of a repository (renders, …) stay as they are.

mod batch;
mod index;
mod tags;
mod write;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use index::Index;

use crate::content;
use crate::digest::{Digest, DigestPrefix};
use crate::directory::layout::Medium;
use crate::directory::{self, layout};
use crate::error::{Error, Result};
use crate::object::Object;
use crate::repository::{Batch, PayloadReader, Repository, TagListing};
use crate::tag::{Tag, TagName};

/// Bytes that a payload is read in.
const READ_SIZE: usize = 256 * 1024;

/// A repository in a tar file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive {
    inner: Arc<Inner>,
    namespace: Option<String>,
}

#[derive(Debug)]
struct Inner {
    /// Absolute, without symlinks.
    path: PathBuf,
    /// What the file system beside it is like.
    medium: Medium,
    /// The archive as it was when it was last looked at.
    seen: Mutex<Arc<Snapshot>>,
}

/// One state of the archive: nobody changes it, so it can be read as long as it is open.
#[derive(Debug)]
struct Snapshot {
    file: File,
    stamp: Stamp,
    index: Index,
}

/// What tells one state of the file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Archive {
    /// Opens the archive at `path`; nothing is written.
    ///
    /// Errors: [`Error::Corrupt`] for what is cut short, or holds members that no repository has: names that lead out
    /// of it, links, the same name twice. [`Error::Unsupported`] for one that is compressed or of a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = std::fs::canonicalize(path).map_err(Error::io("open archive", path))?;
        let snapshot = Snapshot::read(&path, &path)?;
        let medium = Medium::of(snapshot.file.as_fd());
        Ok(Archive { inner: Arc::new(Inner { path, medium, seen: Mutex::new(Arc::new(snapshot)) }), namespace: None })
    }

    /// Opens the archive at `path`, after making an empty one, and the directories above it, if there is none.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match std::fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => write::create(path)?,
            Err(e) => return Err(Error::io("open archive", path)(e)),
        }
        Self::open(path)
    }

    /// The same archive with its tags in `namespace`, as [`crate::Directory::with_namespace`].
    pub fn with_namespace(mut self, namespace: Option<&str>) -> Result<Self> {
        directory::check_namespace(namespace)?;
        self.namespace = namespace.map(str::to_owned);
        Ok(self)
    }

    /// The tar file: absolute, symlinks resolved.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Every object, sorted.
    pub fn objects(&self) -> Result<Vec<Digest>> {
        Ok(self.snapshot()?.index.objects.keys().copied().collect())
    }

    /// The archive as it is now.
    fn snapshot(&self) -> Result<Arc<Snapshot>> {
        let path = &self.inner.path;
        let now = Stamp::of(&std::fs::metadata(path).map_err(Error::io("open archive", path))?);
        let mut seen = self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.stamp != now {
            *seen = Arc::new(Snapshot::read(path, path)?);
        }
        Ok(seen.clone())
    }
}

impl Snapshot {
    /// Reads the archive `path`, whose name in messages is `name`.
    fn read(path: &Path, name: &Path) -> Result<Self> {
        let fail = |e: io::Error| Error::io("open archive", name)(e);
        // Before it is opened: opening a fifo would wait.
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(Error::invalid("archive", name.to_string_lossy(), "it is not a file"));
        }
        let file = File::open(path).map_err(fail)?;
        let stamp = Stamp::of(&file.metadata().map_err(fail)?);
        let index = Index::read(&file, name)?;
        Ok(Snapshot { file, stamp, index })
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Repository for Archive {
    fn address(&self) -> String {
        let namespace = self.namespace.as_ref().map(|name| format!("?tag_namespace={name}")).unwrap_or_default();
        format!("tar://{}{namespace}", self.inner.path.display())
    }

    fn read_object(&self, digest: &Digest) -> Result<Object> {
        let snapshot = self.snapshot()?;
        let member = *snapshot.index.objects.get(digest).ok_or(Error::UnknownObject(*digest))?;
        let bytes = index::read_all(&snapshot.file, &self.inner.path, member)?;
        content::decode(&bytes, digest, &self.inner.path)
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let snapshot = self.snapshot()?;
        Ok(digests.iter().filter(|digest| !snapshot.index.objects.contains_key(digest)).copied().collect())
    }

    fn find(&self, prefix: &DigestPrefix) -> Result<Vec<Digest>> {
        let snapshot = self.snapshot()?;
        Ok(snapshot.index.objects.keys().filter(|digest| prefix.matches(digest)).copied().collect())
    }

    fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.remove(|index| index.objects.get(digest).copied())
    }

    fn open_payload(&self, digest: &Digest) -> Result<PayloadReader> {
        let snapshot = self.snapshot()?;
        let member = *snapshot.index.payloads.get(digest).ok_or(Error::MissingPayload(*digest))?;
        Ok(Box::new(BufReader::with_capacity(READ_SIZE, Section { snapshot, at: member.at, left: member.len })))
    }

    fn missing_payloads(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let snapshot = self.snapshot()?;
        Ok(digests.iter().filter(|digest| !snapshot.index.payloads.contains_key(digest)).copied().collect())
    }

    fn payloads(&self) -> Result<Vec<Digest>> {
        Ok(self.snapshot()?.index.payloads.keys().copied().collect())
    }

    fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.remove(|index| index.payloads.get(digest).copied())
    }

    fn begin(&self) -> Result<Box<dyn Batch + '_>> {
        Ok(Box::new(batch::ArchiveBatch::new(self)))
    }

    fn history(&self, name: &TagName) -> Result<Vec<Tag>> {
        let mut tags = self.read_stream(&*self.snapshot()?, name)?;
        tags.reverse();
        Ok(tags)
    }

    fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.insert_tags(std::slice::from_ref(tag))
    }

    fn insert_tags(&self, tags: &[Tag]) -> Result<()> {
        self.insert_streams(tags)
    }

    fn push_tag(&self, tag: &Tag) -> Result<Tag> {
        self.push_stream(tag)
    }

    fn list_tags(&self, folder: &str) -> Result<Vec<TagListing>> {
        self.list_streams(folder)
    }

    fn tag_names(&self) -> Result<Vec<TagName>> {
        self.stream_names()
    }

    fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.remove_record(tag)
    }

    fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.remove_stream(name)
    }
}

/// One member's content, read from its place.
struct Section {
    snapshot: Arc<Snapshot>,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.snapshot.file.read_at(&mut buffer[..wanted], self.at)?;
        if n == 0 {
            // Somebody has cut the file that we have open, which only another program does.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// The directory that `path` is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What a new archive's VERSION says.
const VERSION: &str = layout::FORMAT_VERSION;

#[cfg(test)]
mod tests;
