//! What goes to an existing server: payloads at once, each by itself; objects when their children are there.

use std::io::Read;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use prost::Message;
use spfs_repo::{Batch, Digest, Encoded, Error, Given, Hasher, Kind, NetTrouble, Object, Result};
use tokio::sync::mpsc;

use super::seen::{Seen, lock};
use super::{Client, answered, check_expected, refused};
use crate::body::{self, AnyBody};
use crate::connection::Connection;
use crate::{convert, proto};

/// Most bytes of the answer to an upload.
const ANSWER: usize = 64 << 10;
/// Objects that are gathered for an existing server before they are sent.
const OBJECTS: usize = 4096;
/// And bytes of them.
const BYTES: usize = 4 << 20;

/// A batch of a [`Client`] whose server is an existing one.
///
/// The protocol knows no batches: what such a server gets is visible at once, payloads first and objects last. An
/// interrupted batch leaves payloads that nothing refers to, which the next one finds there.
pub struct ClientBatch<'a> {
    client: &'a Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: Vec<Encoded>,
    /// Bytes of these.
    size: usize,
    seen: Seen,
}

impl<'a> ClientBatch<'a> {
    /// An empty batch; sends nothing yet.
    pub fn new(client: &'a Client) -> Self {
        ClientBatch { client, state: Mutex::default() }
    }

    /// Sends a payload by itself, hashing it on the way; one that is not the `expected` is broken off before its end.
    fn upload(&self, first: Bytes, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let connection = &self.client.connection;
        let option: proto::UploadOption =
            self.client.ask("/spfs.PayloadService/WritePayload", "take a payload", &proto::Ok {})?;
        let (sender, stream) = body::pipe();
        let answer = connection.runtime()?.spawn(post(connection.clone(), option.url, stream));
        let result = self.feed(&sender, first, content, expected);
        if result.is_ok() {
            let _ = sender.blocking_send(Ok(Bytes::new()));
        }
        drop(sender);
        let answered = connection.block_on(answer)?.map_err(|e| connection.trouble(NetTrouble::Lost, e))?;
        // What the other end says comes first: it may be why it took no more.
        let (digest, size) = match result {
            Err(error @ Error::Unreachable { .. }) => return Err(answered.err().unwrap_or(error)),
            result => result?,
        };
        let stored = connection.explained(answered)?;
        if stored != digest {
            return Err(Error::corrupt(format!("payload {digest}"), format!("it arrived as {stored}")));
        }
        Ok((digest, size))
    }

    /// Hands the content on piece by piece.
    fn feed(
        &self,
        sender: &mpsc::Sender<std::io::Result<Bytes>>,
        first: Bytes,
        content: &mut dyn Read,
        expected: Option<&Digest>,
    ) -> Result<(Digest, u64)> {
        let (mut hasher, mut size, mut piece) = (Hasher::new(), 0, first);
        while !piece.is_empty() {
            hasher.update(&piece);
            size += piece.len() as u64;
            if sender.blocking_send(Ok(piece)).is_err() {
                return Err(self.client.connection.trouble(NetTrouble::Lost, "it took no more of a payload"));
            }
            piece = body::read_piece(content).map_err(Error::io("read", "the content of a payload"))?;
        }
        let digest = hasher.finish();
        check_expected(&digest, expected).map(|()| (digest, size))
    }

    /// Adds an object in either form.
    fn add(&self, given: Given<'_>, encode: impl FnOnce() -> Result<Encoded>) -> Result<Digest> {
        let digest = given.digest()?;
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if !state.seen.is_new(self.client, &digest, given)? {
            return Ok(digest);
        }
        let object = encode()?;
        state.size += object.wire().len();
        state.objects.push(object);
        state.seen.objects.insert(digest);
        if state.objects.len() == OBJECTS || state.size > BYTES {
            self.flush(state)?;
        }
        Ok(digest)
    }

    /// Sends what has been gathered.
    fn flush(&self, state: &mut State) -> Result<()> {
        state.size = 0;
        for object in std::mem::take(&mut state.objects) {
            let request = proto::WriteObjectRequest { object: Some(convert::encoded(&object)) };
            let stored = self.client.ask::<proto::Ok>("/spfs.DatabaseService/WriteObject", "store", &request);
            state.seen.noted(stored)?;
        }
        Ok(())
    }
}

impl Batch for ClientBatch<'_> {
    fn add_payload(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let first = body::read_piece(content).map_err(Error::io("read", "the content of a payload"))?;
        let added = self.upload(first, content, expected)?;
        lock(&self.state).seen.payloads.insert(added.0);
        Ok(added)
    }

    fn add_object(&self, object: &Object) -> Result<Digest> {
        self.add(Given::Object(object), || Encoded::of(object))
    }

    fn add_encoded(&self, object: &Encoded) -> Result<Digest> {
        match object.kind() {
            Kind::Manifest => self.add(Given::Encoded(object), || Ok(object.clone())),
            _ => self.add_object(&object.object()?),
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut state = lock(&self.state);
        state.seen.check_whole(self.client)?;
        self.flush(&mut state)
    }
}

/// Posts a payload to `url`; gives the digest under which it was stored.
async fn post(connection: Arc<Connection>, url: String, stream: AnyBody) -> Result<Digest> {
    let mut request: Request<AnyBody> = Request::new(stream);
    *request.method_mut() = Method::POST;
    let kind = HeaderValue::from_static("application/octet-stream");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    let response = connection.request_once(&url, request).await?;
    let failed = |reason: String| {
        let (address, action) = (connection.address.text.clone(), "store a payload".to_owned());
        Error::Remote { address, action, reason }
    };
    let (head, mut body) = response.into_parts();
    let mut answer = Vec::new();
    while let Some(piece) = connection.piece(&mut body).await? {
        answer.extend_from_slice(&piece);
        if answer.len() > ANSWER {
            return Err(failed("its answer does not end".to_owned()));
        }
    }
    if !head.status.is_success() {
        return Err(refused(&connection, head.status, &answer));
    }
    let answer = proto::Answer::<proto::UploadResult>::decode(&answer[..]).map_err(|e| failed(e.to_string()))?;
    convert::read_digest(answered(&connection, answer, "store a payload")?.digest.as_ref())
}
