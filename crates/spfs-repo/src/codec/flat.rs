//! The FlatBuffers encoding: schema/spfs.fbs.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, VerifierOptions, WIPOffset};

use super::body::Item;
use super::generated as fb;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Entry, EntryKind, Manifest, Tree};
use crate::object::{Annotation, AnnotationValue, Blob, Kind, Layer, ObjectBody, Platform};

/// A FlatBuffers buffer cannot be larger: its offsets are signed numbers of 32 bits.
const MAX_LEN: usize = i32::MAX as usize;

/// How much larger than the buffer its content may be once everything shared is written out.
///
/// Writers may share equal names and tables; ours and upstream's share nothing but vtables, which makes less than 2.
const MAX_SHARING: usize = 16;

/// Appends the body to `out`.
pub(super) fn encode(body: &ObjectBody, mut out: Vec<u8>) -> Result<Vec<u8>> {
    let estimate = estimate_len(body);
    if estimate > MAX_LEN {
        let reason = "FlatBuffers hold less than 2 GiB; use the legacy encoding".to_owned();
        return Err(Error::Unsupported { what: "object of this size".to_owned(), reason });
    }
    let mut builder = FlatBufferBuilder::with_capacity(estimate);
    let (object_type, object) = match body {
        ObjectBody::Blob(blob) => (fb::Object::Blob, write_blob(&mut builder, blob)),
        ObjectBody::Manifest(manifest) => (fb::Object::Manifest, write_manifest(&mut builder, manifest)),
        ObjectBody::Layer(layer) => (fb::Object::Layer, write_layer(&mut builder, layer)),
        ObjectBody::Platform(platform) => (fb::Object::Platform, write_platform(&mut builder, platform)),
    };
    let root = fb::AnyObject::create(&mut builder, &fb::AnyObjectArgs { object_type, object: Some(object) });
    builder.finish(root, None);
    // The header goes where the builder has left room before the body: a large manifest is not copied once more.
    let (mut buffer, head) = builder.collapse();
    let Some(start) = head.checked_sub(out.len()) else {
        out.extend_from_slice(&buffer[head..]);
        return Ok(out);
    };
    buffer[start..head].copy_from_slice(&out);
    buffer.drain(..start);
    Ok(buffer)
}

/// The root, and each of the few distinct vtables once.
pub(super) const FIXED: usize = 512;
/// A tree without its entries.
pub(super) const TREE: usize = 40;

/// An entry, at most: a table of 60 bytes and padding to 8, its offset in the vector, and its name.
pub(super) fn entry_len(name: &str) -> usize {
    string_len(name).saturating_add(72)
}

/// Length, text, NUL and padding of a string.
fn string_len(text: &str) -> usize {
    text.len().saturating_add(12)
}

/// Not less than the buffer will have: the builder panics rather than grow beyond [`MAX_LEN`].
fn estimate_len(body: &ObjectBody) -> usize {
    let string = string_len;
    let sum = |lens: &mut dyn Iterator<Item = usize>| lens.fold(FIXED, usize::saturating_add);
    match body {
        ObjectBody::Blob(_) => FIXED,
        ObjectBody::Platform(platform) => platform.stack.len().saturating_mul(32).saturating_add(FIXED),
        ObjectBody::Layer(layer) => sum(&mut layer.annotations.iter().map(|a| match &a.value {
            AnnotationValue::Text(text) => string(&a.key).saturating_add(string(text)).saturating_add(64),
            AnnotationValue::Blob(_) => string(&a.key).saturating_add(96),
        })),
        ObjectBody::Manifest(manifest) => {
            let entries = manifest.trees.iter().flat_map(|tree| &tree.entries);
            let entries = sum(&mut entries.map(|e| entry_len(&e.name)));
            entries.saturating_add(manifest.trees.len().saturating_mul(TREE))
        }
    }
}

type Builder<'a> = FlatBufferBuilder<'a>;
type Union = WIPOffset<UnionWIPOffset>;

fn flat(digest: &Digest) -> fb::Digest {
    fb::Digest(*digest.as_bytes())
}

