//! A data-only layer of payloads that are not here yet: to look one up is to fetch it.
//!
//! It lies below the payload directory. Overlayfs looks for a file's payload when the file is first opened (or mapped,
//! executed, copied up…), and what the payload directory lacks it looks up here. The answer comes when the payload is
//! whole and published in the payload directory: ESTALE, upon which the kernel opens the file once more from the start
//! (`do_filp_open`, `retry_estale`) and finds the payload itself. So nothing is ever read through this server, and what
//! was fetched is as native as what always was there. A payload that cannot be had is EIO, which nobody remembers: the
//! next open tries again.
//!
//! Like the metadata server it is stateless for the kernel: a node is the root (1) or a directory of two characters.
//! Whoever is killed while it waits is let go; the fetch goes on, as others may want its result. When nobody waits for a
//! worker, what is near the last file that came is fetched ahead (`ahead.rs`).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use spfs_repo::Digest;

use super::ahead::{self, Pace};
use super::protocol::{FOREVER, Opcode, REPLY_MAX, REQUEST_MAX, init};
use super::request::{self, Request};
use super::{Answer, Outcome, Reply, send};
use crate::MTIME;
use crate::view::{NodeId, NodeKind, View};

/// Payloads on their way at the same time.
pub(super) const WORKERS: usize = 8;
/// How often is looked whether somebody who waits was killed, once a signal was told.
const LOOK: Duration = Duration::from_millis(50);
/// How long fetches that nobody waits for any more get to clean up after themselves.
const PATIENCE: Duration = Duration::from_secs(2);

/// Brings payloads.
pub trait Fetch: Send + Sync {
    /// Whether the payload is in the payload directory.
    fn is_here(&self, digest: &Digest) -> bool;

    /// Brings a payload into the payload directory. Whether it is there now, whole. Called from several threads; by one
    /// [`serve_fetches`] for one payload never twice at the same time.
    fn fetch(&self, wanted: &Wanted) -> bool;

    /// Whether [`Fetch::fetch_ahead`] does anything.
    fn looks_ahead(&self) -> bool {
        false
    }

    /// Brings payloads that nobody waits for, as far as it can: what does not come is fetched when it is opened. Called by one thread
    /// at a time.
    fn fetch_ahead(&self, _wanted: &[Wanted]) {}

    /// The mount has gone: what is being fetched is to be given up.
    fn stop(&self) {}
}

/// A payload that somebody wants to read.
pub struct Wanted {
    /// Which.
    pub digest: Digest,
    /// How many bytes its content has.
    pub size: u64,
    /// A file whose content it is, relative to `/spfs`.
    pub path: String,
}

/// Answers lookups by fetching, until the file system is unmounted (`Ok`). The files are those of `view`, and the directories
/// belong to `uid` and `gid`.
///
/// Starts threads, which may outlive the call for as long as a fetch does not hear [`Fetch::stop`].
pub fn serve_fetches(
    view: Arc<View>,
    device: BorrowedFd<'_>,
    uid: u32,
    gid: u32,
    fetch: Arc<dyn Fetch>,
) -> io::Result<()> {
    let desk =
        Arc::new(Desk { device: device.try_clone_to_owned()?, state: Mutex::default(), changed: Condvar::new() });
    for _ in 0..WORKERS {
        let (desk, view, fetch) = (Arc::clone(&desk), Arc::clone(&view), Arc::clone(&fetch));
        std::thread::Builder::new().name("spfs-fetch".to_owned()).spawn(move || desk.work(&view, &*fetch))?;
    }
    let received = Receiver { view: &view, uid, gid, desk: &desk, fetch: &*fetch }.receive();
    fetch.stop();
    desk.close();
    received
}

/// Somebody who waits for a payload.
struct Waiter {
    unique: u64,
    /// The thread, as this process sees it; 0 if it does not.
    thread: u32,
    signalled: bool,
}

/// What is wanted and what is on its way.
#[derive(Default)]
struct State {
    waiters: HashMap<Digest, Vec<Waiter>>,
    queue: VecDeque<(NodeId, Wanted)>,
    busy: usize,
    closed: bool,
    /// The last file that was waited for and has come, and how many may be fetched ahead near it.
    ahead: Option<(NodeId, usize)>,
    /// Whether some are on their way.
    is_ahead: bool,
    pace: Pace,
}

/// Where those who want payloads meet those who fetch them.
struct Desk {
    device: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody wants a payload; it is queued unless it is on its way already.
    fn want(&self, file: NodeId, wanted: Wanted, waiter: Waiter) {
        let mut state = self.state();
        if let Some(waiters) = state.waiters.get_mut(&wanted.digest) {
            return waiters.push(waiter);
        }
        state.waiters.insert(wanted.digest, vec![waiter]);
        state.queue.push_back((file, wanted));
        self.changed.notify_all();
    }

