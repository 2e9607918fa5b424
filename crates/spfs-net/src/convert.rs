//! Between the messages of the wire and the plain structs of `spfs-repo`.

use bytes::Bytes;
use jiff::Timestamp;
use spfs_repo::{
    Annotation, AnnotationValue, Blob, Digest, Encoded, Entry, EntryKind, Error, Layer, Manifest, NetTrouble, Object,
    ObjectBody, Platform, Result, Tag, TagName, Tree,
};

use crate::proto;

/// What a server of ours says of a batch that it does not know (any more).
pub const GONE: &str = "what was not finished is gone: the server was restarted, or waited too long";

/// What a server of ours says when somebody has as much under way as one may have.
pub const BUSY: &str = "too much is under way already; try again later";

/// A digest for the wire.
pub fn digest(digest: &Digest) -> proto::Digest {
    proto::Digest { bytes: Bytes::copy_from_slice(digest.as_bytes()) }
}

/// A digest from the wire: exactly 32 bytes.
pub fn read_digest(message: Option<&proto::Digest>) -> Result<Digest> {
    let bytes = message.map(|digest| &digest.bytes[..]).ok_or_else(|| Error::corrupt("message", "it has no digest"))?;
    let bytes: [u8; 32] = bytes
        .try_into()
        .map_err(|_| Error::corrupt("message", format!("a digest of {} bytes; 32 are right", bytes.len())))?;
    Ok(Digest::from_bytes(bytes))
}

/// Many digests, one behind the other.
pub fn digests(digests: &[Digest]) -> Bytes {
    digests.iter().flat_map(|digest| *digest.as_bytes()).collect()
}

/// Reads what [`digests`] writes.
pub fn read_digests(bytes: &[u8]) -> Result<Vec<Digest>> {
    let (whole, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Error::corrupt("message", "a list of digests ends in the middle of one"));
    }
    Ok(whole.iter().map(|bytes| Digest::from_bytes(*bytes)).collect())
}

/// A tag record for the wire.
pub fn tag(tag: &Tag) -> proto::Tag {
    proto::Tag {
        org: tag.name.org().to_owned(),
        name: tag.name.name().to_owned(),
        target: Some(digest(&tag.target)),
        parent: Some(digest(&tag.parent)),
        user: tag.user.clone(),
        time: Some(proto::DateTime { iso_timestamp: tag.time.to_string() }),
    }
}

/// A tag record from the wire; its name is checked.
pub fn read_tag(message: &proto::Tag) -> Result<Tag> {
    let text = if message.org.is_empty() { message.name.clone() } else { format!("{}/{}", message.org, message.name) };
    let name: TagName = text.parse()?;
    let parent = match &message.parent {
        Some(parent) => read_digest(Some(parent))?,
        None => Digest::NULL,
    };
    let time = message.time.as_ref().map(|time| time.iso_timestamp.as_str()).unwrap_or_default();
    Ok(Tag {
        name,
        target: read_digest(message.target.as_ref())?,
        parent,
        user: message.user.clone(),
        time: read_time(time)?,
    })
}

/// RFC 3339, or the form of the existing program: `2020-01-02 03:04:05.123456 UTC`.
pub fn read_time(text: &str) -> Result<Timestamp> {
    let plain = text.strip_suffix(" UTC").map(|time| format!("{time}Z"));
    let text = plain.as_deref().unwrap_or(text);
    text.parse().map_err(|e: jiff::Error| Error::invalid("time", text, e.to_string()))
}

/// An object for the wire: always as a buffer.
pub fn encoded(object: &Encoded) -> proto::Object {
    proto::Object { kind: Some(proto::ObjectKind::Buffer(object.wire().clone())) }
}

