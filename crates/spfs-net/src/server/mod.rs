//! The server: the wire protocol and the payload channel, on every port that it listens on.
//!
//! A request whose content type is `application/grpc` is a call (`calls.rs`), everything else belongs to the payload
//! channel (`payloads.rs`), `/healthz` included. Repository work is done on blocking threads.

mod calls;
mod payloads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use spfs_repo::Repository;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::body::{AnyBody, full};
use crate::grpc::status;

/// The header by which our own server makes itself known; its value is the version of the exchange.
pub const EXCHANGE: &str = "x-spfs-exchange";

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Refuse everything that changes something.
    pub read_only: bool,
    /// Where payloads are to be had, if it is not where the caller connected to.
    pub payloads_root: Option<String>,
    /// Listen here too, for payloads alone; callers are told to come here for them.
    pub payloads_listen: Option<SocketAddr>,
    /// The largest message of a call, in bytes.
    pub max_message: usize,
    /// How long a client may be silent in the middle of a request.
    pub patience: Duration,
    /// How long transfers may take to end once the server is told to stop.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            read_only: false,
            payloads_root: None,
            payloads_listen: None,
            max_message: 512 << 20,
            patience: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

/// What every request is served from.
struct State {
    repository: Arc<dyn Repository>,
    options: Options,
    /// Where payloads are to be had, if they have an address of their own.
    payloads_at: Option<SocketAddr>,
    /// Requests that are worked on at one time; the others wait.
    turns: Semaphore,
}

/// Most requests that are worked on at one time.
const TURNS: usize = 64;
/// Most connections at one time.
const CONNECTIONS: usize = 1024;

/// A server that listens, and answers once [`Server::run`] is called.
pub struct Server {
    runtime: tokio::runtime::Runtime,
    listeners: Vec<(TcpListener, Role)>,
    state: Arc<State>,
}

/// What is answered on a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    All,
    Payloads,
}

impl Server {
    /// Listens on every one of `addresses`; port 0 takes any free port.
    ///
    /// Errors: an address that cannot be listened on, by its text.
    pub fn bind(
        repository: Arc<dyn Repository>,
        addresses: &[SocketAddr],
        options: Options,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let runtime = runtime().map_err(|e| (none, e))?;
        let roles = addresses.iter().map(|address| (*address, Role::All));
        let roles = roles.chain(options.payloads_listen.map(|address| (address, Role::Payloads)));
        let mut listeners = Vec::new();
        let mut payloads_at = None;
        for (address, role) in roles {
            let listener = runtime.block_on(TcpListener::bind(address)).map_err(|e| (address, e))?;
            if role == Role::Payloads {
                payloads_at = Some(listener.local_addr().map_err(|e| (address, e))?);
            }
            listeners.push((listener, role));
        }
        Ok(Server { runtime, listeners, state: state(repository, options, payloads_at) })
    }

    /// Where it listens, in the order of the addresses given; the address for payloads alone is the last.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// Answers until SIGTERM or SIGINT, or until `stop` is ready; then lets transfers end, within the grace
    /// and before a second signal.
    pub fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Server { runtime, listeners, state } = self;
        let done = runtime.block_on(serve(listeners, state, stop));
        // A blocking thread that waits for a client that has gone is not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        done
    }
}

/// Serves one connection, which is `input` and `output`, until its end: for `ssh`.
pub fn serve_stdio(repository: Arc<dyn Repository>, options: Options) -> io::Result<()> {
    let state = state(repository, options, None);
    let runtime = runtime()?;
    let done = runtime.block_on(async move {
        let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        connection(stream, state, Role::All, None).await
    });
    // The thread that reads standard input may wait for ever.
    runtime.shutdown_background();
    done
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(TURNS * 2).enable_all().build()
}

fn state(repository: Arc<dyn Repository>, options: Options, payloads_at: Option<SocketAddr>) -> Arc<State> {
    Arc::new(State { repository, options, payloads_at, turns: Semaphore::new(TURNS) })
}

