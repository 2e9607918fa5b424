//! The legacy encoding: the hashed body itself, written to disk.

use super::body;
use super::cursor::Cursor;
use crate::error::{Error, Result};
use crate::manifest::{Entry, EntryKind, Manifest, Tree};
use crate::object::{Blob, Kind, Layer, ObjectBody, Platform};

/// The shortest entry: digest, kind word, mode, size, a name of one letter and two NULs.
const ENTRY_MIN: usize = 32 + 5 + 8 + 8 + 2;
/// The shortest tree: its count.
const TREE_MIN: usize = 8;

/// Appends the body to `out`.
pub(super) fn encode(body: &ObjectBody, mut out: Vec<u8>) -> Result<Vec<u8>> {
    if let ObjectBody::Layer(layer) = body
        && (layer.manifest.is_none() || !layer.annotations.is_empty())
    {
        let reason = "the legacy encoding holds a manifest and nothing else; use FlatBuffers".to_owned();
        return Err(Error::Unsupported { what: "annotated layer".to_owned(), reason });
    }
    body::write(body, &mut out)?;
    Ok(out)
}

/// Reads a body of the given kind.
pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<ObjectBody> {
    let mut cursor = Cursor::new(kind.name(), bytes);
    let body = match kind {
        Kind::Blob => ObjectBody::Blob(Blob { payload: cursor.digest()?, size: cursor.u64()? }),
        Kind::Layer => ObjectBody::Layer(Layer { manifest: Some(cursor.digest()?), annotations: Vec::new() }),
        Kind::Platform => {
            let count = cursor.count(32)?;
            let mut stack = (0..count).map(|_| cursor.digest()).collect::<Result<Vec<_>>>()?;
            stack.reverse();
            ObjectBody::Platform(Platform { stack })
        }
        Kind::Manifest => {
            let mut trees = vec![tree(&mut cursor)?];
            let count = cursor.count(TREE_MIN)?;
            trees.reserve_exact(count);
            for _ in 0..count {
                trees.push(tree(&mut cursor)?);
            }
            ObjectBody::Manifest(Manifest { trees })
        }
    };
    cursor.finish()?;
    Ok(body)
}

fn tree(cursor: &mut Cursor<'_>) -> Result<Tree> {
    let count = cursor.count(ENTRY_MIN)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(entry(cursor)?);
    }
    Ok(Tree { entries })
}

fn entry(cursor: &mut Cursor<'_>) -> Result<Entry> {
    let object = cursor.digest()?;
    let kind = match cursor.cstr()? {
        "file" => EntryKind::Blob,
        "tree" => EntryKind::Tree,
        "mask" => EntryKind::Mask,
        other => return Err(cursor.corrupt(format!("{other:?} is no kind of entry"))),
    };
    let mode = cursor.u64()?;
    let mode = u32::try_from(mode).map_err(|_| cursor.corrupt(format!("{mode:o} is no file mode")))?;
    Ok(Entry { kind, object, mode, size: cursor.u64()?, name: cursor.cstr()?.to_owned() })
}