fn write_blob(builder: &mut Builder<'_>, blob: &Blob) -> Union {
    let args = fb::BlobArgs { size: blob.size, payload: Some(&flat(&blob.payload)) };
    fb::Blob::create(builder, &args).as_union_value()
}

fn write_platform(builder: &mut Builder<'_>, platform: &Platform) -> Union {
    let stack: Vec<_> = platform.stack.iter().map(flat).collect();
    let layers = Some(builder.create_vector(&stack));
    fb::Platform::create(builder, &fb::PlatformArgs { layers }).as_union_value()
}

fn write_layer(builder: &mut Builder<'_>, layer: &Layer) -> Union {
    let annotations: Vec<_> = layer.annotations.iter().map(|a| write_annotation(builder, a)).collect();
    let annotations = Some(builder.create_vector(&annotations));
    let manifest = layer.manifest.as_ref().map(flat);
    fb::Layer::create(builder, &fb::LayerArgs { manifest: manifest.as_ref(), annotations }).as_union_value()
}

fn write_annotation<'a>(builder: &mut Builder<'a>, annotation: &Annotation) -> WIPOffset<fb::Annotation<'a>> {
    let key = Some(builder.create_string(&annotation.key));
    let (data_type, data) = match &annotation.value {
        AnnotationValue::Text(text) => {
            let data = Some(builder.create_string(text));
            let table = fb::AnnotationString::create(builder, &fb::AnnotationStringArgs { data });
            (fb::AnnotationValue::AnnotationString, table.as_union_value())
        }
        AnnotationValue::Blob(digest) => {
            let args = fb::AnnotationDigestArgs { digest: Some(&flat(digest)) };
            let table = fb::AnnotationDigest::create(builder, &args);
            (fb::AnnotationValue::AnnotationDigest, table.as_union_value())
        }
    };
    fb::Annotation::create(builder, &fb::AnnotationArgs { key, data_type, data: Some(data) })
}

fn write_manifest(builder: &mut Builder<'_>, manifest: &Manifest) -> Union {
    let mut trees = Vec::with_capacity(manifest.trees.len());
    for tree in &manifest.trees {
        let mut entries: Vec<&Entry> = tree.entries.iter().collect();
        entries.sort_by(|a, b| a.stored_order(b));
        let entries: Vec<_> = entries.into_iter().map(|entry| write_entry(builder, entry)).collect();
        let entries = Some(builder.create_vector(&entries));
        trees.push(fb::Tree::create(builder, &fb::TreeArgs { entries }));
    }
    let trees = Some(builder.create_vector(&trees));
    fb::Manifest::create(builder, &fb::ManifestArgs { trees }).as_union_value()
}

fn write_entry<'a>(builder: &mut Builder<'a>, entry: &Entry) -> WIPOffset<fb::Entry<'a>> {
    let kind = fb::EntryKind(entry.kind as u8);
    let name = Some(builder.create_string(&entry.name));
    let object = flat(&entry.object);
    fb::Entry::create(builder, &fb::EntryArgs { kind, object: Some(&object), mode: entry.mode, size: entry.size, name })
}

/// Verifies a buffer, whose content may then be read where it lies; errors name it as a `kind`.
pub(super) fn root(kind: Kind, bytes: &[u8]) -> Result<fb::AnyObject<'_>> {
    let corrupt = |reason: String| Error::corrupt(kind.name(), reason);
    // Everything is bounded by the length: the smallest table is referred to by four bytes, and tables and texts that
    // are used twice count twice.
    let options = VerifierOptions {
        max_tables: bytes.len() / 4 + 16,
        max_apparent_size: bytes.len().saturating_mul(MAX_SHARING).saturating_add(4096),
        ..VerifierOptions::default()
    };
    fb::root_as_any_object_with_opts(&options, bytes).map_err(|e| {
        // The lines behind the first one trace the verifier's way through the tables.
        let text = e.to_string();
        corrupt(format!(
            "not a sound FlatBuffers buffer: {}",
            text.lines().next().unwrap_or_default().trim_end_matches('.')
        ))
    })
}

