//! The one way into a directory repository: everything is written aside, made durable, then published in order.
//!
//! 1. Payloads and objects are written into the batch's [`Area`]s, hashed on the way.
//! 2. A barrier makes all their content durable: `fsync` of each of a few files, `syncfs` for many. On file systems
//!    that are not this kernel's alone (NFS), every file is synced as it is written.
//! 3. They get their final names: payloads, blobs, manifests, layers, platforms, so that an object never stands before
//!    what it refers to. A journal keeps that order; without one (NFS) every step is synced. Payloads, and then
//!    blobs, of a two-character directory that is new become visible together, by one rename of that directory.
//! 4. A second barrier makes the names durable.
//!
//! What is here already is not written again, but gets a fresh modification time, because upstream's cleaning goes
//! by age. A batch takes about 100 bytes of memory for each distinct payload and object, and at most 18 descriptors.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Seek as _, Write as _};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::Directory;
use super::area::{Area, Company, Published, Stream};
use super::layout::{Medium, Store, StoreName, sync_fd};
use super::owner::Owner;
use super::scan;
use super::spread::{WAITING, spread};
use crate::codec::{Encoded, Given};
use crate::content::{SMALL, check_expected, fill, with_first_piece};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::object::{Kind, Object, ObjectBody};
use crate::repository::Batch;

/// Up to this many files are synced one by one.
const FEW: usize = 16;
/// What is here already is touched when its modification time is older than this, in seconds. Upstream's cleaning
/// spares what is younger than 15 minutes.
const FRESH: i64 = 300;
/// From this many files on, single ones are published on several threads.
const MANY: usize = 512;
/// Children that are looked for at a time.
const LOT: usize = 10_000;
/// Threads that publish at most.
const PUBLISHERS: usize = 8;

/// A batch of a [`Directory`].
pub(super) struct DirectoryBatch<'a> {
    repository: &'a Directory,
    payloads: Area<'a>,
    objects: Area<'a>,
    known: Mutex<Known>,
    /// Seconds by the file system's clock, once they were needed.
    now: OnceLock<Option<i64>>,
    /// Set by a failed write: what others rely on may be missing.
    broken: AtomicBool,
}

/// What this batch knows to be here.
#[derive(Default)]
struct Known {
    /// Payloads; whether they wait in the area.
    payloads: HashMap<Digest, bool>,
    /// Objects; the kind of those that wait in the area.
    objects: HashMap<Digest, Option<Kind>>,
}

/// Files that get their final names together, after those of the step before.
struct Step<'s, 'a> {
    area: &'s Area<'a>,
    company: Company,
    /// Sorted.
    digests: Vec<Digest>,
}

