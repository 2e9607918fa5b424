//! Bodies of requests and answers: in memory, or fed piece by piece by a blocking thread.

use std::convert::Infallible;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// What every request and answer of ours has.
pub type AnyBody = BoxBody<Bytes, io::Error>;

/// Pieces that wait between a blocking thread and the wire; with [`PIECE`] this bounds the memory of a transfer.
pub const PIECES: usize = 4;
/// Bytes of one piece.
pub const PIECE: usize = 256 * 1024;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A body and where to put its pieces. An empty piece is the end; an error, or no end, breaks the transfer off.
pub fn pipe() -> (mpsc::Sender<io::Result<Bytes>>, AnyBody) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (sender, Pipe { receiver }.boxed())
}

struct Pipe {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
}

impl Body for Pipe {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.receiver.poll_recv(context).map(|piece| match piece {
            Some(Ok(piece)) if piece.is_empty() => None,
            Some(piece) => Some(piece.map(Frame::data)),
            None => Some(Err(io::ErrorKind::BrokenPipe.into())),
        })
    }
}

/// Pieces as they come from the wire, read by a blocking thread.
pub struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Pieces {
    /// What reads from `receiver`, where an empty piece is the end.
    pub fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Pieces { receiver, piece: Bytes::new(), ended: false }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            self.ended = self.piece.is_empty();
        }
        let n = buffer.len().min(self.piece.len());
        buffer[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}

thread_local! {
    /// What a piece is read into.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Fills a piece from `content`; empty at its end. It takes no more memory than it has bytes: packs hold thousands.
pub fn read_piece(content: &mut dyn Read) -> io::Result<Bytes> {
    // Taken out of its place for as long as `content` runs, which may itself come here.
    let mut buffer = BUFFER.with(|buffer| std::mem::take(&mut *buffer.borrow_mut()));
    buffer.resize(PIECE, 0);
    let mut filled = 0;
    while filled < PIECE {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    if filled == PIECE {
        return Ok(buffer.into());
    }
    let piece = Bytes::copy_from_slice(&buffer[..filled]);
    BUFFER.with(|place| *place.borrow_mut() = buffer);
    Ok(piece)
}
