//! Content against its digest: on its way in, read in pieces; and objects that were read.

use std::io::Read;
use std::path::Path;

use crate::codec::{self, Encoded};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::object::{Kind, Object};

/// Content up to this many bytes is hashed before it is written, so that nothing is written twice.
pub(crate) const SMALL: usize = 256 * 1024;

thread_local! {
    /// The piece of content that is being hashed and written.
    static PIECE: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Reads the first [`SMALL`] bytes of `content`, and hands them to `add`, which may read the rest into the same buffer.
pub(crate) fn with_first_piece<T>(
    content: &mut dyn Read,
    add: impl FnOnce(&mut Vec<u8>, usize, &mut dyn Read) -> Result<T>,
) -> Result<T> {
    // Taken out of its place for as long as `content` runs, which may itself come here.
    let mut piece = PIECE.with(|piece| std::mem::take(&mut *piece.borrow_mut()));
    piece.resize(SMALL, 0);
    let result = fill(content, &mut piece).and_then(|filled| add(&mut piece, filled, content));
    PIECE.with(|place| *place.borrow_mut() = piece);
    result
}

/// Fills `buffer` from `content` as far as it goes. Returns how far that was.
pub(crate) fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", "the content of a payload")(e)),
        }
    }
    Ok(filled)
}

/// Refuses content whose digest is not the one that was `expected`.
pub(crate) fn check_expected(actual: &Digest, expected: Option<&Digest>) -> Result<()> {
    match expected {
        Some(expected) if expected != actual => Err(Error::corrupt(
            format!("payload {expected}"),
            format!("the content that arrived has the digest {actual}"),
        )),
        _ => Ok(()),
    }
}

/// Decodes an object that was read from `path`, and checks that it is the one with `digest`.
pub(crate) fn decode(bytes: &[u8], digest: &Digest, path: &Path) -> Result<Object> {
    let object = codec::decode(bytes).map_err(|e| damaged(e, digest, path))?;
    check_read(object.kind(), codec::digest(&object)?, digest, path)?;
    Ok(object)
}

/// The same without taking it apart.
pub(crate) fn read_encoded(bytes: Vec<u8>, digest: &Digest, path: &Path) -> Result<Encoded> {
    let object = Encoded::read_stored(bytes).map_err(|e| damaged(e, digest, path))?;
    check_read(object.kind(), object.digest(), digest, path)?;
    Ok(object)
}

/// Says what is damaged.
fn damaged(error: Error, digest: &Digest, path: &Path) -> Error {
    let what = format!("object {digest} ({})", path.display());
    match error {
        Error::Corrupt { reason, .. } => Error::Corrupt { what, reason },
        Error::Unsupported { reason, .. } => Error::Unsupported { what, reason },
        other => other,
    }
}

fn check_read(kind: Kind, actual: Digest, digest: &Digest, path: &Path) -> Result<()> {
    if actual == *digest {
        return Ok(());
    }
    let reason = format!("its content is a {kind} with the digest {actual}");
    Err(damaged(Error::corrupt("object", reason), digest, path))
}
