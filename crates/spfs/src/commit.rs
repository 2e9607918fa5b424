//! Commits that need no runtime: a directory becomes a layer, an environment becomes a platform.
//!
//! Order (architecture, invariant 2): payloads and objects are safe on disk and visible before a tag points to them.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use serde::Serialize;
use spfs_repo::ingest::{Ingest, StatCache};
use spfs_repo::{Annotation, Batch, Digest, Directory, Format, Layer, Object, Platform, Progress, Repository, TagName};

use crate::error::{Error, Result};
use crate::spfs::Spfs;
use crate::stack;
use crate::tags::{self, Author};
use crate::views;

/// How a directory is committed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The names that the result gets.
    pub tags: Vec<TagName>,
    /// Whether a directory with nothing in it makes a layer.
    pub allow_empty: bool,
    /// Read every file, even those that have not changed since they were last committed.
    pub no_cache: bool,
    /// Threads to use; 0 for one per core.
    pub threads: usize,
}

/// What was committed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Committed {
    /// The layer or platform.
    pub digest: Digest,
    /// The layer's tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The tags that point to it now.
    pub tags: Vec<TagName>,
}

/// Makes a layer of everything in the directory `path`.
///
/// Errors: [`Error::NothingToCommit`] if there is nothing in it; what [`Ingest::commit`] says of files that cannot be
/// committed. Then nothing has been stored.
pub fn path(
    spfs: &Spfs,
    repository: &Directory,
    path: &Path,
    options: &Options,
    author: &Author,
    progress: &dyn Progress,
) -> Result<Committed> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::io("open", path))?;
    let cache = if options.no_cache { None } else { stat_cache(spfs, path) };
    let format = spfs.config.storage.format;
    let batch = repository.begin()?;
    let ingest = Ingest { batch: Some(&*batch), format, cache: cache.as_ref(), threads: options.threads, progress };
    let found = ingest.commit(repository, root.as_fd(), path)?;
    if found.scanned.dir.entries.is_empty() && !options.allow_empty {
        return Err(Error::NothingToCommit { reason: format!("{} is empty", path.display()) });
    }
    let digest = layer(&*batch, found.digest, Vec::new(), format)?;
    batch.finish()?;
    tags::tag(repository, &digest, &options.tags, author)?;
    if repository.root() == spfs.local.root() {
        // The commit is done; without its view the first run only takes longer.
        let _ = views::ensure_layer(spfs, &digest, (&found.digest, &found.manifest), &found.scanned.symlinks);
    }
    if let Some(cache) = cache {
        // A cache that cannot be kept costs time, the next time; nothing else.
        let _ = cache.save();
    }
    Ok(Committed { digest, manifest: Some(found.digest), tags: options.tags.clone() })
}

/// What is known of the files below `path` from the last time; there is one such file for each directory.
fn stat_cache(spfs: &Spfs, path: &Path) -> Option<StatCache> {
    use std::os::unix::ffi::OsStrExt;
    let real = std::fs::canonicalize(path).ok()?;
    let name = Digest::of(real.as_os_str().as_bytes()).short(32);
    Some(StatCache::load(spfs.dirs.cache_sub("stat")?.join(name), spfs.env.now()))
}

/// Makes a platform of `stack` (bottom-most first); what stands in it twice moves up.
pub fn platform_of(
    spfs: &Spfs,
    repository: &dyn Repository,
    stack: &[Digest],
    names: &[TagName],
    author: &Author,
) -> Result<Committed> {
    let mut unique = Vec::with_capacity(stack.len());
    for digest in stack {
        stack::push(&mut unique, *digest);
    }
    // A platform of files would be one that nobody can enter.
    stack::members(repository, &unique)?;
    let batch = repository.begin()?;
    let digest = platform(&*batch, unique, spfs.config.storage.format)?;
    batch.finish()?;
    tags::tag(repository, &digest, names, author)?;
    if repository.as_directory().is_some_and(|directory| directory.root() == spfs.local.root()) {
        // As above.
        let _ = views::ensure(spfs, &[digest]);
    }
    Ok(Committed { digest, manifest: None, tags: names.to_vec() })
}

/// Adds a layer to a batch that holds, or whose repository holds, its manifest and the blobs of its annotations.
pub fn layer(batch: &dyn Batch, manifest: Digest, annotations: Vec<Annotation>, format: Format) -> Result<Digest> {
    let layer = Layer { manifest: Some(manifest), annotations };
    Ok(batch.add_object(&Object { format, body: layer.into() })?)
}

/// Adds a platform to a batch that holds, or whose repository holds, what is in `stack` (bottom-most first).
pub fn platform(batch: &dyn Batch, stack: Vec<Digest>, format: Format) -> Result<Digest> {
    Ok(batch.add_object(&Object { format, body: Platform { stack }.into() })?)
}
