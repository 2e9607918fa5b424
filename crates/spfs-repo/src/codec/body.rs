//! The hashed bodies: the one canonical form of every object, which its digest is made of.

use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::manifest::{Entry, EntryKind, Tree};
use crate::object::{Annotation, AnnotationValue, ObjectBody};

/// Takes bytes in order: a buffer, or a hasher.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for Hasher {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

/// The number of a text annotation's value in a hashed body.
const VALUE_TEXT: u8 = 1;
/// The number of a blob annotation's value in a hashed body.
const VALUE_BLOB: u8 = 2;

/// Writes the hashed body. A blob has none that is hashed; its legacy encoding stands in.
pub(super) fn write(body: &ObjectBody, sink: &mut impl Sink) -> Result<()> {
    match body {
        ObjectBody::Blob(blob) => {
            sink.put(blob.payload.as_bytes());
            put_u64(sink, blob.size);
        }
        ObjectBody::Manifest(manifest) => {
            let Some((root, others)) = manifest.trees.split_first() else {
                return Err(Error::corrupt("manifest", "it has no root tree"));
            };
            put_tree_checked(sink, root)?;
            put_u64(sink, others.len() as u64);
            others.iter().try_for_each(|tree| put_tree_checked(sink, tree))?;
        }
        ObjectBody::Layer(layer) => {
            if layer.manifest.is_none() && layer.annotations.is_empty() {
                return Err(Error::corrupt("layer", "it has neither a manifest nor an annotation"));
            }
            layer.manifest.iter().for_each(|digest| sink.put(digest.as_bytes()));
            layer.annotations.iter().try_for_each(|annotation| put_annotation(sink, annotation))?;
        }
        ObjectBody::Platform(platform) => {
            put_u64(sink, platform.stack.len() as u64);
            platform.stack.iter().rev().for_each(|digest| sink.put(digest.as_bytes()));
        }
    }
    Ok(())
}

pub(super) fn put_u64(sink: &mut impl Sink, number: u64) {
    sink.put(&number.to_be_bytes());
}

fn put_cstr(sink: &mut impl Sink, text: &str) {
    sink.put(text.as_bytes());
    sink.put(&[0]);
}

fn put_annotation(sink: &mut impl Sink, annotation: &Annotation) -> Result<()> {
    let mut put_checked = |what: &str, text: &str, then: &[u8]| {
        if text.contains('\0') {
            return Err(Error::corrupt("layer", format!("NUL in {what} {text:?}")));
        }
        put_cstr(sink, text);
        sink.put(then);
        Ok(())
    };
    match &annotation.value {
        AnnotationValue::Text(text) => {
            put_checked("the annotation key", &annotation.key, &[VALUE_TEXT])?;
            put_checked("the annotation text", text, &[])
        }
        AnnotationValue::Blob(digest) => {
            put_checked("the annotation key", &annotation.key, &[VALUE_BLOB])?;
            sink.put(digest.as_bytes());
            Ok(())
        }
    }
}

fn put_tree_checked(sink: &mut impl Sink, tree: &Tree) -> Result<()> {
    if let Some(entry) = tree.entries.iter().find(|e| e.name.contains('\0')) {
        return Err(Error::corrupt("manifest", format!("NUL in the name {:?}", entry.name)));
    }
    put_tree(sink, tree);
    Ok(())
}

fn put_tree(sink: &mut impl Sink, tree: &Tree) {
    put_u64(sink, tree.entries.len() as u64);
    // In stored order this is the merge of two sorted runs, which the standard sort does in one pass.
    let mut entries: Vec<&Entry> = tree.entries.iter().collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.iter().for_each(|entry| put_entry(sink, entry));
}

fn put_entry(sink: &mut impl Sink, entry: &Entry) {
    put_item(sink, &Item::of(entry));
}

/// One name in a directory, wherever it lies.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub kind: EntryKind,
    pub object: &'a [u8; 32],
    pub mode: u32,
    pub size: u64,
    pub name: &'a str,
}

impl<'a> Item<'a> {
    /// That of an entry.
    pub(super) fn of(entry: &'a Entry) -> Self {
        let Entry { kind, object, mode, size, name } = entry;
        Item { kind: *kind, object: object.as_bytes(), mode: *mode, size: *size, name }
    }
}

/// Writes the hashed form of one name.
pub(super) fn put_item(sink: &mut impl Sink, item: &Item<'_>) {
    sink.put(item.object);
    put_cstr(sink, kind_text(item.kind));
    put_u64(sink, item.mode.into());
    put_u64(sink, item.size);
    put_cstr(sink, item.name);
}

/// The word for a kind of entry in hashed bodies.
pub(super) fn kind_text(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Blob => "file",
        EntryKind::Tree => "tree",
        EntryKind::Mask => "mask",
    }
}

/// The digest of a directory: the plain SHA-256 of its body, under every strategy.
pub(crate) fn tree_digest(tree: &Tree) -> Digest {
    let mut hasher = Hasher::new();
    put_tree(&mut hasher, tree);
    hasher.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: EntryKind, mode: u32, size: u64, object: &str) -> Entry {
        Entry { kind, object: object.parse().unwrap(), mode, size, name: name.to_owned() }
    }

    /// The compatibility vectors of section 5: old data with a size on a directory.
    #[test]
    fn digests_of_old_entries() {
        let digest = |e: &Entry| {
            let mut hasher = Hasher::new();
            put_entry(&mut hasher, e);
            hasher.finish().to_string()
        };
        let object = "K53HFSBQEYR4SVFIDUGT63IE233MAMVKBQFXLA7M6HCR2AEMKIJQ====";
        let case = entry("testcase", EntryKind::Tree, 0o40755, 36, object);
        assert_eq!(digest(&case), "VTTVI5AZULVVVIWRQMWKJ67TUAGWIECAS2GVTA7Q2QINS4XK4HQQ====");
        let object = "ZD25L3AN5E3LTZ6MDQOIZUV6KRV5Y4SSXRE4YMYZJJ3PXCQ3FMQA====";
        let case = entry("swig_full_names.xsl", EntryKind::Blob, 0o100644, 3293, object);
        assert_eq!(digest(&case), "GP7DYE22DYLH3I5MB33PW5Z3AZXZIBGOND7MX65KECBMHVMXBUHQ====");
        let object = "CLWYXZVIKLJ2YUQC32ZLMZGDCVUOL577YAMRABDTZYTJNU6O6SYA====";
        let tree = Tree { entries: vec![entry("pkg", EntryKind::Tree, 0o40755, 1, object)] };
        assert_eq!(tree.digest().to_string(), "CHDST3RTAIOJWFBV3OXFB2QZ4U5FTCCJIZXPEQJFCESZMIFZSPTA====");
    }
}
