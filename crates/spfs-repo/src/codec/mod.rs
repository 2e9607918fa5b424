//! Bytes to plain structs and back: stored objects, what is hashed, tag records.
//!
//! ```text
//!  offset   0          9          10         11         16     17
//!           --SPFS--\n strategy   encoding   00000      kind   body …
//! ```
//!
//! The body is either the very bytes that are hashed (legacy encoding) or a FlatBuffers buffer. `docs/format.md`
//! describes all of it. What [`encode`] accepts, [`decode`] accepts, and neither changes the [`digest`].

mod body;
mod check;
mod cursor;
mod encoded;
mod flat;
mod legacy;
pub mod tag;
mod walk;

// Written by flatc from schema/spfs.fbs (tools/generate-flatbuffers), so its style is not ours. Its unsafe code reads
// fields of a buffer at offsets that the verifier has checked; nothing but `flat` uses it, and only after verifying.
#[rustfmt::skip]
#[allow(
    unsafe_code, missing_docs, dead_code, unused_imports, non_snake_case, non_camel_case_types, mismatched_lifetime_syntaxes,
    elided_lifetimes_in_paths, clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used
)]
mod generated;

use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::object::{Encoding, Format, Kind, Object, ObjectBody, Strategy};

pub(crate) use body::tree_digest;
pub use encoded::{Encoded, Given};

/// Bytes of the header that begins every stored object.
pub const HEADER_LEN: usize = 17;

/// The first nine bytes of every stored object.
pub const MAGIC: &[u8; 9] = b"--SPFS--\n";

/// What [`Strategy::WithKindAndSalt`] hashes before the kind number and the body: 49 bytes, the last one NUL.
pub const SALT: &[u8; 49] = b"spfs digest da8d8e62-9459-11ee-adab-00155dcb338b\0";

/// The digest of `object`, made of its content, kind and strategy; the encoding has no influence.
///
/// A blob has the digest of its payload. Errors: [`Error::Corrupt`] for what has no hashed form: a layer with neither
/// manifest nor annotation, a manifest without trees, a NUL in a name, a key or a text.
pub fn digest(object: &Object) -> Result<Digest> {
    if let ObjectBody::Blob(blob) = &object.body {
        return Ok(blob.payload);
    }
    let mut hasher = Hasher::new();
    if object.format.strategy == Strategy::WithKindAndSalt {
        hasher.update(SALT);
        hasher.update(&[object.kind() as u8]);
    }
    body::write(&object.body, &mut hasher)?;
    Ok(hasher.finish())
}

/// `object` as it is stored: the header, then the body in the encoding that its format names.
///
/// Errors: [`Error::Corrupt`] for an object that [`decode`] would refuse, [`Error::Unsupported`] for a layer that the
/// legacy encoding cannot hold and for a body of 2 GiB or more in FlatBuffers.
pub fn encode(object: &Object) -> Result<Vec<u8>> {
    check::body(&object.body)?;
    match object.format.encoding {
        Encoding::Legacy => legacy::encode(&object.body, header(object)),
        Encoding::FlatBuffers => flat::encode(&object.body, header(object)),
    }
}

/// `object` as it travels: the same header, and a body in FlatBuffers whatever the header says (`docs/format.md`, the
/// wire).
///
/// Errors: as [`encode`].
pub fn encode_wire(object: &Object) -> Result<Vec<u8>> {
    check::body(&object.body)?;
    flat::encode(&object.body, header(object))
}

fn header(object: &Object) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[object.format.strategy as u8, object.format.encoding as u8, 0, 0, 0, 0, 0]);
    header.push(object.kind() as u8);
    header
}

/// Reads a stored object and checks that it is sound in itself; the entries of its trees are put in stored order.
///
/// Whether it is the object that was asked for, only its [`digest`] says: the caller compares. Memory is bounded by a
/// small multiple of `bytes`, whatever they claim.
///
/// Errors: [`Error::Corrupt`]; [`Error::Unsupported`] for a strategy, an encoding or a kind of a later version.
pub fn decode(bytes: &[u8]) -> Result<Object> {
    let (kind, format, body) = decode_header(bytes)?;
    let body = match format.encoding {
        Encoding::Legacy => legacy::decode(kind, body)?,
        Encoding::FlatBuffers => flat::decode(kind, body)?,
    };
    sound(format, body)
}

/// Reads an object as [`encode_wire`] writes it; a body in the legacy encoding is refused.
///
/// Errors: as [`decode`].
pub fn decode_wire(bytes: &[u8]) -> Result<Object> {
    let (kind, format, body) = decode_header(bytes)?;
    sound(format, flat::decode(kind, body)?)
}

/// The object of a body that has been read, if it is sound in itself.
fn sound(format: Format, mut body: ObjectBody) -> Result<Object> {
    if let ObjectBody::Manifest(manifest) = &mut body {
        manifest.trees.iter_mut().for_each(|tree| tree.sort());
    }
    check::body(&body)?;
    Ok(Object { format, body })
}

/// Reads the header alone: the kind and the format of a stored object, and its body as yet undecoded.
///
/// Errors: as [`decode`].
pub fn decode_header(bytes: &[u8]) -> Result<(Kind, Format, &[u8])> {
    let (header, body) = bytes.split_at_checked(HEADER_LEN).ok_or_else(|| {
        Error::corrupt("object", format!("it has {} bytes, less than its header of {HEADER_LEN}", bytes.len()))
    })?;
    if !header.starts_with(MAGIC) {
        return Err(Error::corrupt("object", "it does not begin with --SPFS--"));
    }
    let unknown = |what: &str, number: u8| {
        let reason = format!("{what} {number} is not known to this version");
        Error::Unsupported { what: "object".to_owned(), reason }
    };
    let strategy = match header[9] {
        0 => Strategy::Legacy,
        1 => Strategy::WithKindAndSalt,
        n => return Err(unknown("digest strategy", n)),
    };
    let encoding = match header[10] {
        0 => Encoding::Legacy,
        1 => Encoding::FlatBuffers,
        n => return Err(unknown("encoding", n)),
    };
    let kind = match header[16] {
        0 => Kind::Blob,
        1 => Kind::Manifest,
        2 => Kind::Layer,
        3 => Kind::Platform,
        4 | 5 => return Err(Error::corrupt("object", "trees and masks are never stored as objects of their own")),
        n => return Err(unknown("kind", n)),
    };
    Ok((kind, Format { strategy, encoding }, body))
}
