//! Writers that are killed, that run out of space, and that write beside each other, as processes of their own.
//!
//! The processes are this very program again, running [`writer`] with `SPFS_TEST_WRITER` set to what it shall do.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use spfs_repo::{Batch, Blob, Digest, Directory, Error, Layer, Manifest, Object, ObjectBody, Repository, Tag};
use spfs_repo::{DigestPrefix, TagName};

/// So many that single ones are published on several threads.
const FILES: usize = 700;

fn tag(name: &str, target: Digest) -> Tag {
    let time = jiff::Timestamp::from_second(1_000_000_000).unwrap();
    Tag { name: name.parse().unwrap(), target, parent: Digest::NULL, user: "me@host".to_owned(), time }
}

fn add_file(batch: &dyn Batch, content: &[u8]) -> spfs_repo::Result<Digest> {
    let mut content = content;
    let (payload, size) = batch.add_payload(&mut content, None)?;
    batch.add_object(&Object::new(Blob { payload, size }))
}

/// Adds a layer with forty files, some of them large, and returns its digest.
fn add_layer(repository: &Directory, seed: &str) -> spfs_repo::Result<Digest> {
    add_layer_of(repository, seed, 40)
}

/// Adds a layer with `files` files, some of them large, and returns its digest.
fn add_layer_of(repository: &Directory, seed: &str, files: usize) -> spfs_repo::Result<Digest> {
    use spfs_repo::manifest::{Dir, Node};
    let batch = repository.begin()?;
    let mut dir = Dir::default();
    for n in 0..files {
        let mut content = format!("{seed} {n}").into_bytes();
        if n < 40 && n % 20 == 0 {
            content.resize(400 * 1024, n as u8);
        }
        let digest = add_file(&*batch, &content)?;
        let size = content.len() as u64;
        dir.entries.insert(n.to_string(), Node::Blob { digest, mode: 0o100644, size });
    }
    let manifest = batch.add_object(&Object::new(Manifest::from_dir(&dir)))?;
    let layer = batch.add_object(&Object::new(Layer { manifest: Some(manifest), annotations: Vec::new() }))?;
    batch.finish()?;
    Ok(layer)
}

/// What the processes do. Without the variable it is a test like any other: a writer that nobody disturbs.
#[test]
fn writer() {
    let Ok(task) = std::env::var("SPFS_TEST_WRITER") else {
        let place = tempfile::tempdir().unwrap();
        let repository = Directory::create(place.path()).unwrap();
        let layer = add_layer(&repository, "alone").unwrap();
        repository.push_tag(&tag("layer", layer)).unwrap();
        assert_eq!(check_everything(&repository), 42);
        return;
    };
    let (what, rest) = task.split_once(' ').unwrap();
    let (seed, root) = rest.split_once(' ').unwrap();
    match what {
        "layers" => {
            let repository = Directory::create(root).unwrap();
            for n in 0.. {
                let layer = add_layer(&repository, &format!("{seed} {n}")).unwrap();
                repository.push_tag(&tag("crash/layer", layer)).unwrap();
            }
        }
        "layer" => {
            let repository = Directory::create(root).unwrap();
            let layer = add_layer_of(&repository, seed, FILES).unwrap();
            repository.push_tag(&tag("crash/layer", layer)).unwrap();
        }
        "tags" => {
            let repository = Directory::open(root).unwrap();
            for n in 0..25 {
                let target = Digest::of(format!("{seed} {n}").as_bytes());
                repository.push_tag(&tag("many/writers", target)).unwrap();
            }
        }
        "full" => out_of_space(Path::new(root)),
        "read-only" => read_only(Path::new(root)),
        other => panic!("{other}"),
    }
}

