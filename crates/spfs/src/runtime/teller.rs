//! Progress that is sent to another process, a few times a second.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use spfs_repo::Progress;

use super::protocol::{self, Reply};

/// How long at least between two messages.
const PAUSE: Duration = Duration::from_millis(50);

/// Sends progress over a socket, and takes its closing as a request to stop.
pub struct Teller<'a> {
    stream: &'a UnixStream,
    start: Instant,
    /// When the next message may be sent, in microseconds from `start`.
    next: AtomicU64,
    stopped: AtomicBool,
    expected: [AtomicU64; 2],
    advanced: [AtomicU64; 2],
}

impl<'a> Teller<'a> {
    /// Tells over `stream`.
    pub fn new(stream: &'a UnixStream) -> Self {
        let (expected, advanced) = Default::default();
        Teller {
            stream,
            start: Instant::now(),
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            expected,
            advanced,
        }
    }

    /// Sends what has gathered, if it is time; one thread at a time does.
    fn tell(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let next = self.next.load(Relaxed);
        let later = now.saturating_add(PAUSE.as_micros() as u64);
        if now < next || self.next.compare_exchange(next, later, Relaxed, Relaxed).is_err() {
            return;
        }
        let take = |pair: &[AtomicU64; 2]| (pair[0].swap(0, Relaxed), pair[1].swap(0, Relaxed));
        let (expected, advanced) = (take(&self.expected), take(&self.advanced));
        let sent = protocol::send_reply(self.stream, &Reply::Expect(expected.0, expected.1))
            .and_then(|()| protocol::send_reply(self.stream, &Reply::Advance(advanced.0, advanced.1)));
        if sent.is_err() || self.is_closed() {
            self.stopped.store(true, Relaxed);
        }
    }

    /// The caller has closed its end: it was interrupted, or killed.
    fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(self.stream, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = rustix::event::poll(&mut fds, Some(&now)).unwrap_or(0);
        ready > 0 && fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }
}

impl Progress for Teller<'_> {
    fn expect(&self, items: u64, bytes: u64) {
        self.expected[0].fetch_add(items, Relaxed);
        self.expected[1].fetch_add(bytes, Relaxed);
        self.tell();
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.advanced[0].fetch_add(items, Relaxed);
        self.advanced[1].fetch_add(bytes, Relaxed);
        self.tell();
    }

    fn interrupted(&self) -> bool {
        self.tell();
        self.stopped.load(Relaxed)
    }
}
