//! The payload channel: POST stores a payload, GET sends one; HTTP/1.1 and HTTP/2.
//!
//! Bodies may be bzip2, as the existing client sends and asks for them. GET knows `Range: bytes=N-`, so that a
//! transfer goes on where it broke off.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use bzip2::read::{BzEncoder, MultiBzDecoder};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use spfs_repo::{Digest, Error, PayloadReader};
use tokio::sync::mpsc;

use super::State;
use crate::body::{self, AnyBody, PIECES, Pieces, full};
use crate::{convert, proto};

const RAW: &str = "application/octet-stream";
const BZIP2: &str = "application/x-bzip2";

/// Answers one request of the channel.
pub async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<AnyBody> {
    match *request.method() {
        Method::POST if state.options.read_only => plain(StatusCode::FORBIDDEN, "this server is read-only\n"),
        Method::POST => upload(state, request).await,
        Method::GET | Method::HEAD if request.uri().path() == "/healthz" => plain(StatusCode::OK, "ok\n"),
        Method::GET => download(state, &request).await,
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "POST stores a payload, GET sends one\n"),
    }
}

/// An answer of a status and a few words.
pub fn plain(status: StatusCode, words: &str) -> Response<AnyBody> {
    let mut response = Response::new(full(words.to_owned()));
    *response.status_mut() = status;
    response
}

fn failed(error: &Error) -> Response<AnyBody> {
    let status = match error {
        e if e.is_unknown() => StatusCode::NOT_FOUND,
        e if e.is_out_of_space() => StatusCode::INSUFFICIENT_STORAGE,
        Error::Corrupt { .. } | Error::Invalid { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    plain(status, &format!("{}\n", convert::with_causes(error)))
}

async fn upload(state: Arc<State>, request: Request<Incoming>) -> Response<AnyBody> {
    let compressed = match request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) {
        None => false,
        Some(kind) if kind == RAW.as_bytes() => false,
        Some(kind) if kind == BZIP2.as_bytes() => true,
        Some(_) => return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/octet-stream or x-bzip2\n"),
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    let patience = state.options.patience;
    let work = tokio::task::spawn_blocking(move || {
        let pieces = Pieces::new(receiver);
        let mut content: Box<dyn Read> =
            if compressed { Box::new(MultiBzDecoder::new(io::BufReader::new(pieces))) } else { Box::new(pieces) };
        let batch = state.repository.begin()?;
        let added = batch.add_payload(&mut *content, None)?;
        batch.finish()?;
        Ok::<_, Error>(added)
    });
    let mut incoming = request.into_body();
    loop {
        let piece = match tokio::time::timeout(patience, incoming.frame()).await {
            Ok(None) => Ok(Bytes::new()),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) if !piece.is_empty() => Ok(piece),
                _ => continue,
            },
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let last = piece.as_ref().map_or(true, Bytes::is_empty);
        // Nobody takes it any more if the work has failed, which the answer says.
        if sender.send(piece).await.is_err() || last {
            break;
        }
    }
    drop(sender);
    match work.await {
        Ok(Ok((digest, size))) => {
            let result = proto::UploadResult { digest: Some(convert::digest(&digest)), size };
            let answer = proto::Answer { error: None, ok: Some(result) };
            Response::new(full(answer.encode_to_vec()))
        }
        Ok(Err(error)) => failed(&error),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the server failed\n"),
    }
}

async fn download(state: Arc<State>, request: &Request<Incoming>) -> Response<AnyBody> {
    let digest: Digest = match request.uri().path().trim_start_matches('/').parse() {
        Ok(digest) => digest,
        Err(error) => return failed(&error),
    };
    let (offset, compressed) = (range(request), wants_bzip2(request));
    let patience = state.options.patience;
    let opened = tokio::task::spawn_blocking(move || state.repository.open_payload_at(&digest, offset.unwrap_or(0)));
    let reader = match opened.await {
        Ok(Ok(reader)) => reader,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return plain(StatusCode::INTERNAL_SERVER_ERROR, "the server failed\n"),
    };
    let compressed = compressed && offset.is_none();
    let reader: PayloadReader =
        if compressed { Box::new(BzEncoder::new(reader, bzip2::Compression::fast())) } else { reader };
    let (sender, out) = body::pipe();
    tokio::spawn(send(reader, sender, patience));
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

/// Reads pieces on blocking threads and hands them on; gives up on a client that takes none for too long.
async fn send(mut reader: PayloadReader, sender: mpsc::Sender<io::Result<Bytes>>, patience: std::time::Duration) {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let piece = body::read_piece(&mut *reader);
            (reader, piece)
        });
        let Ok((back, piece)) = read.await else { return };
        reader = back;
        let last = piece.as_ref().map_or(true, Bytes::is_empty);
        let sent = tokio::time::timeout(patience, sender.send(piece)).await;
        if last || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// The offset in `Range: bytes=N-`; other ranges are not understood and mean the whole.
fn range(request: &Request<Incoming>) -> Option<u64> {
    let text = request.headers().get(header::RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The first `Accept` line that is one of the two forms decides; each is compared whole.
fn wants_bzip2(request: &Request<Incoming>) -> bool {
    let lines = request.headers().get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes);
    lines.into_iter().find(|line| *line == RAW.as_bytes() || *line == BZIP2.as_bytes()) == Some(BZIP2.as_bytes())
}
