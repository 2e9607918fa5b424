//! [`Encoded`]: an object as the bytes that it travels as. Who copies objects needs no more than these, their digest and
//! the digests in them; a manifest of a million names takes 85 bytes for each, and half as much again taken apart.

use std::collections::HashSet;

use bytes::Bytes;

use super::{HEADER_LEN, decode_header, decode_wire, digest, encode, encode_wire, walk};
use crate::digest::Digest;
use crate::error::Result;
use crate::manifest::EntryKind;
use crate::object::{Encoding, Format, Kind, Object, ObjectBody};

/// How many children are remembered, so that what comes again soon is not asked about again.
const RECENT: usize = 64 << 10;

/// One sound object in its form for the wire: the header, and a body in FlatBuffers. Cheap to clone.
///
/// It holds what [`encode_wire`] writes, or what another writer wrote as [`encode_wire`] would have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    kind: Kind,
    format: Format,
    digest: Digest,
    bytes: Bytes,
}

impl Encoded {
    /// Reads an object in its form for the wire. The bytes are kept as they are if they are those of a manifest that is
    /// laid out as ours are; whatever else is sound is written anew.
    ///
    /// Errors: as [`decode_wire`].
    pub fn read(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        let (kind, format, body) = decode_header(&bytes)?;
        if kind == Kind::Manifest
            && bytes[11..HEADER_LEN - 1].iter().all(|byte| *byte == 0)
            && let Some(digest) = walk::digest(format.strategy, body)?
        {
            return Ok(Encoded { kind, format, digest, bytes });
        }
        Self::of(&decode_wire(&bytes)?)
    }

    /// Reads an object as it is stored.
    ///
    /// Errors: as [`super::decode`].
    pub fn read_stored(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        match decode_header(&bytes)?.1.encoding {
            Encoding::FlatBuffers => Self::read(bytes),
            Encoding::Legacy => {
                let object = super::decode(&bytes)?;
                drop(bytes);
                Self::of(&object)
            }
        }
    }

    /// Writes `object`. Errors: as [`encode_wire`].
    pub fn of(object: &Object) -> Result<Self> {
        let (kind, format) = (object.kind(), object.format);
        Ok(Encoded { kind, format, digest: digest(object)?, bytes: encode_wire(object)?.into() })
    }

    /// Its digest, made of its content.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its header's choices.
    pub fn format(&self) -> Format {
        self.format
    }

    /// As it travels.
    pub fn wire(&self) -> &Bytes {
        &self.bytes
    }

    /// As it is stored. Errors: as [`encode`].
    pub fn stored(&self) -> Result<Bytes> {
        match self.format.encoding {
            Encoding::FlatBuffers => Ok(self.bytes.clone()),
            Encoding::Legacy => Ok(encode(&self.object()?)?.into()),
        }
    }

    /// Taken apart.
    pub fn object(&self) -> Result<Object> {
        decode_wire(&self.bytes)
    }

    /// Calls `each` with the digest and the size of every blob that a manifest names, as often as it names it. The first
    /// error of `each` ends it. Other objects have none.
    pub fn each_blob(&self, each: &mut dyn FnMut(Digest, u64) -> Result<()>) -> Result<()> {
        if self.kind == Kind::Manifest { walk::blobs(&self.bytes[HEADER_LEN..], each) } else { Ok(()) }
    }
}

