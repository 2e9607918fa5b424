//! Large content that comes into an open batch in segments, over as many connections as it takes.
//!
//! `POST /upload/BATCH/UPLOAD` (both in hex) brings the bytes from `x-spfs-offset` on; `x-spfs-end: 1` says that they
//! are the last, `x-spfs-ask: 1` only asks. The answers: 202 with `x-spfs-offset`, how far it is; 409 with the same where
//! the bytes were others than the next; 200 with an `UploadResponse` after the last.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use prost::Message;
use spfs_repo::{Batch, Digest, Encoded, Error, Result};
use tokio::sync::{Notify, mpsc, watch};

use super::batches::{Batches, Id};
use crate::body::{AnyBody, PIECE, PIECES, Pieces, full};
use crate::{convert, proto};

/// Where a segment begins, and how far an upload is.
pub const OFFSET: &str = "x-spfs-offset";
/// Whether a segment is the last.
pub const END: &str = "x-spfs-end";
/// Whether there is no segment, only the question how far it is.
pub const ASK: &str = "x-spfs-ask";
/// What it becomes: `object`, or a payload if nothing is said.
pub const KIND: &str = "x-spfs-kind";
/// The largest segment, unpacked.
pub const SEGMENT: usize = 4 << 20;

type Stored = std::result::Result<(Digest, u64), proto::Error>;

/// One upload.
pub struct Upload {
    feed: tokio::sync::Mutex<Feed>,
    /// A newer connection takes over from one that may be dead.
    newer: Notify,
    done: watch::Receiver<Option<Stored>>,
}

struct Feed {
    sender: Option<mpsc::Sender<io::Result<Bytes>>>,
    received: u64,
}

/// The other end of an upload: what a thread of its batch does.
pub struct Task {
    pieces: Pieces,
    done: watch::Sender<Option<Stored>>,
    is_object: bool,
    most: u64,
    gathering: Arc<Gathering>,
}

/// What all objects that are being gathered take of the memory: an object must be whole before it can be looked at.
pub struct Gathering {
    taken: AtomicUsize,
    most: usize,
}

/// What one object takes of it.
struct Gathered<'a> {
    all: &'a Gathering,
    own: usize,
}

impl Gathering {
    /// So many bytes for all together; one alone may have more.
    pub fn new(most: usize) -> Self {
        Gathering { taken: AtomicUsize::new(0), most }
    }
}

impl Gathered<'_> {
    /// Takes some more, if there is room.
    fn grow(&mut self, bytes: usize) -> std::result::Result<(), proto::Error> {
        self.own += bytes;
        let all = self.all.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > self.all.most && all > self.own { Err(busy()) } else { Ok(()) }
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        self.all.taken.fetch_sub(self.own, Ordering::Relaxed);
    }
}

fn busy() -> proto::Error {
    proto::Error { kind: Some(proto::ErrorKind::Other(convert::BUSY.to_owned())) }
}

/// An upload and its other end. A payload has `most` bytes.
pub fn new(is_object: bool, most: u64, gathering: Arc<Gathering>) -> (Arc<Upload>, Task) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let (tell, done) = watch::channel(None);
    let feed = tokio::sync::Mutex::new(Feed { sender: Some(sender), received: 0 });
    let task = Task { pieces: Pieces::new(receiver), done: tell, is_object, most, gathering };
    (Arc::new(Upload { feed, newer: Notify::new(), done }), task)
}

impl Task {
    /// Stores what comes.
    pub fn run(self, batch: &dyn Batch) {
        let content = self.pieces.take(self.most.saturating_add(1));
        let stored = match self.is_object {
            true => object(batch, content, self.most, &self.gathering),
            false => payload(batch, content, self.most).map_err(|e| convert::error(&e)),
        };
        self.done.send_replace(Some(stored));
    }

    /// Stores nothing.
    pub fn fail(self, error: proto::Error) {
        self.done.send_replace(Some(Err(error)));
    }
}