/// Reads a body, which must be of the kind that the header says.
pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<ObjectBody> {
    let root = root(kind, bytes)?;
    let disagree = || {
        let reason = format!("its header says {kind}, its content is {:?}", root.object_type());
        Error::corrupt(kind.name(), reason)
    };
    match kind {
        Kind::Blob => {
            let blob = root.object_as_blob().ok_or_else(disagree)?;
            Ok(ObjectBody::Blob(Blob { payload: plain(blob.payload()), size: blob.size() }))
        }
        Kind::Manifest => read_manifest(root.object_as_manifest().ok_or_else(disagree)?).map(ObjectBody::Manifest),
        Kind::Layer => read_layer(root.object_as_layer().ok_or_else(disagree)?).map(ObjectBody::Layer),
        Kind::Platform => {
            let platform = root.object_as_platform().ok_or_else(disagree)?;
            Ok(ObjectBody::Platform(Platform { stack: platform.layers().iter().map(plain).collect() }))
        }
    }
}

fn plain(digest: &fb::Digest) -> Digest {
    Digest::from_bytes(digest.0)
}

fn read_layer(layer: fb::Layer<'_>) -> Result<Layer> {
    let annotations = layer.annotations().iter().map(read_annotation).collect::<Result<_>>()?;
    Ok(Layer { manifest: layer.manifest().map(plain), annotations })
}

fn read_annotation(annotation: fb::Annotation<'_>) -> Result<Annotation> {
    let value = if let Some(text) = annotation.data_as_annotation_string() {
        AnnotationValue::Text(text.data().unwrap_or_default().to_owned())
    } else if let Some(blob) = annotation.data_as_annotation_digest() {
        let digest = blob
            .digest()
            .ok_or_else(|| Error::corrupt("layer", format!("the annotation {:?} names no blob", annotation.key())))?;
        AnnotationValue::Blob(plain(digest))
    } else {
        let reason = format!("a value of type {} is not known to this version", annotation.data_type().0);
        return Err(Error::Unsupported { what: format!("annotation {:?}", annotation.key()), reason });
    };
    Ok(Annotation { key: annotation.key().to_owned(), value })
}

fn read_manifest(manifest: fb::Manifest<'_>) -> Result<Manifest> {
    let mut trees = Vec::with_capacity(manifest.trees().len());
    for tree in manifest.trees() {
        let mut entries = Vec::with_capacity(tree.entries().len());
        for entry in tree.entries() {
            entries.push(read_entry(entry)?);
        }
        trees.push(Tree { entries });
    }
    Ok(Manifest { trees })
}

fn read_entry(entry: fb::Entry<'_>) -> Result<Entry> {
    let Item { kind, object, mode, size, name } = item(entry)?;
    Ok(Entry { kind, object: Digest::from_bytes(*object), mode, size, name: name.to_owned() })
}

