//! Bodies of answers: in pieces that are small enough for slow clients, and counted until the last of them is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use spfs_repo::{Digest, PayloadReader};
use tokio::sync::OwnedSemaphorePermit;

use super::calls::Reply;
use super::exchange::Record;
use super::link::Progress;
use crate::body::{AnyBody, full};
use crate::grpc::{self, status};
use crate::{body, convert, proto};

/// What is handed to HTTP at one time: it buffers that much for a client that takes nothing.
const PIECE: usize = 64 << 10;
/// Digests in one piece of a stream.
const DIGESTS: usize = 1024;

/// The answer to a call that went well.
pub fn done(reply: Reply, memory: Option<OwnedSemaphorePermit>) -> Response<AnyBody> {
    let body = match reply {
        Reply::Message(rest) => Pieces { rest, digests: Vec::new().into_iter(), _memory: memory }.boxed(),
        Reply::Digests(digests) => Pieces { rest: Bytes::new(), digests: digests.into_iter(), _memory: memory }.boxed(),
        Reply::File(prefix, reader) => file(prefix, reader),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status::OK));
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The answer to a call that failed as a call.
pub fn failed(number: u32, message: &str) -> Response<AnyBody> {
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

/// An answer of a status and a few words.
pub fn plain(status: StatusCode, words: &str) -> Response<AnyBody> {
    let mut response = Response::new(full(words.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A message, or a stream of digests, in memory.
struct Pieces {
    rest: Bytes,
    digests: std::vec::IntoIter<Digest>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            let mut out = BytesMut::new();
            for digest in self.digests.by_ref().take(DIGESTS) {
                let answer = proto::Answer { error: None, ok: Some(convert::digest(&digest)) };
                out.put_slice(&grpc::frame(&answer));
            }
            self.rest = out.freeze();
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }
}

/// A message whose end is in a file.
fn file(prefix: Bytes, mut reader: PayloadReader) -> AnyBody {
    let (sender, body) = body::pipe();
    tokio::task::spawn_blocking(move || {
        let mut piece = Ok(prefix);
        loop {
            let last = piece.as_ref().map_or(true, Bytes::is_empty);
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
            piece = body::read_piece(&mut *reader);
        }
    });
    body
}

/// A body that tells how it gets on: to the connection, and at its end to the log.
pub struct Told {
    inner: AnyBody,
    record: Record,
    progress: Arc<Progress>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Told {
    /// `response` with such a body.
    pub fn wrap(
        response: Response<AnyBody>,
        mut record: Record,
        progress: Arc<Progress>,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Response<AnyBody> {
        record.head(&response);
        progress.sending();
        response.map(|inner| {
            record.ended |= inner.is_end_stream();
            Told { inner, record, progress, _turn: turn }.boxed()
        })
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(frame) = &frame {
            self.progress.moved();
            match frame {
                None => self.record.ended = true,
                Some(Ok(frame)) => {
                    self.record.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                    if let Some(trailers) = frame.trailers_ref() {
                        self.record.trailers(trailers);
                    }
                    self.record.ended |= self.inner.is_end_stream() || frame.is_trailers();
                }
                Some(Err(_)) => {}
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
