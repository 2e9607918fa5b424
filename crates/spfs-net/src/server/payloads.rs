//! The payload channel: POST stores a payload, GET sends one; HTTP/1.1 and HTTP/2.
//!
//! Bodies may be bzip2, as the existing client sends and asks for them. GET knows `Range: bytes=N-`, so that a
//! transfer goes on where it broke off.

use std::io::{self, Read, Seek as _};
use std::sync::Arc;

use bytes::Bytes;
use bzip2::read::{BzEncoder, MultiBzDecoder};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use spfs_repo::{Digest, Error, PayloadReader, Repository, Result, codec};
use tokio::sync::mpsc;

use super::calls;
use super::exchange::Asked;
use super::limits::Pace;
use super::reply::plain;
use super::uploads;
use crate::body::{self, AnyBody, PIECES, Pieces, full};
use crate::{convert, proto};

const RAW: &str = "application/octet-stream";
const BZIP2: &str = "application/x-bzip2";

fn failed(error: &Error) -> Response<AnyBody> {
    let status = match error {
        e if e.is_unknown() => StatusCode::NOT_FOUND,
        e if e.is_out_of_space() => StatusCode::INSUFFICIENT_STORAGE,
        Error::Corrupt { .. } | Error::Invalid { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    plain(status, &format!("{}\n", convert::with_causes(error)))
}

/// Fails where a payload becomes larger than allowed; compressed ones grow while they are read. What cannot be read of it is
/// invalid: that is no failure of ours.
struct Most<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Most<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        Ok(n)
    }
}

/// Stores what the request brings.
pub async fn upload(asked: Asked, request: Request<Incoming>) -> Response<AnyBody> {
    let compressed = match request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) {
        None => false,
        Some(kind) if kind == RAW.as_bytes() => false,
        Some(kind) if kind == BZIP2.as_bytes() => true,
        Some(_) => return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/octet-stream or x-bzip2\n"),
    };
    let limits = &asked.live.options.limits;
    let (stall, most) = (limits.stall, limits.payload.unwrap_or(u64::MAX));
    let (sender, receiver) = mpsc::channel(PIECES);
    let state = asked.state.clone();
    let work = tokio::task::spawn_blocking(move || {
        let pieces = Pieces::new(receiver);
        let content: Box<dyn Read> =
            if compressed { Box::new(MultiBzDecoder::new(io::BufReader::new(pieces))) } else { Box::new(pieces) };
        let batch = state.repository.begin()?;
        let added = batch.add_payload(&mut Most { inner: content, left: most }, None)?;
        batch.finish()?;
        Ok::<_, Error>(added)
    });
    let slow = take(&asked, request.into_body(), stall, sender).await;
    match work.await {
        _ if slow => plain(StatusCode::REQUEST_TIMEOUT, "the payload comes too slowly\n"),
        Ok(Ok((digest, size))) => {
            let result = proto::UploadResult { digest: Some(convert::digest(&digest)), size };
            let answer = proto::Answer { error: None, ok: Some(result) };
            Response::new(full(answer.encode_to_vec()))
        }
        Ok(Err(Error::Io { source, .. })) if source.kind() == io::ErrorKind::FileTooLarge => {
            plain(StatusCode::PAYLOAD_TOO_LARGE, &format!("{most} bytes are the most that a payload may have here\n"))
        }
        Ok(Err(Error::Io { source, .. })) if source.kind() == io::ErrorKind::InvalidData => {
            plain(StatusCode::BAD_REQUEST, &format!("the payload cannot be read: {source}\n"))
        }
        Ok(Err(error)) => failed(&error),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the server failed\n"),
    }
}

/// Hands the body on, piece by piece; whether it came too slowly.
async fn take(
    asked: &Asked,
    mut body: Incoming,
    stall: std::time::Duration,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> bool {
    let mut pace = Pace::new(stall);
    loop {
        let piece = match pace.next(body.frame()).await {
            Some(None) => Ok(Bytes::new()),
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) if !piece.is_empty() => Ok(piece),
                _ => continue,
            },
            Some(Some(Err(error))) => Err(io::Error::other(error)),
            None => return true,
        };
        let len = piece.as_ref().map_or(0, Bytes::len);
        let last = len == 0;
        asked.progress.received(len as u64);
        // Nobody takes it any more if the work has failed, which the answer says.
        if sender.send(piece).await.is_err() {
            drain(&mut body).await;
            return false;
        }
        if last {
            return false;
        }
        // The time in which the disk is slow is not the client's.
        if !pace.enough(len) {
            return true;
        }
    }
}

