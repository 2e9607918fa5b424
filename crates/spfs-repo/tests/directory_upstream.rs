//! Repositories as the existing program writes them, made by hand of the format's golden bytes, and the other way
//! round: what ours writes, byte by byte.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spfs_repo::{Blob, Digest, DigestPrefix, Directory, Error, Layer, Object, ObjectBody, Platform, TagListing};
use spfs_repo::{Encoding, Format, Repository, Strategy, Tag};

const BLOB: &str = "QU77SN3CUBW5X5ZCYTV6TXOWNWHWHXNOVF7VEHB6ZQQNU7EXMAQA====";
const MANIFEST: &str = "MIGFM6A22JC7UMNY4S5XGKQC4HICNB357XWHJD3FEVMCDQ5D3SVQ====";
const LAYER: &str = "L2LZ3UZA6YJUHCGLQVRRW34OTW55XT6TWZ5LJGYGZ5XMH52HZ3XA====";
const PLATFORM: &str = "UWMHXJPPKKM25DDYGWCMDYYKUNIAWZAJ3YBIAFCC3KAM7FOCFOTQ====";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn put(path: &Path, content: &[u8], mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn store(root: &Path, store: &str, digest: &str, content: &[u8]) {
    put(&root.join(store).join(&digest[..2]).join(&digest[2..]), content, 0o666);
}

/// A repository of upstream's with the golden file F1: blob and layer in FlatBuffers, the rest in legacy encoding.
fn upstream(root: &Path) {
    let blob = "853ff93762a06ddbf722c4ebe9ddd66d8f63ddaea97f521c3ecc20da7c976020";
    let manifest = "620c56781ad245fa31b8e4bb732a02e1d026877dfdec748f65255821c3a3dcab";
    let layer = "5e979dd320f6134388cb85631b6f8e9dbbdbcfd3b67ab49b06cf6ec3f747ceee";
    store(root, "payloads", BLOB, b"hello, world\n");
    let blob_object = format!(
        "2d2d535046532d2d0a 01 01 0000000000 00 10000000 00000000 0800 0c00 0700 0800 08000000 000000 04 0c000000
         0800 2c00 2400 0400 08000000 {blob} 0d00000000000000"
    );
    let manifest_object = format!(
        "2d2d535046532d2d0a 01 00 0000000000 01 0000000000000001 {blob} 66696c6500 00000000000081a4 000000000000000d
         6d6573736167652e74787400 0000000000000000"
    );
    let layer_object = format!(
        "2d2d535046532d2d0a 01 01 0000000000 02 0c000000 0800 0c00 0700 0800 08000000 000000 02 0c000000
         0800 2800 0400 2400 08000000 {manifest} 04000000 00000000"
    );
    let platform_object = format!("2d2d535046532d2d0a 01 00 0000000000 03 0000000000000001 {layer}");
    store(root, "objects", BLOB, &bytes(&blob_object));
    store(root, "objects", MANIFEST, &bytes(&manifest_object));
    store(root, "objects", LAYER, &bytes(&layer_object));
    store(root, "objects", PLATFORM, &bytes(&platform_object));
    put(&root.join("VERSION"), b"0.44.0", 0o666);
    for directory in ["objects/work", "payloads/work", "renders/me/proxy", "objects", "payloads"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
        std::fs::set_permissions(root.join(directory), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    put(&root.join("tags/vfx/2019.tag"), &golden_stream(), 0o666);
    put(&root.join("tags/space#ns/other.tag"), &golden_stream(), 0o666);
}

/// The stream of the format's worked example: two records.
fn golden_stream() -> Vec<u8> {
    let record = |target: &str, time: &str, parent: &str| {
        let mut record = b"vfx\x002019\x00".to_vec();
        record.extend(target.parse::<Digest>().unwrap().as_bytes());
        record.extend(b"me@host\x00");
        record.extend(time.as_bytes());
        record.push(0);
        record.extend(parent.parse::<Digest>().unwrap().as_bytes());
        [&(record.len() as u64).to_be_bytes()[..], &record].concat()
    };
    let null = Digest::NULL.to_string();
    let first = record(&null, "2020-01-02T03:04:05.123456+00:00", &null);
    let empty = "4OYMIQUY7QOBJGX36TEJS35ZEQT24QPEMSNZGTFESWMRW6CSXBKQ====";
    let parent = "ZUMNUYKC6PVPXLCIQBJEP4AOHU7XZUHI3JEOXL3CZKAHENLFNAFQ====";
    [first, record(empty, "2020-01-02T03:04:06+00:00", parent)].concat()
}

fn tag(target: Digest, time: &str) -> Tag {
    let name = "vfx/2019".parse().unwrap();
    Tag { name, target, parent: Digest::NULL, user: "me@host".to_owned(), time: time.parse().unwrap() }
}

#[test]
fn a_repository_of_upstream_is_read() {
    let place = tempfile::tempdir().unwrap();
    upstream(place.path());
    let repository = Directory::open(place.path()).unwrap();
    let object = |text: &str| repository.read_object(&text.parse().unwrap()).unwrap();
    let (blob, manifest, layer) = (BLOB.parse().unwrap(), MANIFEST.parse().unwrap(), LAYER.parse().unwrap());
    assert_eq!(object(BLOB).body, ObjectBody::Blob(Blob { payload: blob, size: 13 }));
    assert_eq!(object(LAYER).body, ObjectBody::Layer(Layer { manifest: Some(manifest), annotations: Vec::new() }));
    assert_eq!(object(PLATFORM).body, ObjectBody::Platform(Platform { stack: vec![layer] }));
    let format = Format { strategy: Strategy::WithKindAndSalt, encoding: Encoding::Legacy };
    assert_eq!(object(MANIFEST).format, format);
    assert_eq!(object(MANIFEST).children(), [blob]);
    let name = "vfx/2019".parse().unwrap();
    assert_eq!(repository.history(&name).unwrap().len(), 2);
    assert_eq!(repository.tag_names().unwrap(), [name]);
    let listed = [TagListing::Folder("vfx".to_owned()), TagListing::Namespace("space".to_owned())];
    assert_eq!(repository.list_tags("").unwrap(), listed);
    let inner = repository.clone().with_namespace(Some("space")).unwrap();
    assert_eq!(inner.list_tags("/").unwrap(), [TagListing::Tag("other".to_owned())]);
    assert_eq!(inner.history(&"other".parse().unwrap()).unwrap().len(), 2);
    for bad in ["", "a/b", "..", ".", "a#ns"] {
        assert!(repository.clone().with_namespace(Some(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn what_is_no_digest_is_passed_over() {
    let place = tempfile::tempdir().unwrap();
    upstream(place.path());
    for name in ["objects/work/1b2f0c52", "objects/proxy/x", "objects/QU/abc", "objects/readme", "objects/ab/c"] {
        put(&place.path().join(name), b"x", 0o666);
    }
    put(&place.path().join("objects").join(&BLOB[..2]).join(format!("{}.completed", &BLOB[2..])), b"", 0o666);
    let repository = Directory::open(place.path()).unwrap();
    let mut expected: Vec<Digest> = [BLOB, MANIFEST, LAYER, PLATFORM].iter().map(|d| d.parse().unwrap()).collect();
    expected.sort();
    assert_eq!(repository.find(&DigestPrefix::any()).unwrap(), expected);
    assert_eq!(repository.payloads().unwrap(), [BLOB.parse().unwrap()]);
}

#[test]
fn tags_are_written_as_upstream_writes_them() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let path = place.path().join("tags/vfx/2019.tag");
    // What upstream would append to, and an old lock of its own.
    put(&place.path().join("tags/vfx/2019.tag.work"), b"stale", 0o666);
    put(&place.path().join("tags/vfx/2019.tag.lock"), b"", 0o644);
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(90);
    std::fs::File::open(place.path().join("tags/vfx/2019.tag.lock")).unwrap().set_modified(then).unwrap();
    repository.push_tag(&tag(Digest::NULL, "2020-01-02T03:04:05.123456Z")).unwrap();
    repository.push_tag(&tag(Digest::of(b""), "2020-01-02T03:04:06Z")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), golden_stream());
    assert_eq!(std::fs::read_dir(place.path().join("tags/vfx")).unwrap().count(), 1, "neither lock nor work file");
}

#[test]
fn a_renamed_stream_keeps_its_records() {
    let place = tempfile::tempdir().unwrap();
    upstream(place.path());
    let tags = place.path().join("tags");
    std::fs::rename(tags.join("vfx/2019.tag"), tags.join("vfx/2020.tag")).unwrap();
    let repository = Directory::open(place.path()).unwrap();
    let renamed = "vfx/2020".parse().unwrap();
    assert_eq!(repository.history(&renamed).unwrap()[0].name.as_str(), "vfx/2019");
    let next = Tag { name: renamed.clone(), ..tag(Digest::of(b"next"), "2021-01-01T00:00:00Z") };
    repository.push_tag(&next).unwrap();
    assert_eq!(repository.history(&renamed).unwrap().len(), 3);
}

#[test]
fn a_damaged_stream_is_named_and_never_overwritten() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let whole = golden_stream();
    let path = place.path().join("tags/vfx/2019.tag");
    let name = "vfx/2019".parse().unwrap();
    for length in [1, 8, 60, whole.len() - 1] {
        put(&path, &whole[..length], 0o666);
        let new = tag(Digest::of(b"new"), "2022-01-01T00:00:00Z");
        for result in [
            repository.history(&name).map(|_| ()),
            repository.push_tag(&new).map(|_| ()),
            repository.insert_tag(&new),
            repository.remove_tag(&new),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains("tags/vfx/2019.tag"), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), &whole[..length]);
        assert_eq!(std::fs::read_dir(place.path().join("tags/vfx")).unwrap().count(), 1, "no lock is left");
    }
    put(&path, b"", 0o666);
    assert_eq!(repository.history(&name).unwrap(), [], "an empty file is an empty stream");
    assert_eq!(repository.tag_names().unwrap(), []);
    put(&path, &whole[..9], 0o666);
    repository.remove_tag_stream(&name).unwrap();
    assert!(!path.exists(), "even a damaged stream can be removed");
}

#[test]
fn an_object_keeps_its_format() {
    let place = tempfile::tempdir().unwrap();
    upstream(&place.path().join("a"));
    let from = Directory::open(place.path().join("a")).unwrap();
    let to = Directory::create(place.path().join("b")).unwrap();
    let batch = to.begin().unwrap();
    let blob: Digest = BLOB.parse().unwrap();
    batch.add_payload(&mut from.open_payload(&blob).unwrap(), Some(&blob)).unwrap();
    for text in [BLOB, MANIFEST, LAYER, PLATFORM] {
        let object: Object = from.read_object(&text.parse().unwrap()).unwrap();
        assert_eq!(batch.add_object(&object).unwrap().to_string(), text);
    }
    batch.finish().unwrap();
    let manifest: Digest = MANIFEST.parse().unwrap();
    let read = |repository: &Directory| std::fs::read(repository.object_path(&manifest)).unwrap();
    assert_eq!(read(&from), read(&to), "the legacy encoding has one form only");
}