fn payload(batch: &dyn Batch, mut content: io::Take<Pieces>, most: u64) -> Result<(Digest, u64)> {
    let (digest, size) = batch.add_payload(&mut content, None)?;
    if content.limit() == 0 {
        return Err(Error::invalid("payload", digest.to_string(), format!("it is larger than {most} bytes")));
    }
    Ok((digest, size))
}

fn object(batch: &dyn Batch, mut content: io::Take<Pieces>, most: u64, gathering: &Gathering) -> Stored {
    let mut gathered = Gathered { all: gathering, own: 0 };
    let mut bytes = Vec::new();
    loop {
        let read = content.by_ref().take(PIECE as u64).read_to_end(&mut bytes);
        match read.map_err(|e| convert::error(&Error::io("receive", "an object")(e)))? {
            0 => break,
            more => gathered.grow(more)?,
        }
    }
    let size = bytes.len() as u64;
    let stored = || {
        if content.limit() == 0 {
            return Err(Error::corrupt("object", format!("it is larger than {most} bytes")));
        }
        Ok((batch.add_encoded(&Encoded::read(bytes)?)?, size))
    };
    stored().map_err(|e| convert::error(&e))
}

/// What a segment brings, once its head is read.
struct Segment {
    batch: Id,
    upload: Id,
    offset: u64,
    end: bool,
    ask: bool,
    is_object: bool,
    zstd: bool,
}

impl Segment {
    fn read(request: &Request<Incoming>) -> Option<Segment> {
        let mut path = request.uri().path().strip_prefix("/upload/")?.split('/');
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        Some(Segment {
            batch: id(path.next()?)?,
            upload: id(path.next()?)?,
            offset: header(OFFSET).unwrap_or("0").parse().ok()?,
            end: header(END) == Some("1"),
            ask: header(ASK) == Some("1"),
            is_object: header(KIND) == Some("object"),
            zstd: header("content-encoding") == Some("zstd"),
        })
    }
}

fn id(hex: &str) -> Option<Id> {
    u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32).map(u128::to_be_bytes)
}

/// How a handler takes the pieces of a body: `None` at its end, an error where it breaks off.
pub trait Source: Send {
    /// The next piece.
    fn next(&mut self, body: &mut Incoming) -> impl Future<Output = Option<io::Result<Bytes>>> + Send;
}

/// Whether a request is a segment.
pub fn is_segment<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with("/upload/")
}

/// Answers one request: `most` bytes of a payload, `largest` of an object.
pub async fn answer(
    batches: &Batches,
    request: Request<Incoming>,
    source: &mut impl Source,
    most: u64,
    largest: u64,
) -> Response<AnyBody> {
    let Some(segment) = Segment::read(&request) else { return status(StatusCode::BAD_REQUEST, 0) };
    let batch = match batches.get(&segment.batch) {
        Ok(batch) => batch,
        Err(error) => return told(Err(error)),
    };
    if (segment.offset > 0 || segment.ask) && !batch.has_upload(&segment.upload) {
        return status(if segment.ask { StatusCode::ACCEPTED } else { StatusCode::CONFLICT }, 0);
    }
    let limit = if segment.is_object { largest } else { most };
    let Some(upload) = batch.upload(segment.upload, || new(segment.is_object, limit, batches.gathering.clone())) else {
        return told(Err(busy()));
    };
    upload.newer.notify_waiters();
    let mut feed = upload.feed.lock().await;
    if feed.sender.is_none() {
        return upload.end().await;
    }
    if segment.ask || segment.offset != feed.received {
        return status(if segment.ask { StatusCode::ACCEPTED } else { StatusCode::CONFLICT }, feed.received);
    }
    match upload.take(&mut feed, request.into_body(), source, segment.zstd).await {
        Taken::All if segment.end => {
            if let Some(sender) = feed.sender.take() {
                let _ = sender.send(Ok(Bytes::new())).await;
            }
            upload.end().await
        }
        Taken::All => status(StatusCode::ACCEPTED, feed.received),
        Taken::Some => status(StatusCode::CONFLICT, feed.received),
        Taken::Refused => {
            feed.sender = None;
            upload.end().await
        }
    }
}