/// Starts [`writer`] in a process of its own, `before` which something else is done by a shell.
fn start(before: Option<&str>, task: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut command = match before {
        None => Command::new(program),
        Some(before) => {
            let mut command = Command::new("unshare");
            if !rustix::process::geteuid().is_root() {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["--mount", "sh", "-ec", &format!("{before}\nexec \"$0\" \"$@\"")]).arg(program);
            command
        }
    };
    command.args(["--exact", "writer", "--nocapture"]).env("SPFS_TEST_WRITER", task);
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// Reads everything, and checks that all that is referred to is there. Returns the number of objects.
fn check_everything(repository: &Directory) -> usize {
    let objects = repository.objects().unwrap();
    for digest in &objects {
        let object = repository.read_object(digest).unwrap();
        assert_eq!(repository.missing(&object.children()).unwrap(), [], "{digest} is not complete");
        if let ObjectBody::Blob(blob) = object.body {
            let content = std::fs::read(repository.payload_path(&blob.payload)).unwrap();
            assert_eq!((Digest::of(&content), content.len() as u64), (blob.payload, blob.size));
        }
    }
    for name in repository.tag_names().unwrap() {
        for tag in repository.history(&name).unwrap() {
            assert!(objects.contains(&tag.target), "{name} points to nothing");
        }
    }
    objects.len()
}

fn leftovers(repository: &Directory) -> Vec<String> {
    let list = |directory: &str| {
        let entries = std::fs::read_dir(repository.root().join(directory));
        entries.into_iter().flatten().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    [list("payloads/work"), list("objects/work")].concat()
}

#[test]
fn a_killed_writer_leaves_a_good_repository() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let mut found_leftovers = false;
    for round in 0..12 {
        let mut child = start(None, &format!("layers {round} {}", place.path().display()));
        std::thread::sleep(Duration::from_millis(20 + 17 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        found_leftovers |= !leftovers(&repository).is_empty();
        check_everything(&repository);
    }
    assert!(found_leftovers, "no writer was killed in the middle");
    let repository = Directory::open(place.path()).unwrap();
    let layer = add_layer(&repository, "after").unwrap();
    repository.push_tag(&tag("crash/layer", layer)).unwrap();
    assert_eq!(repository.history(&"crash/layer".parse().unwrap()).unwrap()[0].target, layer);
    assert_eq!(leftovers(&repository), [""; 0], "the next writer cleans up");
    let beside: Vec<_> = std::fs::read_dir(place.path().join("tags/crash")).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
    check_everything(&repository);
}

/// Runs a [`writer`] of one layer that is killed when it is about to make its `nth` system call `call`. Then the
/// repository must be good, and the next one must succeed and leave nothing behind.
fn kill_at(root: &Path, seed: &str, call: &str, nth: usize) {
    use std::os::unix::process::ExitStatusExt as _;
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=SIGKILL:when={nth}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env("SPFS_TEST_WRITER", format!("layer {seed} {}", root.display()))
        .stdout(Stdio::null())
        .status()
        .expect("strace (./test setup installs it)");
    assert_eq!(status.signal(), Some(9), "{call} {nth} did not happen: {status}");
    let repository = Directory::create(root).unwrap();
    check_everything(&repository);
    let layer = add_layer_of(&repository, seed, FILES).unwrap();
    repository.push_tag(&tag("crash/layer", layer)).unwrap();
    assert_eq!(leftovers(&repository), [""; 0], "after {call} {nth}");
    check_everything(&repository);
}

/// Whether the long tests run too (`./test full`).
fn full() -> bool {
    std::env::var_os("SPFS_TEST_FULL").is_some()
}

/// A directory on tmpfs: thousands of files are gone quickly.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

#[test]
fn a_writer_killed_while_it_moves_whole_directories_leaves_a_good_repository() {
    // About five hundred directories of payloads, then as many of blobs, then the manifest and the layer.
    let long = [("mkdirat", 9), ("mkdirat", 900), ("write", 300), ("syncfs", 1), ("renameat2", 1), ("renameat2", 700)];
    let long = if full() { &long[..] } else { &[] };
    for (call, nth) in [("mkdirat", 300), ("renameat2", 200), ("syncfs", 2)].iter().chain(long) {
        let place = in_memory();
        kill_at(&place.path().join("repository"), "whole", call, *nth);
    }
}

#[test]
fn a_writer_killed_while_it_links_single_files_leaves_a_good_repository() {
    let place = in_memory();
    let repository = Directory::create(place.path()).unwrap();
    // So that there is hardly a directory missing.
    add_layer_of(&repository, "before", 5000).unwrap();
    let long = [("linkat", 1), ("unlinkat", 1), ("unlinkat", 300), ("renameat2", 1)];
    for (call, nth) in [("linkat", 200)].iter().chain(if full() { &long[..] } else { &[] }) {
        kill_at(place.path(), &format!("{call}{nth}"), call, *nth);
    }
}

#[test]
fn two_that_make_the_same_directories_at_once_both_succeed() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    // Both have found the store empty when the first one moves its directories there.
    let (one, other) = (repository.begin().unwrap(), repository.begin().unwrap());
    for n in 0..FILES {
        add_file(&*one, format!("one {n}").as_bytes()).unwrap();
        add_file(&*other, format!("other {n}").as_bytes()).unwrap();
        for batch in [&one, &other] {
            add_file(&**batch, format!("both {n}").as_bytes()).unwrap();
        }
    }
    one.finish().unwrap();
    assert_eq!(check_everything(&repository), 2 * FILES);
    other.finish().unwrap();
    assert_eq!(check_everything(&repository), 3 * FILES);
    assert_eq!(leftovers(&repository), [""; 0]);
}

#[test]
fn directories_that_were_moved_have_their_final_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    for (root_mode, expected) in [(0o755, 0o755), (0o777, 0o777), (0o2770, 0o2777)] {
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(root_mode)).unwrap();
        let repository = Directory::create(place.path()).unwrap();
        let digest = add_file_and_finish(&repository, b"content").unwrap();
        for path in [repository.payload_path(&digest), repository.object_path(&digest)] {
            let mode = std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, expected, "{}", path.display());
        }
    }
}

