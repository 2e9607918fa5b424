//! One connection to a server, made when it is needed and made again when it broke; blocking outside.
//!
//! What is limited is silence, not length: a transfer may take hours as long as something arrives.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use spfs_repo::{Error, NetTrouble, Result};
use tokio::runtime::Runtime;

use crate::address::{Address, Way};
use crate::body::{AnyBody, full};
use crate::budget::{Budget, Share};
use crate::dial::{self, Ssh};
use crate::grpc::{self, Frames, status};
use crate::server::EXCHANGE;
use crate::threads::Threads;

/// How long the other end may be silent while we wait for it: it may be busy making much safe on a slow disk.
const SILENCE: Duration = Duration::from_secs(120);
/// How often a call is made again because the connection broke under it, and the first pause before that.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);
/// How many bytes of content an answer has at most, and the least that is asked for over a bad connection.
const MOST: u32 = 4 << 20;
const LEAST: u32 = 128 << 10;

/// Where a server is, and the connection to it.
pub struct Connection {
    /// Where.
    pub address: Address,
    /// Instead of `ssh`: a command line for the shell.
    ssh_command: Option<String>,
    live: tokio::sync::Mutex<Option<Live>>,
    ssh: Mutex<Option<Ssh>>,
    threads: OnceLock<Threads>,
    /// Whether the other end knows our exchange, once it has answered.
    ours: OnceLock<bool>,
    /// How many bytes of content an answer may have.
    most: AtomicU32,
    /// For what is large.
    pub budget: Budget,
}

/// A connection that has been made.
#[derive(Clone)]
struct Live {
    sender: http2::SendRequest<AnyBody>,
    task: tokio::task::AbortHandle,
    token: Option<HeaderValue>,
    /// What ended it, once it has ended.
    why: Arc<OnceLock<hyper::Error>>,
}

/// What came of a call.
enum Answer {
    Whole(Box<Reply>),
    /// It has so many bytes, for which there is no room now.
    Large(usize),
}

/// The answer to a call: its messages, and the status that came with it.
struct Reply {
    frames: Frames,
    headers: HeaderMap,
    trailers: HeaderMap,
    http: http::StatusCode,
}

/// What makes a request; called again where it must be sent again.
pub type Make<'a> = &'a (dyn Fn() -> Request<AnyBody> + Sync + 'a);

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(live) = self.live.get_mut().take() {
            live.task.abort();
        }
        if let Some(threads) = self.threads.take() {
            threads.end();
        }
    }
}

impl Connection {
    /// A connection to `address`, not made yet.
    pub fn new(address: Address, ssh_command: Option<String>) -> Self {
        Connection {
            address,
            ssh_command,
            live: tokio::sync::Mutex::default(),
            ssh: Mutex::default(),
            threads: OnceLock::new(),
            ours: OnceLock::new(),
            most: AtomicU32::new(MOST),
            budget: Budget::default(),
        }
    }

    /// The runtime on which everything is done.
    pub fn runtime(&self) -> Result<&Runtime> {
        if let Some(threads) = self.threads.get() {
            return Ok(threads.runtime());
        }
        let threads = Threads::of_this_process()?;
        Ok(self.threads.get_or_init(|| threads).runtime())
    }

    /// Whether the other end knows our exchange. Asks, the first time.
    pub fn is_ours(&self) -> Result<bool> {
        if !self.address.exchange {
            return Ok(false);
        }
        if let Some(ours) = self.ours.get() {
            return Ok(*ours);
        }
        let reply = self.exchange("/spfs.Repository/Ping", grpc::frame(&crate::proto::Ok {}), false)?;
        let ours = reply.headers.get(EXCHANGE).is_some_and(|version| version == "1");
        self.check(&reply)?;
        Ok(*self.ours.get_or_init(|| ours))
    }

    /// Asks `ask` for an answer of so many bytes; for less, where the connection does not live long enough for it.
    pub fn in_pieces<T>(&self, ask: impl Fn(u32) -> Result<T>) -> Result<T> {
        loop {
            let most = self.most.load(Ordering::Relaxed);
            match ask(most) {
                Err(Error::Unreachable { trouble: NetTrouble::Lost, .. }) if most > LEAST => {
                    self.most.store(most / 2, Ordering::Relaxed);
                }
                result => return result,
            }
        }
    }

    /// Makes a call and returns its only message.
    pub fn call<M: Message + Default>(&self, path: &str, request: &impl Message) -> Result<M> {
        self.call_stream(path, request)?.only().map_err(|reason| self.protocol(reason))
    }

