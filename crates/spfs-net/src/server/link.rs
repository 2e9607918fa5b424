//! One connection as the server sees it: what it carries, and when it has been quiet or stalled for too long.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::Limits;
use super::metrics::Metrics;

/// A connection.
pub struct Link {
    /// The other end, if it has an address.
    pub peer: Option<SocketAddr>,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether there has been a request.
    used: bool,
    requests: Vec<Weak<Progress>>,
    /// When the last request ended, as in [`Progress::moved`].
    quiet_since: u64,
    /// When the connection was asked to end because it was quiet.
    closing: Option<Instant>,
}

/// How one request gets on.
pub struct Progress {
    link: Arc<Link>,
    /// Milliseconds between the beginning of the connection and the last sign of life.
    moved: AtomicU64,
    /// Bytes of its body that came in.
    received: AtomicU64,
    /// Whether its answer waits for the client to take it.
    sending: AtomicBool,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It has nothing to do: it may end, politely.
    Quiet,
    /// It takes what others need.
    Stalled,
}

/// How long a connection that was asked to end may take for it.
const FAREWELL: Duration = Duration::from_secs(5);

impl Link {
    /// A connection that begins now.
    pub fn new(peer: Option<SocketAddr>) -> Arc<Self> {
        Arc::new(Link { peer, began: Instant::now(), state: Mutex::default() })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request begins.
    pub fn request(self: &Arc<Self>) -> Arc<Progress> {
        let progress = Arc::new(Progress {
            link: self.clone(),
            moved: AtomicU64::new(self.now()),
            received: AtomicU64::new(0),
            sending: AtomicBool::new(false),
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.used = true;
        state.requests.push(Arc::downgrade(&progress));
        progress
    }

    /// Waits until something is to be done about it.
    pub async fn verdict(&self, limits: &Limits) -> Verdict {
        let shortest = limits.begin.min(limits.idle).min(limits.stall);
        let tick = (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(2));
        loop {
            tokio::time::sleep(tick).await;
            if let Some(verdict) = self.judge(limits) {
                return verdict;
            }
        }
    }

    fn judge(&self, limits: &Limits) -> Option<Verdict> {
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |then: u64| Duration::from_millis(self.now().saturating_sub(then));
        // Looked at without the lock: the last reference to a request takes it when it is dropped.
        let requests: Vec<Arc<Progress>> = {
            let mut state = lock();
            if !state.used {
                return (self.began.elapsed() > limits.begin).then_some(Verdict::Stalled);
            }
            state.requests.retain(|request| request.strong_count() > 0);
            state.requests.iter().filter_map(Weak::upgrade).collect()
        };
        if !requests.is_empty() {
            return requests.iter().any(|request| request.stalled(limits.stall)).then_some(Verdict::Stalled);
        }
        let mut state = lock();
        if since(state.quiet_since) <= limits.idle {
            return None;
        }
        match state.closing {
            None => {
                state.closing = Some(Instant::now());
                Some(Verdict::Quiet)
            }
            Some(asked) => (asked.elapsed() > FAREWELL).then_some(Verdict::Stalled),
        }
    }
}

impl Progress {
    /// Counts bytes of the request's body.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.moved();
    }

    /// How many bytes of the request's body came in.
    pub fn bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// A sign of life.
    pub fn moved(&self) {
        self.moved.store(self.link.now(), Ordering::Relaxed);
    }

    fn stalled(&self, limit: Duration) -> bool {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.sending.load(Ordering::Relaxed) && self.link.began.elapsed().saturating_sub(moved) > limit
    }

    /// From now on it is for the client to take the answer.
    pub fn sending(&self) {
        self.moved();
        self.sending.store(true, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let now = self.link.now();
        self.link.state.lock().unwrap_or_else(PoisonError::into_inner).quiet_since = now;
    }
}

/// Anything that bytes go through, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Counts what goes through.
pub struct Counted<S> {
    /// What it goes through.
    pub inner: S,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

impl<S: Stream> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.metrics.received((buffer.filled().len() - before) as u64);
        done
    }
}

impl<S: Stream> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &done {
            self.metrics.sent(*count as u64);
        }
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        if let Poll::Ready(Ok(count)) = &done {
            self.metrics.sent(*count as u64);
        }
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
