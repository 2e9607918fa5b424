//! gRPC's framing over HTTP/2: a message is a zero byte, its length in four bytes (big-endian), and its bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

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

/// Bytes before every message.
const PREFIX: usize = 5;

/// One message with its prefix.
pub fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + len);
    out.put_u8(0);
    // Nothing here makes a message of 4 GiB: an object is less than 2 GiB, a pack much less.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    out.put_slice(&message.encode_to_vec());
    out.freeze()
}

/// Takes the next message off `body`, which is complete; `None` at its end.
pub fn next<M: Message + Default>(body: &mut Bytes) -> Result<Option<M>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    if body.len() < PREFIX {
        return Err("a message ends in its prefix".to_owned());
    }
    let compressed = body.get_u8();
    let len = body.get_u32() as usize;
    if compressed != 0 {
        return Err("a message is compressed, which was not agreed".to_owned());
    }
    if len > body.len() {
        return Err("a message ends before its length".to_owned());
    }
    M::decode(body.split_to(len)).map(Some).map_err(|e| e.to_string())
}

/// The only message in `body`.
pub fn only<M: Message + Default>(body: &mut Bytes) -> Result<M, String> {
    let message = next(body)?.ok_or("there is no message")?;
    if body.is_empty() { Ok(message) } else { Err("there is more than one message".to_owned()) }
}
