//! One request, from its head to the last byte of its answer: who asks, its turn, its line in the log.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::calls::{self, Call, Failed};
use super::limits::{Pace, UNIT};
use super::link::{Link, Progress};
use super::metrics::Now;
use super::reply::{self, Told, failed, plain};
use super::tokens::{Refused, Right, Who};
use super::{EXCHANGE, Live, Role, State, payloads, uploads};
use crate::body::AnyBody;
use crate::grpc::{self, status};

/// Answers one request.
pub async fn answer(
    state: Arc<State>,
    link: Arc<Link>,
    role: Role,
    secure: bool,
    request: Request<Incoming>,
) -> Response<AnyBody> {
    let live = state.live();
    let progress = link.request();
    let mut record = Record::new(&state, &link, &progress, &request);
    // Whoever looks after the server asks these, and must be answered when nobody else is.
    if record.method == HEALTH {
        return Told::wrap(plain(StatusCode::OK, "ok\n"), record, progress, None);
    }
    let who = identify(&live, &request);
    record.who = who.as_ref().ok().and_then(|who| who.name.clone());
    let turn = tokio::time::timeout(live.options.limits.stall, state.requests.take(1)).await.ok().flatten();
    let mut response = match (who, &turn) {
        _ if headers(request.headers()) > live.options.limits.headers => {
            plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large\n")
        }
        (_, None) => refuse(&request, status::UNAVAILABLE, "there are too many requests; try again later"),
        (Err(refused), _) => {
            let response = refuse_rights(&request, &refused);
            if record.method == UPLOAD {
                payloads::drain(&mut request.into_body()).await;
            }
            response
        }
        (Ok(who), _) => {
            let peer = link.peer.map(|peer| peer.ip());
            let asked = Asked { state, live, who, peer, progress: progress.clone(), secure };
            asked.answer(role, request, &mut record).await
        }
    };
    response.headers_mut().insert(EXCHANGE, HeaderValue::from_static("1"));
    Told::wrap(response, record, progress, turn)
}

fn is_call<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

fn headers(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Who asks: by the token in `Authorization: Bearer …`.
fn identify(live: &Live, request: &Request<Incoming>) -> Result<Who, Refused> {
    let Some(table) = &live.tokens else { return Ok(Who::anybody()) };
    let token = match request.headers().get(header::AUTHORIZATION) {
        None => None,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let token = text.split_once(' ').filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
            let refused = || Refused { unauthenticated: true, reason: "only bearer tokens are known here".to_owned() };
            Some(token.ok_or_else(refused)?.1.trim())
        }
    };
    table.who(token, Timestamp::now())
}

