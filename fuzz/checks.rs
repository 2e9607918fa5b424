//! What must hold for any bytes at all: one function per decoder, run by cargo-fuzz (fuzz_targets/) and, over a few
//! thousand mutations, by the ordinary tests (crates/spfs-repo/tests/mutations.rs).

use std::path::Path;

use spfs_repo::manifest::Index;
use spfs_repo::reference::Reference;
use spfs_repo::{
    Archive, Digest, DigestPrefix, Encoded, Encoding, Given, Manifest, Object, ObjectBody, Repository, TagName,
    TagSpec, codec,
};

/// A stored object: decoding never panics; what was decoded can be written again and keeps its digest.
pub fn object(bytes: &[u8]) {
    encoded(codec::decode_wire(bytes), Encoded::read(bytes.to_vec()));
    encoded(codec::decode(bytes), Encoded::read_stored(bytes.to_vec()));
    let Ok(object) = codec::decode(bytes) else { return };
    let digest = codec::digest(&object).expect("what was decoded has a digest");
    let again = codec::encode(&object).expect("what was decoded can be encoded");
    assert_eq!(codec::decode(&again).expect("what was encoded can be decoded"), object);
    for encoding in [Encoding::Legacy, Encoding::FlatBuffers] {
        let mut other = object.clone();
        other.format.encoding = encoding;
        // A layer with annotations has no legacy encoding.
        if let Ok(bytes) = codec::encode(&other) {
            let other = codec::decode(&bytes).expect("what was encoded can be decoded");
            assert_eq!(other.body, object.body);
            assert_eq!(codec::digest(&other).expect("a digest"), digest);
        }
    }
    if let ObjectBody::Manifest(manifest) = &object.body {
        walk(manifest);
    }
}

/// Bytes that are kept as they are mean what they mean taken apart, and none are kept that could not be.
fn encoded(object: spfs_repo::Result<Object>, encoded: spfs_repo::Result<Encoded>) {
    assert_eq!(object.is_ok(), encoded.is_ok(), "{object:?} {encoded:?}");
    let (Ok(object), Ok(encoded)) = (object, encoded) else { return };
    let digest = codec::digest(&object).expect("what was decoded has a digest");
    assert_eq!((encoded.digest(), encoded.kind(), encoded.format()), (digest, object.kind(), object.format));
    assert_eq!(encoded.object().expect("it is sound"), object);
    if let Ok(stored) = encoded.stored() {
        assert_eq!(codec::decode(&stored).expect("it is sound"), object);
    }
    let mut children = Vec::new();
    for given in [Given::Object(&object), Given::Encoded(&encoded)] {
        let mut found = Vec::new();
        let all = given.children(3, &mut |lot| {
            assert!(!lot.is_empty() && lot.len() <= 3);
            found.extend(lot);
            Ok(())
        });
        all.expect("nothing refuses them");
        children.push(found);
    }
    assert_eq!(children[0], children[1]);
    // A layer may name one blob several times.
    let mut seen = std::collections::HashSet::new();
    let named: Vec<Digest> = object.children().into_iter().filter(|digest| seen.insert(*digest)).collect();
    assert_eq!(children[0], named);
}

/// Every way through a manifest ends, and its nested form is stable.
fn walk(manifest: &Manifest) {
    const MANY: usize = 10_000;
    let index = Index::new(manifest);
    let mut last: Option<String> = None;
    for (path, entry) in index.paths().take(MANY) {
        assert_eq!(index.lookup(&path), Some(entry));
        let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        assert!(last.is_none_or(|last| parts(&last) < parts(&path)));
        last = Some(path);
    }
    if index.paths().take(MANY).count() < MANY
        && let Ok(dir) = manifest.to_dir()
    {
        assert_eq!(dir.count(), index.paths().count());
        assert_eq!(Manifest::from_dir(&dir).to_dir().expect("made from a directory"), dir);
    }
}

fn with_header(encoding: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = codec::MAGIC.to_vec();
    bytes.extend_from_slice(&[1, encoding, 0, 0, 0, 0, 0, kind]);
    bytes.extend_from_slice(body);
    bytes
}

/// The body of a manifest in legacy encoding.
pub fn legacy_manifest(body: &[u8]) {
    object(&with_header(0, 1, body));
}

/// The body of a manifest in FlatBuffers encoding.
pub fn flat_manifest(body: &[u8]) {
    object(&with_header(1, 1, body));
}

/// A tag stream, and a single record.
pub fn tag_stream(bytes: &[u8]) {
    if let Ok(tags) = codec::tag::decode_stream(bytes) {
        assert_eq!(codec::tag::decode_stream(&codec::tag::encode_stream(&tags)).expect("what was encoded"), tags);
    }
    if let Ok(tag) = codec::tag::decode(bytes) {
        let again = codec::tag::decode(&codec::tag::encode(&tag)).expect("what was encoded");
        assert_eq!(codec::tag::digest(&again), codec::tag::digest(&tag));
        assert_eq!(again, tag);
    }
}

