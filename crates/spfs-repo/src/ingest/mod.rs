//! From files to a repository: walking a directory, hashing every file once, and storing what is new on the way.
//!
//! [`Ingest`] says how: into which batch (or none, to hash only), with which [`StatCache`], on how many threads.
//! Its verbs are [`Ingest::tree`] for everything below a directory, [`Ingest::files`] for a list of paths, and
//! [`Ingest::commit`], which also stores the manifest.
//!
//! * Everything is reached relative to open directories and never through a symlink: paths may be of any length, and
//!   a tree that is being rearranged cannot lead out of itself. Directories nest up to [`MAX_DEPTH`](crate::manifest::MAX_DEPTH) levels.
//! * What is mounted inside of the tree belongs to it.
//! * A file counts as read only if it is the same before and after (size, modification and change time).
//! * Not kept, as in upstream: times, owners, extended attributes, hard links, holes.
//! * Work is done by scoped threads that end before the verb returns. Beside the tree itself and one buffer of
//!   256 KiB for each thread, nothing is kept in memory; about 256 directories are open at once.

mod cache;
mod files;
mod queue;
mod source;
mod trouble;
mod walk;

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

pub use cache::{Stamp, StatCache};
pub use files::{FileFound, FileRequest};

use crate::codec;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Dir, Manifest, Node};
use crate::object::{Format, Object, ObjectBody};
use crate::progress::Progress;
use crate::repository::{Batch, Repository};

/// How files are taken in.
#[derive(Clone, Copy)]
pub struct Ingest<'a> {
    /// Where payloads and their blobs go; [`None`] only hashes.
    pub batch: Option<&'a dyn Batch>,
    /// The format of new objects.
    pub format: Format,
    /// What is known of files that have not changed since; [`None`] reads every file.
    pub cache: Option<&'a StatCache>,
    /// How many threads work; 0 for as many as the machine has processors.
    pub threads: usize,
    /// Hears of every file, and may interrupt.
    pub progress: &'a dyn Progress,
}

/// A tree as it was found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// All that is in it.
    pub dir: Dir,
    /// The targets of its symlinks, by the digest of their payload.
    pub symlinks: HashMap<Digest, Vec<u8>>,
    /// How many files, symlinks and masks there are.
    pub files: u64,
    /// The bytes of all files.
    pub bytes: u64,
    /// Files that the cache knew and that were not read: their payloads are **not** in the batch.
    pub cached: HashSet<Digest>,
}

/// A tree that is stored, once the batch is finished.
#[derive(Debug)]
pub struct Committed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// What was found; every payload is in the batch or in the repository.
    pub scanned: Scanned,
}

impl<'a> Ingest<'a> {
    /// Takes in everything below the open directory `root`; `path` names it in errors.
    ///
    /// Errors: [`Error::Uncommittable`] with up to a handful of offending files: special files, unreadable ones,
    /// names and targets that are not UTF-8, files that change while they are read. Then the batch is to be dropped.
    pub fn tree(&self, root: BorrowedFd<'_>, path: &Path) -> Result<Scanned> {
        walk::walk(self, root, path)
    }

    /// Takes in the files `requests` below the open directory `root`, and says what they are, in the given order.
    /// The cache is not asked. Errors are those of [`Ingest::tree`].
    pub fn files(&self, root: BorrowedFd<'_>, path: &Path, requests: &[FileRequest]) -> Result<Vec<FileFound>> {
        files::take(self, root, path, requests)
    }

    /// Takes in a whole tree and its manifest. `batch` must be one of `repository`; finishing it is the caller's.
    ///
    /// If the repository has that very manifest, nothing else is looked at (present means complete). Otherwise every
    /// file that only the cache vouches for is looked up, and read if the repository does not have it.
    pub fn commit(&self, repository: &dyn Repository, root: BorrowedFd<'_>, path: &Path) -> Result<Committed> {
        let Some(batch) = self.batch else {
            return Err(Error::invalid("commit", path.to_string_lossy(), "there is no batch to put it into"));
        };
        let scanned = self.tree(root, path)?;
        let manifest = Manifest::from_dir(&scanned.dir);
        let object = Object { format: self.format, body: manifest.into() };
        let digest = codec::digest(&object)?;
        if !scanned.cached.is_empty() && !repository.missing(&[digest])?.is_empty() {
            self.read_what_is_missing(repository, root, path, &scanned)?;
        }
        batch.add_object(&object)?;
        let manifest = match object.body {
            ObjectBody::Manifest(manifest) => manifest,
            _ => Manifest::default(),
        };
        Ok(Committed { digest, manifest, scanned })
    }

    /// Reads the files that only the cache vouches for and that the repository does not have.
    fn read_what_is_missing(
        &self,
        repository: &dyn Repository,
        root: BorrowedFd<'_>,
        path: &Path,
        scanned: &Scanned,
    ) -> Result<()> {
        let cached: Vec<Digest> = scanned.cached.iter().copied().collect();
        let mut missing: HashSet<Digest> = repository.missing(&cached)?.into_iter().collect();
        missing.extend(repository.missing_payloads(&cached)?);
        if missing.is_empty() {
            return Ok(());
        }
        let wanted = paths_of(&scanned.dir, missing);
        let requests: Vec<FileRequest> =
            wanted.iter().map(|(path, _)| FileRequest { path: path.clone(), expect: None }).collect();
        let found = self.files(root, path, &requests)?;
        for ((relative, digest), found) in wanted.into_iter().zip(found) {
            if found.digest != digest {
                return Err(Error::Uncommittable { path: path.join(relative), reason: source::CHANGED.to_owned() });
            }
        }
        Ok(())
    }

    fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        }
    }
}

/// One path in `dir` for each of `digests`.
fn paths_of(dir: &Dir, mut digests: HashSet<Digest>) -> Vec<(PathBuf, Digest)> {
    let mut found = Vec::with_capacity(digests.len());
    let mut waiting = vec![(PathBuf::new(), dir)];
    while let Some((path, dir)) = waiting.pop() {
        for (name, node) in &dir.entries {
            match node {
                Node::Dir { dir, .. } => waiting.push((path.join(name), dir)),
                Node::Blob { digest, .. } if digests.remove(digest) => found.push((path.join(name), *digest)),
                _ => {}
            }
        }
    }
    found
}
