//! A batch at a server of ours: small content many at a time, large content in segments, and all of it visible at once
//! when it is finished.

use std::io::Read;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use spfs_repo::{Batch, Digest, Encoded, Error, Given, Hasher, Kind as ObjectKind, NetTrouble, Object, Result};
use tokio::task::JoinHandle;

use super::seen::{Seen, lock};
use super::segments::{Kind, Segments};
use super::{Client, answered, check_expected};
use crate::body::{self, PIECE};
use crate::connection::Connection;
use crate::proto;

/// Bytes that are gathered before they are sent.
const PACK: usize = 2 << 20;
/// Packs are not made smaller than this, however often the connection breaks.
const SMALLEST: usize = 64 << 10;
/// Objects from this size on go in segments.
const LARGE: usize = 256 << 10;

/// A batch of a [`Client`] whose server is ours.
pub struct SessionBatch<'a> {
    client: &'a Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The name of the batch over there, once something was sent.
    id: Option<Bytes>,
    pack: proto::Pack,
    size: usize,
    /// The number of the next pack.
    number: u64,
    /// The pack that is on its way, and the number behind it.
    flight: Option<JoinHandle<Result<u64>>>,
    seen: Seen,
    finished: bool,
}

impl<'a> SessionBatch<'a> {
    /// An empty batch; sends nothing yet.
    pub fn new(client: &'a Client) -> Self {
        SessionBatch { client, state: Mutex::default() }
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.client.connection
    }

    /// The name of the batch over there.
    fn id(&self, state: &mut State) -> Result<Bytes> {
        if let Some(id) = &state.id {
            return Ok(id.clone());
        }
        let begun: proto::BatchId = self.client.ask("/spfs.Exchange/PutBegin", "begin to store", &proto::Ok {})?;
        if begun.id.len() != 16 {
            return Err(self.client.nonsense("begin to store", "the name of the batch has another length"));
        }
        state.id = Some(begun.id.clone());
        Ok(begun.id)
    }

    /// Waits for the pack that is on its way.
    fn land(&self, state: &mut State) -> Result<()> {
        let Some(flight) = state.flight.take() else { return Ok(()) };
        let landed = self.connection().block_on(flight)?;
        let landed = landed.unwrap_or_else(|e| Err(self.connection().trouble(NetTrouble::Lost, e)));
        state.number = state.seen.noted(landed)?;
        Ok(())
    }

    /// Sends what has been gathered, behind what is on its way.
    fn flush(&self, state: &mut State) -> Result<()> {
        self.land(state)?;
        if state.size == 0 && state.pack == proto::Pack::default() {
            return Ok(());
        }
        let id = self.id(state)?;
        let pack = std::mem::take(&mut state.pack);
        state.size = 0;
        let (connection, number) = (self.connection().clone(), state.number);
        let runtime = self.connection().runtime()?;
        state.flight = Some(runtime.spawn_blocking(move || send(&connection, &id, pack, number)));
        Ok(())
    }

    /// Sends what has been gathered if `more` bytes would be too many with it.
    fn make_room(&self, state: &mut State, more: usize) -> Result<()> {
        if state.size > 0 && state.size + more > PACK { self.flush(state) } else { Ok(()) }
    }

    fn segments(&self, kind: Kind) -> Result<Segments> {
        let id = self.id(&mut lock(&self.state))?;
        Segments::new(self.connection().clone(), &id, kind)
    }

    /// Sends a large payload, hashing it on the way; one that is not the `expected` never gets its end.
    fn upload(&self, first: Bytes, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let mut segments = self.segments(Kind::Payload)?;
        let (mut hasher, mut size, mut piece) = (Hasher::new(), 0, first);
        while !piece.is_empty() {
            hasher.update(&piece);
            size += piece.len() as u64;
            segments.add(piece)?;
            piece = body::read_piece(content).map_err(Error::io("read", "the content of a payload"))?;
        }
        let digest = hasher.finish();
        check_expected(&digest, expected)?;
        let stored = segments.finish()?;
        if stored != digest {
            return Err(Error::corrupt(format!("payload {digest}"), format!("it arrived as {stored}")));
        }
        Ok((digest, size))
    }