/// Refuses a request in the words of its protocol.
fn refuse<B>(request: &Request<B>, number: u32, words: &str) -> Response<AnyBody> {
    if is_call(request) {
        return failed(number, words);
    }
    let http = match number {
        status::UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
        status::PERMISSION_DENIED => StatusCode::FORBIDDEN,
        status::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut response = plain(http, &format!("{words}\n"));
    if http == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn refuse_rights<B>(request: &Request<B>, refused: &Refused) -> Response<AnyBody> {
    let number = if refused.unauthenticated { status::UNAUTHENTICATED } else { status::PERMISSION_DENIED };
    refuse(request, number, &refused.reason)
}

/// A request whose sender is known.
pub struct Asked {
    /// The server.
    pub state: Arc<State>,
    /// Its options, as they were when the request came.
    pub live: Arc<Live>,
    /// Who asks.
    pub who: Who,
    /// From where, if that has an address.
    peer: Option<std::net::IpAddr>,
    /// How it gets on.
    pub progress: Arc<Progress>,
    /// Whether it came over TLS.
    secure: bool,
}

impl Asked {
    async fn answer(self, role: Role, request: Request<Incoming>, record: &mut Record) -> Response<AnyBody> {
        if is_call(&request) {
            return match role {
                Role::All => self.call(request, record).await,
                Role::Payloads => failed(status::UNIMPLEMENTED, "this port is for payloads alone"),
            };
        }
        let right = match record.method {
            METRICS => self.who.everywhere(Right::Read),
            UPLOAD if self.live.options.read_only => Err(read_only()),
            UPLOAD => self.who.anywhere(Right::Write),
            _ => self.who.anywhere(Right::Read),
        };
        if let Err(refused) = right {
            let response = refuse_rights(&request, &refused);
            if record.method == UPLOAD {
                payloads::drain(&mut request.into_body()).await;
            }
            return response;
        }
        match record.method {
            METRICS => plain(StatusCode::OK, &self.metrics()),
            UPLOAD if uploads::is_segment(&request) => payloads::segment(self, request).await,
            UPLOAD => payloads::upload(self, request).await,
            DOWNLOAD => payloads::download(self, &request).await,
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, "POST stores a payload, GET sends one\n"),
        }
    }

    fn metrics(&self) -> String {
        let state = &self.state;
        self.state.metrics.text(&Now { requests: state.requests.taken(), memory: state.memory.taken() * UNIT })
    }

    /// A call: the whole message, then the work on a blocking thread, then the answer.
    async fn call(self, request: Request<Incoming>, record: &mut Record) -> Response<AnyBody> {
        let path = request.uri().path().to_owned();
        let payloads = self.payloads_root(&request);
        let agreed = |name: &str| request.headers().get(name).is_some_and(|value| value == grpc::ZSTD);
        let (packed, zstd) = (agreed("grpc-encoding"), agreed("grpc-accept-encoding"));
        let mut weight = calls::memory(&path);
        if packed {
            weight.answer += UNPACKED;
        }
        let (body, memory) = match self.receive(request.into_body(), weight).await {
            Ok(received) => received,
            Err(Failed(number, reason)) => return failed(number, &reason),
        };
        let options = &self.live.options;
        let (read_only, append_only, largest) = (options.read_only, options.append_only, options.limits.message);
        let work = tokio::task::spawn_blocking(move || {
            let body = match if packed { grpc::unpacked(body, largest.min(UNPACKED)) } else { Ok(body) } {
                Ok(body) => body,
                Err(reason) => return calls::Done::failed(Failed(status::INVALID_ARGUMENT, reason)),
            };
            let repository = &*self.state.repository;
            let owner = self.who.name.clone().or(self.peer.map(|peer| peer.to_string())).unwrap_or_default();
            let call = Call {
                repository,
                batches: &self.state.batches,
                payloads: &payloads,
                read_only,
                append_only,
                who: &self.who,
                owner: &owner,
                subject: Default::default(),
            };
            let mut done = call.run(&path, body);
            if let (true, Ok(calls::Reply::Message(frame))) = (zstd, &mut done.reply) {
                *frame = grpc::compressed(std::mem::take(frame));
            }
            done
        });
        match work.await {
            Ok(calls::Done { reply: Ok(reply), subject }) => {
                record.subject = subject;
                let mut response = reply::done(reply, memory);
                if zstd {
                    response.headers_mut().insert("grpc-encoding", HeaderValue::from_static(grpc::ZSTD));
                }
                response
            }
            Ok(calls::Done { reply: Err(Failed(number, message)), subject }) => {
                record.subject = subject;
                failed(number, &message)
            }
            Err(_) => failed(status::INTERNAL, "the server failed; its log knows more"),
        }
    }

    /// The whole message of a call, and the memory that it and its answer are allowed.
    async fn receive(
        &self,
        mut body: Incoming,
        weight: calls::Memory,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Failed> {
        let limits = &self.live.options.limits;
        let mut pace = Pace::new(limits.stall);
        let mut message = BytesMut::new();
        let (mut expected, mut memory) = (None, None);
        let slow = || Failed(status::DEADLINE_EXCEEDED, "the message comes too slowly".to_owned());
        while let Some(frame) = pace.next(body.frame()).await.ok_or_else(slow)? {
            let broken = |e: hyper::Error| Failed(status::INTERNAL, format!("the message broke off: {e}"));
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            self.progress.received(data.len() as u64);
            if !pace.enough(data.len()) {
                return Err(slow());
            }
            message.extend_from_slice(&data);
            if expected.is_none()
                && let Some(prefix) = message.first_chunk::<5>().copied()
            {
                let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                let most = weight.most.min(limits.message);
                if len > most {
                    let reason = format!("the message has {len} bytes; {most} are allowed");
                    return Err(Failed(status::RESOURCE_EXHAUSTED, reason));
                }
                let remember = self.remember(len.saturating_mul(weight.factor) + weight.answer);
                let full = || Failed(status::UNAVAILABLE, "there is no memory for it now; try again later".to_owned());
                memory = pace.next(remember).await.ok_or_else(full)?;
                message.reserve((len + prefix.len()).saturating_sub(message.len()));
                expected = Some(len + prefix.len());
            }
            if expected.is_some_and(|expected| message.len() > expected) {
                return Err(Failed(status::INVALID_ARGUMENT, "there is more than one message".to_owned()));
            }
        }
        Ok((message.freeze(), memory))
    }

    /// Waits for its share of the server's memory; what is small needs none.
    async fn remember(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        const SMALL: usize = 256 << 10;
        if bytes <= SMALL { None } else { self.state.memory.take(bytes.div_ceil(UNIT)).await }
    }

    /// Where a caller finds payloads: where it connected to, unless configuration knows better.
    fn payloads_root(&self, request: &Request<Incoming>) -> String {
        if let Some(root) = &self.live.options.payloads_root {
            return format!("{}/", root.trim_end_matches('/'));
        }
        let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
        let authority = request.uri().authority().map(Authority::as_str).or(host).unwrap_or("localhost");
        let scheme = if self.secure { "https" } else { "http" };
        match self.state.payloads_at {
            None => format!("{scheme}://{authority}/"),
            // On every address: on the one that this caller knows, too.
            Some(at) if at.ip().is_unspecified() => {
                let host =
                    authority.parse().map_or_else(|_| "localhost".to_owned(), |a: Authority| a.host().to_owned());
                format!("{scheme}://{host}:{}/", at.port())
            }
            Some(at) => format!("{scheme}://{at}/"),
        }
    }
}

/// Why a server that is read-only does not do it.
pub fn read_only() -> Refused {
    Refused { unauthenticated: false, reason: "this server is read-only".to_owned() }
}

/// What a compressed message may become, in bytes; packs are smaller, and what is larger comes as an upload.
const UNPACKED: usize = 8 << 20;

const HEALTH: &str = "GET /healthz";
const METRICS: &str = "GET /metrics";
const UPLOAD: &str = "POST payload";
const DOWNLOAD: &str = "GET payload";

/// The name that gRPC has for the number of a status that we send.
fn status_name(number: &str) -> &'static str {
    match number {
        "0" => "OK",
        "3" => "INVALID_ARGUMENT",
        "4" => "DEADLINE_EXCEEDED",
        "7" => "PERMISSION_DENIED",
        "8" => "RESOURCE_EXHAUSTED",
        "12" => "UNIMPLEMENTED",
        "13" => "INTERNAL",
        "14" => "UNAVAILABLE",
        "16" => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// What is remembered of a request, for the log and the metrics; written when it is dropped.
pub struct Record {
    state: Arc<State>,
    progress: Arc<Progress>,
    began: Instant,
    peer: Option<std::net::SocketAddr>,
    /// One of a fixed set of names.
    method: &'static str,
    /// The path, for the log.
    path: String,
    agent: Option<String>,
    version: http::Version,
    who: Option<String>,
    /// What it changed.
    subject: Option<String>,
    status: String,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Whether the whole answer was taken.
    pub ended: bool,
}

impl Record {
    fn new(state: &Arc<State>, link: &Link, progress: &Arc<Progress>, request: &Request<Incoming>) -> Self {
        let path = request.uri().path();
        let method = match (request.method().as_str(), path) {
            _ if is_call(request) => {
                calls::METHODS.iter().find(|method| path == **method).copied().unwrap_or("unknown")
            }
            ("GET" | "HEAD", "/healthz") => HEALTH,
            ("GET", "/metrics") => METRICS,
            ("GET", _) => DOWNLOAD,
            ("POST", _) => UPLOAD,
            _ => "other",
        };
        let agent = request.headers().get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        Record {
            state: state.clone(),
            progress: progress.clone(),
            began: Instant::now(),
            peer: link.peer,
            method,
            path: path.chars().take(256).collect(),
            agent: agent.map(|agent| agent.chars().take(256).collect()),
            version: request.version(),
            who: None,
            subject: None,
            status: String::new(),
            sent: 0,
            ended: request.method() == http::Method::HEAD,
        }
    }

    /// Takes the status from the head of the answer.
    pub fn head(&mut self, response: &Response<AnyBody>) {
        self.status = response.status().as_u16().to_string();
        self.trailers(response.headers());
    }

    /// Takes the status of a call, which is in the trailers.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(number) = trailers.get("grpc-status").and_then(|value| value.to_str().ok()) {
            self.status = status_name(number).to_owned();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        if !self.ended {
            self.status = "cut".to_owned();
        }
        self.state.metrics.request(self.method, &self.status, took);
        if !self.state.journal.wants_access() {
            return;
        }
        let line = serde_json::json!({
            "time": Timestamp::now().to_string(),
            "peer": self.peer.map(|peer| peer.to_string()),
            "token": self.who,
            "protocol": format!("{:?}", self.version),
            "method": self.method,
            "path": self.path,
            "tag": self.subject,
            "status": self.status,
            "received": self.progress.bytes(),
            "sent": self.sent,
            "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "agent": self.agent,
        });
        self.state.journal.access(&line.to_string());
    }
}
