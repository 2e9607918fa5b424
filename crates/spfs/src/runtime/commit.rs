//! Committing in a runtime: the active changes become a layer, done by the monitor's child on the upper directory.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use spfs_mount::view::View;
use spfs_repo::ingest::FileFound;
use spfs_repo::manifest::{Dir, Node};
use spfs_repo::{Batch, Digest, Layer, Manifest, Object, Platform, Repository, Tag};

use super::changes::{self, Before, Item, MASK_MODE, Scan, UpperFile};
use super::jobs::Job;
use super::listing;
use super::protocol::{CommitRequest, Committed};
use super::record::Record;
use super::{durable, files, shown};
use crate::diff::Change;
use crate::error::{Error, Result};
use crate::{lazy, stack, views};

/// The views that changes are measured against.
pub struct Sides {
    /// What lies below the upper directory.
    pub base: View,
    /// What is committed.
    pub committed: View,
    /// The layers committed since the base was mounted, with their masks.
    pub since: Vec<View>,
}

impl Sides {
    /// Opens the views of a runtime; `all`: as if nothing had been committed in it.
    pub fn open(job: &Job<'_>, record: &Record, all: bool) -> Result<Self> {
        let base = shown::merged(&job.spfs, &record.status.base, &record.config.live_layers)?.view;
        if all {
            let committed = shown::merged(&job.spfs, &record.status.base, &record.config.live_layers)?.view;
            return Ok(Sides { base, committed, since: Vec::new() });
        }
        let committed = shown::merged(&job.spfs, &record.status.stack, &record.config.live_layers)?.view;
        let since = record.status.committed.iter().map(|layer| views::layer(&job.spfs, layer));
        Ok(Sides { base, committed, since: since.collect::<Result<_>>()? })
    }

    /// Finds what differs.
    pub fn scan(&self, job: &Job<'_>) -> Result<Scan> {
        changes::scan(job.upper.as_fd(), &self.base, &self.committed, &self.since)
    }
}

/// The active changes, sorted, for `spfs info` and `spfs diff`. Hashes what only its content can tell.
pub fn changes(job: &Job<'_>) -> Result<Vec<Change>> {
    let record = job.dir.load()?;
    let sides = Sides::open(job, &record, false)?;
    let scan = sides.scan(job)?;
    let doubtful: Vec<&UpperFile> = scan.files.iter().filter(|file| is_doubtful(file)).collect();
    let digests = files::hash(job, &doubtful)?;
    let known = doubtful.iter().map(|file| file.path.clone()).zip(digests).collect();
    Ok(listing::list(&scan, &sides.committed, &known))
}

/// Whether only the content tells whether it has changed.
fn is_doubtful(file: &UpperFile) -> bool {
    file.before.is_some_and(|before| before.digest.is_some() && before.size == file.size)
}

/// Commits the active changes as a layer, and the stack as a platform if that is asked for.
pub fn commit(job: &Job<'_>, request: &CommitRequest) -> Result<Committed> {
    let mut record = job.dir.load()?;
    let frozen = record.status.editable && freeze(job)?;
    let made = make(job, &mut record, request);
    match made {
        Ok(mut committed) => {
            record.status.editable = record.status.editable && !frozen;
            committed.editable = record.status.editable;
            job.dir.save(&record)?;
            Ok(committed)
        }
        Err(error) => {
            if frozen {
                job.set_editable(true)?;
            }
            Err(error)
        }
    }
}

/// Makes /spfs read-only, so that nothing changes under the commit. Not possible while a file is open for writing:
/// then the commit looks at each file before and after.
fn freeze(job: &Job<'_>) -> Result<bool> {
    match job.set_editable(false) {
        Ok(()) => Ok(true),
        Err(Error::Monitor(failure)) if failure.kind == crate::failure::FailureKind::Busy => Ok(false),
        Err(error) => Err(error),
    }
}

