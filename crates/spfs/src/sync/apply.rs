//! Moving what a plan says.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use spfs_repo::{Batch, Digest, Error as RepoError, Hasher, Progress, Repository, Result as RepoResult};

use super::plan::{blob_object, read_verified};
use super::{Options, Piece, Plan, Policy, retry};
use crate::error::Result;

/// Payloads on their way at the same time if nothing else is said.
pub(super) const THREADS: usize = 4;
/// After so long what has arrived is made durable, before more is fetched: what is lost if the process is killed.
const ROUND: Duration = Duration::from_secs(5);
/// Blobs in a round, at most: a batch keeps a hundred bytes for each.
const MOST: usize = 100_000;

/// Does what `plan` says. The destination has all of it, safe on disk, on return; after an error or a crash what
/// arrived whole is kept, and nothing refers to what did not.
pub fn apply(
    source: &dyn Repository,
    destination: &dyn Repository,
    plan: &Plan,
    options: &Options,
    progress: &dyn Progress,
) -> Result<()> {
    let threads = if options.threads == 0 { THREADS } else { options.threads };
    let mover = Mover { source, destination, progress, resync: plan.policy == Policy::Resync };
    progress.expect(plan.blobs.len() as u64, plan.bytes);
    let next = AtomicUsize::new(0);
    while next.load(Ordering::Relaxed) < plan.blobs.len() {
        mover.round(&plan.blobs, &next, threads)?;
    }
    if !plan.order.is_empty() {
        progress.expect(plan.order.len() as u64, 0);
        mover.objects(&plan.order)?;
    }
    for record in &plan.records {
        retry::again(|| destination.insert_tag(record))?;
    }
    Ok(())
}

struct Mover<'a> {
    source: &'a dyn Repository,
    destination: &'a dyn Repository,
    progress: &'a dyn Progress,
    resync: bool,
}

impl Mover<'_> {
    /// Moves blobs for a while, and makes them durable.
    fn round(&self, blobs: &[Piece], next: &AtomicUsize, threads: usize) -> RepoResult<()> {
        let batch = self.destination.begin()?;
        let started = Instant::now();
        let last = next.load(Ordering::Relaxed).saturating_add(MOST);
        let (stop, failure) = (AtomicBool::new(false), Mutex::new(None));
        let work = || {
            while !stop.load(Ordering::Relaxed) && started.elapsed() < ROUND {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(piece) = blobs.get(number) else { return };
                if let Err(error) = self.blob(&*batch, piece) {
                    stop.store(true, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
                if number >= last {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(blobs.len()) {
                scope.spawn(work);
            }
            work();
        });
        let finished = batch.finish();
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            // What arrived before is kept; if that failed too, the first error says why.
            Some(error) => Err(error),
            None => finished,
        }
    }

    fn blob(&self, batch: &dyn Batch, piece: &Piece) -> RepoResult<()> {
        if self.progress.interrupted() {
            return Err(RepoError::Interrupted);
        }
        let digest = piece.digest;
        if piece.payload || (self.resync && !self.is_sound(&digest)?) {
            let advance = |bytes| self.progress.advance(0, bytes);
            let mut content = retry::Content::open(self.source, digest, &advance)?;
            // One byte more than promised is enough to know that it is wrong: a stream may have no end.
            let mut limited = (&mut content).take(piece.size.saturating_add(1));
            let (_, size) = batch.add_payload(&mut limited, Some(&digest)).map_err(|error| match error {
                RepoError::Corrupt { what, reason } => {
                    RepoError::Corrupt { what: format!("{what} from {}", self.source.address()), reason }
                }
                other => other,
            })?;
            if size != piece.size {
                let reason = format!("it has {size} bytes, and what refers to it says {}", piece.size);
                let what = format!("payload {digest} from {}", self.source.address());
                return Err(RepoError::Corrupt { what, reason });
            }
        }
        if piece.object {
            batch.add_object(&blob_object(piece))?;
        }
        self.progress.advance(1, 0);
        Ok(())
    }

    /// Whether the payload in the destination is what its digest says. One that is not is removed, to be replaced.
    fn is_sound(&self, digest: &Digest) -> RepoResult<bool> {
        let mut reader = self.destination.open_payload(digest)?;
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 128 << 10]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let sound = hasher.finish() == *digest;
        if !sound {
            self.destination.remove_payload(digest)?;
        }
        Ok(sound)
    }

    /// Moves the other objects, children first.
    fn objects(&self, order: &[Digest]) -> RepoResult<()> {
        if self.resync {
            for digest in order {
                if let Err(RepoError::Corrupt { .. }) = self.destination.read_object(digest) {
                    self.destination.remove_object(digest)?;
                }
            }
        }
        let batch = self.destination.begin()?;
        for digest in order {
            if self.progress.interrupted() {
                return Err(RepoError::Interrupted);
            }
            let object = match retry::again(|| read_verified(self.source, digest)) {
                // The plan has made sure that the destination has it then.
                Err(error) if error.is_unknown() => continue,
                other => other?,
            };
            batch.add_object(&object)?;
            self.progress.advance(1, 0);
        }
        batch.finish()
    }
}
