//! Reading one payload, or one large object, going on where a broken connection stopped.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use spfs_repo::{Digest, Error, NetTrouble, PayloadReader, Result};

use super::{as_payload, one};
use crate::body::{AnyBody, full};
use crate::connection::{Connection, as_io};
use crate::{convert, proto};

/// How often a broken transfer is begun again without a single byte in between, and the first pause before that.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Opens the payload at `offset`.
pub fn open(connection: &Arc<Connection>, digest: &Digest, offset: u64) -> Result<PayloadReader> {
    Ok(Box::new(Download::open(connection, What::Payload(*digest), offset)?))
}

/// Reads an object in its form for the wire; only servers of ours know how.
pub fn object(connection: &Arc<Connection>, digest: &Digest) -> Result<Vec<u8>> {
    let most = connection.address.max_decode as u64;
    let mut download = Download::open(connection, What::Object(*digest), 0)?.take(most);
    let mut bytes = Vec::new();
    download.read_to_end(&mut bytes).map_err(|error| connection.trouble(NetTrouble::Lost, error))?;
    Ok(bytes)
}

/// What is read.
#[derive(Clone, Copy)]
enum What {
    Payload(Digest),
    Object(Digest),
}

fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Unreachable { trouble: NetTrouble::Lost, .. })
}

fn pause(tries: u32) {
    std::thread::sleep(PAUSE * 2u32.pow(tries));
}

/// A payload on its way.
struct Download {
    connection: Arc<Connection>,
    what: What,
    /// Where the next piece begins.
    offset: u64,
    body: Incoming,
    piece: Bytes,
    tries: u32,
    ended: bool,
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            let next = self.connection.block_on(self.connection.piece(&mut self.body)).and_then(|next| next);
            match next {
                Ok(None) => self.ended = true,
                Ok(Some(piece)) => {
                    self.offset += piece.len() as u64;
                    self.piece = piece;
                    self.tries = 0;
                }
                Err(error) => self.again(error).map_err(as_io)?,
            }
        }
        let n = buffer.len().min(self.piece.len());
        buffer[..n].copy_from_slice(&self.piece[..n]);
        self.piece.advance(n);
        Ok(n)
    }
}

impl Download {
    fn open(connection: &Arc<Connection>, what: What, offset: u64) -> Result<Self> {
        let mut tries = 0;
        let (body, piece) = loop {
            match request(connection, what, offset) {
                Err(error) if is_lost(&error) && tries < TRIES => tries += 1,
                opened => break opened?,
            }
            pause(tries);
        };
        let connection = connection.clone();
        Ok(Download { connection, what, offset: offset + piece.len() as u64, body, piece, tries, ended: false })
    }

    /// Asks for the rest.
    fn again(&mut self, mut error: Error) -> Result<()> {
        while is_lost(&error) && self.tries < TRIES {
            pause(self.tries);
            self.tries += 1;
            match request(&self.connection, self.what, self.offset) {
                Ok((body, piece)) => {
                    self.offset += piece.len() as u64;
                    (self.body, self.piece) = (body, piece);
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
        Err(error)
    }
}

/// Asks for the payload from `offset` on: at the server itself, if it is one of ours, else where it says. Gives what
/// comes, and its first bytes if they have come already.
fn request(connection: &Connection, what: What, offset: u64) -> Result<(Incoming, Bytes)> {
    let build = || {
        let mut request: Request<AnyBody> = Request::new(full(Bytes::new()));
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/octet-stream"));
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
            && offset > 0
        {
            headers.insert(header::RANGE, range);
        }
        request
    };
    let (digest, path) = match what {
        What::Payload(digest) => (digest, format!("/{digest}")),
        What::Object(digest) => (digest, format!("/object/{digest}")),
    };
    let mut response = if connection.is_ours()? {
        connection.request(&|| {
            let mut request = build();
            *request.uri_mut() = connection.uri(&path);
            request
        })?
    } else {
        let answer: proto::Answer<proto::DownloadOption> =
            connection.call("/spfs.PayloadService/OpenPayload", &one(&digest))?;
        if let Some(error) = answer.error {
            return Err(as_payload(convert::read_error(error, &connection.address.text, "open a payload")));
        }
        let location = answer.ok.and_then(|option| option.locations.into_iter().next()).unwrap_or_default();
        connection.block_on(connection.request_once(&location, build()))??
    };
    check(connection, &digest, &response)?;
    let mut first = Bytes::new();
    if response.status() == StatusCode::OK && offset > 0 {
        first = connection.block_on(skip(connection, response.body_mut(), offset))??;
    }
    Ok((response.into_body(), first))
}

fn check(connection: &Connection, digest: &Digest, response: &Response<Incoming>) -> Result<()> {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let reason = match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => match kind {
            None | Some(b"application/octet-stream") => return Ok(()),
            Some(other) => format!("it came as {}", String::from_utf8_lossy(other)),
        },
        StatusCode::NOT_FOUND => return Err(Error::MissingPayload(*digest)),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            let (address, reason) = (connection.address.text.clone(), format!("it answered {status}"));
            return Err(Error::Denied { address, reason, unauthenticated: status == StatusCode::UNAUTHORIZED });
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            return Err(connection.trouble(NetTrouble::Lost, format!("it answered {}", response.status())));
        }
        other => format!("it answered {other}"),
    };
    let (address, action) = (connection.address.text.clone(), format!("send the payload {digest}"));
    Err(Error::Remote { address, action, reason })
}

/// Reads over what is there already, where the other end knows no ranges; gives the first bytes behind it.
async fn skip(connection: &Connection, body: &mut Incoming, mut offset: u64) -> Result<Bytes> {
    while let Some(mut piece) = connection.piece(body).await? {
        let over = usize::try_from(offset).unwrap_or(usize::MAX).min(piece.len());
        piece.advance(over);
        offset -= over as u64;
        if offset == 0 {
            return Ok(piece);
        }
    }
    Ok(Bytes::new())
}
