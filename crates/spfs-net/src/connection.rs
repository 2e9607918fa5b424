//! One connection to a server, made when it is needed and made again when it broke; blocking outside.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use spfs_repo::{Error, NetTrouble, Result};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::body::{AnyBody, full};
use crate::grpc::{self, status};
use crate::server::EXCHANGE;

/// How long making a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The runtime of all clients of this process: started with the first connection, ended with the last one, so that a
/// process that enters namespaces has no threads any more.
struct Threads(Arc<Runtime>);

impl Threads {
    fn of_this_process() -> Result<Self> {
        static RUNTIME: Mutex<Weak<Runtime>> = Mutex::new(Weak::new());
        let mut shared = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = shared.upgrade() {
            return Ok(Threads(runtime));
        }
        let made = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("spfs-net")
            .enable_all()
            .build()
            .map_err(Error::io("start", "the threads of the network"))?;
        let made = Arc::new(made);
        *shared = Arc::downgrade(&made);
        Ok(Threads(made))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A look-up of a name that nobody answers is not waited for.
        let last = self.threads.take().and_then(|threads| Arc::into_inner(threads.0));
        if let Some(runtime) = last {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// Where a server is, and the connection to it.
pub struct Connection {
    /// The repository's address, for messages.
    pub address: String,
    /// `host:port`.
    authority: String,
    /// How long an answer may take.
    timeout: Option<Duration>,
    sender: Mutex<Option<http2::SendRequest<AnyBody>>>,
    threads: OnceLock<Threads>,
    /// Whether the other end knows our exchange, once it has answered.
    ours: OnceLock<bool>,
}

/// The answer to a call: its messages, and the status that came with it.
struct Reply {
    body: Bytes,
    headers: HeaderMap,
    trailers: HeaderMap,
    http: http::StatusCode,
}

impl Connection {
    /// A connection to `authority`, not made yet.
    pub fn new(address: String, authority: String, timeout: Option<Duration>) -> Self {
        Connection {
            address,
            authority,
            timeout,
            sender: Mutex::default(),
            threads: OnceLock::new(),
            ours: OnceLock::new(),
        }
    }

    fn runtime(&self) -> Result<&Runtime> {
        if let Some(threads) = self.threads.get() {
            return Ok(&threads.0);
        }
        let threads = Threads::of_this_process()?;
        Ok(&self.threads.get_or_init(|| threads).0)
    }

    /// Whether the other end knows our exchange. Asks, the first time.
    pub fn is_ours(&self) -> Result<bool> {
        if let Some(ours) = self.ours.get() {
            return Ok(*ours);
        }
        let reply = self.exchange("/spfs.Repository/Ping", grpc::frame(&crate::proto::Ok {}))?;
        let ours = reply.headers.get(EXCHANGE).is_some_and(|version| version == "1");
        self.check(&reply)?;
        Ok(*self.ours.get_or_init(|| ours))
    }

    /// Makes a call and returns its only message.
    pub fn call<M: Message + Default>(&self, path: &str, request: &impl Message) -> Result<M> {
        let mut body = self.call_stream(path, request)?;
        grpc::only(&mut body).map_err(|reason| self.protocol(reason))
    }

    /// Makes a call and returns all of its messages, still framed.
    pub fn call_stream(&self, path: &str, request: &impl Message) -> Result<Bytes> {
        let reply = self.exchange(path, grpc::frame(request))?;
        self.check(&reply)?;
        Ok(reply.body)
    }

    /// Sends a request over the same connection, and returns the answer as soon as it begins.
    pub fn request(&self, request: impl Fn(&str) -> Request<AnyBody>) -> Result<Response<Incoming>> {
        let runtime = self.runtime()?;
        runtime.block_on(self.send(&|| request(&self.authority)))
    }

    /// Runs `work`, which reads what a request of ours answered.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        Ok(self.runtime()?.block_on(work))
    }

    /// Runs `work`, which may block, beside the caller.
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<T>> {
        Ok(self.runtime()?.spawn_blocking(work))
    }

    /// An error about the connection.
    pub fn trouble(&self, trouble: NetTrouble, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Unreachable { address: self.address.clone(), trouble, source: Some(Box::new(source)) }
    }

    fn protocol(&self, reason: String) -> Error {
        self.trouble(NetTrouble::Protocol, io::Error::other(reason))
    }

    fn exchange(&self, path: &str, body: Bytes) -> Result<Reply> {
        let request = || {
            let uri = Uri::builder().scheme("http").authority(&*self.authority).path_and_query(path).build();
            let mut request = Request::new(full(body.clone()));
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = uri.unwrap_or_default();
            let headers = request.headers_mut();
            headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
            headers.insert("te", http::HeaderValue::from_static("trailers"));
            request
        };
        let work = async {
            let response = self.send(&request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| self.trouble(NetTrouble::Lost, e))?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Ok(Reply { body: body.to_bytes(), headers: head.headers, trailers, http: head.status })
        };
        let Some(limit) = self.timeout else { return self.runtime()?.block_on(work) };
        let timed = async { tokio::time::timeout(limit, work).await };
        self.runtime()?.block_on(timed).unwrap_or_else(|late| Err(self.trouble(NetTrouble::TimedOut, late)))
    }

    /// Turns the status of a call into an error, if it is one.
    fn check(&self, reply: &Reply) -> Result<()> {
        let find = |name| reply.trailers.get(name).or_else(|| reply.headers.get(name)).and_then(|v| v.to_str().ok());
        let Some(number) = find("grpc-status").and_then(|text| text.parse::<u32>().ok()) else {
            return Err(self.protocol(format!("HTTP {} without the status of a call", reply.http)));
        };
        let reason = decode_percent(find("grpc-message").unwrap_or_default());
        let denied =
            |unauthenticated| Error::Denied { address: self.address.clone(), reason: reason.clone(), unauthenticated };
        match number {
            status::OK => Ok(()),
            status::UNAUTHENTICATED => Err(denied(true)),
            status::PERMISSION_DENIED => Err(denied(false)),
            _ => {
                let reason = format!("{reason} (status {number})");
                Err(Error::Remote { address: self.address.clone(), action: "answer".to_owned(), reason })
            }
        }
    }

    /// Sends a request; once more over a new connection if the old one turns out to be dead.
    async fn send(&self, request: &(dyn Fn() -> Request<AnyBody> + '_)) -> Result<Response<Incoming>> {
        let kept = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(mut sender) = kept
            && !sender.is_closed()
            && let Ok(response) = sender.send_request(request()).await
        {
            return Ok(response);
        }
        let mut sender = self.connect().await?;
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        sender.send_request(request()).await.map_err(|e| {
            let lost = e.is_closed() || e.is_canceled() || e.is_incomplete_message();
            self.trouble(if lost { NetTrouble::Lost } else { NetTrouble::Protocol }, e)
        })
    }

    async fn connect(&self) -> Result<http2::SendRequest<AnyBody>> {
        let stream = self.open(&self.authority).await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(256 << 10)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let made = builder.handshake(TokioIo::new(stream));
        let (sender, connection) = match tokio::time::timeout(PATIENCE, made).await {
            Ok(made) => made.map_err(|e| self.trouble(NetTrouble::Protocol, e))?,
            Err(late) => return Err(self.trouble(NetTrouble::TimedOut, late)),
        };
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One request over an HTTP/1.1 connection of its own, to whatever host its URL names.
    pub fn request_once(&self, authority: &str, request: Request<AnyBody>) -> Result<Response<Incoming>> {
        let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        self.runtime()?.block_on(async {
            let stream = self.open(&authority).await?;
            let made = http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = made.map_err(|e| self.trouble(NetTrouble::Protocol, e))?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(|e| self.trouble(NetTrouble::Lost, e))
        })
    }

    async fn open(&self, authority: &str) -> Result<TcpStream> {
        let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(authority)).await;
        let found: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(e)) => return Err(self.trouble(NetTrouble::Unresolved, e)),
            Err(late) => return Err(self.trouble(NetTrouble::TimedOut, late)),
        };
        let stream = match tokio::time::timeout(PATIENCE, TcpStream::connect(&found[..])).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => {
                let trouble = match e.kind() {
                    io::ErrorKind::ConnectionRefused => NetTrouble::Refused,
                    io::ErrorKind::TimedOut => NetTrouble::TimedOut,
                    _ => NetTrouble::NoRoute,
                };
                return Err(self.trouble(trouble, e));
            }
            Err(late) => return Err(self.trouble(NetTrouble::TimedOut, late)),
        };
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// Undoes the percent-encoding of a `grpc-message`; what is not encoded right is kept.
fn decode_percent(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}