    /// Sends a large object, behind everything that it may refer to.
    fn upload_object(&self, state: &mut State, bytes: Bytes, digest: &Digest) -> Result<()> {
        self.flush(state)?;
        self.land(state)?;
        let id = self.id(state)?;
        let mut segments = Segments::new(self.connection().clone(), &id, Kind::Object)?;
        let sent = segments.add(bytes).and_then(|()| segments.finish());
        match state.seen.noted(sent)? {
            stored if stored == *digest => Ok(()),
            stored => Err(Error::corrupt(format!("object {digest}"), format!("it arrived as {stored}"))),
        }
    }

    /// Adds an object in either form.
    fn add(&self, given: Given<'_>) -> Result<Digest> {
        let digest = given.digest()?;
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if !state.seen.is_new(self.client, &digest, given)? {
            return Ok(digest);
        }
        let bytes = given.wire()?;
        if bytes.len() >= LARGE {
            self.upload_object(state, bytes, &digest)?;
        } else {
            self.make_room(state, bytes.len())?;
            state.size += bytes.len() + 8;
            state.pack.objects.push(bytes);
        }
        state.seen.objects.insert(digest);
        Ok(digest)
    }

    fn end(&self, state: &mut State, path: &str) -> Result<()> {
        let Some(id) = state.id.clone() else { return Ok(()) };
        self.client.ask::<proto::Ok>(path, "store content", &proto::BatchId { id }).map(drop)
    }
}

/// Sends one pack; as two where the connection does not live long enough for it. Gives the number behind it.
///
/// A pack with the number of one that came in is not looked at, so that halves of what did arrive do no harm.
fn send(connection: &Connection, id: &Bytes, pack: proto::Pack, number: u64) -> Result<u64> {
    let batch = [&id[..], &number.to_be_bytes()].concat().into();
    let mut pack = proto::Pack { batch, ..pack };
    match connection.call("/spfs.Exchange/PutPack", &pack) {
        Ok(answer) => answered::<proto::Ok>(connection, answer, "store content").map(|_| number + 1),
        Err(Error::Unreachable { trouble: NetTrouble::Lost, source, address }) => {
            let bytes: usize = pack.payloads.iter().chain(&pack.objects).map(Bytes::len).sum();
            let count = pack.payloads.len() + pack.objects.len();
            if bytes < SMALLEST * 2 || count < 2 {
                return Err(Error::Unreachable { trouble: NetTrouble::Lost, source, address });
            }
            // Payloads before the objects that may need them.
            let at = count / 2;
            let rest = match at.checked_sub(pack.payloads.len()) {
                None => {
                    let payloads = pack.payloads.split_off(at);
                    proto::Pack { payloads, objects: std::mem::take(&mut pack.objects), ..Default::default() }
                }
                Some(at) => proto::Pack { objects: pack.objects.split_off(at), ..Default::default() },
            };
            let next = send(connection, id, pack, number)?;
            send(connection, id, rest, next)
        }
        Err(error) => Err(error),
    }
}

impl Batch for SessionBatch<'_> {
    fn add_payload(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let first = body::read_piece(content).map_err(Error::io("read", "the content of a payload"))?;
        if first.len() == PIECE {
            let added = self.upload(first, content, expected)?;
            lock(&self.state).seen.payloads.insert(added.0);
            return Ok(added);
        }
        let digest = Digest::of(&first);
        check_expected(&digest, expected)?;
        let size = first.len();
        let mut state = lock(&self.state);
        if !state.seen.payloads.contains(&digest) {
            self.make_room(&mut state, size)?;
            state.seen.payloads.insert(digest);
            // What frames a small payload counts too, or a million empty ones would fill the memory.
            state.size += size + 8;
            state.pack.payloads.push(first);
        }
        Ok((digest, size as u64))
    }

    fn add_object(&self, object: &Object) -> Result<Digest> {
        self.add(Given::Object(object))
    }

    fn add_encoded(&self, object: &Encoded) -> Result<Digest> {
        match object.kind() {
            ObjectKind::Manifest => self.add(Given::Encoded(object)),
            _ => self.add_object(&object.object()?),
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        self.flush(state)?;
        self.land(state)?;
        state.seen.check_whole(self.client)?;
        self.end(state, "/spfs.Exchange/PutFinish")?;
        state.finished = true;
        Ok(())
    }
}

impl Drop for SessionBatch<'_> {
    fn drop(&mut self) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if !state.finished {
            // If it cannot be told, the server finds out by itself.
            let _ = self.land(state);
            let _ = self.end(state, "/spfs.Exchange/PutDrop");
        }
    }
}