/// An object from the wire, in any of the accepted forms.
pub fn read_encoded(message: Option<proto::Object>) -> Result<Encoded> {
    let nothing = || Error::corrupt("message", "it has no object");
    let body: ObjectBody = match message.and_then(|object| object.kind).ok_or_else(nothing)? {
        proto::ObjectKind::Buffer(bytes) => return Encoded::read(bytes),
        proto::ObjectKind::Blob(blob) => Blob { payload: read_digest(blob.payload.as_ref())?, size: blob.size }.into(),
        proto::ObjectKind::Platform(platform) => {
            Platform { stack: platform.stack.iter().map(|d| read_digest(Some(d))).collect::<Result<_>>()? }.into()
        }
        proto::ObjectKind::Layer(layer) => Layer {
            manifest: Some(read_digest(layer.manifest.as_ref())?),
            annotations: layer.annotations.into_iter().map(read_annotation).collect::<Result<_>>()?,
        }
        .into(),
        proto::ObjectKind::Manifest(manifest) => {
            let root = manifest.root.ok_or_else(nothing)?;
            let trees = std::iter::once(root).chain(manifest.trees).map(read_tree).collect::<Result<_>>()?;
            Manifest { trees }.into()
        }
        proto::ObjectKind::Tree(_) | proto::ObjectKind::Mask(_) => {
            let reason = "trees and masks are no objects of their own any more".to_owned();
            return Err(Error::Unsupported { what: "object".to_owned(), reason });
        }
    };
    // What is sound is known to the codec alone.
    Encoded::of(&Object::new(body))
}

fn read_annotation(annotation: proto::Annotation) -> Result<Annotation> {
    let value = match annotation.value {
        Some(proto::AnnotationValue::Data(text)) => AnnotationValue::Text(text),
        Some(proto::AnnotationValue::Digest(digest)) => AnnotationValue::Blob(read_digest(Some(&digest))?),
        None => return Err(Error::corrupt("message", format!("the annotation {:?} has no value", annotation.key))),
    };
    Ok(Annotation { key: annotation.key, value })
}

fn read_tree(tree: proto::Tree) -> Result<Tree> {
    let read = |entry: proto::Entry| {
        let kind = match entry.kind {
            0 => EntryKind::Tree,
            1 => EntryKind::Blob,
            2 => EntryKind::Mask,
            n => return Err(Error::corrupt("message", format!("an entry of the unknown kind {n}"))),
        };
        let object = read_digest(entry.object.as_ref())?;
        Ok(Entry { kind, object, mode: entry.mode, size: entry.size, name: entry.name })
    };
    let mut tree = Tree { entries: tree.entries.into_iter().map(read).collect::<Result<_>>()? };
    tree.sort();
    Ok(tree)
}

/// An error as it travels inside an answer.
pub fn error(error: &Error) -> proto::Error {
    let named = |message: String| proto::Named { message };
    let kind = match error {
        Error::UnknownObject(digest) | Error::MissingPayload(digest) => {
            proto::ErrorKind::UnknownObject(named(digest.to_string()))
        }
        Error::UnknownReference { reference, .. } => proto::ErrorKind::UnknownReference(named(reference.clone())),
        Error::AmbiguousReference { reference, .. } => proto::ErrorKind::AmbiguousReference(named(reference.clone())),
        Error::Invalid { .. } => proto::ErrorKind::InvalidReference(named(error.to_string())),
        other => proto::ErrorKind::Other(with_causes(other)),
    };
    proto::Error { kind: Some(kind) }
}

/// The message with those of all causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// The error that travelled inside an answer of the server at `address`, asked to `action`.
pub fn read_error(error: proto::Error, address: &str, action: &str) -> Error {
    let remote = |reason: String| Error::Remote { address: address.to_owned(), action: action.to_owned(), reason };
    match error.kind {
        Some(proto::ErrorKind::UnknownObject(named)) => match named.message.parse() {
            Ok(digest) => Error::UnknownObject(digest),
            Err(_) => remote(format!("unknown object {:?}", named.message)),
        },
        Some(proto::ErrorKind::UnknownReference(named)) => Error::UnknownReference {
            reference: named.message,
            searched: vec![address.to_owned()],
            similar: Vec::new(),
        },
        Some(proto::ErrorKind::AmbiguousReference(named)) => {
            Error::AmbiguousReference { reference: named.message, candidates: Vec::new() }
        }
        Some(proto::ErrorKind::InvalidReference(named)) => remote(named.message),
        // As when a connection is lost: what is done anew, or later, may work.
        Some(proto::ErrorKind::Other(text)) if text == GONE || text == BUSY => {
            Error::Unreachable { address: address.to_owned(), trouble: NetTrouble::Lost, source: Some(text.into()) }
        }
        Some(proto::ErrorKind::Other(text)) => remote(text),
        None => remote("it did not say why".to_owned()),
    }
}
