//! Tests of the archive repository: what `tar` makes of it, two writers, hostile and damaged archives.
#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use jiff::Timestamp;

use super::*;
use crate::directory::Directory;
use crate::manifest::{Dir, Manifest, Node};
use crate::object::{Blob, Layer};

fn tag(name: &str, target: &[u8], second: i64) -> Tag {
    let time = Timestamp::from_second(second).unwrap();
    let target = Digest::of(target);
    Tag { name: name.parse().unwrap(), target, parent: Digest::NULL, user: "me@host".to_owned(), time }
}

fn add(repository: &dyn Repository, content: &[u8]) -> Digest {
    let batch = repository.begin().unwrap();
    let mut reader = content;
    let (payload, size) = batch.add_payload(&mut reader, None).unwrap();
    batch.add_object(&Object::new(Blob { payload, size })).unwrap();
    batch.finish().unwrap();
    payload
}

/// Stores a layer with one file.
fn add_layer(repository: &dyn Repository, content: &[u8]) -> Digest {
    let digest = add(repository, content);
    let size = content.len() as u64;
    let dir = Dir { entries: [("file".to_owned(), Node::Blob { digest, mode: 0o100644, size })].into() };
    let batch = repository.begin().unwrap();
    let manifest = batch.add_object(&Object::new(Manifest::from_dir(&dir))).unwrap();
    let layer = batch.add_object(&Object::new(Layer { manifest: Some(manifest), annotations: Vec::new() })).unwrap();
    batch.finish().unwrap();
    layer
}

fn read(repository: &dyn Repository, digest: &Digest) -> Vec<u8> {
    let mut content = Vec::new();
    repository.open_payload(digest).unwrap().read_to_end(&mut content).unwrap();
    content
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn conforms(namespace: Option<&str>) {
    let place = tempfile::tempdir().unwrap();
    let mut count = 0;
    crate::conformance::run(&mut || {
        count += 1;
        let path = place.path().join(format!("{count}/some.tar"));
        Box::new(Archive::create(path).unwrap().with_namespace(namespace).unwrap())
    });
    for n in 1..=count {
        assert_eq!(names(&place.path().join(n.to_string())), ["some.tar"], "nothing is left beside it");
    }
}

#[test]
fn an_archive_conforms() {
    conforms(None);
}

#[test]
fn an_archive_with_a_namespace_conforms() {
    conforms(Some("space"));
}

#[test]
fn it_is_what_tar_makes_and_unpacks() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let directory = Directory::create(at("directory")).unwrap();
    let long = format!("{}/{}/tag", "long".repeat(30), "name".repeat(30));
    let layer = add_layer(&directory, b"from a directory");
    directory.push_tag(&tag("o/t", b"1", 10)).unwrap();
    directory.push_tag(&tag(&long, b"1", 10)).unwrap();
    std::fs::create_dir_all(at("directory/renders/me/work")).unwrap();
    std::fs::write(at("directory/renders/me/file"), "rendered").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("directory/renders/me/link")).unwrap();
    std::fs::write(at("directory/payloads/work/other"), "half").unwrap();
    for (n, format) in ["gnu", "pax"].iter().enumerate() {
        let (path, unpacked) = (at(&format!("{n}.tar")), at(&format!("unpacked{n}")));
        let (path_text, unpacked_text) = (path.to_str().unwrap(), unpacked.to_str().unwrap());
        run("tar", &["-C", at("directory").to_str().unwrap(), "--format", format, "-cf", path_text, "."]);
        let before = std::fs::metadata(&path).unwrap();
        let archive = Archive::open(&path).unwrap();
        assert_eq!(archive.objects().unwrap(), directory.objects().unwrap());
        assert_eq!(archive.payloads().unwrap(), directory.payloads().unwrap());
        assert_eq!(archive.read_object(&layer).unwrap(), directory.read_object(&layer).unwrap());
        assert_eq!(read(&archive, &Digest::of(b"from a directory")), b"from a directory");
        assert_eq!(archive.tag_names().unwrap(), directory.tag_names().unwrap());
        assert_eq!(archive.history(&long.parse().unwrap()).unwrap().len(), 1);
        // What is there already changes nothing.
        add_layer(&archive, b"from a directory");
        archive.push_tag(&tag("o/t", b"1", 20)).unwrap();
        assert_eq!(Stamp::of(&before), Stamp::of(&std::fs::metadata(&path).unwrap()), "reading writes nothing");

        let layer = add_layer(&archive, &[7; 400_000]);
        archive.push_tag(&tag(&long, b"2", 20)).unwrap();
        archive.push_tag(&tag("o/t", b"2", 20)).unwrap();
        assert!(run("tar", &["-tf", path_text]).contains("./renders/me/link"), "what is not ours stays");
        std::fs::create_dir(&unpacked).unwrap();
        run("tar", &["-C", unpacked_text, "-xf", path_text]);
        let unpacked = Directory::open(&unpacked).unwrap();
        assert_eq!(unpacked.objects().unwrap(), archive.objects().unwrap());
        assert_eq!(unpacked.payloads().unwrap(), archive.payloads().unwrap());
        unpacked.read_object(&layer).unwrap();
        for name in unpacked.tag_names().unwrap() {
            assert_eq!(unpacked.history(&name).unwrap(), archive.history(&name).unwrap());
            assert_eq!(unpacked.history(&name).unwrap().len(), 2);
        }
        let mode = unpacked.payload_path(&Digest::of(&[7; 400_000])).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }
}

