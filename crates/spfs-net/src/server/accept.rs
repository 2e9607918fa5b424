//! Connections: taken one by one, made secure, served by the version of HTTP that they speak, ended in time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::limits::{HEADERS, Limits};
use super::link::{Counted, Link, Stream, Verdict};
use super::{Live, Role, State, exchange};

/// Takes connections until it is told to stop.
pub async fn listen(
    listener: TcpListener,
    role: Role,
    state: Arc<State>,
    mut halted: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) {
    loop {
        let taken = tokio::select! {
            taken = take(&listener, &state) => taken,
            _ = halted.changed() => return,
        };
        let (stream, peer, place) = match taken {
            Ok(Some(taken)) => taken,
            Ok(None) => return,
            // Out of descriptors, or gone already: others may still be served.
            Err(error) => {
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    state.journal.note(&format!("could not take a connection: {error}"));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (state, halted, alive) = (state.clone(), halted.clone(), alive.clone());
        tokio::spawn(async move {
            state.metrics.accepted();
            // How a connection ended is known by its requests.
            let _ = connection(stream, peer, role, state.clone(), halted).await;
            state.metrics.ended();
            drop((place, alive));
        });
    }
}

type Taken = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn take(listener: &TcpListener, state: &State) -> io::Result<Option<Taken>> {
    let Some(place) = state.connections.take(1).await else { return Ok(None) };
    let (stream, peer) = listener.accept().await?;
    Ok(Some((stream, peer, place)))
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    role: Role,
    state: Arc<State>,
    mut halted: watch::Receiver<bool>,
) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let live = state.live();
    let link = Link::new(Some(peer));
    let stream = Counted { inner: stream, metrics: state.metrics.clone() };
    let stream: Box<dyn Stream> = match &live.tls {
        None => Box::new(stream),
        Some(acceptor) => tokio::select! {
            made = tokio::time::timeout(live.options.limits.begin, acceptor.accept(stream)) => Box::new(made??),
            _ = halted.changed() => return Ok(()),
        },
    };
    let windows = Windows::take(state.clone());
    let done = serve(stream, link, role, &state, &live, windows.bytes(), Some(halted)).await;
    if done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        state.metrics.cut();
        state.journal.note(&format!("{peer} takes or sends too little: its connection is cut"));
    }
    done
}

/// Serves standard input and output.
pub async fn stdio(stream: impl Stream + 'static, state: Arc<State>) -> io::Result<()> {
    let live = state.live();
    let windows = Windows::take(state.clone());
    serve(Box::new(stream), Link::new(None), Role::All, &state, &live, windows.bytes(), None).await
}

/// Serves one connection until its end; nobody watches its pace without `halted`.
async fn serve(
    stream: Box<dyn Stream>,
    link: Arc<Link>,
    role: Role,
    state: &Arc<State>,
    live: &Live,
    window: u32,
    halted: Option<watch::Receiver<bool>>,
) -> io::Result<()> {
    let service = {
        let (state, link, secure) = (state.clone(), link.clone(), live.tls.is_some());
        service_fn(move |request| {
            let (state, link) = (state.clone(), link.clone());
            async move { Ok::<_, Infallible>(exchange::answer(state, link, role, secure, request).await) }
        })
    };
    let limits = &live.options.limits;
    let builder = builder(limits, window);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let Some(mut halted) = halted else { return connection.await.map_err(io::Error::other) };
    let mut ending = *halted.borrow();
    if ending {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        tokio::select! {
            done = connection.as_mut() => return done.map_err(io::Error::other),
            _ = halted.changed(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            verdict = link.verdict(limits) => match verdict {
                Verdict::Quiet => connection.as_mut().graceful_shutdown(),
                Verdict::Stalled => return Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }
}

fn builder(limits: &Limits, window: u32) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.begin)
        .max_headers(HEADERS)
        .max_buf_size(256 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(window.min(4 << 20))
        .initial_connection_window_size(window)
        .max_frame_size(256 << 10)
        .max_concurrent_streams(128)
        .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(limits.stall);
    builder
}

/// How much a connection may have in transit: a share of what others have left, so that one alone is fast and many
/// together are bounded.
struct Windows {
    state: Arc<State>,
    counted: usize,
}

impl Windows {
    /// What every connection has, counted or not; HTTP/2 begins with it.
    const LEAST: u32 = 64 << 10;
    const MOST: usize = 16 << 20;

    fn take(state: Arc<State>) -> Self {
        let share = |left: usize| (left / 8).min(Self::MOST);
        let taken = state.windows.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - share(left)));
        Windows { counted: taken.map_or(0, share), state }
    }

    fn bytes(&self) -> u32 {
        u32::try_from(self.counted).unwrap_or(0).max(Self::LEAST)
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.state.windows.fetch_add(self.counted, Ordering::Relaxed);
    }
}
