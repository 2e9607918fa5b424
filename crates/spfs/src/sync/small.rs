//! The other payloads, and all blobs: in streams of many, in rounds that are made safe on disk one after the other.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spfs_repo::directory::Claims;
use spfs_repo::{Batch, Digest, Error as RepoError, Hasher, Result as RepoResult};

use super::apply::Mover;
use super::plan::blob_object;
use super::{Piece, retry};

/// How long a round lasts: as long that making it safe takes about a tenth of it, within these bounds. What arrived in
/// a round is lost if the process is killed in it.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5);
/// Blobs in a round, at most: a batch keeps a hundred bytes for each.
const MOST: usize = 100_000;
/// Payloads and bytes in one stream.
const GROUP: usize = 256;
const GROUP_BYTES: u64 = 4 << 20;

/// Moves `blobs`, all but the payloads of those that are `large`, which are there already.
pub(super) fn fetch(mover: &Mover<'_>, blobs: &[Piece], large: &(dyn Fn(&Piece) -> bool + Sync)) -> RepoResult<()> {
    let mut todo: Vec<u32> = (0..blobs.len() as u32).collect();
    let mut length = LONGEST / 2;
    let (mut again, mut patience) = (false, retry::Patience::new());
    while !todo.is_empty() {
        let round = Round::new(mover, blobs, large, &todo, (length, again));
        let (done, result) = round.run();
        match result {
            Ok(finishing) => length = (finishing * 10).clamp(SHORTEST, LONGEST),
            // Of a destination that went away, nobody knows what it has kept: all of the round is looked at again.
            Err(error) if patience.wait(&error) => {
                again = true;
                continue;
            }
            Err(error) => return Err(error),
        }
        patience.renew();
        let Done { taken, busy } = done;
        todo.drain(..taken);
        let waiting: Vec<Digest> = busy.iter().map(|number| blobs[*number as usize].digest).collect();
        todo.extend(busy);
        if todo.len() == waiting.len()
            && let Some(directory) = mover.destination.as_directory()
        {
            // Only what others are fetching is left.
            directory.claims().wait(&waiting, &|| mover.progress.interrupted())?;
        }
    }
    Ok(())
}

/// What a round has dealt with.
struct Done {
    /// How many of the list, from its beginning.
    taken: usize,
    /// Those of them that others are fetching.
    busy: Vec<u32>,
}

/// One round: a batch, and what this process is fetching for it.
struct Round<'a> {
    mover: &'a Mover<'a>,
    blobs: &'a [Piece],
    large: &'a (dyn Fn(&Piece) -> bool + Sync),
    todo: &'a [u32],
    ends: Instant,
    /// Whether an earlier round broke off, so that some of this one may be there already.
    again: bool,
    next: Mutex<usize>,
    busy: Mutex<Vec<u32>>,
    stop: AtomicBool,
    failure: Mutex<Option<RepoError>>,
}