#[test]
fn eight_processes_lose_no_tag() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let mut children: Vec<Child> =
        (0..8).map(|n| start(None, &format!("tags {n} {}", place.path().display()))).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let name: TagName = "many/writers".parse().unwrap();
    let history = repository.history(&name).unwrap();
    assert_eq!(history.len(), 200);
    let targets: std::collections::HashSet<Digest> = history.iter().map(|tag| tag.target).collect();
    assert_eq!(targets.len(), 200);
    for pair in history.windows(2) {
        assert_eq!(pair[0].parent, spfs_repo::codec::tag::digest(&pair[1]));
    }
    assert_eq!(std::fs::read_dir(place.path().join("tags/many")).unwrap().count(), 1);
}

#[test]
fn two_processes_with_the_same_content_both_succeed() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let mut children: Vec<Child> =
        (0..2).map(|_| start(None, &format!("layers same {}", place.path().display()))).collect();
    let begin = std::time::Instant::now();
    while repository.objects().unwrap().len() < 42 {
        assert!(begin.elapsed() < Duration::from_secs(60), "the writers are too slow");
        std::thread::sleep(Duration::from_millis(50));
    }
    for child in &mut children {
        assert!(child.try_wait().unwrap().is_none(), "a writer failed");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(check_everything(&repository) >= 42);
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path().display();
    let mount = format!("mount -t tmpfs -o size=3m none {at}");
    assert!(start(Some(&mount), &format!("full x {at}")).wait().unwrap().success());
}

fn out_of_space(root: &Path) {
    let repository = Directory::create(root).unwrap();
    let kept = add_file_and_finish(&repository, b"kept").unwrap();
    repository.push_tag(&tag("t", kept)).unwrap();
    for size in [1000, 300_000] {
        let batch = repository.begin().unwrap();
        let mut n = 0u64;
        let error = loop {
            let mut content = vec![7u8; size];
            content[..8].copy_from_slice(&n.to_le_bytes());
            if let Err(e) = add_file(&*batch, &content) {
                break e;
            }
            n += 1;
        };
        assert!(error.is_out_of_space(), "{error:?}");
        assert!(error.to_string().contains(&*root.to_string_lossy()), "{error}");
        assert!(batch.finish().is_err(), "what is not complete is not published");
        assert_eq!(leftovers(&repository), [""; 0]);
        assert_eq!(repository.find(&DigestPrefix::any()).unwrap(), [kept]);
        assert_eq!(repository.payloads().unwrap(), [kept]);
    }
    // A tag that cannot be written loses nothing.
    let mut size = 4 << 20;
    let mut filled = Vec::new();
    while size > 0 {
        match std::fs::write(root.join(format!("ballast{}", filled.len())), vec![1; size]) {
            Ok(()) => filled.push(size),
            Err(_) => size /= 2,
        }
    }
    let other = Digest::of(b"other");
    let error = repository.push_tag(&tag("t", other)).unwrap_err();
    assert!(error.is_out_of_space(), "{error:?}");
    assert_eq!(repository.history(&"t".parse().unwrap()).unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(root.join("tags")).unwrap().count(), 1, "no lock, no work file");
    for n in 0..=filled.len() {
        let _ = std::fs::remove_file(root.join(format!("ballast{n}")));
    }
    add_file_and_finish(&repository, b"more").unwrap();
    repository.push_tag(&tag("t", other)).unwrap();
}

