//! Manifests that are unsound, absurd, old or large.
#![allow(clippy::unwrap_used)]

use spfs_repo::manifest::{Index, MAX_DEPTH};
use spfs_repo::{Digest, Dir, Encoding, Entry, EntryKind, Error, Manifest, Node, Object, ObjectBody, Tree, codec};

fn entry(kind: EntryKind, name: &str, mode: u32, object: Digest) -> Entry {
    Entry { kind, object, mode, size: 0, name: name.to_owned() }
}

fn blob(name: &str) -> Entry {
    entry(EntryKind::Blob, name, 0o100644, Digest::of(b"x"))
}

fn one_tree(entries: Vec<Entry>) -> Manifest {
    Manifest { trees: vec![Tree { entries }] }
}

/// Whether both encodings can be written, and read again.
fn accepted(manifest: &Manifest) -> bool {
    let accepted = [Encoding::Legacy, Encoding::FlatBuffers].map(|encoding| {
        let mut object = Object::new(manifest.clone());
        object.format.encoding = encoding;
        let bytes = codec::encode(&object);
        bytes.is_ok_and(|bytes| {
            codec::digest(&codec::decode(&bytes).unwrap()).unwrap() == codec::digest(&object).unwrap()
        })
    });
    assert_eq!(accepted[0], accepted[1]);
    accepted[0]
}

#[test]
fn names() {
    for name in ["", ".", "..", "a/b", "/", "a\0", "\0"] {
        assert!(!accepted(&one_tree(vec![blob(name)])), "{name:?}");
    }
    for name in ["a", "...", " ", "é", "a\nb", "-", &"x".repeat(255)] {
        assert!(accepted(&one_tree(vec![blob(name)])), "{name:?}");
    }
    assert!(!accepted(&one_tree(vec![blob("a"), blob("b"), blob("a")])));
    // Not neighbours in stored order.
    let empty = Tree::default();
    let twice = vec![entry(EntryKind::Tree, "b", 0o40755, empty.digest()), blob("a"), blob("b")];
    assert!(!accepted(&Manifest { trees: vec![Tree { entries: twice }, empty] }));
}

#[test]
fn modes() {
    let empty = Tree::default();
    let with = |kind, mode| Manifest {
        trees: vec![Tree { entries: vec![entry(kind, "a", mode, empty.digest())] }, empty.clone()],
    };
    for (kind, mode, ok) in [
        (EntryKind::Blob, 0o100644, true),
        (EntryKind::Blob, 0o120777, true),
        (EntryKind::Blob, 0o106755, true),
        (EntryKind::Blob, 0o644, true),
        (EntryKind::Blob, 0o40755, false),
        (EntryKind::Blob, 0o60644, false),
        (EntryKind::Blob, 0o10644, false),
        (EntryKind::Tree, 0o40755, true),
        (EntryKind::Tree, 0o41777, true),
        (EntryKind::Tree, 0o755, true),
        (EntryKind::Tree, 0o100755, false),
        (EntryKind::Tree, 0o120777, false),
        (EntryKind::Mask, 0o20000, true),
        (EntryKind::Mask, 0o777, true),
        (EntryKind::Mask, 0, true),
    ] {
        assert_eq!(accepted(&with(kind, mode)), ok, "{kind:?} {mode:o}");
    }
}

#[test]
fn directories_find_their_trees() {
    let lost = one_tree(vec![entry(EntryKind::Tree, "a", 0o40755, Digest::of(b"lost"))]);
    assert!(!accepted(&lost));
    assert!(matches!(lost.to_dir(), Err(Error::Corrupt { .. })));
    assert!(!accepted(&Manifest { trees: Vec::new() }));
    assert!(codec::digest(&Object::new(Manifest { trees: Vec::new() })).is_err());
}

/// Very old data has a size on directories; it is hashed, and must survive.
#[test]
fn sizes_of_old_directories_are_kept() {
    let empty = Tree::default();
    let mut old = entry(EntryKind::Tree, "pkg", 0o40755, empty.digest());
    old.size = 36;
    let manifest = Manifest { trees: vec![Tree { entries: vec![old] }, empty] };
    assert!(accepted(&manifest));
    let bytes = codec::encode(&Object::new(manifest.clone())).unwrap();
    assert_eq!(codec::decode(&bytes).unwrap().body, ObjectBody::Manifest(manifest));
}