    /// Fetches one payload after another, and ahead when there is nothing else to do.
    fn work(&self, view: &View, fetch: &dyn Fetch) {
        let mut state = self.state();
        while !state.closed {
            if let Some((file, wanted)) = state.queue.pop_front() {
                state = self.fetch(state, file, &wanted, fetch);
            } else if !state.is_ahead
                && let Some(near) = state.ahead.take()
            {
                state = self.fetch_ahead(state, view, near, fetch);
            } else {
                state = self.wait(state);
            }
        }
    }

    /// Fetches what somebody waits for.
    fn fetch<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        file: NodeId,
        wanted: &Wanted,
        fetch: &dyn Fetch,
    ) -> MutexGuard<'a, State> {
        state.busy += 1;
        let most = if fetch.looks_ahead() { state.pace.next(Instant::now()) } else { 0 };
        drop(state);
        let here = fetch.fetch(wanted);
        let mut state = self.state();
        state.busy -= 1;
        for waiter in state.waiters.remove(&wanted.digest).unwrap_or_default() {
            self.answer(waiter.unique, if here { Errno::STALE } else { Errno::IO });
        }
        // Nothing more is asked of a remote that has not given this.
        state.ahead = if here && most > 0 { Some((file, most)) } else { None };
        self.changed.notify_all();
        state
    }

    /// Fetches what is near a file that has come. Whoever wants one of these meanwhile waits for all of them.
    fn fetch_ahead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        view: &View,
        (file, most): (NodeId, usize),
        fetch: &dyn Fetch,
    ) -> MutexGuard<'a, State> {
        state.is_ahead = true;
        state.busy += 1;
        drop(state);
        let begin = Instant::now();
        let mut batch = ahead::near(view, file, most, &|digest| fetch.is_here(digest));
        let mut state = self.state();
        batch.retain(|wanted| !state.waiters.contains_key(&wanted.digest));
        state.waiters.extend(batch.iter().map(|wanted| (wanted.digest, Vec::new())));
        drop(state);
        if !batch.is_empty() {
            fetch.fetch_ahead(&batch);
        }
        let mut state = self.state();
        for wanted in batch {
            let waiters = state.waiters.remove(&wanted.digest).unwrap_or_default();
            if !waiters.is_empty() && !fetch.is_here(&wanted.digest) {
                // Now it is waited for, and if it cannot be had that is said.
                state.waiters.insert(wanted.digest, waiters);
                state.queue.push_back((file, wanted));
                continue;
            }
            waiters.iter().for_each(|waiter| self.answer(waiter.unique, Errno::STALE));
        }
        state.is_ahead = false;
        state.busy -= 1;
        state.pace.done(begin, Instant::now(), most);
        self.changed.notify_all();
        state
    }

    fn answer(&self, unique: u64, error: Errno) {
        let mut header = Reply::with_capacity(64);
        header.begin(unique);
        send(self.device.as_fd(), header.finish(Some(error)));
    }

    /// Notes that a waiter was sent a signal. Only one that ends it counts: opening a file is not interrupted by others.
    fn signalled(&self, unique: u64) {
        let mut state = self.state();
        let all = state.waiters.values_mut().flatten();
        all.filter(|waiter| waiter.unique == unique).for_each(|waiter| waiter.signalled = true);
    }

    /// Whether a waiter has been sent a signal.
    fn has_signalled(&self) -> bool {
        self.state().waiters.values().flatten().any(|waiter| waiter.signalled)
    }

    /// Lets those go who were killed.
    fn release_killed(&self) {
        let mut state = self.state();
        for waiters in state.waiters.values_mut() {
            // A digest stays as long as it is on its way, if with nobody who waits.
            waiters.retain(|waiter| {
                let killed = waiter.signalled && is_killed(waiter.thread);
                if killed {
                    self.answer(waiter.unique, Errno::INTR);
                }
                !killed
            });
        }
    }

    /// Ends the workers, and waits a moment for those that are busy.
    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        self.changed.notify_all();
        let end = std::time::Instant::now() + PATIENCE;
        while state.busy > 0 {
            let Some(left) = end.checked_duration_since(std::time::Instant::now()) else { return };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Whether a thread is about to be ended by a signal. One that cannot be seen counts as ended.
fn is_killed(thread: u32) -> bool {
    const KILL: u64 = 1 << 8;
    let Ok(status) = std::fs::read_to_string(format!("/proc/{thread}/status")) else { return true };
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    // Whatever signal ends a process, the kernel sends SIGKILL to each of its threads.
    pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & KILL != 0)
}

/// Takes requests from the kernel, and answers what needs no fetching.
struct Receiver<'a> {
    view: &'a View,
    uid: u32,
    gid: u32,
    desk: &'a Desk,
    fetch: &'a dyn Fetch,
}