    /// Makes a call and returns all of its messages.
    pub fn call_stream(&self, path: &str, request: &impl Message) -> Result<Frames> {
        let frame = grpc::frame(request);
        if frame.len() > self.address.max_encode {
            let reason = format!("the message is larger than {} bytes", self.address.max_encode);
            return Err(Error::Unsupported { what: path.to_owned(), reason });
        }
        // Existing servers know no compression.
        let zstd = self.address.compress && path.starts_with("/spfs.Exchange/");
        let frame = if zstd { grpc::compressed(frame) } else { frame };
        let reply = self.exchange(path, frame, zstd)?;
        self.check(&reply)?;
        Ok(reply.frames)
    }

    /// Sends a request over the same connection, and returns the answer as soon as it begins.
    pub fn request(&self, make: Make<'_>) -> Result<Response<Incoming>> {
        self.explained(self.runtime()?.block_on(self.send(true, make)))
    }

    /// Runs `work`, which reads what a request of ours answered.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        Ok(self.runtime()?.block_on(work))
    }

    /// The next piece of a body; `None` at its end.
    pub async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>> {
        loop {
            match self.in_time(body.frame()).await? {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) if piece.is_empty() => {}
                    Ok(piece) => return Ok(Some(piece)),
                    Err(_) => {}
                },
                Some(Err(error)) => return Err(self.broken(error)),
            }
        }
    }

    /// An error about the connection.
    pub fn trouble(&self, trouble: NetTrouble, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Unreachable { address: self.address.text.clone(), trouble, source: Some(source.into()) }
    }

    /// An error about a connection that ended.
    pub fn broken(&self, error: hyper::Error) -> Error {
        self.trouble(if is_foreign(&error) { NetTrouble::Protocol } else { NetTrouble::Lost }, error)
    }

    /// An error about an answer that makes no sense.
    pub fn protocol(&self, reason: String) -> Error {
        if reason.starts_with("a message is larger") {
            let reason = format!("{reason}; max_decode_message_size_bytes in its address allows more");
            return Error::Remote { address: self.address.text.clone(), action: "answer".to_owned(), reason };
        }
        self.trouble(NetTrouble::Protocol, reason)
    }

    /// What `work` gives, unless the other end is silent for too long.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(SILENCE, work).await.map_err(|late| self.trouble(NetTrouble::TimedOut, late))
    }

    /// A call, made again if the connection breaks under it.
    fn exchange(&self, path: &str, body: Bytes, zstd: bool) -> Result<Reply> {
        // A second removal would find nothing to remove.
        let again = !path.contains("/Remove");
        let make = || self.call_request(path, body.clone(), zstd);
        let runtime = self.runtime()?;
        let (mut tries, mut room) = (1, None);
        loop {
            let work = async {
                let work = self.collect(again, &make, zstd, room.take());
                let Some(limit) = self.address.timeout else { return work.await };
                let timed = tokio::time::timeout(limit, work).await;
                timed.unwrap_or_else(|late| Err(self.trouble(NetTrouble::TimedOut, late)))
            };
            match self.explained(runtime.block_on(work)) {
                // Asked for again, and not stopped in the middle: it would take the connection's room from others.
                Ok(Answer::Large(bytes)) => {
                    room = Some(runtime.block_on(self.budget.take(bytes)));
                    continue;
                }
                Ok(Answer::Whole(reply)) => return Ok(*reply),
                Err(Error::Unreachable { trouble: NetTrouble::Lost, .. }) if again && tries < TRIES => {
                    std::thread::sleep(PAUSE * 2u32.pow(tries));
                }
                Err(error) => return Err(error),
            }
            tries += 1;
        }
    }

    fn call_request(&self, path: &str, body: Bytes, zstd: bool) -> Request<AnyBody> {
        let mut request = Request::new(full(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(path);
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if zstd {
            headers.insert("grpc-encoding", HeaderValue::from_static(grpc::ZSTD));
            headers.insert("grpc-accept-encoding", HeaderValue::from_static(grpc::ZSTD));
        }
        request
    }

    /// Where `path` is on the server.
    pub fn uri(&self, path: &str) -> Uri {
        let scheme = if matches!(self.address.way, Way::Tcp { tls: Some(_), .. }) { "https" } else { "http" };
        let authority = self.address.authority();
        Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().unwrap_or_default()
    }

    async fn collect(&self, again: bool, make: Make<'_>, zstd: bool, mut room: Option<Share>) -> Result<Answer> {
        let (head, mut body) = self.send(again, make).await?.into_parts();
        let zstd = zstd && head.headers.get("grpc-encoding").is_some_and(|encoding| encoding == grpc::ZSTD);
        let mut frames = Frames::new(self.address.max_decode, zstd);
        let mut trailers = HeaderMap::new();
        while let Some(frame) = self.in_time(body.frame()).await? {
            match frame.map_err(|e| self.broken(e))?.into_data() {
                Ok(piece) => {
                    frames.push(&piece).map_err(|reason| self.protocol(reason))?;
                    if let (None, Some(promised)) = (&room, frames.promised()) {
                        room = self.budget.try_take(promised);
                        if room.is_none() && again {
                            return Ok(Answer::Large(promised));
                        }
                        room = room.or_else(|| Some(Share::default()));
                    }
                }
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        frames.hold(room.unwrap_or_default());
        Ok(Answer::Whole(Box::new(Reply { frames, headers: head.headers, trailers, http: head.status })))
    }

    /// Turns the status of a call into an error, if it is one.
    fn check(&self, reply: &Reply) -> Result<()> {
        let find = |name| reply.trailers.get(name).or_else(|| reply.headers.get(name)).and_then(|v| v.to_str().ok());
        let address = || self.address.text.clone();
        let Some(number) = find("grpc-status").and_then(|text| text.parse::<u32>().ok()) else {
            let reason = format!("HTTP {} without the status of a call", reply.http);
            return Err(match reply.http.as_u16() {
                401 | 403 => Error::Denied { address: address(), reason, unauthenticated: reply.http == 401 },
                // Something between us and the server, for as long as that is away.
                502..=504 => self.trouble(NetTrouble::Lost, reason),
                _ => self.protocol(reason),
            });
        };
        let reason = decode_percent(find("grpc-message").unwrap_or_default());
        match number {
            status::OK => Ok(()),
            status::UNAUTHENTICATED => Err(Error::Denied { address: address(), reason, unauthenticated: true }),
            status::PERMISSION_DENIED => Err(Error::Denied { address: address(), reason, unauthenticated: false }),
            status::UNAVAILABLE => Err(self.trouble(NetTrouble::Lost, reason)),
            status::DEADLINE_EXCEEDED => Err(self.trouble(NetTrouble::TimedOut, reason)),
            _ => {
                let reason = format!("{reason} (status {number})");
                Err(Error::Remote { address: address(), action: "answer".to_owned(), reason })
            }
        }
    }

    /// Sends a request, over a new connection if there is none. If the one that there was turns out to be dead, it is
    /// sent again where that does no harm.
    pub async fn send(&self, again: bool, make: Make<'_>) -> Result<Response<Incoming>> {
        loop {
            let (live, fresh) = self.live().await?;
            let mut request = make();
            if let Some(token) = &live.token {
                request.headers_mut().insert(header::AUTHORIZATION, token.clone());
            }
            let mut sender = live.sender.clone();
            match self.in_time(sender.send_request(request)).await? {
                Ok(response) => return Ok(response),
                Err(error) => {
                    // The connection knows better why it ended than the request, a moment later.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    self.forget(&live).await;
                    if fresh || !(again || error.is_canceled()) {
                        let foreign = live.why.get().is_some_and(is_foreign);
                        let trouble = if foreign { NetTrouble::Protocol } else { NetTrouble::Lost };
                        return Err(self.trouble(trouble, error));
                    }
                }
            }
        }
    }

    /// The connection, and whether it has only just been made.
    async fn live(&self) -> Result<(Live, bool)> {
        let mut live = self.live.lock().await;
        if let Some(live) = live.as_ref().filter(|live| !live.sender.is_closed()) {
            return Ok((live.clone(), false));
        }
        let made = self.connect().await?;
        *live = Some(made.clone());
        Ok((made, true))
    }

    async fn forget(&self, dead: &Live) {
        let mut live = self.live.lock().await;
        if live.as_ref().is_some_and(|live| live.task.id() == dead.task.id()) {
            *live = None;
        }
        dead.task.abort();
    }

    async fn connect(&self) -> Result<Live> {
        let token = self.token()?;
        let stream = match &self.address.way {
            Way::Tcp { host, port, tls } => {
                dial::tcp(host, *port, tls.as_ref(), "h2").await.map_err(|e| self.no_way(e))?
            }
            way @ Way::Ssh { .. } => {
                let started = dial::ssh(way, self.ssh_command.as_deref());
                let (stream, ssh) = started.map_err(|e| self.trouble(NetTrouble::Program, e))?;
                let old = self.ssh.lock().unwrap_or_else(PoisonError::into_inner).replace(ssh);
                tokio::task::spawn_blocking(move || drop(old));
                stream
            }
        };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(256 << 10);
        // ssh may be asking for a password, and looks after its own connection.
        if matches!(self.address.way, Way::Tcp { .. }) {
            builder.keep_alive_interval(Duration::from_secs(20)).keep_alive_timeout(Duration::from_secs(20));
        }
        let made = tokio::time::timeout(dial::PATIENCE, builder.handshake(TokioIo::new(stream))).await;
        let made = made.map_err(|late| self.trouble(NetTrouble::TimedOut, late))?;
        let (sender, connection) = made.map_err(|e| self.broken(e))?;
        let why = Arc::<OnceLock<hyper::Error>>::default();
        let tell = why.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                let _ = tell.set(error);
            }
        });
        Ok(Live { sender, task: task.abort_handle(), token, why })
    }

    fn token(&self) -> Result<Option<HeaderValue>> {
        let Some(file) = &self.address.token_file else { return Ok(None) };
        if !self.address.is_private() {
            let reason = "a token would travel where others can read it; use grpcs://";
            return Err(Error::invalid("address", &*self.address.text, reason));
        }
        dial::token(file).map(Some)
    }

    fn no_way(&self, (trouble, source): dial::Trouble) -> Error {
        Error::Unreachable { address: self.address.text.clone(), trouble, source: Some(source) }
    }

    /// An error about the connection, with what ssh has to say about it.
    pub fn explained<T>(&self, result: Result<T>) -> Result<T> {
        let (Err(Error::Unreachable { .. }), Way::Ssh { program, .. }) = (&result, &self.address.way) else {
            return result;
        };
        let mut ssh = self.ssh.lock().unwrap_or_else(PoisonError::into_inner);
        match ssh.as_mut().and_then(|ssh| ssh.reason(program)) {
            // It worked a moment ago, and may again.
            Some(reason) if self.ours.get().is_some() => Err(self.trouble(NetTrouble::Lost, reason)),
            Some(reason) => Err(self.trouble(NetTrouble::Program, reason)),
            None => result,
        }
    }

    /// One request over an HTTP/1.1 connection of its own, to whatever host `url` names.
    pub async fn request_once(&self, url: &str, mut request: Request<AnyBody>) -> Result<Response<Incoming>> {
        let unsupported = || Error::Unsupported {
            what: format!("the payload location {url:?}"),
            reason: "only http: and https: are understood".to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| unsupported())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(unsupported()),
        };
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let ours = match &self.address.way {
            Way::Tcp { tls, .. } => tls.clone(),
            Way::Ssh { .. } => None,
        };
        // Whoever is named by the server is trusted with the token only if it is the server itself.
        if let Way::Tcp { host: known, .. } = &self.address.way
            && known == host
            && (secure || ours.is_none())
            && let Some(token) = self.token()?
        {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        if let Some(authority) = uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
            request.headers_mut().insert(header::HOST, authority);
        }
        *request.uri_mut() = uri.path_and_query().map_or_else(Uri::default, |path| path.clone().into());
        let tls = secure.then(|| ours.unwrap_or(crate::address::Tls { ca: None }));
        let stream = dial::tcp(host, port, tls.as_ref(), "http/1.1").await.map_err(|e| self.no_way(e))?;
        let made = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = made.map_err(|e| self.broken(e))?;
        tokio::spawn(connection);
        self.in_time(sender.send_request(request)).await?.map_err(|e| self.broken(e))
    }
}

/// Whether the other end speaks something else. hyper says so in words alone.
fn is_foreign(error: &hyper::Error) -> bool {
    let words = format!("{error:?}");
    error.is_parse() || ["FRAME_SIZE_ERROR", "PROTOCOL_ERROR", "invalid HTTP version"].iter().any(|w| words.contains(w))
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

/// An io error of a reader, with the error of the repository inside it.
pub fn as_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::Unreachable { trouble: NetTrouble::TimedOut, .. } => io::ErrorKind::TimedOut,
        Error::Unreachable { trouble, .. } if trouble.is_passing() => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