#[test]
fn entries_are_put_in_stored_order() {
    let empty = Tree::default();
    let entries = vec![blob("a"), entry(EntryKind::Tree, "b", 0o40755, empty.digest()), blob("c"), blob("B")];
    let manifest = Manifest { trees: vec![Tree { entries }, empty] };
    for encoding in [Encoding::Legacy, Encoding::FlatBuffers] {
        let mut object = Object::new(manifest.clone());
        object.format.encoding = encoding;
        let ObjectBody::Manifest(read) = codec::decode(&codec::encode(&object).unwrap()).unwrap().body else {
            panic!()
        };
        assert_eq!(read.trees[0].entries.iter().map(|e| &*e.name).collect::<Vec<_>>(), ["b", "B", "a", "c"]);
    }
}

/// `depth` trees below the root, each in the one above it under every name of `names`.
fn nested(depth: usize, names: &[&str]) -> Manifest {
    let mut trees = vec![Tree { entries: vec![blob("end")] }];
    for _ in 0..depth {
        let below = trees[trees.len() - 1].digest();
        trees.push(Tree { entries: names.iter().map(|n| entry(EntryKind::Tree, n, 0o40755, below)).collect() });
    }
    trees.reverse();
    Manifest { trees }
}

#[test]
fn shared_trees_do_not_explode() {
    let manifest = nested(60, &["a", "b", "c"]);
    assert!(accepted(&manifest), "sound in itself");
    assert!(matches!(manifest.to_dir(), Err(Error::Corrupt { .. })));
    let index = Index::new(&manifest);
    assert_eq!(index.paths().take(1000).count(), 1000);
    assert_eq!(manifest.lookup(&("b/".repeat(60) + "end")), Some(&blob("end")));
    // A harmless amount is written out.
    let manifest = nested(6, &["a", "b", "c"]);
    assert_eq!(manifest.to_dir().unwrap().count(), (3_usize.pow(7) - 3) / 2 + 3_usize.pow(6));
    assert_eq!(Manifest::from_dir(&manifest.to_dir().unwrap()), manifest);
}

#[test]
fn depth_is_limited() {
    let deepest = nested(MAX_DEPTH - 1, &["d"]);
    let dir = deepest.to_dir().unwrap();
    assert_eq!(Manifest::from_dir(&dir), deepest);
    let deeper = nested(MAX_DEPTH, &["d"]);
    assert!(accepted(&deeper));
    assert!(matches!(deeper.to_dir(), Err(Error::Corrupt { .. })));
    assert_eq!(Index::new(&nested(100_000, &["d"])).paths().take(5000).count(), 5000);
}

#[test]
fn paths_are_sorted_part_by_part() {
    let file = || Node::Blob { digest: Digest::NULL, mode: 0o100644, size: 0 };
    let below = Dir { entries: [("x".to_owned(), file())].into() };
    let names = ["a", "a.b", "a-c", "b"].map(str::to_owned);
    let mut root = Dir { entries: names.map(|name| (name, file())).into() };
    root.entries.insert("a".to_owned(), Node::Dir { mode: 0o40755, dir: below });
    let manifest = Manifest::from_dir(&root);
    let index = Index::new(&manifest);
    let paths: Vec<_> = index.paths().map(|(path, _)| path).collect();
    assert_eq!(paths, ["a", "a/x", "a-c", "a.b", "b"]);
    assert_eq!(index.lookup("a/x").map(|e| &*e.name), Some("x"));
    for missing in ["", "/", "c", "b/x", "a/x/y", "a/y"] {
        assert_eq!(manifest.lookup(missing), None, "{missing}");
        assert_eq!(root.get(missing), None, "{missing}");
    }
}

/// The existing program cannot read a manifest of more than a million entries; ours can.
#[test]
fn more_than_a_million_entries() {
    let mut root = Dir::default();
    for i in 0..1001_u32 {
        let file = |j: u32| Node::Blob { digest: Digest::of(&(i * 1000 + j).to_le_bytes()), mode: 0o100644, size: 4 };
        let entries = (0..1000).map(|j| (format!("file-{j:04}.py"), file(j))).collect();
        root.entries.insert(format!("package-{i:04}"), Node::Dir { mode: 0o40755, dir: Dir { entries } });
    }
    let object = Object::new(Manifest::from_dir(&root));
    let bytes = codec::encode(&object).unwrap();
    let again = codec::decode(&bytes).unwrap();
    assert!(again == object);
    let ObjectBody::Manifest(manifest) = again.body else { panic!() };
    assert_eq!(Index::new(&manifest).paths().count(), 1_002_001);
    assert!(manifest.to_dir().unwrap() == root);
}
