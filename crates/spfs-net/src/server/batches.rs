//! Batches that clients have open: what they bring becomes visible, all together, when they finish it; a batch that is
//! dropped, or not heard of for a while, leaves nothing.
//!
//! A thread owns each batch. Packs of small content go to it one after the other; large payloads go beside it, each
//! through a thread of its own (`uploads.rs`). What breaks off in the middle goes on: packs are numbered, and an upload
//! says how far it is.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spfs_repo::{Batch, Encoded, Error, Repository, Result};

use super::fields;
use super::uploads::{Gathering, Task, Upload};
use crate::convert;
use crate::proto;

/// The name of a batch or an upload: chosen at random, so that nobody finds another's.
pub type Id = [u8; 16];

/// Most batches that are open at one time, and most of one owner.
const MOST: usize = 256;
const MOST_EACH: usize = 64;
/// Most that are open, or finished and remembered.
const REMEMBERED: usize = 4096;
/// Most uploads of one batch at one time: each has a thread.
const UPLOADS: usize = 64;
/// How long a batch is left alone by an owner who wants more than that: what was killed does not say so.
const IDLE: Duration = Duration::from_secs(60);
/// How long a batch is kept that nobody speaks of.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the end of a batch is remembered, for a client whose answer was lost.
const MEMORY: Duration = Duration::from_secs(120);

/// What an open batch is asked to do; the answer goes to the sender.
enum Job {
    Pack(Bytes, SyncSender<Answer>),
    Upload(Task),
    Finish(SyncSender<Answer>),
    Drop,
}

/// What happened, in a form that can be told again.
pub type Answer = std::result::Result<(), proto::Error>;

/// All open batches of a server.
pub struct Batches {
    repository: Arc<dyn Repository>,
    open: Mutex<HashMap<Id, Arc<Open>>>,
    /// Large objects that are gathered.
    pub gathering: Arc<Gathering>,
}

/// One open batch.
pub struct Open {
    /// Whose it is: the name of a token, or an address.
    owner: String,
    jobs: mpsc::Sender<Job>,
    /// The number of the next pack; held while one is stored.
    next: Mutex<u64>,
    uploads: Mutex<HashMap<Id, Arc<Upload>>>,
    /// What became of it, once it is finished.
    finished: OnceLock<Answer>,
    used: Mutex<Instant>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error that says what to do about it.
fn other(words: &str) -> proto::Error {
    proto::Error { kind: Some(proto::ErrorKind::Other(words.to_owned())) }
}

fn count(open: &HashMap<Id, Arc<Open>>, owner: &str) -> usize {
    open.values().filter(|batch| batch.owner == owner && batch.finished.get().is_none()).count()
}

/// Drops the batches of `owner` that nobody has spoken of for the longest time, if there are `most`.
fn make_room(open: &mut HashMap<Id, Arc<Open>>, owner: &str, most: usize, idle: Duration) {
    while count(open, owner) >= most {
        let own = open.iter().filter(|(_, batch)| batch.owner == owner && batch.finished.get().is_none());
        let waits = own.map(|(id, batch)| (lock(&batch.used).elapsed(), *id));
        let Some((_, id)) = waits.max().filter(|(waits, _)| *waits >= idle) else { return };
        if let Some(batch) = open.remove(&id) {
            batch.give_up();
        }
    }
}

impl Batches {
    /// None yet, into `repository`; objects on their way may take `memory` bytes.
    pub fn new(repository: Arc<dyn Repository>, memory: usize) -> Self {
        Batches { repository, open: Mutex::default(), gathering: Arc::new(Gathering::new(memory)) }
    }

    /// Opens one for `owner`: the name of a token, or an address.
    pub fn begin(&self, owner: &str) -> std::result::Result<Id, proto::Error> {
        let mut open = lock(&self.open);
        open.retain(|_, batch| batch.is_wanted());
        make_room(&mut open, owner, MOST_EACH, IDLE);
        let unfinished = open.values().filter(|batch| batch.finished.get().is_none()).count();
        if unfinished >= MOST || open.len() >= REMEMBERED || count(&open, owner) >= MOST_EACH {
            return Err(other(convert::BUSY));
        }
        let id = spfs_repo::unique().into_bytes();
        let (jobs, todo) = channel();
        let repository = self.repository.clone();
        let thread = std::thread::Builder::new().name("spfs-batch".to_owned());
        let thread = thread.spawn(move || work(&*repository, &todo)).map_err(|e| other(&e.to_string()))?;
        let batch = Open {
            owner: owner.to_owned(),
            jobs,
            next: Mutex::new(0),
            uploads: Mutex::default(),
            finished: OnceLock::new(),
            used: Mutex::new(Instant::now()),
            thread: Mutex::new(Some(thread)),
        };
        open.insert(id, Arc::new(batch));
        Ok(id)
    }

    /// The batch with this name.
    pub fn get(&self, id: &[u8]) -> std::result::Result<Arc<Open>, proto::Error> {
        let found = <Id>::try_from(id).ok().and_then(|id| lock(&self.open).get(&id).cloned());
        let found = found.ok_or_else(|| other(convert::GONE))?;
        *lock(&found.used) = Instant::now();
        Ok(found)
    }

    /// Adds a pack to the batch that it names in its first field; the rest of it is read field by field.
    pub fn put(&self, mut pack: Bytes) -> Answer {
        let wrong = || other("a pack begins with the name of its batch and its number");
        let name = fields::next(&mut pack).ok().flatten().filter(|(number, _)| *number == 1).ok_or_else(wrong)?.1;
        let (id, number) = name.split_at_checked(16).ok_or_else(wrong)?;
        let number = u64::from_be_bytes(number.try_into().map_err(|_| wrong())?);
        self.get(id)?.put(pack, number)
    }

