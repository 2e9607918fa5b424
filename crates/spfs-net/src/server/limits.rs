//! What a server bears: sizes, numbers and times, so that no client can use it up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limits of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at one time; more wait to be accepted.
    pub connections: usize,
    /// Requests at one time, those included that wait for their client; more wait for their turn.
    pub requests: usize,
    /// The largest message of a call, in bytes: the largest object.
    pub message: usize,
    /// Memory for messages and for what connections hold in transit, in bytes.
    pub memory: usize,
    /// The largest payload, in bytes; any, if nothing is said.
    pub payload: Option<u64>,
    /// Bytes of the headers of a request, their names and values together.
    pub headers: usize,
    /// How long a connection may take to its first whole request head.
    pub begin: Duration,
    /// How long a connection without a request is kept.
    pub idle: Duration,
    /// How long a client may take nothing, or send next to nothing, in the middle of a request.
    pub stall: Duration,
    /// How long transfers may take to end once the server is told to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 1024,
            requests: 256,
            message: 512 << 20,
            memory: 256 << 20,
            payload: None,
            headers: 16 << 10,
            begin: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            stall: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

/// Most headers of a request of HTTP/1.1.
pub const HEADERS: usize = 100;
/// Most requests that are ever worked on at one time, whatever is configured: one blocking thread each.
pub const REQUESTS: usize = 1024;

/// A number of places, which configuration may change while some are taken.
pub struct Places {
    semaphore: Arc<Semaphore>,
    size: Mutex<usize>,
}

impl Places {
    /// So many places.
    pub fn new(size: usize) -> Self {
        Places { semaphore: Arc::new(Semaphore::new(size)), size: Mutex::new(size) }
    }

    /// Changes the number. Places that are taken are not taken away: a smaller number comes as they are given back,
    /// with a later change.
    pub fn resize(&self, wanted: usize) {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted > *size {
            self.semaphore.add_permits(wanted - *size);
            *size = wanted;
        } else {
            *size -= self.semaphore.forget_permits(*size - wanted);
        }
    }

    /// Takes some places, of all at most; waits for them.
    pub async fn take(&self, count: usize) -> Option<OwnedSemaphorePermit> {
        let size = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let count = u32::try_from(count.min(size)).unwrap_or(u32::MAX);
        self.semaphore.clone().acquire_many_owned(count).await.ok()
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        let size = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        size.saturating_sub(self.semaphore.available_permits())
    }
}

/// The bytes in one place of the server's memory.
pub const UNIT: usize = 1024;

/// How much a client must send in the time that it may stall, so that it is not one that drips for ever.
const DRIP: usize = 16 << 10;

/// Watches over a body on its way in: not too slow.
pub struct Pace {
    stall: Duration,
    window: Instant,
    bytes: usize,
}

impl Pace {
    /// Starts to watch.
    pub fn new(stall: Duration) -> Self {
        Pace { stall, window: Instant::now(), bytes: 0 }
    }

    /// Waits for the next piece; `None` if it does not come in time.
    pub async fn next<T>(&self, piece: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.stall, piece).await.ok()
    }

    /// Counts a piece; whether enough has come lately.
    pub fn enough(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        if self.window.elapsed() < self.stall {
            return true;
        }
        let enough = self.bytes >= DRIP;
        (self.window, self.bytes) = (Instant::now(), 0);
        enough
    }
}