fn make(job: &Job<'_>, record: &mut Record, request: &CommitRequest) -> Result<Committed> {
    let spfs = &job.spfs;
    let layer = make_layer(job, record, request)?;
    if layer.is_none() && !request.platform {
        let reason = "nothing has changed since the runtime began, or since the last commit".to_owned();
        return Err(Error::NothingToCommit { reason });
    }
    if let Some(layer) = layer {
        if request.all {
            record.status.stack = record.status.base.clone();
            record.status.committed.clear();
        }
        let mut bottom_up: Vec<Digest> = record.status.stack.iter().rev().copied().collect();
        stack::push(&mut bottom_up, layer);
        record.status.stack = bottom_up.into_iter().rev().collect();
        record.status.committed.push(layer);
    }
    let platform = if request.platform { Some(make_platform(job, record)?) } else { None };
    if let Some(target) = platform.or(layer) {
        for name in &request.tags {
            let (user, time) = (spfs.user(), request.now);
            spfs.local.push_tag(&Tag { name: name.clone(), target, parent: Digest::NULL, user, time })?;
        }
    }
    durable::remember(spfs, record, request.now)?;
    // So that the next run of it, by whatever name, is a warm one. The commit is safe whether this works or not.
    let _ = shown::merged(spfs, &record.status.stack, &record.config.live_layers);
    for digest in platform.iter().chain(&layer) {
        let _ = shown::merged(spfs, &[*digest], &[]);
    }
    Ok(Committed { layer, platform, editable: false })
}

fn make_layer(job: &Job<'_>, record: &Record, request: &CommitRequest) -> Result<Option<Digest>> {
    let sides = Sides::open(job, record, request.all)?;
    let scan = sides.scan(job)?;
    if let Some((path, reason)) = scan.refused.first() {
        return Err(spfs_repo::Error::Uncommittable { path: path.clone(), reason: (*reason).to_owned() }.into());
    }
    lazy::bring_payloads(&job.spfs, &record.config.lazy, &scan.base_payloads(), &job.progress)?;
    let batch = job.spfs.local.begin()?;
    let found = files::store(job, &*batch, &scan.files)?;
    let mut builder = Builder { batch: &*batch, files: &scan.files, found: &found };
    let root = builder.directory(&scan.root)?;
    if root.entries.is_empty() && !request.allow_empty {
        return Ok(None);
    }
    let manifest = batch.add_object(&Object::new(Manifest::from_dir(&root)))?;
    let layer = batch.add_object(&Object::new(Layer { manifest: Some(manifest), annotations: Vec::new() }))?;
    batch.finish()?;
    Ok(Some(layer))
}

fn make_platform(job: &Job<'_>, record: &Record) -> Result<Digest> {
    let bottom_up: Vec<Digest> = record.status.stack.iter().rev().copied().collect();
    // What refers to something needs it whole: here, a stack of which only a part was fetched becomes complete.
    lazy::complete(&job.spfs, &record.config.lazy, &bottom_up, &job.progress)?;
    let stack = stack::expand(&job.spfs.local, &bottom_up)?;
    if stack.is_empty() {
        return Err(Error::NothingToCommit { reason: "the runtime has no layers and no changes".into() });
    }
    let batch = job.spfs.local.begin()?;
    let platform = batch.add_object(&Object::new(Platform { stack }))?;
    batch.finish()?;
    Ok(platform)
}

/// Turns what differs into the tree of a layer.
struct Builder<'a> {
    batch: &'a dyn Batch,
    files: &'a [UpperFile],
    found: &'a [FileFound],
}

impl Builder<'_> {
    fn directory(&mut self, items: &BTreeMap<String, Item>) -> Result<Dir> {
        let mut dir = Dir::default();
        for (name, item) in items {
            if let Some(node) = self.node(item)? {
                dir.entries.insert(name.clone(), node);
            }
        }
        Ok(dir)
    }

    /// The entry for `item`; nothing if it turns out to be what is committed already.
    fn node(&mut self, item: &Item) -> Result<Option<Node>> {
        Ok(match item {
            Item::File(index) => {
                let found = &self.found[*index];
                blob(found.digest, found.mode, found.size, self.files[*index].before)
            }
            Item::Symlink { target, before } => {
                let (digest, size) = self.batch.add_payload(&mut target.as_slice(), None)?;
                self.batch.add_object(&Object::new(spfs_repo::Blob { payload: digest, size }))?;
                blob(digest, spfs_mount::view::S_IFLNK | 0o777, size, *before)
            }
            Item::Base { digest, mode, size, before } => blob(*digest, *mode, *size, *before),
            Item::Directory { mode, before, entries } => {
                let dir = self.directory(entries)?;
                let same = before.is_some_and(|before| before.mode == *mode);
                (!same || !dir.entries.is_empty()).then_some(Node::Dir { mode: *mode, dir })
            }
            Item::Gone(_) => Some(Node::Mask { mode: MASK_MODE }),
        })
    }
}

fn blob(digest: Digest, mode: u32, size: u64, before: Option<Before>) -> Option<Node> {
    let same = before.is_some_and(|before| before.is(mode, &digest));
    (!same).then_some(Node::Blob { digest, mode, size })
}