/// The texts that people type: what is read prints as something that is read as the same.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(prefix) = text.parse::<DigestPrefix>() {
        assert_eq!(prefix.to_string().parse::<DigestPrefix>().expect("printed"), prefix);
    }
    if let Ok(name) = text.parse::<TagName>() {
        assert_eq!(name.to_string().parse::<TagName>().expect("printed"), name);
        assert!(!name.as_str().starts_with('/') && name.as_str().split('/').all(|part| part != ".."));
    }
    if let Ok(spec) = text.parse::<TagSpec>() {
        assert_eq!(spec.to_string().parse::<TagSpec>().expect("printed"), spec);
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().expect("printed"), reference);
    }
}

/// A tar repository, as it is and with the sums of its headers made right: whatever is opened can be read as far as it
/// claims to go.
pub fn archive(bytes: &[u8]) {
    // One for each process and thread, in memory where there is such a place.
    let directory = ["/dev/shm", "/tmp"].map(Path::new).into_iter().find(|path| path.is_dir()).expect("a directory");
    let name = format!("spfs-fuzz-{}-{:?}.tar", std::process::id(), std::thread::current().id());
    let path = directory.join(name.replace(['(', ')'], ""));
    let mut summed = bytes.to_vec();
    for header in summed.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    for bytes in [bytes, &summed] {
        std::fs::write(&path, bytes).expect("a file in memory");
        if let Ok(archive) = Archive::open(&path) {
            read_archive(&archive, bytes.len() as u64);
        }
    }
    std::fs::remove_file(&path).expect("a file in memory");
}

fn read_archive(archive: &Archive, len: u64) {
    for digest in archive.objects().expect("listed") {
        let _ = archive.read_object(&digest);
    }
    let mut sum = 0;
    for digest in archive.payloads().expect("listed") {
        let mut reader = archive.open_payload(&digest).expect("listed");
        sum += std::io::copy(&mut reader, &mut std::io::sink()).expect("all that was promised");
    }
    assert!(sum <= len, "members do not overlap");
    for name in archive.tag_names().expect("listed") {
        let _ = archive.history(&name);
    }
    archive.list_tags("").expect("listed");
}

/// One decoder's check.
pub type Check = fn(&[u8]);

/// Every check with the name of its target.
pub const ALL: [(&str, Check); 6] = [
    ("object", object),
    ("legacy_manifest", legacy_manifest),
    ("flat_manifest", flat_manifest),
    ("tag_stream", tag_stream),
    ("reference", reference),
    ("archive", archive),
];

/// The seeds: one of each kind of input, made here so that none is stored.
pub fn seeds() -> Vec<Vec<u8>> {
    use spfs_repo::{Annotation, AnnotationValue, Blob, Dir, Layer, Node, Platform, Tag};
    let payload = Digest::of(b"x");
    let file = |mode| Node::Blob { digest: payload, mode, size: 1 };
    let dir = |nodes: Vec<(&str, Node)>| Dir { entries: nodes.into_iter().map(|(n, d)| (n.to_owned(), d)).collect() };
    let below = dir(vec![("f", file(0o100644)), ("l", file(0o120777))]);
    let sub = |mode| Node::Dir { mode, dir: below.clone() };
    let root = dir(vec![
        ("a", sub(0o40755)),
        ("b", sub(0o40700)),
        ("gone", Node::Mask { mode: 0o20000 }),
        ("z", file(0o100755)),
    ]);
    let text = AnnotationValue::Text("value".to_owned());
    let annotations = vec![
        Annotation { key: "key".to_owned(), value: text },
        Annotation { key: "long".to_owned(), value: AnnotationValue::Blob(payload) },
    ];
    let objects = [
        Object::new(Manifest::from_dir(&root)),
        Object::new(Manifest::default()),
        Object::new(Layer { manifest: Some(payload), annotations }),
        Object::new(Layer { manifest: Some(payload), annotations: Vec::new() }),
        Object::new(Platform { stack: vec![payload, Digest::NULL] }),
        Object::new(Blob { payload, size: 1 }),
    ];
    let mut seeds = Vec::new();
    for mut object in objects {
        for encoding in [Encoding::Legacy, Encoding::FlatBuffers] {
            object.format.encoding = encoding;
            if let Ok(bytes) = codec::encode(&object) {
                seeds.push(bytes[codec::HEADER_LEN..].to_vec());
                seeds.push(bytes);
            }
        }
    }
    let tag = Tag {
        name: "vfx/2019".parse().expect("a tag name"),
        target: payload,
        parent: Digest::NULL,
        user: "me@host".to_owned(),
        time: "2020-01-02T03:04:05.123456Z".parse().expect("a time"),
    };
    seeds.push(codec::tag::encode(&tag));
    let stream = codec::tag::encode_stream(&[tag.clone(), tag]);
    let text = payload.to_string();
    let blob = codec::encode(&Object::new(Blob { payload, size: 1 })).expect("a blob");
    seeds.push(tar_of(&[
        ("./VERSION", b"0.44.0"),
        (&format!("./objects/{}/{}", &text[..2], &text[2..]), &blob),
        (&format!("./payloads/{}/{}", &text[..2], &text[2..]), b"x"),
        ("./tags/vfx/2019.tag", &stream),
    ]));
    seeds.push(stream);
    let texts = ["vfx/2019~3", "/a/b", "./spec.spfs.yaml", "RW", "-", ""];
    seeds.extend(texts.map(|text| text.as_bytes().to_vec()));
    seeds.push(payload.to_string().into_bytes());
    seeds
}

/// A tar file of `members`.
fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