impl Receiver<'_> {
    fn receive(&self) -> io::Result<()> {
        let mut request = vec![0; REQUEST_MAX];
        let mut reply = Reply::with_capacity(REPLY_MAX);
        loop {
            if self.desk.has_signalled() && !self.wait(Some(LOOK))? {
                self.desk.release_killed();
                continue;
            }
            match rustix::io::read(&self.desk.device, &mut request) {
                Ok(length) => self.take(&request[..length], &mut reply),
                Err(Errno::NODEV) => return Ok(()),
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(Errno::AGAIN) => drop(self.wait(None)?),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for a request; whether there is one.
    fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        let limit = limit.map(|limit| Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() });
        match poll(&mut [PollFd::new(&self.desk.device, PollFlags::IN)], limit.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&self, bytes: &[u8], reply: &mut Reply) {
        let Some(request) = Request::parse(bytes) else { return };
        reply.begin(request.unique);
        let answer = match self.dispatch(&request, request::process(bytes), reply) {
            Ok(Answer::Sent) => reply.finish(None),
            Ok(Answer::None) => return,
            Err(error) => reply.finish(Some(error)),
        };
        send(self.desk.device.as_fd(), answer);
    }

    fn dispatch(&self, request: &Request<'_>, thread: u32, reply: &mut Reply) -> Outcome {
        match request.opcode {
            Opcode::INTERRUPT => {
                self.desk.signalled(request.u64(0).unwrap_or(0));
                Ok(Answer::None)
            }
            Opcode::FORGET | Opcode::BATCH_FORGET | Opcode::NOTIFY_REPLY => Ok(Answer::None),
            _ if !request.whole => Err(Errno::INVAL),
            Opcode::INIT => init(request, REPLY_MAX, reply),
            Opcode::LOOKUP => self.lookup(request, thread, reply),
            Opcode::GETATTR => {
                reply.u64(FOREVER);
                reply.zeros(8);
                self.attr(request.node, reply);
                Ok(Answer::Sent)
            }
            Opcode::STATFS => {
                // As full as can be; one block and one name.
                reply.zeros(5 * 8);
                [4096, 255, 4096].into_iter().for_each(|number| reply.u32(number));
                reply.zeros(4 + 6 * 4);
                Ok(Answer::Sent)
            }
            Opcode::DESTROY | Opcode::RELEASE | Opcode::RELEASEDIR => Ok(Answer::Sent),
            opcode if opcode.writes() => Err(Errno::ROFS),
            _ => Err(Errno::NOSYS),
        }
    }

    fn lookup(&self, request: &Request<'_>, thread: u32, reply: &mut Reply) -> Outcome {
        let name = request.text(0)?;
        let shard = match (request.node, name) {
            (1, [a, b]) => {
                self.directory(u64::from(u16::from_be_bytes([*a, *b])), reply);
                return Ok(Answer::Sent);
            }
            (node, _) => u16::try_from(node).map_err(|_| Errno::NOENT)?.to_be_bytes(),
        };
        let text = [&shard, name].concat();
        let digest = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).ok_or(Errno::NOENT)?;
        // The kernel asks once more after the first ESTALE; and another runtime may have fetched it.
        if self.fetch.is_here(&digest) {
            return Err(Errno::STALE);
        }
        let (file, wanted) = self.wanted(digest).ok_or(Errno::NOENT)?;
        self.desk.want(file, wanted, Waiter { unique: request.unique, thread, signalled: false });
        Ok(Answer::None)
    }

    /// `struct fuse_entry_out` of a directory.
    fn directory(&self, node: u64, reply: &mut Reply) {
        reply.u64(node);
        reply.u64(0); // generation
        reply.u64(FOREVER);
        reply.u64(FOREVER);
        reply.zeros(8);
        self.attr(node, reply);
    }

    /// `struct fuse_attr` of a directory.
    fn attr(&self, node: u64, reply: &mut Reply) {
        reply.u64(node);
        reply.zeros(16);
        (0..3).for_each(|_| reply.u64(MTIME));
        reply.zeros(12);
        [0o040_755, 2, self.uid, self.gid, 0, 4096, 0].into_iter().for_each(|number| reply.u32(number));
    }

    /// The payload of a file of the view, and the file.
    fn wanted(&self, digest: Digest) -> Option<(NodeId, Wanted)> {
        let with_it = (0..self.view.len()).filter(|id| self.view.digest(*id) == Some(digest));
        let files = with_it.filter_map(|id| Some((id, self.view.node(id)?)));
        let (id, node) = files.into_iter().find(|(_, node)| node.kind == NodeKind::File)?;
        Some((id, Wanted { digest, size: node.size, path: self.view.path(id) }))
    }
}
