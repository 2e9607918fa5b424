//! A directory repository from the outside: what is written where, with which modes.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spfs_repo::{Blob, Digest, Directory, Error, Layer, Manifest, Object, Platform, Repository, Tag};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn tag(name: &str, target: Digest, second: i64) -> Tag {
    Tag {
        name: name.parse().unwrap(),
        target,
        parent: Digest::NULL,
        user: "me@host".to_owned(),
        time: jiff::Timestamp::from_second(second).unwrap(),
    }
}

#[test]
fn one_file_is_stored_as_the_format_says() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path().join("repo")).unwrap();
    let root = repository.root();
    let batch = repository.begin().unwrap();
    let (payload, size) = batch.add_payload(&mut &b"hello, world\n"[..], None).unwrap();
    batch.add_object(&Object::new(Blob { payload, size })).unwrap();
    assert!(repository.payloads().unwrap().is_empty(), "nothing is visible before the end");
    batch.finish().unwrap();

    let relative = "QU/77SN3CUBW5X5ZCYTV6TXOWNWHWHXNOVF7VEHB6ZQQNU7EXMAQA====";
    assert_eq!(std::fs::read(root.join("payloads").join(relative)).unwrap(), b"hello, world\n");
    assert_eq!(repository.payload_path(&payload), root.join("payloads").join(relative));
    assert_eq!(std::fs::read(root.join("objects").join(relative)).unwrap().len(), 97);
    assert_eq!(mode(&root.join("payloads").join(relative)), 0o444);
    assert_eq!(mode(&root.join("objects").join(relative)), 0o444);
    assert_eq!(mode(&root.join("payloads/QU")), 0o755);
    assert_eq!(std::fs::read_to_string(root.join("VERSION")).unwrap(), "0.44.0");
    for work in ["payloads/work", "objects/work"] {
        assert_eq!(std::fs::read_dir(root.join(work)).unwrap().count(), 0, "{work} is left empty");
    }
}

#[test]
fn a_shared_root_makes_everything_shared() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("repo");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o2775)).unwrap();
    let repository = Directory::create(&root).unwrap();
    assert!(repository.is_shared());
    repository.push_tag(&tag("a/b", Digest::of(b""), 1)).unwrap();
    assert_eq!(mode(&root.join("objects")), 0o2777, "the set-group-id bit is inherited and kept");
    assert_eq!(mode(&root.join("tags/a")), 0o2777);
    assert_eq!(mode(&root.join("tags/a/b.tag")), 0o666);
    assert_eq!(mode(&root.join("VERSION")), 0o666);
    let private = Directory::create(place.path().join("other")).unwrap();
    private.push_tag(&tag("a/b", Digest::of(b""), 1)).unwrap();
    assert_eq!(mode(&private.root().join("tags/a")), 0o755);
    assert_eq!(mode(&private.root().join("tags/a/b.tag")), 0o644);
}

#[test]
fn only_a_repository_is_opened_and_only_of_our_version() {
    let place = tempfile::tempdir().unwrap();
    let error = Directory::open(place.path()).unwrap_err();
    assert!(error.to_string().contains("objects"), "{error}");
    assert!(Directory::open(place.path().join("nowhere")).is_err());
    std::fs::create_dir(place.path().join("objects")).unwrap();
    std::fs::create_dir(place.path().join("payloads")).unwrap();
    let bare = Directory::open(place.path()).unwrap();
    assert!(bare.tag_names().unwrap().is_empty());
    assert!(!place.path().join("VERSION").exists(), "opening writes nothing");
    std::fs::write(place.path().join("VERSION"), " 0.1.0\n").unwrap();
    Directory::create(place.path()).unwrap();
    assert_eq!(std::fs::read_to_string(place.path().join("VERSION")).unwrap(), " 0.1.0\n", "never rewritten");
    std::fs::write(place.path().join("VERSION"), "1.0.0").unwrap();
    for result in [Directory::open(place.path()), Directory::create(place.path())] {
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    }
    std::fs::write(place.path().join("VERSION"), "new").unwrap();
    assert!(matches!(Directory::open(place.path()), Err(Error::Corrupt { .. })));
}

#[test]
fn a_damaged_object_is_named_with_its_path() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let batch = repository.begin().unwrap();
    let manifest = batch.add_object(&Object::new(Manifest::default())).unwrap();
    let layer = Object::new(Layer { manifest: Some(manifest), annotations: Vec::new() });
    let layer = batch.add_object(&layer).unwrap();
    let platform = batch.add_object(&Object::new(Platform { stack: vec![layer] })).unwrap();
    batch.finish().unwrap();
    assert_eq!(repository.objects().unwrap().len(), 3);
    let replace = |digest: &Digest, bytes: &[u8]| {
        std::fs::remove_file(repository.object_path(digest)).unwrap();
        std::fs::write(repository.object_path(digest), bytes).unwrap();
    };
    let good = std::fs::read(repository.object_path(&layer)).unwrap();
    let other = std::fs::read(repository.object_path(&platform)).unwrap();
    for bytes in [&good[..good.len() - 1], &good[..10], b"", &other] {
        replace(&layer, bytes);
        let error = repository.read_object(&layer).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        let path = repository.object_path(&layer);
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
    replace(&layer, &good);
    repository.read_object(&layer).unwrap();
}

#[test]
fn the_remains_of_a_crash_are_replaced_and_good_files_are_not() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let add = |content: &[u8]| {
        let batch = repository.begin().unwrap();
        let (payload, size) = batch.add_payload(&mut &content[..], None).unwrap();
        batch.add_object(&Object::new(Blob { payload, size })).unwrap();
        batch.finish().unwrap();
        payload
    };
    let digest = add(b"content");
    let path = repository.payload_path(&digest);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(&path);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for path in [&path, &repository.object_path(&digest)] {
        std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
    add(b"content");
    assert_eq!(inode(&path), before);
    for path in [&path, &repository.object_path(&digest)] {
        let age = std::fs::metadata(path).unwrap().modified().unwrap().elapsed().unwrap();
        assert!(age.as_secs() < 60, "{} was not touched", path.display());
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"").unwrap();
    std::fs::remove_file(repository.object_path(&digest)).unwrap();
    std::fs::write(repository.object_path(&digest), b"").unwrap();
    add(b"content");
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    repository.read_object(&digest).unwrap();
}
