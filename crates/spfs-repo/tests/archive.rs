//! Archives whose writers are killed or run out of space, as processes of their own.
//!
//! The processes are this very program again, running [`writer`] with `SPFS_TEST_WRITER` set to what it shall do.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use spfs_repo::{Archive, Batch, Blob, Digest, Error, Object, ObjectBody, Repository, Tag};

fn tag(target: Digest) -> Tag {
    let time = jiff::Timestamp::from_second(1_000_000_000).unwrap();
    Tag { name: "o/t".parse().unwrap(), target, parent: Digest::NULL, user: "me@host".to_owned(), time }
}

fn add_file(batch: &dyn Batch, content: &[u8]) -> spfs_repo::Result<Digest> {
    let mut content = content;
    let (payload, size) = batch.add_payload(&mut content, None)?;
    batch.add_object(&Object::new(Blob { payload, size }))
}

/// Adds twenty files, one of them large, and tags one.
fn add(archive: &Archive, seed: &str) -> spfs_repo::Result<()> {
    let batch = archive.begin()?;
    let mut digest = Digest::NULL;
    for n in 0..20 {
        let mut content = format!("{seed} {n}").into_bytes();
        if n == 7 {
            content.resize(700_000, n);
        }
        digest = add_file(&*batch, &content)?;
    }
    batch.finish()?;
    archive.push_tag(&tag(digest)).map(drop)
}

#[test]
fn writer() {
    let Ok(task) = std::env::var("SPFS_TEST_WRITER") else {
        let place = tempfile::tempdir().unwrap();
        let archive = Archive::create(place.path().join("it.tar")).unwrap();
        add(&archive, "alone").unwrap();
        assert_eq!(check_everything(&archive), 20);
        return;
    };
    let (what, path) = task.split_once(' ').unwrap();
    match what {
        "full" => out_of_space(Path::new(path)),
        "read-only" => read_only(Path::new(path)),
        seed => add(&Archive::create(path).unwrap(), seed).unwrap(),
    }
}

/// Runs [`writer`] behind `before`, a program and its arguments.
fn run(before: &[&str], task: &str) -> std::process::ExitStatus {
    Command::new(before[0])
        .args(&before[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env("SPFS_TEST_WRITER", task)
        .stdout(Stdio::null())
        .status()
        .unwrap()
}

/// Words before those of a command, which get it a mount namespace of its own, in which it may mount.
fn privately(script: &str) -> Vec<&str> {
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    [&["unshare"], user, &["--mount", "sh", "-ec", script]].concat()
}

/// Reads everything. Returns the number of objects.
fn check_everything(archive: &Archive) -> usize {
    let objects = archive.objects().unwrap();
    for digest in &objects {
        let ObjectBody::Blob(blob) = archive.read_object(digest).unwrap().body else { panic!("{digest} is no blob") };
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut archive.open_payload(&blob.payload).unwrap(), &mut content).unwrap();
        assert_eq!((Digest::of(&content), content.len() as u64), (blob.payload, blob.size));
    }
    for tag in archive.history(&"o/t".parse().unwrap()).unwrap() {
        assert!(objects.contains(&tag.target));
    }
    objects.len()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_killed_writer_leaves_the_old_archive_or_the_new_one() {
    use std::os::unix::process::ExitStatusExt as _;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("it.tar");
    add(&Archive::create(&path).unwrap(), "before").unwrap();
    // In the batch, in the copy of what was there and of what comes, at the end; then the same for the tag.
    let steps = [
        ("pwrite64", 3),
        ("pwrite64", 45),
        ("copy_file_range", 1),
        ("copy_file_range", 2),
        ("copy_file_range", 3),
        ("fsync", 1),
        ("rename,renameat,renameat2", 1),
        ("fsync", 2),
        ("unlink,unlinkat", 1),
        ("rename,renameat,renameat2", 2),
    ];
    let mut count = 20;
    for (n, (calls, nth)) in steps.iter().enumerate() {
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=SIGKILL:when={nth}"));
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let status = run(&strace, &format!("{n} {}", path.display()));
        assert_eq!(status.signal(), Some(9), "{calls} {nth} did not happen: {status}");
        let archive = Archive::open(&path).unwrap();
        let now = check_everything(&archive);
        assert!(now == count || now == count + 20, "{calls} {nth}: {now}, and before {count}");
        add(&archive, &n.to_string()).unwrap();
        count += 20;
        assert_eq!(check_everything(&archive), count);
        assert_eq!(names(place.path()), ["it.tar"], "after {calls} {nth}");
    }
}

#[test]
fn a_full_disk_is_said_and_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path().display();
    let script = format!("mount -t tmpfs -o size=5m none {at} && exec \"$0\" \"$@\"");
    assert!(run(&privately(&script), &format!("full {at}")).success());
}

fn out_of_space(directory: &Path) {
    let archive = Archive::create(directory.join("it.tar")).unwrap();
    add(&archive, "kept").unwrap();
    let fails = |size: usize, count: usize| {
        let batch = archive.begin().unwrap();
        let added = (0..count).try_for_each(|n| {
            let mut content = vec![7; size];
            content[..8].copy_from_slice(&n.to_le_bytes());
            add_file(&*batch, &content).map(drop)
        });
        let is_added = added.is_ok();
        let error = added.and_then(|()| batch.finish()).unwrap_err();
        assert!(error.is_out_of_space(), "{error:?}");
        assert!(error.to_string().contains(&*directory.to_string_lossy()), "{error}");
        assert_eq!(names(directory), ["it.tar"]);
        assert_eq!(check_everything(&archive), 20);
        is_added
    };
    assert!(!fails(1000, 10_000), "in the batch, many small ones");
    assert!(!fails(800_000, 10), "in the batch, large ones");
    assert!(fails(800_000, 3), "while the archive is written");
    add(&archive, "more").unwrap();
    assert_eq!(check_everything(&archive), 40);
}

#[test]
fn a_read_only_archive_can_be_read() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("it.tar");
    add(&Archive::create(&path).unwrap(), "kept").unwrap();
    let at = place.path().display();
    let script = format!("mount --bind {at} {at}; mount -o remount,bind,ro {at}; exec \"$0\" \"$@\"");
    let task = format!("read-only {}", path.display());
    assert!(run(&privately(&script), &task).success());
}

fn read_only(path: &Path) {
    let is_read_only = |error: Error| {
        let Error::Io { source, path: named, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{error}");
        assert!(named.starts_with(path.parent().unwrap()), "{error}");
    };
    let archive = Archive::create(path).unwrap();
    assert_eq!(check_everything(&archive), 20);
    let batch = archive.begin().unwrap();
    let digest = add_file(&*batch, b"kept 19").unwrap();
    batch.finish().unwrap();
    archive.push_tag(&tag(digest)).unwrap();
    is_read_only(add(&archive, "new").unwrap_err());
    is_read_only(archive.push_tag(&tag(Digest::of(b"other"))).unwrap_err());
    is_read_only(archive.remove_payload(&archive.payloads().unwrap()[0]).unwrap_err());
    is_read_only(Archive::create(path.with_extension("new")).unwrap_err());
}