#[test]
fn a_new_one_is_a_repository_when_it_is_unpacked() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("new/deep/it.tar");
    assert!(matches!(Archive::open(&path), Err(Error::Io { .. })), "only create makes one");
    let archive = Archive::create(&path).unwrap();
    assert_eq!(archive.address(), format!("tar://{}", path.canonicalize().unwrap().display()));
    Archive::create(&path).unwrap();
    let to = place.path().join("to");
    std::fs::create_dir(&to).unwrap();
    run("tar", &["-C", to.to_str().unwrap(), "-xf", path.to_str().unwrap()]);
    assert_eq!(names(&to), ["VERSION", "objects", "payloads", "tags"]);
    assert_eq!(std::fs::read_to_string(to.join("VERSION")).unwrap(), VERSION);
    // An empty file is what upstream leaves when nothing was written.
    std::fs::write(&path, "").unwrap();
    let archive = Archive::open(&path).unwrap();
    assert_eq!(archive.payloads().unwrap(), []);
    let digest = add(&archive, b"x");
    assert_eq!(read(&Archive::open(&path).unwrap(), &digest), b"x");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    add(&archive, b"y");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640, "the mode is kept");
}

#[test]
fn two_that_write_lose_nothing_and_see_each_other() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("it.tar");
    Archive::create(&path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let archive = Archive::open(path).unwrap();
                for n in 0..6 {
                    let layer = add_layer(&archive, format!("{thread} {n}").as_bytes());
                    add_layer(&archive, format!("all {n}").as_bytes());
                    archive.push_tag(&tag("shared", layer.as_bytes(), n)).unwrap();
                }
            });
        }
    });
    let archive = Archive::open(&path).unwrap();
    let objects = archive.objects().unwrap();
    assert_eq!(objects.len(), (4 * 6 + 6) * 3);
    for digest in objects {
        assert_eq!(archive.missing(&archive.read_object(&digest).unwrap().children()).unwrap(), []);
    }
    assert_eq!(archive.history(&"shared".parse().unwrap()).unwrap().len(), 24);
    assert_eq!(names(place.path()), ["it.tar"]);
}

#[test]
fn many_tags_are_one_rewrite() {
    let place = tempfile::tempdir().unwrap();
    let archive = Archive::create(place.path().join("it.tar")).unwrap();
    archive.push_tag(&tag("a", b"2", 20)).unwrap();
    let tags = [tag("a", b"1", 10), tag("b", b"1", 10), tag("a", b"3", 30), tag("a", b"3", 30)];
    archive.insert_tags(&tags).unwrap();
    let seconds = |name: &str| -> Vec<i64> {
        archive.history(&name.parse().unwrap()).unwrap().iter().map(|tag| tag.time.as_second()).collect()
    };
    assert_eq!((seconds("a"), seconds("b")), (vec![30, 20, 10], vec![10]));
    let before = archive.snapshot().unwrap().stamp;
    archive.insert_tags(&tags).unwrap();
    archive.insert_tags(&[]).unwrap();
    assert_eq!(archive.snapshot().unwrap().stamp, before);
}

