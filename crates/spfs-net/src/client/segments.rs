//! Large content on its way to a server of ours: in segments, each sent again from where it broke off.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use prost::Message;
use spfs_repo::{Digest, Error, NetTrouble, Result};
use tokio::task::JoinHandle;

use crate::body::{AnyBody, full};
use crate::budget::Share;
use crate::connection::Connection;
use crate::server::uploads::{ASK, END, KIND, OFFSET, SEGMENT};
use crate::{convert, proto};

/// How often a segment is begun again without a single byte in between, and the first pause before that.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(50);
/// Most bytes of an answer.
const ANSWER: usize = 64 << 10;

/// What the content becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A payload.
    Payload,
    /// An object in its form for the wire.
    Object,
}

/// Content on its way: one segment is sent while the next is gathered.
pub struct Segments {
    connection: Arc<Connection>,
    path: String,
    kind: Kind,
    /// Where the segment that is gathered begins.
    base: u64,
    gathered: BytesMut,
    flight: Option<JoinHandle<Result<Option<Digest>>>>,
    /// For the segment that is gathered and the one that is sent.
    _share: Share,
}

impl Segments {
    /// Nothing yet, into the batch `batch`. Waits until there is room in the connection's budget.
    pub fn new(connection: Arc<Connection>, batch: &[u8], kind: Kind) -> Result<Self> {
        let share = connection.block_on(connection.budget.take(2 * SEGMENT))?;
        let path = format!("/upload/{}/{}", hex(batch), hex(spfs_repo::unique().as_bytes()));
        Ok(Segments { connection, path, kind, base: 0, gathered: BytesMut::new(), flight: None, _share: share })
    }

    /// Adds some bytes.
    pub fn add(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            // What is in one piece already is not copied.
            if self.gathered.is_empty() && bytes.len() >= SEGMENT {
                let segment = bytes.split_to(SEGMENT);
                self.send(segment, false)?;
                continue;
            }
            if self.gathered.is_empty() {
                self.gathered.reserve(SEGMENT);
            }
            let room = SEGMENT - self.gathered.len();
            self.gathered.extend_from_slice(&bytes.split_to(bytes.len().min(room)));
            if self.gathered.len() == SEGMENT {
                let segment = std::mem::take(&mut self.gathered).freeze();
                self.send(segment, false)?;
            }
        }
        Ok(())
    }

    /// Sends the rest, and gives the digest under which it was stored.
    pub fn finish(mut self) -> Result<Digest> {
        let segment = std::mem::take(&mut self.gathered).freeze();
        self.send(segment, true)?;
        self.land()?.ok_or_else(|| self.connection.protocol("there is no digest after the last segment".to_owned()))
    }

    fn send(&mut self, segment: Bytes, end: bool) -> Result<()> {
        self.land()?;
        let (connection, path, kind, base) = (self.connection.clone(), self.path.clone(), self.kind, self.base);
        self.base += segment.len() as u64;
        let one = One { connection, path, kind, base, segment, end };
        self.flight = Some(self.connection.runtime()?.spawn(one.deliver()));
        Ok(())
    }

    fn land(&mut self) -> Result<Option<Digest>> {
        let Some(flight) = self.flight.take() else { return Ok(None) };
        let landed = self.connection.block_on(flight)?;
        let landed = landed.unwrap_or_else(|e| Err(self.connection.trouble(NetTrouble::Lost, e)));
        self.connection.explained(landed)
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        // It holds the connection, which must not end on its own threads.
        if let Some(flight) = self.flight.take() {
            flight.abort();
            let _ = self.connection.block_on(flight);
        }
    }
}

/// One segment.
struct One {
    connection: Arc<Connection>,
    path: String,
    kind: Kind,
    base: u64,
    segment: Bytes,
    end: bool,
}

/// How far an upload is, or what became of it.
enum Answer {
    Received(u64),
    Stored(Digest),
}