impl<'a> Round<'a> {
    fn new(
        mover: &'a Mover<'a>,
        blobs: &'a [Piece],
        large: &'a (dyn Fn(&Piece) -> bool + Sync),
        todo: &'a [u32],
        (length, again): (Duration, bool),
    ) -> Self {
        Round {
            mover,
            blobs,
            large,
            todo,
            ends: Instant::now() + length,
            again,
            next: Mutex::new(0),
            busy: Mutex::default(),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Runs it to its end. Says what was dealt with, and how long making it safe has taken.
    fn run(self) -> (Done, RepoResult<Duration>) {
        let nothing = || Done { taken: 0, busy: Vec::new() };
        let batch = match self.mover.destination.begin() {
            Ok(batch) => batch,
            Err(error) => return (nothing(), Err(error)),
        };
        let claims = self.mover.destination.as_directory().map(|directory| directory.claims());
        let work = || {
            while let Some(group) = self.group() {
                if let Err(error) = self.move_group(&*batch, claims.as_ref(), group) {
                    self.stop.store(true, Ordering::Relaxed);
                    lock(&self.failure).get_or_insert(error);
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.mover.threads.min(self.todo.len()) {
                scope.spawn(work);
            }
            work();
        });
        let started = Instant::now();
        let finished = batch.finish();
        // Only now the others may look for it.
        drop(claims);
        let done = Done { taken: *lock(&self.next), busy: std::mem::take(&mut lock(&self.busy)) };
        match lock(&self.failure).take() {
            // What arrived before is kept; if that failed too, the first error says why.
            Some(error) => (nothing(), Err(error)),
            None => (done, finished.map(|()| started.elapsed())),
        }
    }

    /// The next pieces for one stream; a piece that is not small is a group of its own.
    fn group(&self) -> Option<&'a [u32]> {
        if self.stop.load(Ordering::Relaxed) || Instant::now() > self.ends {
            return None;
        }
        let mut next = lock(&self.next);
        let first = *next;
        let mut bytes = 0;
        while let Some(number) = self.todo.get(*next).filter(|_| *next < MOST && *next - first < GROUP) {
            bytes += self.blobs[*number as usize].size;
            if bytes > GROUP_BYTES && *next > first {
                break;
            }
            *next += 1;
        }
        (*next > first).then(|| &self.todo[first..*next])
    }

    fn move_group(&self, batch: &dyn Batch, claims: Option<&Claims<'_>>, group: &[u32]) -> RepoResult<()> {
        self.mover.go_on()?;
        let mut wanted = self.wanted(group)?;
        let mut numbers = group.to_vec();
        if let Some(claims) = claims
            && !wanted.is_empty()
        {
            let digests: Vec<Digest> = wanted.iter().map(|piece| piece.digest).collect();
            let busy = claims.take(&digests)?;
            wanted.retain(|piece| !busy.contains(&piece.digest));
            let is_busy = |number: &u32| busy.contains(&self.blobs[*number as usize].digest);
            let (others, own): (Vec<u32>, Vec<u32>) = numbers.into_iter().partition(is_busy);
            numbers = own;
            lock(&self.busy).extend(others);
        }
        if claims.is_some() || self.again {
            self.drop_present(&mut wanted)?;
        }
        self.stream(batch, &wanted)?;
        for number in numbers {
            let piece = &self.blobs[number as usize];
            if piece.object {
                batch.add_object(&blob_object(piece))?;
            }
            self.mover.progress.advance(1, 0);
        }
        Ok(())
    }

    /// Those of a group whose payloads have to come.
    fn wanted(&self, group: &[u32]) -> RepoResult<Vec<&'a Piece>> {
        let mut wanted = Vec::new();
        for number in group {
            let piece = &self.blobs[*number as usize];
            let needed = match piece.payload {
                true => !(self.large)(piece),
                false => self.mover.resync && !self.is_sound(&piece.digest)?,
            };
            if needed {
                wanted.push(piece);
            }
        }
        Ok(wanted)
    }

    /// Drops those that another process has brought since the plan was made.
    fn drop_present(&self, wanted: &mut Vec<&Piece>) -> RepoResult<()> {
        let digests: Vec<Digest> = wanted.iter().map(|piece| piece.digest).collect();
        let missing = self.mover.destination.missing_payloads(&digests)?;
        if missing.len() < wanted.len() {
            wanted.retain(|piece| {
                let is_missing = missing.contains(&piece.digest);
                if !is_missing {
                    self.mover.progress.advance(0, piece.size);
                }
                is_missing
            });
        }
        Ok(())
    }

    /// Moves payloads in one stream; where it breaks, it is begun again with the first that is not there yet.
    fn stream(&self, batch: &dyn Batch, wanted: &[&Piece]) -> RepoResult<()> {
        if let [piece] = wanted
            && piece.size > GROUP_BYTES
        {
            let advance = |bytes| self.mover.progress.advance(0, bytes);
            let mut content = retry::Content::open(self.mover.source, piece.digest, 0, &advance)?;
            return self.add(batch, piece, &mut content);
        }
        let mut done = 0;
        let mut patience = retry::Patience::new();
        while done < wanted.len() {
            let before = done;
            let digests: Vec<Digest> = wanted[done..].iter().map(|piece| piece.digest).collect();
            let result = self.mover.source.read_payloads(&digests, &mut |digest, content| {
                let Some(piece) = wanted.get(done).filter(|piece| piece.digest == *digest) else {
                    let what = format!("the stream of payloads from {}", self.mover.source.address());
                    return Err(RepoError::corrupt(what, "it is not in the order that was asked for"));
                };
                self.mover.go_on()?;
                self.add(batch, piece, content)?;
                self.mover.progress.advance(0, piece.size);
                done += 1;
                Ok(())
            });
            if done > before {
                patience.renew();
            }
            match result {
                Ok(()) if done == wanted.len() => {}
                Ok(()) => return Err(RepoError::MissingPayload(wanted[done].digest)),
                Err(error) if patience.wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn add(&self, batch: &dyn Batch, piece: &Piece, content: &mut dyn Read) -> RepoResult<()> {
        // One byte more than promised is enough to know that it is wrong: a stream may have no end.
        let mut limited = content.take(piece.size.saturating_add(1));
        let added = batch.add_payload(&mut limited, Some(&piece.digest));
        let (_, size) = added.map_err(|error| self.mover.blame_source(error))?;
        self.mover.check_size(piece, size)
    }

    /// Whether the payload in the destination is what its digest says. One that is not is removed, to be replaced.
    fn is_sound(&self, digest: &Digest) -> RepoResult<bool> {
        let destination = self.mover.destination;
        let mut reader = destination.open_payload(digest)?;
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
            destination.remove_payload(digest)?;
        }
        Ok(sound)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