fn add_file_and_finish(repository: &Directory, content: &[u8]) -> spfs_repo::Result<Digest> {
    let batch = repository.begin()?;
    let digest = add_file(&*batch, content)?;
    batch.finish()?;
    Ok(digest)
}

#[test]
fn read_only_storage_can_be_read() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let kept = add_file_and_finish(&repository, b"kept").unwrap();
    repository.push_tag(&tag("t", kept)).unwrap();
    let at = place.path().display();
    let mount = format!("mount --bind {at} {at}; mount -o remount,bind,ro {at}");
    assert!(start(Some(&mount), &format!("read-only x {at}")).wait().unwrap().success());
    assert_eq!(check_everything(&repository), 1);
}

fn read_only(root: &Path) {
    let is_read_only = |error: Error| {
        let Error::Io { source, path, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{error}");
        assert!(path.starts_with(root), "{error}");
    };
    let repository = Directory::create(root).unwrap();
    let kept = Digest::of(b"kept");
    repository.read_object(&kept).unwrap();
    assert_eq!(add_file_and_finish(&repository, b"kept").unwrap(), kept, "it is there already");
    repository.push_tag(&tag("t", kept)).unwrap();
    is_read_only(add_file_and_finish(&repository, b"new").unwrap_err());
    is_read_only(add_file_and_finish(&repository, &[1; 500_000]).unwrap_err());
    is_read_only(repository.push_tag(&tag("t", Digest::of(b"other"))).unwrap_err());
    is_read_only(repository.push_tag(&tag("new/folder", kept)).unwrap_err());
    is_read_only(repository.remove_tag_stream(&"t".parse().unwrap()).unwrap_err());
    is_read_only(repository.remove_object(&kept).unwrap_err());
}

#[test]
fn only_the_leftovers_of_the_dead_are_removed() {
    let place = tempfile::tempdir().unwrap();
    let repository = Directory::create(place.path()).unwrap();
    let batch = repository.begin().unwrap();
    add_file(&*batch, b"alive").unwrap();
    let work = place.path().join("payloads/work");
    let mine = std::fs::read_dir(&work).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let part = |n: usize| mine.split('-').nth(n).unwrap().to_owned();
    let (pid, start, namespace, boot) = (part(1), part(2), part(3), part(4));
    let make = |name: &str, hours: u64| {
        for directory in ["3", "QU"] {
            std::fs::create_dir_all(work.join(name).join(directory)).unwrap();
            std::fs::write(work.join(name).join(directory).join("file"), "half").unwrap();
        }
        let then = std::time::SystemTime::now() - Duration::from_secs(hours * 3600);
        for path in [work.join(name).join("3"), work.join(name).join("QU"), work.join(name)] {
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        }
    };
    let dead = format!("spfs-{pid}-{}-{namespace}-{boot}-dead", start.parse::<u64>().unwrap() + 1);
    let rebooted = format!("spfs-{pid}-{start}-{namespace}-{}-rebooted", "0".repeat(32));
    let contained = format!("spfs-{pid}-{start}-1-{boot}-contained");
    let contained_old = format!("spfs-{pid}-{start}-1-{boot}-containedold");
    let upstream = "1b2f0c52-3f2b-4a54-8d7e-0123456789ab";
    for (name, hours) in [(&dead, 0), (&rebooted, 0), (&contained, 23), (&contained_old, 25)] {
        make(name, hours);
    }
    make(upstream, 1000);
    let again = Directory::open(place.path()).unwrap();
    drop(again.begin().unwrap());
    let mut left: Vec<String> =
        std::fs::read_dir(&work).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    let mut expected = vec![upstream.to_owned(), mine, contained];
    expected.sort();
    assert_eq!(left, expected);
    batch.finish().unwrap();
    repository.read_object(&Digest::of(b"alive")).unwrap();
}