impl One {
    /// Sends it, and what is left of it again where the connection breaks. Gives the digest after the last.
    async fn deliver(self) -> Result<Option<Digest>> {
        let (mut from, mut tries, mut ask) = (0, 0, false);
        loop {
            let answer = match self.post(from, ask).await {
                Ok(Answer::Stored(digest)) => return Ok(Some(digest)),
                Ok(Answer::Received(received)) => received,
                Err(Error::Unreachable { trouble: NetTrouble::Lost, .. }) if tries < TRIES => {
                    tokio::time::sleep(PAUSE * 2u32.pow(tries)).await;
                    tries += 1;
                    ask = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let reached = answer.checked_sub(self.base).and_then(|reached| usize::try_from(reached).ok());
            let Some(reached) = reached.filter(|reached| *reached <= self.segment.len()) else {
                return Err(self.connection.trouble(NetTrouble::Lost, convert::GONE));
            };
            // After the last one there is a digest, not a place to go on.
            if reached == self.segment.len() && !self.end {
                return Ok(None);
            }
            if reached > from {
                tries = 0;
            } else if !ask {
                tries += 1;
                if tries > TRIES {
                    return Err(self.connection.trouble(NetTrouble::Lost, "the other end takes no more of it"));
                }
            }
            (from, ask) = (reached, false);
        }
    }

    async fn post(&self, from: usize, ask: bool) -> Result<Answer> {
        let rest = if ask { Bytes::new() } else { self.segment.slice(from..) };
        let packed = (self.connection.address.compress && !rest.is_empty()).then(|| pack(&rest)).flatten();
        let make = || self.request(&rest, packed.as_ref(), from, ask);
        let response = self.connection.send(true, &make).await?;
        self.read(response).await
    }

    fn request(&self, rest: &Bytes, packed: Option<&Bytes>, from: usize, ask: bool) -> Request<AnyBody> {
        let mut request: Request<AnyBody> = Request::new(full(packed.unwrap_or(rest).clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.connection.uri(&self.path);
        let headers = request.headers_mut();
        headers.insert(OFFSET, HeaderValue::from(self.base + from as u64));
        if packed.is_some() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        }
        if self.end {
            headers.insert(END, HeaderValue::from_static("1"));
        }
        if ask {
            headers.insert(ASK, HeaderValue::from_static("1"));
        }
        if self.kind == Kind::Object {
            headers.insert(KIND, HeaderValue::from_static("object"));
        }
        request
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer> {
        let connection = &self.connection;
        let (head, mut body) = response.into_parts();
        let mut answer = Vec::new();
        while let Some(piece) = connection.piece(&mut body).await? {
            answer.extend_from_slice(&piece);
            if answer.len() > ANSWER {
                return Err(connection.protocol("the answer to an upload does not end".to_owned()));
            }
        }
        match head.status {
            StatusCode::ACCEPTED | StatusCode::CONFLICT => {
                let offset = head.headers.get(OFFSET).and_then(|value| value.to_str().ok()?.parse().ok());
                let offset = offset.ok_or_else(|| connection.protocol("an upload without its offset".to_owned()));
                return offset.map(Answer::Received);
            }
            StatusCode::OK => {}
            other => return Err(super::refused(connection, other, &answer)),
        }
        let answer = proto::Answer::<proto::UploadResult>::decode(&answer[..]);
        let answer = answer.map_err(|e| connection.protocol(e.to_string()))?;
        let stored = super::answered(connection, answer, "store a payload")?;
        convert::read_digest(stored.digest.as_ref()).map(Answer::Stored)
    }
}

/// The bytes compressed, if that makes them smaller: a sample of the beginning decides.
fn pack(bytes: &Bytes) -> Option<Bytes> {
    let sample = &bytes[..bytes.len().min(64 << 10)];
    let smaller = zstd::bulk::compress(sample, 1).ok()?;
    if smaller.len() >= sample.len() / 10 * 9 {
        return None;
    }
    zstd::bulk::compress(bytes, 1).ok().map(Bytes::from)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
