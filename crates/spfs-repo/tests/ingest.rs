//! From directories to manifests: what is kept, what is refused, and what is read at all.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;
use rustix::fs::{CWD, FileType, Mode};
use spfs_repo::ingest::{Committed, FileRequest, Ingest, Scanned, Stamp, StatCache};
use spfs_repo::manifest::{Dir, Node};
use spfs_repo::object::Format;
use spfs_repo::{Digest, Directory, Error, NoProgress, Object, Progress, Repository, Result};

fn hasher(progress: &dyn Progress) -> Ingest<'_> {
    Ingest { batch: None, format: Format::default(), cache: None, threads: 2, progress }
}

fn scan(path: &Path) -> Result<Scanned> {
    hasher(&NoProgress).tree(std::fs::File::open(path).unwrap().as_fd(), path)
}

fn commit(repository: &Directory, path: &Path, cache: Option<&StatCache>) -> Result<Committed> {
    let batch = repository.begin()?;
    let ingest = Ingest { batch: Some(&*batch), cache, ..hasher(&NoProgress) };
    let committed = ingest.commit(repository, std::fs::File::open(path).unwrap().as_fd(), path)?;
    batch.finish()?;
    Ok(committed)
}

fn write(path: &Path, content: &[u8], mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mkdir(path: &Path) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The tree F3 of the format's golden vectors.
fn make_f3(root: &Path) {
    for name in ["bin", "empty", "share/doc"] {
        mkdir(&root.join(name));
    }
    std::fs::set_permissions(root.join("share"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../share/doc/README", root.join("bin/link")).unwrap();
    write(&root.join("bin/tool"), b"hello\n", 0o755);
    write(&root.join("share/doc/README"), b"readme", 0o644);
    write(&root.join("zero"), b"", 0o600);
}

fn refusal(path: &Path) -> String {
    match scan(path).unwrap_err() {
        Error::Uncommittable { path, reason } => format!("{}: {reason}", path.display()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_golden_tree_gets_its_golden_digest() {
    let place = tempfile::tempdir().unwrap();
    let (tree, repo) = (place.path().join("tree"), place.path().join("repo"));
    make_f3(&tree);
    let repository = Directory::create(repo).unwrap();
    let committed = commit(&repository, &tree, None).unwrap();
    assert_eq!(committed.digest.to_string(), "VDVUHTTXDESA43TLHFKHBC6EGQGMSV7QOP243BWPSMINXUEDVADQ====");
    let target = b"../share/doc/README";
    assert_eq!(committed.scanned.symlinks.get(&Digest::of(target)).unwrap(), target);
    assert_eq!((committed.scanned.files, committed.scanned.bytes), (4, 12));
    assert_eq!(repository.read_object(&committed.digest).unwrap(), Object::new(committed.manifest.clone()));
    let blobs = committed.manifest.blobs();
    assert_eq!(repository.missing(&blobs).unwrap(), []);
    assert_eq!(repository.payloads().unwrap().len(), blobs.len());
    assert_eq!(std::fs::read(repository.payload_path(&Digest::of(target))).unwrap(), target);
    // Hashing alone sees the same.
    assert_eq!(scan(&tree).unwrap().dir, committed.scanned.dir);
}

#[test]
fn modes_masks_and_hard_links_are_kept_as_the_format_says() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    write(&root.join("setuid"), b"x", 0o4711);
    std::fs::hard_link(root.join("setuid"), root.join("twin")).unwrap();
    mkdir(&root.join("sticky"));
    std::fs::set_permissions(root.join("sticky"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    rustix::fs::mknodat(CWD, root.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    let dir = scan(root).unwrap().dir;
    let modes: BTreeMap<&str, u32> = dir.entries.iter().map(|(name, node)| (name.as_str(), node.mode())).collect();
    let expected = [
        ("dangling", 0o120777),
        ("gone", 0o020000),
        ("loop", 0o120777),
        ("setuid", 0o104711),
        ("sticky", 0o041777),
        ("twin", 0o104711),
    ];
    assert_eq!(modes, BTreeMap::from(expected));
    assert!(matches!(dir.entries["gone"], Node::Mask { .. }));
    assert_eq!(dir.entries["setuid"], dir.entries["twin"]);
}

#[test]
fn what_cannot_be_kept_is_named_and_nothing_is_committed() {
    let place = tempfile::tempdir().unwrap();
    let (root, repo) = (place.path().join("tree"), place.path().join("repo"));
    mkdir(&root.join("sub"));
    write(&root.join("good"), b"good", 0o644);
    rustix::fs::mknodat(CWD, root.join("sub/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let text = refusal(&root);
    for part in ["sub/pipe", "named pipe", "tree/socket"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // Only root can make one.
    if rustix::process::geteuid().is_root() {
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::RUSR, null).unwrap();
        let text = refusal(&root);
        assert!(text.contains("tree/null") && text.contains("device"), "{text}");
    }
    let repository = Directory::create(repo).unwrap();
    assert!(commit(&repository, &root, None).is_err());
    assert!(repository.payloads().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(repository.root().join("payloads/work")).unwrap().count(), 0);
}

#[test]
fn names_and_targets_that_are_not_utf8_are_shown_escaped() {
    use std::os::unix::ffi::OsStrExt;
    let place = tempfile::tempdir().unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::write(place.path().join(odd), b"").unwrap();
    assert!(refusal(place.path()).contains("\"caf\\xe9\""));
    std::fs::remove_file(place.path().join(odd)).unwrap();
    symlink(odd, place.path().join("link")).unwrap();
    assert!(refusal(place.path()).contains("link: the target of this symlink, \"caf\\xe9\", is not UTF-8"));
}

#[test]
fn at_most_a_handful_of_files_is_named() {
    let place = tempfile::tempdir().unwrap();
    for n in 0..300 {
        rustix::fs::mknodat(CWD, place.path().join(n.to_string()), FileType::Fifo, Mode::RUSR, 0).unwrap();
    }
    let named = refusal(place.path()).matches("named pipe").count();
    assert!((5..=6).contains(&named), "{named}");
}

#[test]
fn a_wide_directory_of_long_names_is_taken_in() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let count = 100_000;
    let directory = std::fs::File::open(place.path()).unwrap();
    for n in 0..count {
        // Mostly symlinks, which are quick to make; 255 bytes are the longest name.
        let name = if n % 1000 == 0 { format!("{n:0>255}") } else { n.to_string() };
        match n {
            0 => drop(std::fs::write(place.path().join(name), b"x")),
            _ if n % 10_000 == 0 => drop(std::fs::write(place.path().join(name), n.to_string())),
            _ => rustix::fs::symlinkat("x", &directory, name).unwrap(),
        }
    }
    let scanned = scan(place.path()).unwrap();
    assert_eq!((scanned.dir.entries.len(), scanned.files), (count, count as u64));
}

#[test]
fn a_deep_tree_is_taken_in_and_a_too_deep_one_refused() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let make = |levels: usize, long: bool| {
        let mut fd = rustix::fs::open(place.path(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        let name = if long { "d".repeat(50) } else { "d".to_owned() };
        for _ in 0..levels {
            for name in [name.as_str(), "e"] {
                rustix::fs::mkdirat(&fd, name, Mode::RWXU).ok();
            }
            fd = rustix::fs::openat(&fd, name.as_str(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        }
        rustix::fs::symlinkat("end", &fd, "link").ok();
        fd
    };
    // Far beyond the longest path, with a second directory on every level.
    make(1000, true);
    let scanned = scan(place.path()).unwrap();
    assert_eq!((scanned.dir.count(), scanned.files), (2001, 1));
    let manifest = spfs_repo::Manifest::from_dir(&scanned.dir);
    assert_eq!(manifest.to_dir().unwrap(), scanned.dir);
    make(1100, false);
    assert!(refusal(place.path()).contains("nest deeper than 1024"));
}

#[test]
fn a_large_sparse_file_is_streamed() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let place = tempfile::tempdir().unwrap();
    let (tree, repo) = (place.path().join("tree"), place.path().join("repo"));
    mkdir(&tree);
    let file = std::fs::File::create(tree.join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"end", (64 << 20) - 3).unwrap();
    let repository = Directory::create(repo).unwrap();
    let committed = commit(&repository, &tree, None).unwrap();
    let Node::Blob { digest, size, .. } = committed.scanned.dir.entries["sparse"] else { panic!() };
    assert_eq!(size, 64 << 20);
    let mut hasher = spfs_repo::Hasher::new();
    let stored = std::fs::read(repository.payload_path(&digest)).unwrap();
    hasher.update(&stored);
    assert_eq!(hasher.finish(), digest);
    let blocks = std::fs::metadata(repository.payload_path(&digest)).unwrap().blocks();
    assert!(blocks * 512 < 4 << 20, "holes stay holes: {blocks} blocks");
}

/// Calls a function at each file that is finished or asked about.
struct Meddler<F: Fn() + Sync>(F);

impl<F: Fn() + Sync> Progress for Meddler<F> {
    fn interrupted(&self) -> bool {
        (self.0)();
        false
    }
}

#[test]
fn a_file_that_never_stops_changing_is_refused_and_one_that_stops_is_not() {
    use std::io::Write;
    for (limit, good) in [(u64::MAX, false), (3, true)] {
        let place = tempfile::tempdir().unwrap();
        let (tree, repo) = (place.path().join("tree"), place.path().join("repo"));
        write(&tree.join("log"), &vec![b'x'; 600 * 1024], 0o644);
        let repository = Directory::create(repo).unwrap();
        let count = AtomicU64::new(0);
        let meddler = Meddler(|| {
            if count.fetch_add(1, Ordering::Relaxed) < limit {
                let mut log = std::fs::OpenOptions::new().append(true).open(tree.join("log")).unwrap();
                log.write_all(b"line\n").unwrap();
            }
        });
        let batch = repository.begin().unwrap();
        let ingest = Ingest { batch: Some(&*batch), ..hasher(&meddler) };
        let result = ingest.commit(&repository, std::fs::File::open(&tree).unwrap().as_fd(), &tree);
        if good {
            result.unwrap();
            batch.finish().unwrap();
            assert_eq!(repository.payloads().unwrap().len(), 1, "no torn version is kept");
        } else {
            let text = result.unwrap_err().to_string();
            assert!(text.contains("log: it changed while being read"), "{text}");
        }
    }
}

#[test]
fn an_interrupted_walk_leaves_nothing() {
    struct Stop(AtomicBool);
    impl Progress for Stop {
        fn advance(&self, _: u64, _: u64) {
            self.0.store(true, Ordering::Relaxed);
        }
        fn interrupted(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }
    let place = tempfile::tempdir().unwrap();
    let (tree, repo) = (place.path().join("tree"), place.path().join("repo"));
    for n in 0..50 {
        write(&tree.join(format!("{n}/file")), n.to_string().as_bytes(), 0o644);
    }
    let repository = Directory::create(repo).unwrap();
    let stop = Stop(AtomicBool::new(false));
    let batch = repository.begin().unwrap();
    let ingest = Ingest { batch: Some(&*batch), ..hasher(&stop) };
    let result = ingest.tree(std::fs::File::open(&tree).unwrap().as_fd(), &tree);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    drop(batch);
    assert_eq!(std::fs::read_dir(repository.root().join("payloads/work")).unwrap().count(), 0);
    assert!(repository.payloads().unwrap().is_empty());
}

#[test]
fn what_is_unchanged_is_not_opened_again() {
    let place = tempfile::tempdir().unwrap();
    let (tree, repo) = (place.path().join("tree"), place.path().join("repo"));
    make_f3(&tree);
    let repository = Directory::create(&repo).unwrap();
    let path = place.path().join("cache/tree");
    // As if the files were older than they are.
    let now = Timestamp::now() + jiff::SignedDuration::from_secs(10);
    let cache = StatCache::load(&path, now);
    let first = commit(&repository, &tree, Some(&cache)).unwrap();
    cache.save().unwrap();

    // Content changed behind the cache's back cannot happen; here the cache itself is proof that it was used.
    let cache = StatCache::load(&path, now);
    let second = commit(&repository, &tree, Some(&cache)).unwrap();
    assert_eq!(second.digest, first.digest);
    assert_eq!(second.scanned.cached.len(), 3);
    cache.save().unwrap();

    // Another repository has nothing of it yet: then the files are read after all.
    let other = Directory::create(place.path().join("other")).unwrap();
    let cache = StatCache::load(&path, now);
    assert_eq!(commit(&other, &tree, Some(&cache)).unwrap().digest, first.digest);
    assert_eq!(other.missing_payloads(&first.manifest.blobs()).unwrap(), []);
    cache.save().unwrap();

    // The same size and modification time, but not the same file.
    let modified = std::fs::metadata(tree.join("bin/tool")).unwrap().modified().unwrap();
    write(&tree.join("bin/tool"), b"HELLO\n", 0o755);
    std::fs::File::open(tree.join("bin/tool")).unwrap().set_modified(modified).unwrap();
    let cache = StatCache::load(&path, now);
    let third = commit(&repository, &tree, Some(&cache)).unwrap();
    assert_eq!(third.scanned.dir.get("bin/tool"), scan(&tree).unwrap().dir.get("bin/tool"));
    assert_ne!(third.digest, first.digest);
}

#[test]
fn files_of_a_list_are_taken_in_order() {
    let place = tempfile::tempdir().unwrap();
    make_f3(place.path());
    let root = std::fs::File::open(place.path()).unwrap();
    let stamp = Stamp::of(&rustix::fs::stat(place.path().join("zero")).unwrap());
    let request = |path: &str| FileRequest { path: path.into(), expect: None };
    let requests =
        [request("share/doc/README"), FileRequest { path: "zero".into(), expect: Some(stamp) }, request("bin/link")];
    let found = hasher(&NoProgress).files(root.as_fd(), place.path(), &requests).unwrap();
    let digests: Vec<Digest> = found.iter().map(|found| found.digest).collect();
    assert_eq!(digests, [Digest::of(b"readme"), Digest::of(b""), Digest::of(b"../share/doc/README")]);
    assert_eq!(found[2].target.as_deref(), Some(&b"../share/doc/README"[..]));
    assert_eq!(found[1].mode, 0o100600);
    let stale = Stamp { size: 1, ..stamp };
    for (path, expect) in
        [("zero", Some(stale)), ("bin", None), ("nothing", None), ("../etc/passwd", None), ("bin/link/x", None)]
    {
        let requests = [FileRequest { path: path.into(), expect }];
        let result = hasher(&NoProgress).files(root.as_fd(), place.path(), &requests);
        assert!(matches!(result, Err(Error::Uncommittable { .. })), "{path}: {result:?}");
    }
}

#[test]
fn an_empty_directory_is_the_empty_manifest() {
    let place = tempfile::tempdir().unwrap();
    assert_eq!(scan(place.path()).unwrap().dir, Dir::default());
}
