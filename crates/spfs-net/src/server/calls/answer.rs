//! The form of answers: errors inside of them, a status, or what is sent from a file.

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use spfs_repo::{Digest, Error, Result};

use super::{Call, Called, Reply};
use crate::grpc::{self, status};
use crate::server::tokens::Refused;
use crate::{convert, proto};

/// A call that failed as a call; errors of the repository travel inside answers instead.
pub struct Failed(pub u32, pub String);

pub(super) fn refused(refused: Refused) -> Error {
    Error::Denied { address: String::new(), reason: refused.reason, unauthenticated: refused.unauthenticated }
}

/// A right that is lacking is for the call as a whole, never inside an answer.
pub(super) fn denied(reason: String, unauthenticated: bool) -> Failed {
    Failed(if unauthenticated { status::UNAUTHENTICATED } else { status::PERMISSION_DENIED }, reason)
}

impl Call<'_> {
    pub(super) fn on_digest<T: Message + Default + std::fmt::Debug>(
        &self,
        body: Bytes,
        act: impl FnOnce(&Digest) -> Result<T>,
    ) -> Called {
        self.answer(body, |r: proto::DigestRequest| act(&convert::read_digest(r.digest.as_ref())?))
    }

    /// A method whose answer carries errors inside.
    pub(super) fn answer<R, T>(&self, body: Bytes, act: impl FnOnce(R) -> Result<T>) -> Called
    where
        R: Message + Default,
        T: Message + Default + std::fmt::Debug,
    {
        answered(act(read(body)?))
    }

    /// A method whose answer has no room for errors.
    pub(super) fn plain<R: Message + Default, T: Message>(
        &self,
        body: Bytes,
        act: impl FnOnce(R) -> Result<T>,
    ) -> Called {
        act(read(body)?).map(|answer| Reply::Message(grpc::frame(&answer))).map_err(|error| {
            let number =
                if matches!(error, Error::Corrupt { .. }) { status::INVALID_ARGUMENT } else { status::INTERNAL };
            Failed(number, convert::with_causes(&error))
        })
    }
}

/// An answer whose error is ready for the wire.
pub(super) fn told<T: Message + Default + std::fmt::Debug>(result: std::result::Result<T, proto::Error>) -> Reply {
    Reply::Message(grpc::frame(&match result {
        Ok(ok) => proto::Answer { error: None, ok: Some(ok) },
        Err(error) => proto::Answer { error: Some(error), ok: None },
    }))
}

pub(super) fn read<R: Message + Default>(mut body: Bytes) -> std::result::Result<R, Failed> {
    grpc::only(&mut body).map_err(invalid)
}

/// An answer that carries errors inside, but for rights that are lacking.
pub(super) fn answered<T: Message + Default + std::fmt::Debug>(result: Result<T>) -> Called {
    let answer = match result {
        Ok(ok) => proto::Answer { error: None, ok: Some(ok) },
        Err(Error::Denied { reason, unauthenticated, .. }) => return Err(denied(reason, unauthenticated)),
        Err(error) => proto::Answer { error: Some(convert::error(&error)), ok: None },
    };
    Ok(Reply::Message(grpc::frame(&answer)))
}

/// A stream of digests; an error is its only item.
pub(super) fn stream(digests: Result<Vec<Digest>>) -> Called {
    match digests {
        Ok(digests) => Ok(Reply::Digests(digests)),
        Err(error) => answered::<proto::Digest>(Err(error)),
    }
}

/// The beginning of a framed message that holds bytes of this length in nested fields, the outermost first.
pub(super) fn nested(fields: &[u32], len: u64) -> Bytes {
    let (mut prefix, mut len) = (BytesMut::new(), len);
    for field in fields.iter().rev() {
        let mut one = BytesMut::new();
        encode_key(*field, WireType::LengthDelimited, &mut one);
        encode_varint(len, &mut one);
        len += one.len() as u64;
        one.extend_from_slice(&prefix);
        prefix = one;
    }
    let mut framed = BytesMut::from(&[0][..]);
    // A stored object has less than 2 GiB.
    framed.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&prefix);
    framed.freeze()
}

pub(super) fn no_method(path: &str) -> Failed {
    Failed(status::UNIMPLEMENTED, format!("there is no method {path}"))
}

pub(super) fn invalid(reason: String) -> Failed {
    Failed(status::INVALID_ARGUMENT, reason)
}