/// An object that is given to a batch, as it is at hand.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    /// Taken apart.
    Object(&'a Object),
    /// As bytes.
    Encoded(&'a Encoded),
}

impl Given<'_> {
    /// Its digest. Errors: as [`digest()`](super::digest).
    pub fn digest(&self) -> Result<Digest> {
        match self {
            Given::Object(object) => digest(object),
            Given::Encoded(encoded) => Ok(encoded.digest),
        }
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Given::Object(object) => object.kind(),
            Given::Encoded(encoded) => encoded.kind,
        }
    }

    /// As it is stored. Errors: as [`encode`].
    pub fn stored(&self) -> Result<Bytes> {
        match self {
            Given::Object(object) => Ok(encode(object)?.into()),
            Given::Encoded(encoded) => encoded.stored(),
        }
    }

    /// As it travels. Errors: as [`encode_wire`].
    pub fn wire(&self) -> Result<Bytes> {
        match self {
            Given::Object(object) => Ok(encode_wire(object)?.into()),
            Given::Encoded(encoded) => Ok(encoded.bytes.clone()),
        }
    }

    /// Calls `each` with the objects that it refers to, at most `most` at a time, hardly any of them twice; never with
    /// all of them at once, for a manifest may name a great many.
    pub fn children(&self, most: usize, each: &mut dyn FnMut(Vec<Digest>) -> Result<()>) -> Result<()> {
        let (mut recent, mut lot) = (HashSet::new(), Vec::new());
        let mut take = |digest: Digest| {
            if recent.len() == RECENT {
                recent.clear();
            }
            if recent.insert(digest) {
                lot.push(digest);
            }
            if lot.len() >= most { each(std::mem::take(&mut lot)) } else { Ok(()) }
        };
        match self {
            Given::Object(Object { body: ObjectBody::Manifest(manifest), .. }) => {
                let entries = manifest.trees.iter().flat_map(|tree| &tree.entries);
                entries.filter(|e| e.kind == EntryKind::Blob).try_for_each(|entry| take(entry.object))?;
            }
            Given::Object(object) => object.children().into_iter().try_for_each(take)?,
            Given::Encoded(manifest) if manifest.kind == Kind::Manifest => {
                manifest.each_blob(&mut |digest, _| take(digest))?;
            }
            Given::Encoded(other) => other.object()?.children().into_iter().try_for_each(take)?,
        }
        if lot.is_empty() { Ok(()) } else { each(lot) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::manifest::{Dir, Manifest, Node};
    use crate::object::Strategy;

    fn manifest(format: Format) -> Object {
        let file = |size| Node::Blob { digest: Digest::of(b"x"), mode: 0o100644, size };
        let below = Dir { entries: [("inside".to_owned(), file(3))].into() };
        let names = ["aaaa", "cccc", "eeee"].map(|name| (name.to_owned(), file(7)));
        let mut dir = Dir { entries: names.into() };
        dir.entries.insert("bbbb".to_owned(), Node::Dir { mode: 0o40755, dir: below });
        Object { format, body: Manifest::from_dir(&dir).into() }
    }

    fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = bytes.windows(from.len()).position(|some| some == from).unwrap();
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    }

    /// What ours write is kept byte for byte; whatever is laid out otherwise is written as ours would.
    #[test]
    fn bytes_are_kept_if_they_are_as_ours() {
        for strategy in [Strategy::Legacy, Strategy::WithKindAndSalt] {
            for encoding in [Encoding::Legacy, Encoding::FlatBuffers] {
                let object = manifest(Format { strategy, encoding });
                let wire: Bytes = encode_wire(&object).unwrap().into();
                let read = Encoded::read(wire.clone()).unwrap();
                assert_eq!(read.wire().as_ptr(), wire.as_ptr(), "the very same");
                assert_eq!(read, Encoded::of(&object).unwrap());
                assert_eq!(read.digest(), digest(&object).unwrap());
                let stored = encode(&object).unwrap();
                assert_eq!(read.stored().unwrap(), stored);
                assert_eq!(Encoded::read_stored(stored).unwrap(), read);
                let mut sizes = Vec::new();
                read.each_blob(&mut |_, size| {
                    sizes.push(size);
                    Ok(())
                })
                .unwrap();
                assert_eq!(sizes, [7, 7, 7, 3]);

                let mut reserved = wire.to_vec();
                reserved[12] = 1;
                assert_eq!(Encoded::read(reserved).unwrap(), read);
                let behind = [&wire[..], &[7; 4096]].concat();
                assert_eq!(Encoded::read(behind).unwrap(), read, "what nothing refers to is not kept");
                let disordered = replaced(&wire, b"eeee", b"0000");
                let sorted = Encoded::read(disordered.clone()).unwrap();
                assert_eq!(sorted.wire(), &encode_wire(&decode_wire(&disordered).unwrap()).unwrap());
                assert_ne!(sorted.wire(), &disordered);
            }
        }
    }

    #[test]
    fn what_is_not_sound_is_refused() {
        let wire = encode_wire(&manifest(Format::default())).unwrap();
        for (from, to, words) in [
            (&b"eeee"[..], &b"cccc"[..], "stands twice"),
            (b"bbbb", b"cccc", "stands twice"),
            (b"cccc", b"c/cc", "'/' or NUL"),
            (b"aaaa", b"a\0aa", "'/' or NUL"),
            (b"inside", b"beside", "which is not in it"),
        ] {
            let error = Encoded::read(replaced(&wire, from, to)).unwrap_err();
            assert!(matches!(&error, Error::Corrupt { reason, .. } if reason.contains(words)), "{error:?}");
        }
        assert!(Encoded::read(wire[..wire.len() / 2].to_vec()).is_err());
    }
}
