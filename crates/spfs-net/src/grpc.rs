//! gRPC's framing over HTTP/2: a message is one byte (whether it is compressed), its length in four bytes
//! (big-endian), and its bytes.

use std::io::Read as _;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::budget::Share;

/// Status numbers of gRPC that we send or tell apart.
pub mod status {
    /// It went well.
    pub const OK: u32 = 0;
    /// The request makes no sense.
    pub const INVALID_ARGUMENT: u32 = 3;
    /// It took too long.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// Not allowed.
    pub const PERMISSION_DENIED: u32 = 7;
    /// Too large.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// There is no such method.
    pub const UNIMPLEMENTED: u32 = 12;
    /// Anything else.
    pub const INTERNAL: u32 = 13;
    /// Not now.
    pub const UNAVAILABLE: u32 = 14;
    /// No token, or one that is not known.
    pub const UNAUTHENTICATED: u32 = 16;
}

/// How messages are compressed, as the headers `grpc-encoding` and `grpc-accept-encoding` name it.
pub const ZSTD: &str = "zstd";

/// Bytes before every message.
const PREFIX: usize = 5;
/// How many times larger a compressed message is thought to be.
const UNPACKED: usize = 4;
/// Messages below this are not worth compressing.
const SMALL: usize = 1024;

/// One message with its prefix.
pub fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + len);
    out.put_u8(0);
    // Nothing here makes a message of 4 GiB: an object is less than 2 GiB, a pack much less.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    message.encode_raw(&mut out);
    out.freeze()
}

/// The same frame with its only message compressed, if that makes it smaller.
pub fn compressed(frame: Bytes) -> Bytes {
    let Some(message) = frame.get(PREFIX..).filter(|message| message.len() >= SMALL) else { return frame };
    // Only the beginning is tried for content that does not get smaller, as most of what is large does not.
    let sample = &message[..message.len().min(64 << 10)];
    match zstd::bulk::compress(sample, 1) {
        Ok(smaller) if smaller.len() < sample.len() / 10 * 9 => {}
        _ => return frame,
    }
    let Ok(smaller) = zstd::bulk::compress(message, 1) else { return frame };
    let mut out = BytesMut::with_capacity(PREFIX + smaller.len());
    out.put_u8(1);
    out.put_u32(u32::try_from(smaller.len()).unwrap_or(u32::MAX));
    out.put_slice(&smaller);
    out.freeze()
}

/// The messages of a body as it arrives.
pub struct Frames {
    buffer: BytesMut,
    /// Most bytes of all messages together, and of one of them when it is unpacked.
    limit: usize,
    /// Whether compression was agreed.
    zstd: bool,
    /// What the first message takes of a budget.
    share: Share,
}

impl Frames {
    /// For a body of at most `limit` bytes.
    pub fn new(limit: usize, zstd: bool) -> Self {
        Frames { buffer: BytesMut::new(), limit, zstd, share: Share::default() }
    }

    /// Adds what has arrived. Memory grows with what arrives, never with what a length promises.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), String> {
        if self.buffer.len() + piece.len() > self.limit.saturating_add(PREFIX) {
            return Err(format!("a message is larger than {} bytes", self.limit));
        }
        if self.buffer.capacity() - self.buffer.len() < piece.len() {
            let promised = self.buffer.get(1..PREFIX).map_or(0, |len| (&*len).get_u32() as usize + PREFIX);
            let useful = promised.clamp(0, self.limit.saturating_add(PREFIX)).saturating_sub(self.buffer.len());
            self.buffer.reserve(useful.min(self.buffer.len().max(64 << 10)).max(piece.len()));
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// How many bytes the first message promises to have, once that is known; when it is unpacked, as a guess.
    pub fn promised(&self) -> Option<usize> {
        let (prefix, _) = self.buffer.split_first_chunk::<PREFIX>()?;
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        Some(if prefix[0] == 0 { len } else { len.saturating_mul(UNPACKED) })
    }

    /// Ties a share of a budget to the first message, for as long as anything of it is kept.
    pub fn hold(&mut self, share: Share) {
        self.share = share;
    }

    /// Takes the next message, once all of them have arrived; `None` at the end.
    pub fn next<M: Message + Default>(&mut self) -> Result<Option<M>, String> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if self.buffer.len() < PREFIX {
            return Err("a message ends in its prefix".to_owned());
        }
        let compressed = self.buffer.get_u8();
        let len = self.buffer.get_u32() as usize;
        if len > self.buffer.len() {
            return Err("a message ends before its length".to_owned());
        }
        let message = self.buffer.split_to(len).freeze();
        let message = match compressed {
            0 => message,
            1 if self.zstd => unpack(&message, self.limit)?,
            _ => return Err("a message is compressed, which was not agreed".to_owned()),
        };
        let message = std::mem::take(&mut self.share).hold(message);
        M::decode(message).map(Some).map_err(|e| e.to_string())
    }

    /// The only message.
    pub fn only<M: Message + Default>(&mut self) -> Result<M, String> {
        let message = self.next()?.ok_or("there is no message")?;
        if self.buffer.is_empty() { Ok(message) } else { Err("there is more than one message".to_owned()) }
    }
}

/// The only message in `body`, which is complete and not compressed.
pub fn only<M: Message + Default>(body: &mut Bytes) -> Result<M, String> {
    let mut frames = Frames::new(usize::MAX, false);
    frames.push(body)?;
    frames.only()
}

/// The frame `body`, which is complete, with its only message unpacked.
pub fn unpacked(body: Bytes, limit: usize) -> Result<Bytes, String> {
    if body.first() != Some(&1) || body.len() < PREFIX {
        return Ok(body);
    }
    let message = unpack(&body[PREFIX..], limit)?;
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(&message);
    Ok(out.freeze())
}

/// Unpacks a message; a few bytes may mean a great many, which is an error.
fn unpack(message: &[u8], limit: usize) -> Result<Bytes, String> {
    let decoder = zstd::stream::read::Decoder::new(message).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut out).map_err(|e| format!("a message cannot be unpacked: {e}"))?;
    if out.len() > limit { Err(format!("a message is larger than {limit} bytes")) } else { Ok(out.into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::proto::Pack;

    fn read(limit: usize, zstd: bool, bytes: &[u8]) -> Result<Pack, String> {
        let mut frames = Frames::new(limit, zstd);
        bytes.chunks(1000).try_for_each(|piece| frames.push(piece))?;
        frames.only()
    }

    #[test]
    fn messages_come_back_and_what_is_wrong_is_an_error() {
        let pack = Pack { payloads: vec![vec![7; 100_000].into()], ..Pack::default() };
        let plain = frame(&pack);
        let small = compressed(plain.clone());
        assert!(small.len() < 1000);
        assert_eq!(read(200_000, false, &plain).unwrap(), pack);
        assert_eq!(read(200_000, true, &small).unwrap(), pack);
        assert!(read(200_000, false, &small).unwrap_err().contains("not agreed"));
        assert!(read(50_000, true, &small).unwrap_err().contains("larger"), "a bomb");
        assert!(read(50_000, true, &plain).unwrap_err().contains("larger"));
        assert!(read(200_000, true, &plain[..50_000]).unwrap_err().contains("before its length"));
        assert!(read(200_000, true, &[0, 0]).unwrap_err().contains("prefix"));
        let mut huge = Frames::new(usize::MAX, false);
        huge.push(&[0, 0xff, 0xff, 0xff, 0xff, 1]).unwrap();
        huge.push(&[1; 100]).unwrap();
        assert!(huge.buffer.capacity() < 1 << 20, "a promise takes no memory");
    }
}