/// How much of a segment was taken.
enum Taken {
    All,
    /// It broke off, or another took over.
    Some,
    /// The batch takes no more.
    Refused,
}

impl Upload {
    async fn take(&self, feed: &mut Feed, mut body: Incoming, source: &mut impl Source, zstd: bool) -> Taken {
        let mut unpack = match zstd.then(Unpack::new).transpose() {
            Ok(unpack) => unpack,
            Err(_) => return Taken::Some,
        };
        let mut newer = std::pin::pin!(self.newer.notified());
        newer.as_mut().enable();
        loop {
            let piece = tokio::select! {
                piece = source.next(&mut body) => piece,
                () = &mut newer => return Taken::Some,
            };
            let piece = match (piece, &mut unpack) {
                (None, _) => return Taken::All,
                (Some(Err(_)), _) => return Taken::Some,
                (Some(Ok(piece)), None) => piece,
                (Some(Ok(piece)), Some(unpack)) => match unpack.piece(&piece) {
                    Ok(piece) => piece,
                    Err(_) => return Taken::Some,
                },
            };
            let len = piece.len() as u64;
            let Some(sender) = feed.sender.as_ref().filter(|_| len > 0) else { continue };
            if sender.send(Ok(piece)).await.is_err() {
                return Taken::Refused;
            }
            feed.received += len;
        }
    }

    /// Whether it has a thread.
    pub fn is_running(&self) -> bool {
        self.done.borrow().is_none()
    }

    /// What became of it, when that is known.
    async fn end(&self) -> Response<AnyBody> {
        let mut done = self.done.clone();
        match done.wait_for(Option::is_some).await {
            Ok(stored) => told(stored.clone().unwrap_or(Err(proto::Error { kind: None }))),
            Err(_) => told(Err(proto::Error { kind: Some(proto::ErrorKind::Other(convert::GONE.to_owned())) })),
        }
    }
}

/// Unpacks a segment piece by piece; no more than a segment may hold.
struct Unpack(zstd::stream::write::Decoder<'static, Most>);

/// Bytes, up to a limit.
struct Most(Vec<u8>, usize);

impl io::Write for Most {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 = self.1.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Unpack {
    fn new() -> io::Result<Self> {
        Ok(Unpack(zstd::stream::write::Decoder::new(Most(Vec::new(), SEGMENT))?))
    }

    fn piece(&mut self, packed: &[u8]) -> io::Result<Bytes> {
        io::Write::write_all(&mut self.0, packed)?;
        io::Write::flush(&mut self.0)?;
        Ok(std::mem::take(&mut self.0.get_mut().0).into())
    }
}

fn status(status: StatusCode, offset: u64) -> Response<AnyBody> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response.headers_mut().insert(OFFSET, HeaderValue::from(offset));
    response
}

fn told(stored: Stored) -> Response<AnyBody> {
    let answer = match stored {
        Ok((digest, size)) => {
            let result = proto::UploadResult { digest: Some(convert::digest(&digest)), size };
            proto::Answer { error: None, ok: Some(result) }
        }
        Err(error) => proto::Answer { error: Some(error), ok: None },
    };
    Response::new(full(answer.encode_to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_share_the_memory_and_one_alone_may_have_more() {
        let all = Gathering::new(100);
        let (mut one, mut other) = (Gathered { all: &all, own: 0 }, Gathered { all: &all, own: 0 });
        assert_eq!(one.grow(1000), Ok(()));
        assert_eq!(other.grow(1), Err(busy()));
        drop(one);
        assert_eq!(other.grow(99), Ok(()));
        drop(other);
        assert_eq!(all.taken.into_inner(), 0);
    }
}
