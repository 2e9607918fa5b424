//! What goes to a server: payloads at once, or many small ones at a time; objects when their children are there.

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::BodyExt;
use prost::Message;
use spfs_repo::{Batch, Digest, Error, Hasher, Object, ObjectBody, Repository, Result, codec};

use super::{Client, lost};
use crate::body::{self, AnyBody, PIECE};
use crate::{convert, proto};

/// Bytes that are gathered before they are sent.
const PACK: usize = 2 << 20;

/// A batch of a [`Client`].
///
/// What an existing server gets is visible at once, payloads first and objects last; our own server makes each pack
/// visible as a whole. An interrupted batch leaves payloads that nothing refers to, which the next one finds there.
pub struct ClientBatch<'a> {
    client: &'a Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pack: proto::Pack,
    size: usize,
    objects: Vec<Object>,
    /// What was added or seen to be there.
    payloads: HashSet<Digest>,
    known: HashSet<Digest>,
    broken: bool,
}

impl<'a> ClientBatch<'a> {
    /// An empty batch; sends nothing yet.
    pub fn new(client: &'a Client) -> Self {
        ClientBatch { client, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a payload by itself, hashing it on the way; one that is not the `expected` is broken off before its end.
    fn upload(&self, first: Bytes, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let connection = &self.client.connection;
        let (sender, stream) = body::pipe();
        let answer = self.post(stream)?;
        let mut hasher = Hasher::new();
        let mut size = 0;
        let mut piece = first;
        let result = loop {
            if piece.is_empty() {
                let digest = hasher.finish();
                break check_expected(&digest, expected).map(|()| (digest, size));
            }
            hasher.update(&piece);
            size += piece.len() as u64;
            if sender.blocking_send(Ok(piece)).is_err() {
                break Err(self.client.nonsense("store a payload", "it took no more of it"));
            }
            match body::read_piece(content) {
                Ok(next) => piece = next,
                Err(error) => break Err(Error::io("read", "the content of a payload")(error)),
            }
        };
        let result = match result {
            Ok(added) => {
                let _ = sender.blocking_send(Ok(Bytes::new()));
                drop(sender);
                Ok(added)
            }
            Err(error) => {
                drop(sender);
                Err(error)
            }
        };
        let answered = connection.block_on(answer)?.map_err(|e| lost(connection, std::io::Error::other(e)))?;
        let (digest, size) = result?;
        let stored = answered?;
        if stored != digest {
            return Err(Error::corrupt(format!("payload {digest}"), format!("it arrived as {stored}")));
        }
        Ok((digest, size))
    }

    /// Begins to post a payload; the digest under which it was stored comes with the end.
    fn post(&self, stream: AnyBody) -> Result<tokio::task::JoinHandle<Result<Digest>>> {
        let connection = self.client.connection.clone();
        let request = |uri: String, stream| {
            let mut request: Request<AnyBody> = Request::new(stream);
            *request.method_mut() = Method::POST;
            *request.uri_mut() = uri.parse().unwrap_or_default();
            let kind = HeaderValue::from_static("application/octet-stream");
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
            request
        };
        let url = match connection.is_ours()? {
            true => None,
            false => {
                let option: proto::UploadOption =
                    self.client.ask("/spfs.PayloadService/WritePayload", "take a payload", &proto::Ok {})?;
                Some(option.url)
            }
        };
        let work = connection.clone();
        connection.spawn_blocking(move || {
            let response = match url {
                None => {
                    let stream = Mutex::new(Some(stream));
                    work.request(|authority| {
                        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                        // A second attempt has nothing to send any more, and its failure is noticed by the digest.
                        request(format!("http://{authority}/"), stream.take().unwrap_or_else(|| body::pipe().1))
                    })?
                }
                Some(url) => {
                    let rest = url.strip_prefix("http://").unwrap_or(&url);
                    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                    let mut request = request(format!("/{path}"), stream);
                    if let Ok(host) = HeaderValue::from_str(authority) {
                        request.headers_mut().insert(header::HOST, host);
                    }
                    work.request_once(authority, request)?
                }
            };
            let status = response.status();
            let answer = work.block_on(response.into_body().collect())?;
            let answer = answer.map_err(|e| lost(&work, std::io::Error::other(e)))?.to_bytes();
            let failed = |reason: String| Error::Remote {
                address: work.address.clone(),
                action: "store a payload".to_owned(),
                reason,
            };
            if !status.is_success() {
                return Err(failed(format!("{status}: {}", String::from_utf8_lossy(&answer).trim())));
            }
            let answer: proto::Answer<proto::UploadResult> =
                proto::Answer::decode(answer).map_err(|e| failed(e.to_string()))?;
            match answer {
                proto::Answer { error: Some(error), .. } => {
                    Err(convert::read_error(error, &work.address, "store a payload"))
                }
                proto::Answer { ok, .. } => convert::read_digest(ok.unwrap_or_default().digest.as_ref()),
            }
        })
    }

    /// Sends what has been gathered.
    fn flush(&self, state: &mut State) -> Result<()> {
        if state.pack != proto::Pack::default() {
            let pack = std::mem::take(&mut state.pack);
            state.size = 0;
            self.sent(state, |client| client.ask::<proto::Ok>("/spfs.Exchange/PutPack", "store content", &pack))?;
        }
        for object in std::mem::take(&mut state.objects) {
            let request = proto::WriteObjectRequest { object: Some(convert::object(&object)?) };
            self.sent(state, |client| client.ask::<proto::Ok>("/spfs.DatabaseService/WriteObject", "store", &request))?;
        }
        Ok(())
    }

    /// Remembers a failure: what others rely on may be missing.
    fn sent<T>(&self, state: &mut State, send: impl FnOnce(&Client) -> Result<T>) -> Result<()> {
        let result = send(self.client);
        state.broken |= result.is_err();
        result.map(drop)
    }

    fn check_children(&self, state: &mut State, object: &Object) -> Result<()> {
        if let ObjectBody::Blob(blob) = &object.body {
            if !state.payloads.contains(&blob.payload) {
                match self.client.missing_payloads(&[blob.payload])?.first() {
                    None => state.payloads.insert(blob.payload),
                    Some(absent) => return Err(Error::MissingPayload(*absent)),
                };
            }
            return Ok(());
        }
        let unknown: Vec<Digest> = object.children().into_iter().filter(|d| !state.known.contains(d)).collect();
        if let Some(absent) = self.client.missing(&unknown)?.first() {
            return Err(Error::UnknownObject(*absent));
        }
        state.known.extend(unknown);
        Ok(())
    }
}

impl Batch for ClientBatch<'_> {
    fn add_payload(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let first = body::read_piece(content).map_err(Error::io("read", "the content of a payload"))?;
        if first.len() == PIECE || !self.client.connection.is_ours()? {
            let added = self.upload(first, content, expected)?;
            self.state().payloads.insert(added.0);
            return Ok(added);
        }
        let digest = Digest::of(&first);
        check_expected(&digest, expected)?;
        let size = first.len();
        let mut state = self.state();
        if state.payloads.insert(digest) {
            state.size += size;
            state.pack.payloads.push(first);
            if state.size > PACK {
                self.flush(&mut state)?;
            }
        }
        Ok((digest, size as u64))
    }

    fn add_object(&self, object: &Object) -> Result<Digest> {
        let digest = codec::digest(object)?;
        let mut state = self.state();
        if state.known.contains(&digest) {
            return Ok(digest);
        }
        self.check_children(&mut state, object)?;
        if self.client.connection.is_ours()? {
            let bytes = codec::encode_wire(object)?;
            state.size += bytes.len();
            state.pack.objects.push(bytes.into());
        } else {
            state.objects.push(object.clone());
        }
        state.known.insert(digest);
        if state.size > PACK {
            self.flush(&mut state)?;
        }
        Ok(digest)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut state = self.state();
        if state.broken {
            let reason = "an earlier write failed, so it is not complete";
            return Err(Error::invalid("batch", self.client.address(), reason));
        }
        self.flush(&mut state)
    }
}

fn check_expected(actual: &Digest, expected: Option<&Digest>) -> Result<()> {
    match expected {
        Some(expected) if expected != actual => Err(Error::corrupt(
            format!("payload {expected}"),
            format!("the content that arrived has the digest {actual}"),
        )),
        _ => Ok(()),
    }
}