impl<'a> DirectoryBatch<'a> {
    /// An empty batch. Writes nothing yet.
    pub fn new(repository: &'a Directory) -> Self {
        let owner = Owner::current();
        let inner = &repository.inner;
        DirectoryBatch {
            repository,
            payloads: Area::new(&inner.payloads, inner.modes, &owner),
            objects: Area::new(&inner.objects, inner.modes, &owner),
            known: Mutex::default(),
            now: OnceLock::new(),
            broken: AtomicBool::new(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the finished file `name`, a path in the store of payloads, as the payload `digest` of `size` bytes.
    pub fn adopt(&self, name: &str, digest: &Digest, size: u64) -> Result<()> {
        let present = self.is_here(&self.payloads, digest, |there| there == size)?;
        if self.known().payloads.insert(*digest, !present).is_none() && !present {
            self.failed(self.payloads.adopt(name, digest, Company::Shard, self.sync_each()))?;
        }
        Ok(())
    }

    /// Whether each file is synced as it is written.
    fn sync_each(&self) -> bool {
        self.repository.inner.medium != Medium::Local
    }

    /// Remembers that the batch cannot be finished.
    fn failed<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Adds content that is all in memory.
    fn add_small(&self, content: &[u8], expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let digest = Digest::of(content);
        let size = content.len() as u64;
        check_expected(&digest, expected)?;
        if self.known().payloads.contains_key(&digest) {
            return Ok((digest, size));
        }
        let present = self.is_here(&self.payloads, &digest, |there| there == size)?;
        // Claimed before it is written: of two threads with the same content, one writes.
        if self.known().payloads.insert(digest, !present).is_none() && !present {
            self.failed(self.payloads.write(&digest, content, Company::Shard, self.sync_each()))?;
        }
        Ok((digest, size))
    }

    /// Adds content that begins with `piece` and goes on in `content`.
    fn add_large(&self, piece: &mut [u8], content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let mut stream = self.failed(self.payloads.stream())?;
        let copied = self.copy(&mut stream, piece, content);
        let (digest, size) = match copied.and_then(|(digest, size)| {
            check_expected(&digest, expected)?;
            Ok((digest, size))
        }) {
            Ok(result) => result,
            Err(e) => {
                self.payloads.abandon(stream);
                return Err(e);
            }
        };
        let present = self.is_here(&self.payloads, &digest, |there| there == size)?;
        if self.known().payloads.insert(digest, !present).is_some() || present {
            self.payloads.abandon(stream);
        } else {
            self.failed(self.payloads.keep(stream, &digest, Company::Shard, self.sync_each()))?;
        }
        Ok((digest, size))
    }

    /// Copies `piece` and the rest of `content` into `stream`, hashing.
    fn copy(&self, stream: &mut Stream, piece: &mut [u8], content: &mut dyn Read) -> Result<(Digest, u64)> {
        let mut hasher = Hasher::new();
        let mut size = 0;
        let mut filled = piece.len();
        let mut ends_in_hole = false;
        while filled > 0 {
            let content_piece = &piece[..filled];
            hasher.update(content_piece);
            // What is all zeros is left out: holes of sparse files stay holes.
            ends_in_hole = content_piece.iter().all(|byte| *byte == 0);
            let written = match ends_in_hole {
                true => stream.file.seek_relative(filled as i64),
                false => stream.file.write_all(content_piece),
            };
            written.map_err(|e| self.write_failed(stream, e))?;
            size += filled as u64;
            filled = fill(content, piece)?;
        }
        if ends_in_hole {
            stream.file.set_len(size).map_err(|e| self.write_failed(stream, e))?;
        }
        Ok((hasher.finish(), size))
    }

    fn write_failed(&self, stream: &Stream, e: std::io::Error) -> Error {
        self.broken.store(true, Ordering::Relaxed);
        Error::io("write", self.payloads.stream_path(stream))(e)
    }

    /// Whether `digest` stands in the area's store already and `good` likes its size; touches it then.
    fn is_here(&self, area: &Area<'_>, digest: &Digest, good: impl Fn(u64) -> bool) -> Result<bool> {
        if area.is_new_shard(digest) {
            return Ok(false);
        }
        match area.store().stat(digest)? {
            Some((size, modified)) if good(size) => {
                self.touch(area.store(), digest, modified);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Gives `digest` in `store` a fresh modification time, unless `modified` is recent. Files of others in a shared
    /// repository, and those of a read-only one, stay as they are.
    fn touch(&self, store: &Store, digest: &Digest, modified: i64) -> bool {
        let now = *self.now.get_or_init(|| self.objects.now().ok());
        let stale = now.is_some_and(|now| now.saturating_sub(modified) > FRESH);
        if stale {
            let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps { last_access: omit, last_modification: Timespec { tv_nsec: UTIME_NOW, ..omit } };
            let name = StoreName::of(digest);
            let _ = rustix::fs::utimensat(&store.fd, name.as_str(), &times, AtFlags::SYMLINK_NOFOLLOW);
        }
        stale
    }

    /// Touches the blobs and payloads of a manifest that is used again; the manifest itself comes after them, so that
    /// a fresh manifest means fresh content.
    fn touch_blobs(&self, manifest: Given<'_>) -> Result<()> {
        manifest.children(LOT, &mut |blobs| {
            for digest in blobs {
                for store in [self.payloads.store(), self.objects.store()] {
                    if let Ok(Some((_, modified))) = store.stat(&digest) {
                        self.touch(store, &digest, modified);
                    }
                }
            }
            Ok(())
        })
    }

    /// Refuses an object whose children are neither here nor in this batch.
    fn check_children(&self, given: Given<'_>) -> Result<()> {
        let partial = self.repository.inner.partial;
        match given {
            Given::Object(Object { body: ObjectBody::Blob(blob), .. }) => {
                let known = self.known().payloads.contains_key(&blob.payload);
                let here = known || self.is_here(&self.payloads, &blob.payload, |size| size == blob.size)?;
                if here { Ok(()) } else { Err(Error::MissingPayload(blob.payload)) }
            }
            _ if partial && given.kind() == Kind::Manifest => Ok(()),
            Given::Object(Object { body: ObjectBody::Layer(layer), .. }) if partial => {
                self.check_here(layer.manifest.into_iter().collect())
            }
            _ => given.children(LOT, &mut |lot| self.check_here(lot)),
        }
    }

    /// Refuses objects that are neither here nor in this batch.
    fn check_here(&self, mut unknown: Vec<Digest>) -> Result<()> {
        {
            let known = self.known();
            unknown.retain(|digest| !known.objects.contains_key(digest));
        }
        match scan::missing(self.objects.store(), &unknown)?.first() {
            None => Ok(()),
            Some(child) => Err(Error::UnknownObject(*child)),
        }
    }

    /// Adds an object in either form.
    fn add(&self, given: Given<'_>) -> Result<Digest> {
        let (digest, kind) = (given.digest()?, given.kind());
        if self.known().objects.contains_key(&digest) {
            return Ok(digest);
        }
        if !self.objects.is_new_shard(&digest)
            && let Some((size, modified)) = self.objects.store().stat(&digest)?
            && size > 0
        {
            let stale = || self.now.get_or_init(|| self.objects.now().ok()).is_some_and(|now| now - modified > FRESH);
            if kind == Kind::Manifest && stale() {
                self.touch_blobs(given)?;
            }
            self.touch(self.objects.store(), &digest, modified);
            self.known().objects.insert(digest, None);
            return Ok(digest);
        }
        self.check_children(given)?;
        let bytes = given.stored()?;
        if self.known().objects.insert(digest, Some(kind)).is_none() {
            self.failed(self.objects.write(&digest, &bytes, company(kind), self.sync_each()))?;
        }
        Ok(digest)
    }

    /// What waits for publication, in the order of publication; each step sorted by digest.
    fn steps(&self) -> Vec<Step<'_, 'a>> {
        let known = self.known();
        let mut payloads: Vec<Digest> = known.payloads.iter().filter(|(_, waits)| **waits).map(|(d, _)| *d).collect();
        payloads.sort_unstable();
        let mut steps = vec![Step { area: &self.payloads, company: Company::Shard, digests: payloads }];
        for kind in [Kind::Blob, Kind::Manifest, Kind::Layer, Kind::Platform] {
            let of_kind = known.objects.iter().filter(|(_, waiting)| **waiting == Some(kind));
            let mut digests: Vec<Digest> = of_kind.map(|(digest, _)| *digest).collect();
            digests.sort_unstable();
            steps.push(Step { area: &self.objects, company: company(kind), digests });
        }
        steps.retain(|step| !step.digests.is_empty());
        steps
    }

    /// Gives the files of one step their final names. Returns the directories that changed.
    fn publish(&self, step: &Step<'_, 'a>) -> Result<BTreeSet<String>> {
        let mut touched = BTreeSet::new();
        let mut single = Vec::new();
        for digests in step.digests.chunk_by(|a, b| StoreName::of(a).shard() == StoreName::of(b).shard()) {
            let name = StoreName::of(&digests[0]);
            touched.insert(name.shard().to_owned());
            let whole = step.company == Company::Shard && step.area.publish_shard(&digests[0], name.shard())?;
            if !whole {
                single.extend_from_slice(digests);
            }
        }
        let local = !self.sync_each();
        let threads = match local {
            true if single.len() < MANY => 1,
            true => std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, PUBLISHERS)),
            false => WAITING,
        };
        // Over a network, too: a rename could replace a file that another machine has open.
        let link = !local || threads > 1;
        spread(&single, threads, |digests| self.publish_each(step, digests, link).map(|()| Vec::<()>::new()))?;
        Ok(touched)
    }

    /// Gives each of `digests` its final name.
    fn publish_each(&self, step: &Step<'_, 'a>, digests: &[Digest], link: bool) -> Result<()> {
        let is_payload = std::ptr::eq(step.area.store(), self.payloads.store());
        for digest in digests {
            // A payload of another size is the remains of a crash; an object's size depends on its encoding.
            let good = |there: u64, ours: u64| if is_payload { there == ours } else { there > 0 };
            if step.area.publish(digest, step.company, link, good)? == Published::Existing {
                self.is_here(step.area, digest, |_| true)?;
            }
        }
        Ok(())
    }

    /// Makes the names in the directories `shards` of `store`, and these themselves, durable.
    fn sync_names(&self, store: &Store, shards: &BTreeSet<String>) -> Result<()> {
        let shards: Vec<&String> = shards.iter().collect();
        spread(&shards, if store.medium == Medium::Local { 1 } else { WAITING }, |shards| {
            for shard in shards {
                let path = store.path.join(shard);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&store.fd, shard.as_str(), flags, Mode::empty())
                    .map_err(Error::io("open", &path))?;
                sync_fd(fd.as_fd(), &path)?;
            }
            Ok(Vec::<()>::new())
        })?;
        sync_fd(store.fd.as_fd(), &store.path)
    }

    /// `syncfs` on both stores; once if they are on one file system.
    fn sync_all(&self) -> Result<()> {
        let mut done = None;
        for store in [self.payloads.store(), self.objects.store()] {
            let device = rustix::fs::fstat(&store.fd).map_err(Error::io("sync", &store.path))?.st_dev;
            if done != Some(device) {
                rustix::fs::syncfs(&store.fd).map_err(Error::io("sync", &store.path))?;
                done = Some(device);
            }
        }
        Ok(())
    }
}

impl Batch for DirectoryBatch<'_> {
    fn add_payload(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        with_first_piece(content, |piece, filled, rest| match filled < SMALL {
            true => self.add_small(&piece[..filled], expected),
            false => self.add_large(piece, rest, expected),
        })
    }

    fn add_object(&self, object: &Object) -> Result<Digest> {
        self.add(Given::Object(object))
    }

    fn add_encoded(&self, object: &Encoded) -> Result<Digest> {
        match object.kind() {
            Kind::Manifest => self.add(Given::Encoded(object)),
            // The others are small, and what they say is looked at.
            _ => self.add_object(&object.object()?),
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            let path = self.objects.store().path.display().to_string();
            return Err(Error::Invalid {
                what: "batch",
                text: path,
                reason: "an earlier write failed, so it is not complete".to_owned(),
            });
        }
        let steps = self.steps();
        let count: usize = steps.iter().map(|step| step.digests.len()).sum();
        let (each, few) = (self.sync_each(), count <= FEW);
        if count > 0 && !each && !few {
            self.sync_all()?;
        } else if !each {
            steps.iter().try_for_each(Step::sync)?;
        }
        let mut touched = Vec::new();
        for step in &steps {
            let shards = self.publish(step)?;
            if each {
                self.sync_names(step.area.store(), &shards)?;
            }
            touched.push((step.area.store(), shards));
        }
        if count > 0 && !each && !few {
            self.sync_all()?;
        } else if !each {
            for (store, shards) in &touched {
                self.sync_names(store, shards)?;
            }
        }
        Ok(())
    }
}

impl Step<'_, '_> {
    /// Makes every file of a small step durable, and the directories that will be moved as a whole.
    fn sync(&self) -> Result<()> {
        for digest in &self.digests {
            self.area.sync(digest, self.company)?;
            if self.company == Company::Shard {
                self.area.sync_shard(StoreName::of(digest).shard())?;
            }
        }
        Ok(())
    }
}

/// Payloads and blobs may become visible many at once; the others only after all that they refer to.
fn company(kind: Kind) -> Company {
    if kind == Kind::Blob { Company::Shard } else { Company::Alone }
}