/// An entry where it lies.
pub(super) fn item(entry: fb::Entry<'_>) -> Result<Item<'_>> {
    let kind = match entry.kind() {
        fb::EntryKind::Blob => EntryKind::Blob,
        fb::EntryKind::Tree => EntryKind::Tree,
        fb::EntryKind::Mask => EntryKind::Mask,
        fb::EntryKind(n) => {
            let reason = format!("an entry of kind {n} is not known to this version");
            return Err(Error::Unsupported { what: format!("entry {:?}", entry.name()), reason });
        }
    };
    Ok(Item { kind, object: &entry.object().0, mode: entry.mode(), size: entry.size(), name: entry.name() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest of `trees` references to one tree of `entries` references to one entry, as a buffer.
    fn shared(trees: usize, entries: usize, kind: u8) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let entry = Entry { kind: EntryKind::Blob, object: Digest::NULL, mode: 0, size: 0, name: "a".to_owned() };
        let mut one = write_entry(&mut builder, &entry);
        if kind != 0 {
            let (name, object) = (Some(builder.create_string("a")), flat(&Digest::NULL));
            let args = fb::EntryArgs { kind: fb::EntryKind(kind), object: Some(&object), mode: 0, size: 0, name };
            one = fb::Entry::create(&mut builder, &args);
        }
        let entries = Some(builder.create_vector(&vec![one; entries]));
        let tree = fb::Tree::create(&mut builder, &fb::TreeArgs { entries });
        let trees = Some(builder.create_vector(&vec![tree; trees]));
        let object = Some(fb::Manifest::create(&mut builder, &fb::ManifestArgs { trees }).as_union_value());
        let args = fb::AnyObjectArgs { object_type: fb::Object::Manifest, object };
        let root = fb::AnyObject::create(&mut builder, &args);
        builder.finish(root, None);
        builder.finished_data().to_vec()
    }

    /// 16 KB that claim four million entries, which would be half a gigabyte.
    #[test]
    fn shared_tables_do_not_multiply() {
        let bytes = shared(2000, 2000, 0);
        assert!(bytes.len() < 20_000);
        assert!(matches!(decode(Kind::Manifest, &bytes), Err(Error::Corrupt { .. })));
        // A little sharing is allowed.
        assert!(decode(Kind::Manifest, &shared(2, 1, 0)).is_ok());
    }

    #[test]
    fn later_kinds_of_entries_are_said_to_be_unknown() {
        let error = decode(Kind::Manifest, &shared(1, 1, 7)).map(drop);
        assert!(matches!(&error, Err(Error::Unsupported { reason, .. }) if reason.contains('7')), "{error:?}");
    }

    #[test]
    fn header_and_union_must_agree() {
        for kind in [Kind::Blob, Kind::Layer, Kind::Platform] {
            let error = decode(kind, &shared(1, 1, 0)).map(drop);
            assert!(matches!(&error, Err(Error::Corrupt { reason, .. }) if reason.contains("Manifest")), "{error:?}");
        }
    }

    #[test]
    fn annotations_of_unknown_or_missing_value() {
        for (number, data_type) in [(0, fb::AnnotationValue::NONE), (9, fb::AnnotationValue(9))] {
            let mut builder = FlatBufferBuilder::new();
            let key = Some(builder.create_string("k"));
            let text = fb::AnnotationString::create(&mut builder, &fb::AnnotationStringArgs { data: None });
            let args = fb::AnnotationArgs { key, data_type, data: Some(text.as_union_value()) };
            let annotation = fb::Annotation::create(&mut builder, &args);
            let annotations = Some(builder.create_vector(&[annotation]));
            let layer = fb::Layer::create(&mut builder, &fb::LayerArgs { manifest: None, annotations });
            let object = Some(layer.as_union_value());
            let args = fb::AnyObjectArgs { object_type: fb::Object::Layer, object };
            let root = fb::AnyObject::create(&mut builder, &args);
            builder.finish(root, None);
            let error = decode(Kind::Layer, builder.finished_data()).map(drop);
            assert!(error.is_err(), "type {number}");
        }
    }

    /// The builder panics when it must grow beyond 2 GiB, so the estimate may never be too low.
    #[test]
    fn estimate_is_an_upper_bound() {
        let name = |n: usize| Entry {
            kind: if n.is_multiple_of(3) { EntryKind::Mask } else { EntryKind::Blob },
            object: Digest::NULL,
            mode: (n % 2) as u32,
            size: (n % 5) as u64,
            name: "x".repeat(1 + n % 9) + &n.to_string(),
        };
        for count in [0, 1, 7, 1000] {
            let tree = Tree { entries: (0..count).map(name).collect() };
            let annotation = |n: usize| Annotation {
                key: "k".repeat(n % 7),
                value: if n.is_multiple_of(2) {
                    AnnotationValue::Text("v".repeat(n % 5))
                } else {
                    AnnotationValue::Blob(Digest::NULL)
                },
            };
            let bodies = [
                ObjectBody::Manifest(Manifest { trees: vec![tree; 3] }),
                ObjectBody::Manifest(Manifest { trees: vec![Tree::default(); count] }),
                ObjectBody::Layer(Layer { manifest: None, annotations: (0..count).map(annotation).collect() }),
                ObjectBody::Platform(Platform { stack: vec![Digest::NULL; count] }),
                ObjectBody::Blob(Blob { payload: Digest::NULL, size: u64::MAX }),
            ];
            for body in bodies {
                let len = encode(&body, Vec::new()).map(|bytes| bytes.len());
                assert!(len.is_ok_and(|len| len <= estimate_len(&body)), "{count}");
            }
        }
    }
}