async fn serve(
    listeners: Vec<(TcpListener, Role)>,
    state: Arc<State>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let graceful = Arc::new(GracefulShutdown::new());
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut accepting = Vec::new();
    for (listener, role) in listeners {
        accepting.push(tokio::spawn(accept(listener, role, state.clone(), graceful.clone(), room.clone())));
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop => {}
    }
    for task in accepting {
        task.abort();
        let _ = task.await;
    }
    // Connections keep their share of it only through watchers, so the last reference is here.
    if let Some(graceful) = Arc::into_inner(graceful) {
        tokio::select! {
            _ = tokio::time::timeout(state.options.grace, graceful.shutdown()) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    Ok(())
}

async fn accept(
    listener: TcpListener,
    role: Role,
    state: Arc<State>,
    graceful: Arc<GracefulShutdown>,
    room: Arc<Semaphore>,
) {
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors, or gone already: others may still be served.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let watcher = graceful.watcher();
        let state = state.clone();
        tokio::spawn(async move {
            let _ = connection(stream, state, role, Some(watcher)).await;
            drop(place);
        });
    }
}

/// Serves one connection until its end.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<State>,
    role: Role,
    watcher: Option<hyper_util::server::graceful::Watcher>,
) -> io::Result<()> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(state.options.patience);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(256 << 10)
        .max_concurrent_streams(256)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(state.options.patience);
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(state, role, request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let done = match watcher {
        Some(watcher) => watcher.watch(connection.into_owned()).await,
        None => connection.await,
    };
    done.map_err(io::Error::other)
}

async fn answer(state: Arc<State>, role: Role, request: Request<Incoming>) -> Response<AnyBody> {
    let Ok(_turn) = state.turns.acquire().await else { return payloads::plain(StatusCode::SERVICE_UNAVAILABLE, "") };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut response = match kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        true if role == Role::Payloads => failed(status::UNIMPLEMENTED, "this port is for payloads alone"),
        true => call(state.clone(), request).await,
        false => payloads::answer(state.clone(), request).await,
    };
    response.headers_mut().insert(EXCHANGE, HeaderValue::from_static("1"));
    response
}

/// Where a caller finds payloads: where it connected to, unless configuration knows better.
fn payloads_root(state: &State, request: &Request<Incoming>) -> String {
    if let Some(root) = &state.options.payloads_root {
        return format!("{}/", root.trim_end_matches('/'));
    }
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = request.uri().authority().map(Authority::as_str).or(host).unwrap_or("localhost");
    match state.payloads_at {
        None => format!("http://{authority}/"),
        // On every address: on the one that this caller knows, too.
        Some(at) if at.ip().is_unspecified() => {
            let host = authority.parse().map_or_else(|_| "localhost".to_owned(), |a: Authority| a.host().to_owned());
            format!("http://{host}:{}/", at.port())
        }
        Some(at) => format!("http://{at}/"),
    }
}

/// A call: the whole message, then the work on a blocking thread, then the answer with its trailers.
async fn call(state: Arc<State>, request: Request<Incoming>) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    let payloads = payloads_root(&state, &request);
    let body = Limited::new(request.into_body(), state.options.max_message);
    let body = match tokio::time::timeout(state.options.patience * 10, body.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return failed(status::RESOURCE_EXHAUSTED, &error.to_string()),
        Err(_) => return failed(status::RESOURCE_EXHAUSTED, "the message took too long to arrive"),
    };
    let work = tokio::task::spawn_blocking(move || {
        let read_only = state.options.read_only;
        calls::Call { repository: &*state.repository, payloads: &payloads, read_only }.run(&path, body)
    });
    match work.await {
        Ok(Ok(answer)) => done(answer),
        Ok(Err(calls::Failed(number, message))) => failed(number, &message),
        Err(_) => failed(status::INTERNAL, "the server failed; its log knows more"),
    }
}

fn done(answer: Bytes) -> Response<AnyBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status::OK));
    let body = full(answer).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn failed(number: u32, message: &str) -> Response<AnyBody> {
    // Percent-encoded, as gRPC has it.
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'%';
    let encode = |byte: u8| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    let message: String = message.bytes().map(encode).collect();
    let mut response = Response::new(full(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(number));
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
    response
}