    /// Drops one, and waits until nothing of it is left.
    pub fn abandon(&self, id: &[u8]) {
        let found = <Id>::try_from(id).ok().and_then(|id| lock(&self.open).remove(&id));
        if let Some(batch) = found {
            batch.close();
        }
    }

    /// Drops all of them.
    pub fn close(&self) {
        let all = std::mem::take(&mut *lock(&self.open));
        all.values().for_each(|batch| batch.close());
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.close();
    }
}

impl Open {
    fn is_wanted(&self) -> bool {
        let limit = if self.finished.get().is_some() { MEMORY } else { PATIENCE };
        let wanted = lock(&self.used).elapsed() < limit;
        if !wanted {
            self.give_up();
        }
        wanted
    }

    /// Tells its thread to end.
    fn give_up(&self) {
        // Who waits for more of an upload hears that there is none.
        lock(&self.uploads).clear();
        let _ = self.jobs.send(Job::Drop);
    }

    fn close(&self) {
        self.give_up();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }

    fn ask(&self, job: impl FnOnce(SyncSender<Answer>) -> Job) -> Answer {
        let (sender, answer) = sync_channel(1);
        let sent = self.jobs.send(job(sender)).ok();
        sent.and_then(|()| answer.recv().ok()).unwrap_or_else(|| Err(other(convert::GONE)))
    }

    /// Adds a pack, once: one whose number is behind us came in already, and only the answer was lost.
    pub fn put(&self, pack: Bytes, number: u64) -> Answer {
        let mut next = lock(&self.next);
        match number.cmp(&next) {
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Greater => return Err(other("a pack is missing before this one")),
            std::cmp::Ordering::Equal => {}
        }
        let answer = self.ask(|answer| Job::Pack(pack, answer));
        *lock(&self.used) = Instant::now();
        if answer.is_ok() {
            *next += 1;
        }
        answer
    }

    /// Makes everything visible, once.
    pub fn finish(&self) -> Answer {
        let finish = || {
            lock(&self.uploads).clear();
            self.ask(Job::Finish)
        };
        self.finished.get_or_init(finish).clone()
    }

    /// The upload with this name; a new one, into which `make` will feed, if there is none yet. None if there are too
    /// many.
    pub fn upload(&self, id: Id, make: impl FnOnce() -> (Arc<Upload>, Task)) -> Option<Arc<Upload>> {
        let mut uploads = lock(&self.uploads);
        if let Some(upload) = uploads.get(&id) {
            return Some(upload.clone());
        }
        if uploads.values().filter(|upload| upload.is_running()).count() >= UPLOADS {
            return None;
        }
        let (upload, task) = make();
        uploads.insert(id, upload.clone());
        let _ = self.jobs.send(Job::Upload(task));
        Some(upload)
    }

    /// Whether there is an upload with this name.
    pub fn has_upload(&self, id: &Id) -> bool {
        lock(&self.uploads).contains_key(id)
    }
}

/// What the thread of a batch does.
fn work(repository: &dyn Repository, jobs: &Receiver<Job>) {
    let batch = match repository.begin() {
        Ok(batch) => batch,
        Err(error) => return refuse(jobs, &convert::error(&error)),
    };
    let mut finish = None;
    std::thread::scope(|scope| {
        loop {
            match jobs.recv_timeout(PATIENCE * 2) {
                Ok(Job::Pack(pack, answer)) => {
                    let _ = answer.send(put(&*batch, pack).map_err(|e| convert::error(&e)));
                }
                Ok(Job::Upload(task)) => {
                    let batch = &*batch;
                    scope.spawn(move || task.run(batch));
                }
                Ok(Job::Finish(answer)) => {
                    finish = Some(answer);
                    return;
                }
                Ok(Job::Drop) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return,
            }
        }
    });
    if let Some(answer) = finish {
        let _ = answer.send(batch.finish().map_err(|e| convert::error(&e)));
    }
}

/// Says to everyone why there is no batch.
fn refuse(jobs: &Receiver<Job>, error: &proto::Error) {
    while let Ok(job) = jobs.recv_timeout(PATIENCE) {
        match job {
            Job::Pack(_, answer) | Job::Finish(answer) => drop(answer.send(Err(error.clone()))),
            Job::Upload(task) => task.fail(error.clone()),
            Job::Drop => return,
        }
    }
}

/// Stores a pack field by field: what it claims to hold is never all in memory as objects at once.
fn put(batch: &dyn Batch, mut pack: Bytes) -> Result<()> {
    while let Some((number, content)) = fields::next(&mut pack).map_err(|reason| Error::corrupt("pack", reason))? {
        match number {
            2 => drop(batch.add_payload(&mut &content[..], None)?),
            3 => drop(batch.add_encoded(&Encoded::read(content)?)?),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use spfs_repo::Directory;

    #[test]
    fn nobody_has_more_batches_than_others_can_bear() {
        let place = tempfile::tempdir().unwrap();
        let batches = Batches::new(Arc::new(Directory::create(place.path()).unwrap()), 1 << 20);
        let first = batches.begin("one").unwrap();
        for _ in 1..MOST_EACH {
            batches.begin("one").unwrap();
        }
        assert_eq!(batches.begin("one").unwrap_err(), other(convert::BUSY));
        batches.begin("another").unwrap();
        // One that is finished does not count, and one that was left alone makes room.
        batches.get(&first).unwrap().finish().unwrap();
        let last = batches.begin("one").unwrap();
        assert!(batches.begin("one").is_err());
        make_room(&mut lock(&batches.open), "one", MOST_EACH, Duration::ZERO);
        assert!(batches.get(&last).is_ok(), "the one that was left alone for longest");
        batches.begin("one").unwrap();
    }
}