/// Reads on for a moment, into nothing: a client of HTTP/1.1 reads the answer when it has sent its request, and loses it
/// if the connection is closed before that.
pub async fn drain(body: &mut Incoming) {
    const MOST: usize = 32 << 20;
    let read = async {
        let mut size = 0;
        while let Some(Ok(frame)) = body.frame().await {
            size += frame.data_ref().map_or(0, Bytes::len);
            if size > MOST {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), read).await;
}

/// Takes a segment of what goes into an open batch.
pub async fn segment(asked: Asked, request: Request<Incoming>) -> Response<AnyBody> {
    let limits = &asked.live.options.limits;
    let (most, largest) = (limits.payload.unwrap_or(u64::MAX), limits.message as u64);
    let mut source = Paced { asked: &asked, pace: Pace::new(limits.stall) };
    uploads::answer(&asked.state.batches, request, &mut source, most, largest).await
}

/// The pieces of a body that does not come too slowly.
struct Paced<'a> {
    asked: &'a Asked,
    pace: Pace,
}

impl uploads::Source for Paced<'_> {
    async fn next(&mut self, body: &mut Incoming) -> Option<io::Result<Bytes>> {
        loop {
            let frame = match self.pace.next(body.frame()).await {
                Some(frame) => frame?,
                None => return Some(Err(io::ErrorKind::TimedOut.into())),
            };
            let piece = match frame {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                Err(error) => return Some(Err(io::Error::other(error))),
            };
            self.asked.progress.received(piece.len() as u64);
            if !self.pace.enough(piece.len()) {
                return Some(Err(io::ErrorKind::TimedOut.into()));
            }
            if !piece.is_empty() {
                return Some(Ok(piece));
            }
        }
    }
}

/// A payload, or an object in its form for the wire, from `offset` on.
fn open(repository: &dyn Repository, digest: &Digest, offset: u64, is_object: bool) -> Result<PayloadReader> {
    if !is_object {
        return repository.open_payload_at(digest, offset);
    }
    if let Some((_, mut file)) = calls::stored(repository, digest) {
        let seek = file.seek(io::SeekFrom::Start(offset));
        seek.map_err(Error::io("read", format!("object {digest}")))?;
        return Ok(Box::new(file));
    }
    let mut bytes = io::Cursor::new(codec::encode_wire(&repository.read_object(digest)?)?);
    bytes.set_position(offset);
    Ok(Box::new(bytes))
}

/// Sends what the request names.
pub async fn download(asked: Asked, request: &Request<Incoming>) -> Response<AnyBody> {
    let path = request.uri().path().trim_start_matches('/');
    let object = path.strip_prefix("object/");
    let digest: Digest = match object.unwrap_or(path).parse() {
        Ok(digest) => digest,
        Err(error) => return failed(&error),
    };
    let is_object = object.is_some();
    let (offset, compressed) = (range(request), wants_bzip2(request));
    let state: Arc<_> = asked.state;
    let opened = tokio::task::spawn_blocking(move || open(&*state.repository, &digest, offset.unwrap_or(0), is_object));
    let reader = match opened.await {
        Ok(Ok(reader)) => reader,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return plain(StatusCode::INTERNAL_SERVER_ERROR, "the server failed\n"),
    };
    let compressed = compressed && offset.is_none();
    let reader: PayloadReader =
        if compressed { Box::new(BzEncoder::new(reader, bzip2::Compression::fast())) } else { reader };
    let (sender, out) = body::pipe();
    tokio::spawn(send(reader, sender));
    let mut response = Response::new(out);
    let kind = if compressed { BZIP2 } else { RAW };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(offset) = offset {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if let Ok(range) = HeaderValue::from_str(&format!("bytes {offset}-/*")) {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
    }
    response
}

/// Reads pieces on blocking threads and hands them on; a client that takes none is dealt with by its connection.
async fn send(mut reader: PayloadReader, sender: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let piece = body::read_piece(&mut *reader);
            (reader, piece)
        });
        let Ok((back, piece)) = read.await else { return };
        reader = back;
        let last = piece.as_ref().map_or(true, Bytes::is_empty);
        if sender.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// The offset in `Range: bytes=N-`; other ranges are not understood and mean the whole, and so does what no file reaches.
fn range(request: &Request<Incoming>) -> Option<u64> {
    let text = request.headers().get(header::RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok().filter(|offset| i64::try_from(*offset).is_ok())
}

/// The first `Accept` line that is one of the two forms decides; each is compared whole.
fn wants_bzip2(request: &Request<Incoming>) -> bool {
    let lines = request.headers().get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes);
    lines.into_iter().find(|line| *line == RAW.as_bytes() || *line == BZIP2.as_bytes()) == Some(BZIP2.as_bytes())
}
