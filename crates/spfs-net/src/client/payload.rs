//! Reading one payload, going on where a broken connection stopped.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use spfs_repo::{Digest, Error, NetTrouble, PayloadReader, Result};

use super::{as_payload, one};
use crate::body::{AnyBody, full};
use crate::connection::Connection;
use crate::{convert, proto};

/// How often a broken transfer is begun again without a single byte in between.
const ATTEMPTS: u32 = 3;

/// Opens the payload at `offset`.
pub fn open(connection: &Arc<Connection>, digest: &Digest, offset: u64) -> Result<PayloadReader> {
    let body = request(connection, digest, offset)?;
    let (connection, digest) = (connection.clone(), *digest);
    Ok(Box::new(Download { connection, digest, offset, body, piece: Bytes::new(), failures: 0, ended: false }))
}

/// A payload on its way.
struct Download {
    connection: Arc<Connection>,
    digest: Digest,
    /// Where the next piece begins.
    offset: u64,
    body: Incoming,
    piece: Bytes,
    failures: u32,
    ended: bool,
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            let frame = self.connection.block_on(self.body.frame()).map_err(io::Error::other)?;
            match frame {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    self.piece = frame.into_data().unwrap_or_default();
                    self.offset += self.piece.len() as u64;
                    self.failures = 0;
                }
                Some(Err(error)) => self.again(error)?,
            }
        }
        let n = buffer.len().min(self.piece.len());
        buffer[..n].copy_from_slice(&self.piece[..n]);
        self.piece.advance(n);
        Ok(n)
    }
}

impl Download {
    /// Asks for the rest.
    fn again(&mut self, error: hyper::Error) -> io::Result<()> {
        self.failures += 1;
        if self.failures > ATTEMPTS {
            return Err(io::Error::other(self.connection.trouble(NetTrouble::Lost, error)));
        }
        self.body = request(&self.connection, &self.digest, self.offset).map_err(io::Error::other)?;
        Ok(())
    }
}

fn request(connection: &Connection, digest: &Digest, offset: u64) -> Result<Incoming> {
    let build = |uri: String, host: Option<&str>| {
        let mut request: Request<AnyBody> = Request::new(full(Bytes::new()));
        *request.uri_mut() = uri.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/octet-stream"));
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
            && offset > 0
        {
            headers.insert(header::RANGE, range);
        }
        if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
            headers.insert(header::HOST, host);
        }
        request
    };
    let mut response = if connection.is_ours()? {
        connection.request(|authority| build(format!("http://{authority}/{digest}"), None))?
    } else {
        let answer: proto::Answer<proto::DownloadOption> =
            connection.call("/spfs.PayloadService/OpenPayload", &one(digest))?;
        if let Some(error) = answer.error {
            return Err(as_payload(convert::read_error(error, &connection.address, "open a payload")));
        }
        let location = answer.ok.and_then(|option| option.locations.into_iter().next()).unwrap_or_default();
        let rest = location.strip_prefix("http://").ok_or_else(|| Error::Unsupported {
            what: format!("the payload location {location:?}"),
            reason: "only http: is understood".to_owned(),
        })?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        connection.request_once(authority, build(format!("/{path}"), Some(authority)))?
    };
    check(connection, digest, &response)?;
    if response.status() == StatusCode::OK && offset > 0 {
        skip(connection, response.body_mut(), offset)?;
    }
    Ok(response.into_body())
}

fn check(connection: &Connection, digest: &Digest, response: &Response<Incoming>) -> Result<()> {
    let reason = match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(()),
        StatusCode::NOT_FOUND => return Err(Error::MissingPayload(*digest)),
        other => format!("it answered {other}"),
    };
    let (address, action) = (connection.address.clone(), format!("send the payload {digest}"));
    Err(Error::Remote { address, action, reason })
}

/// Reads over what is there already, where the other end knows no ranges.
fn skip(connection: &Connection, _body: &mut Incoming, offset: u64) -> Result<()> {
    let reason = format!("it cannot begin at byte {offset}");
    Err(Error::Remote { address: connection.address.clone(), action: "go on with a payload".to_owned(), reason })
}
