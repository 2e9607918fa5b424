//! Finding out what has to move.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use spfs_repo::{
    Digest, Encoded, Error as RepoError, Kind, Object, ObjectBody, Progress, Repository, Result as RepoResult,
};

use super::{Options, Piece, Plan, Policy, TagMove, Wanted, objects, retry};
use crate::error::Result;
use crate::parallel;

/// Digests that are asked about at a time.
const BATCH: usize = 10_000;
/// Objects that are read in one round trip: manifests may be large.
const LOT: usize = 16;
/// Stored objects from this size on are read one after the other, however many threads there are.
const LARGE: u64 = 16 << 20;
/// Blobs of a manifest that are gathered before they are sorted.
const SETTLE: usize = 64 << 10;
/// Platforms within platforms, at most. Digests make cycles impossible; this is for what somebody made to annoy.
const DEEPEST: usize = 256;

/// Plans to move `wanted` from `source` to `destination`. Reads manifests from the source where the destination lacks
/// them; writes nothing.
///
/// Errors: an object that neither has, or that is not what its digest says.
pub fn plan(
    source: &dyn Repository,
    destination: &dyn Repository,
    wanted: &[Wanted],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Plan> {
    let plan = Plan { policy: options.policy, ..Plan::default() };
    let threads = if options.threads == 0 { super::apply::THREADS } else { options.threads };
    let mut planner = Planner { source, destination, threads, progress, plan, children: HashMap::new() };
    for one in wanted {
        planner.tag(one)?;
    }
    let roots: Vec<Digest> = wanted.iter().map(|one| one.digest).collect();
    planner.walk(&roots)?;
    planner.settle_blobs()?;
    planner.order(&roots);
    planner.plan.objects = planner.plan.order.len() as u64;
    Ok(planner.plan)
}

/// Plans to move these blobs (payload, bytes) alone, with their payloads, as far as the destination lacks them.
pub fn plan_blobs(destination: &dyn Repository, blobs: &[(Digest, u64)]) -> Result<Plan> {
    let piece = |&(digest, size): &(Digest, u64)| {
        let format = spfs_repo::Format::default();
        Piece { digest, size, format, object: true, payload: true }
    };
    let plan = Plan { blobs: blobs.iter().map(piece).collect(), ..Plan::default() };
    let (threads, progress, children) = (1, &spfs_repo::NoProgress, HashMap::new());
    let mut planner = Planner { source: destination, destination, threads, progress, plan, children };
    planner.settle_blobs()?;
    Ok(planner.plan)
}

struct Planner<'a> {
    source: &'a dyn Repository,
    destination: &'a dyn Repository,
    threads: usize,
    progress: &'a dyn Progress,
    plan: Plan,
    /// Of every object that moves and is no blob, those of its children that are no blobs.
    children: HashMap<Digest, Vec<Digest>>,
}