/// An archive of `members`, which are given as (name, kind, content).
fn archive_of(members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, content) in members {
        bytes.extend(write::header(name, *kind, content.len() as u64, 0o644, 0));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn hostile_archives_are_refused_with_a_reason() {
    use tar::EntryType::*;
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = place.path().join("it.tar");
    let payload = format!("./payloads/{}/{}", &Digest::of(b"x").to_string()[..2], &Digest::of(b"x").to_string()[2..]);
    let payload = payload.as_str();
    let good = archive_of(&[(payload, Regular, b"x"), ("./tags/t.tag", Regular, b"")]);
    std::fs::write(&path, &good).unwrap();
    assert_eq!(read(&Archive::open(&path).unwrap(), &Digest::of(b"x")), b"x");

    let huge = {
        let mut bytes = archive_of(&[(payload, Regular, b"x")]);
        let header = write::header(payload, Regular, u64::MAX - 600, 0o644, 0);
        bytes[..512].copy_from_slice(&header);
        bytes
    };
    let long_name = {
        let mut bytes = write::header("././@LongLink", GNULongName, 2 << 20, 0o644, 0);
        bytes.resize(512 + (2 << 20), b'a');
        bytes.extend(archive_of(&[("a", Regular, b"")]));
        bytes
    };
    let pax_sparse = {
        let record = b"24 GNU.sparse.major=1.0\n";
        archive_of(&[("./PaxHeaders/x", XHeader, &record[..]), ("./payloads/GNUSparseFile.0/x", Regular, b"x")])
    };
    let mut unmarked = good[..good.len() - 1024].to_vec();
    unmarked.extend([9; 512]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("leads out", archive_of(&[("./payloads/../../etc/passwd", Regular, b"x")])),
        ("leads out", archive_of(&[("/etc/passwd", Regular, b"x")])),
        ("leads out", archive_of(&[("../renders", Directory, b"")])),
        ("hard link", archive_of(&[(payload, Link, b"")])),
        ("symlink", archive_of(&[(payload, Symlink, b"")])),
        ("symlink", archive_of(&[("./objects", Symlink, b"")])),
        ("fifo", archive_of(&[("./tags/t.tag", Fifo, b"")])),
        ("device", archive_of(&[("./tags/t.tag", Char, b"")])),
        ("twice", archive_of(&[(payload, Regular, b"x"), (payload, Regular, b"y")])),
        ("twice", archive_of(&[("tags/t.tag", Regular, b""), ("./tags//t.tag", Regular, b"")])),
        ("twice", archive_of(&[("VERSION", Regular, b"0.1.0"), ("./VERSION", Regular, b"0.1.0")])),
        ("too long", archive_of(&[("VERSION", Regular, &[b'1'; 5000])])),
        ("version 2.0.0", archive_of(&[("VERSION", Regular, b"2.0.0")])),
        ("not a version", archive_of(&[("VERSION", Regular, b"two")])),
        ("sparse", pax_sparse),
        ("size overflow", huge),
        ("longer than a name", long_name),
        ("header", unmarked),
        ("cut short", good[..good.len() - 1024].to_vec()),
        ("cut short", good[..600].to_vec()),
        ("header", good[..511].to_vec()),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0".to_vec()),
        ("zstd", b"\x28\xb5\x2f\xfd\0\0\0\0".to_vec()),
        ("header", vec![b'x'; 2048]),
    ];
    for (n, (expected, bytes)) in cases.iter().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        let error = Archive::open(&path).err().unwrap_or_else(|| panic!("case {n} ({expected}) was accepted"));
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("it.tar"), "case {n}: {text}");
        assert!(!text.contains(char::is_control), "case {n}: {text:?}");
    }
    // Every cut of a good one is an error, or the whole.
    for len in 1..good.len() - 512 {
        std::fs::write(&path, &good[..len]).unwrap();
        assert!(Archive::open(&path).is_err(), "cut to {len}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(Archive::open(&path).err().unwrap().to_string().contains("not a file"));
}

#[test]
fn a_sparse_member_is_refused_whatever_tar_makes_of_it() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::create(place.path().join("d")).unwrap();
    let file = std::fs::File::create(directory.root().join("payloads/big")).unwrap();
    file.set_len(1 << 20).unwrap();
    for format in ["gnu", "pax"] {
        let path = place.path().join(format!("{format}.tar"));
        let root = directory.root().to_str().unwrap();
        run("tar", &["-C", root, "--sparse", "--format", format, "-cf", path.to_str().unwrap(), "."]);
        let error = Archive::open(&path).unwrap_err();
        assert!(error.to_string().contains("sparse"), "{error}");
    }
}

#[test]
fn altered_content_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("it.tar");
    let archive = Archive::create(&path).unwrap();
    let layer = add_layer(&archive, b"x");
    let member = archive.snapshot().unwrap().index.objects[&layer];
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"????", member.at + member.len - 40).unwrap();
    let error = archive.read_object(&layer).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("it.tar"), "{error}");
    // Cut by another program while it is open.
    let payload = archive.open_payload(&Digest::of(b"x")).unwrap();
    file.set_len(600).unwrap();
    assert!(archive.read_object(&layer).is_err());
    let mut payload = payload;
    assert!(payload.read_to_end(&mut Vec::new()).is_err(), "not taken for the end");
}