impl Planner<'_> {
    fn tag(&mut self, wanted: &Wanted) -> Result<()> {
        let Some(tag) = &wanted.tag else { return Ok(()) };
        let history = retry::again(|| self.destination.history(&tag.name))?;
        let known = history.contains(tag);
        if known || (self.plan.policy == Policy::MissingOnly && !history.is_empty()) {
            self.plan.tags_skipped.push(tag.name.clone());
            return Ok(());
        }
        let behind = history.first().is_some_and(|newest| newest.time > tag.time);
        self.plan.tags.push(TagMove { tag: tag.name.clone(), target: tag.target, behind });
        self.plan.records.push(tag.clone());
        Ok(())
    }

    /// Those of `digests` that have to be looked at.
    fn needed(&mut self, digests: Vec<Digest>) -> Result<Vec<Digest>> {
        let mut missing = Vec::new();
        for some in digests.chunks(BATCH) {
            missing.extend(retry::again(|| self.destination.missing(some))?);
        }
        self.plan.objects_skipped += (digests.len() - missing.len()) as u64;
        if self.plan.policy >= Policy::Check {
            return Ok(digests);
        }
        Ok(missing)
    }

    /// Walks down from `roots`, one level after another.
    fn walk(&mut self, roots: &[Digest]) -> Result<()> {
        let mut seen: HashSet<Digest> = HashSet::new();
        let mut level: Vec<Digest> = roots.iter().copied().filter(|digest| seen.insert(*digest)).collect();
        for _ in 0..DEEPEST {
            level = self.needed(level)?;
            if level.is_empty() {
                return Ok(());
            }
            let found = self.read_level(&level)?;
            let mut next = Vec::new();
            for (digest, part) in found {
                match self.plan.blobs.is_empty() {
                    true => self.plan.blobs = part.blobs,
                    false => self.plan.blobs.extend(part.blobs),
                }
                if !part.is_blob {
                    next.extend(part.children.iter().copied().filter(|digest| seen.insert(*digest)));
                    self.children.insert(digest, part.children);
                }
            }
            level = next;
        }
        Err(RepoError::corrupt("the stack", format!("platforms are nested more than {DEEPEST} deep")).into())
    }

    /// Reads objects, some at a time and several at once.
    fn read_level(&self, level: &[Digest]) -> Result<Vec<(Digest, Part)>> {
        let progress = self.progress;
        progress.expect(level.len() as u64, 0);
        let lots: Vec<&[Digest]> = level.chunks(objects::lot_size(self.source, LOT)).collect();
        // Manifests are large: what is needed of each is taken, and it is dropped at once.
        let read = |at: usize| read(self.source, self.destination, lots[at]);
        let mut found = Vec::new();
        parallel::each(self.threads, lots.len(), read, |at, parts| -> Result<()> {
            if progress.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            for (digest, part) in lots[at].iter().zip(parts?) {
                found.push((*digest, part));
                progress.advance(1, 0);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Keeps of the blobs what the destination lacks.
    fn settle_blobs(&mut self) -> Result<()> {
        let mut blobs = std::mem::take(&mut self.plan.blobs);
        settle(&mut blobs);
        let mut plan = std::mem::take(&mut self.plan);
        for some in blobs.chunks_mut(BATCH) {
            let digests: Vec<Digest> = some.iter().map(|blob| blob.digest).collect();
            let objects: HashSet<Digest> = retry::again(|| self.destination.missing(&digests))?.into_iter().collect();
            let payloads: HashSet<Digest> =
                retry::again(|| self.destination.missing_payloads(&digests))?.into_iter().collect();
            for blob in some {
                blob.object = objects.contains(&blob.digest);
                blob.payload = payloads.contains(&blob.digest);
            }
        }
        let all = plan.policy == Policy::Resync;
        for blob in &blobs {
            plan.payloads += u64::from(blob.payload);
            plan.payloads_skipped += u64::from(!blob.payload);
            plan.bytes += if blob.payload { blob.size } else { 0 };
        }
        blobs.retain(|blob| all || blob.object || blob.payload);
        blobs.shrink_to_fit();
        plan.blobs = blobs;
        self.plan = plan;
        Ok(())
    }

    /// Puts the objects into an order in which children come before parents.
    fn order(&mut self, roots: &[Digest]) {
        let mut done: HashSet<Digest> = HashSet::new();
        let mut stack: Vec<(Digest, bool)> = roots.iter().rev().map(|root| (*root, false)).collect();
        while let Some((digest, children_done)) = stack.pop() {
            let Some(children) = self.children.get(&digest) else { continue };
            if children_done {
                self.plan.order.push(digest);
            } else if done.insert(digest) {
                stack.push((digest, true));
                stack.extend(children.iter().rev().map(|child| (*child, false)));
            }
        }
    }
}

/// What the walk needs of one object.
#[derive(Default)]
struct Part {
    is_blob: bool,
    children: Vec<Digest>,
    blobs: Vec<Piece>,
}

/// What the walk needs of some objects. What the source has lost the destination may have kept.
fn read(source: &dyn Repository, destination: &dyn Repository, digests: &[Digest]) -> RepoResult<Vec<Part>> {
    static ALONE: Mutex<()> = Mutex::new(());
    let large = objects::stored_size(source, digests) >= LARGE;
    let _alone = large.then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    let mut parts = Vec::with_capacity(digests.len());
    objects::each(source, digests, &mut |digest, object| {
        let object = match object {
            Err(error) if error.is_unknown() && destination.missing(&[*digest])?.is_empty() => {
                return objects::each(destination, &[*digest], &mut |_, object| {
                    parts.push(part(&object?)?);
                    Ok(())
                });
            }
            Err(error) if error.is_unknown() => {
                let reason = "an object that is needed is not there";
                return Err(RepoError::corrupt(format!("{digest} in {}", source.address()), reason));
            }
            object => object?,
        };
        parts.push(part(&object)?);
        Ok(())
    })?;
    Ok(parts)
}

fn part(object: &Encoded) -> RepoResult<Part> {
    let format = object.format();
    let piece = |digest: Digest, size: u64| Piece { digest, size, format, object: true, payload: true };
    if object.kind() == Kind::Manifest {
        let mut blobs = Vec::new();
        // Sorted now and then, so that what is named often never stands there often.
        let mut settled = SETTLE;
        object.each_blob(&mut |digest, size| {
            if blobs.len() >= settled {
                settle(&mut blobs);
                settled = (blobs.len() * 2).max(SETTLE);
            }
            blobs.push(piece(digest, size));
            Ok(())
        })?;
        settle(&mut blobs);
        blobs.shrink_to_fit();
        return Ok(Part { blobs, ..Part::default() });
    }
    let object = object.object()?;
    Ok(match object.body {
        ObjectBody::Blob(blob) => {
            Part { is_blob: true, blobs: vec![piece(blob.payload, blob.size)], ..Part::default() }
        }
        _ => Part { children: object.children(), ..Part::default() },
    })
}

/// Leaves each blob once, sorted.
fn settle(blobs: &mut Vec<Piece>) {
    blobs.sort_unstable_by_key(|blob| blob.digest);
    blobs.dedup_by_key(|blob| blob.digest);
}

/// The blob of a piece, in the format of what led to it.
pub(super) fn blob_object(piece: &Piece) -> Object {
    Object { format: piece.format, body: spfs_repo::Blob { payload: piece.digest, size: piece.size }.into() }
}
