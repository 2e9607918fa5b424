//! Views of small trees, merging against a slow model, and files that are damaged.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use spfs_repo::manifest::{Dir, Node as Entry};
use spfs_repo::{Digest, Manifest};

use super::*;

const BOOT: BootId = *b"this boot, now..";

/// A file whose content is `text`.
fn file(text: &str) -> Entry {
    Entry::Blob { digest: Digest::of(text.as_bytes()), mode: 0o100_644, size: text.len() as u64 }
}

/// A symlink; its target can be found again by [`target`].
fn link(number: u8) -> Entry {
    let text = format!("target {number}");
    Entry::Blob { digest: Digest::of(text.as_bytes()), mode: 0o120_777, size: text.len() as u64 }
}

fn target(digest: &Digest) -> spfs_repo::Result<Vec<u8>> {
    let mut texts = (0..=u8::MAX).map(|number| format!("target {number}").into_bytes());
    texts.find(|text| Digest::of(text) == *digest).ok_or(spfs_repo::Error::MissingPayload(*digest))
}

fn dir<const N: usize>(entries: [(&str, Entry); N]) -> Dir {
    Dir { entries: entries.into_iter().map(|(name, node)| (name.to_owned(), node)).collect() }
}

fn sub<const N: usize>(entries: [(&str, Entry); N]) -> Entry {
    Entry::Dir { mode: 0o040_755, dir: dir(entries) }
}

const MASK: Entry = Entry::Mask { mode: 0o020_000 };

fn view(dir: &Dir) -> View {
    View::from_bytes(build(dir, target).unwrap()).unwrap()
}

fn merged(layers: &[Dir]) -> View {
    let views: Vec<View> = layers.iter().map(view).collect();
    View::from_bytes(merge(&views.iter().collect::<Vec<_>>()).unwrap()).unwrap()
}

/// What a view shows, in the form that it was built from.
fn shown(view: &View, id: NodeId) -> Dir {
    let entry = |id: NodeId| {
        let node = view.node(id).unwrap();
        match node.kind {
            NodeKind::Directory { .. } => Entry::Dir { mode: node.mode, dir: shown(view, id) },
            NodeKind::Mask => Entry::Mask { mode: node.mode },
            _ => Entry::Blob { digest: view.digest(id).unwrap(), mode: node.mode, size: node.size },
        }
    };
    let name = |id| String::from_utf8(view.name(id).to_vec()).unwrap();
    Dir { entries: view.children(id).map(|id| (name(id), entry(id))).collect() }
}

/// Stacking as a person would do it: one layer after the other is applied to what is there.
fn apply(below: &mut Dir, layer: &Dir) {
    for (name, node) in &layer.entries {
        match node {
            Entry::Mask { .. } => {
                below.entries.remove(name);
            }
            Entry::Blob { .. } => {
                below.entries.insert(name.clone(), node.clone());
            }
            Entry::Dir { mode, dir: above } => {
                let mut inside = match below.entries.remove(name) {
                    Some(Entry::Dir { dir, .. }) => dir,
                    _ => Dir::default(),
                };
                apply(&mut inside, above);
                below.entries.insert(name.clone(), Entry::Dir { mode: *mode, dir: inside });
            }
        }
    }
}

/// Names that fall on both sides of `.`, `..` and one another's prefixes.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["!", "-", ".a", "..b", "a", "ab", "b", "é"]).prop_map(str::to_owned)
}

fn tree() -> impl Strategy<Value = Dir> {
    let leaf = prop_oneof![
        3 => (0u8..6).prop_map(|n| file(&"x".repeat(n.into()))),
        1 => (0u8..3).prop_map(link),
        2 => Just(MASK),
    ];
    let node = leaf.prop_recursive(4, 40, 5, |inner| {
        let mode = prop::sample::select(vec![0o040_755, 0o040_700, 0o041_777]);
        (mode, prop::collection::btree_map(name(), inner, 0..5))
            .prop_map(|(mode, entries)| Entry::Dir { mode, dir: Dir { entries } })
    });
    prop::collection::btree_map(name(), node, 0..6).prop_map(|entries| Dir { entries })
}

proptest! {
    #[test]
    fn a_view_shows_what_it_was_built_from(tree in tree()) {
        prop_assert_eq!(shown(&view(&tree), ROOT), tree);
    }

    #[test]
    fn a_manifest_and_its_directory_make_the_same_view(tree in tree()) {
        let manifest = Manifest::from_dir(&tree);
        prop_assert_eq!(build_manifest(&manifest, target).unwrap(), build(&tree, target).unwrap());
    }

    #[test]
    fn merging_is_applying_one_layer_after_the_other(layers in prop::collection::vec(tree(), 0..6)) {
        let mut expected = Dir::default();
        layers.iter().for_each(|layer| apply(&mut expected, layer));
        let merged = merged(&layers);
        prop_assert_eq!(shown(&merged, ROOT), expected);
        prop_assert_eq!(merged.mask_count(), 0);
    }

    #[test]
    fn merging_can_be_done_in_steps_from_the_bottom(layers in prop::collection::vec(tree(), 1..5), upper in tree()) {
        let below = merged(&layers);
        let upper_view = view(&upper);
        let in_steps = View::from_bytes(merge(&[&below, &upper_view]).unwrap()).unwrap();
        let all: Vec<Dir> = layers.into_iter().chain([upper]).collect();
        prop_assert_eq!(shown(&in_steps, ROOT), shown(&merged(&all), ROOT));
    }

    #[test]
    fn walking_and_resolving_agree(tree in tree()) {
        let view = view(&tree);
        let walked: Vec<(String, NodeId)> = view.walk().collect();
        prop_assert_eq!(walked.len(), view.len() as usize - 1);
        for (path, id) in &walked {
            prop_assert_eq!(view.resolve(path), Some(*id));
            prop_assert_eq!(&view.path(*id), path);
        }
        // The order of a recursive listing: component by component.
        let parts = |path: &String| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        prop_assert!(walked.windows(2).all(|pair| parts(&pair[0].0) < parts(&pair[1].0)));
    }

    /// A trusted file may hold anything: nothing may panic, hang or leave the bounds.
    #[test]
    fn nonsense_is_survived(tree in tree(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut bytes = build(&tree, target).unwrap();
        let room = bytes.len() - HEADER_LEN;
        for (at, value) in changes {
            bytes[HEADER_LEN + at.index(room)] = value;
        }
        let view = View::from_bytes(bytes).unwrap();
        for (path, id) in view.walk() {
            let _ = (view.resolve(&path), view.path(id), view.target(id), view.digest(id), view.lookup(id, b"a"));
        }
        for id in 0..view.len() + 2 {
            let _ = (view.path(id), view.children(id), view.name(id), view.node(id).map(|node| node.links()));
        }
        let _ = merge(&[&view, &view]);
    }
}

#[test]
fn a_view_tells_what_is_in_it() {
    let view = view(&dir([
        ("bin", sub([("tool", Entry::Blob { digest: Digest::of(b"x"), mode: 0o100_755, size: 1 }), ("t", link(7))])),
        ("empty", sub([])),
        ("gone", MASK),
        ("same", Entry::Blob { digest: Digest::of(b"x"), mode: 0o100_644, size: 1 }),
    ]));
    assert_eq!((view.len(), view.digest_count(), view.mask_count(), view.file_bytes()), (7, 2, 1, 2));
    let tool = view.resolve("/bin/tool").unwrap();
    assert_eq!(view.node(tool).unwrap().mode, 0o100_755);
    assert_eq!(view.digest(tool), Some(Digest::of(b"x")));
    assert_eq!(view.target(view.resolve("bin/t").unwrap()), Some(b"target 7".as_slice()));
    assert_eq!(
        view.node(ROOT).unwrap(),
        Node { mode: 0o040_755, size: 0, parent: ROOT, kind: NodeKind::Directory { subdirectories: 2 } }
    );
    assert_eq!(view.node(ROOT).unwrap().links(), 4);
    assert_eq!(view.node(view.resolve("gone").unwrap()).unwrap().kind, NodeKind::Mask);
    assert_eq!(view.resolve("bin/tool/x"), None);
    assert_eq!(view.resolve("missing"), None);
    assert_eq!(view.resolve(""), Some(ROOT));
    assert_eq!(view.digest(view.resolve("empty").unwrap()), None);
    assert_eq!(view.walk_from(view.resolve("bin").unwrap()).map(|(path, _)| path).collect::<Vec<_>>(), ["t", "tool"]);
}

#[test]
fn an_empty_stack_is_an_empty_directory() {
    let view = merged(&[]);
    assert_eq!((view.len(), view.children(ROOT)), (1, 1..1));
}

#[test]
fn a_file_hides_the_directory_below_it_for_good() {
    let layers =
        [dir([("a", sub([("old", file("1"))]))]), dir([("a", file("2"))]), dir([("a", sub([("new", file("3"))]))])];
    assert_eq!(shown(&merged(&layers), ROOT), layers[2]);
    let with_mask = [layers[0].clone(), dir([("a", MASK)]), layers[2].clone()];
    assert_eq!(shown(&merged(&with_mask), ROOT), layers[2]);
}

#[test]
fn names_and_targets_that_cannot_be_shown_are_refused() {
    let refusal = |entry: (&str, Entry)| build(&dir([entry]), |_| Ok(vec![b'x'; 4096])).unwrap_err().to_string();
    for name in ["", ".", "..", "a/b", "a\0b"] {
        assert!(refusal((name, file("x"))).contains("is not a file name"), "{name:?}");
    }
    assert!(refusal((&"n".repeat(256), file("x"))).contains("is longer than 255 bytes"));
    assert!(refusal(("long", link(0))).contains("it has 4096 bytes"));
    let fine = dir([(&*"n".repeat(255), file("x"))]);
    assert_eq!(shown(&view(&fine), ROOT), fine);
}

#[test]
fn opening_trusts_this_boot_and_verifies_others() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("view");
    let tree = dir([("a", sub([("b", file("text"))]))]);
    write(&path, &build(&tree, target).unwrap(), &BOOT).unwrap();
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "no temporary file is left");
    let stamp = |path: &Path| std::fs::read(path).unwrap()[STAMP..STAMP + 16].to_vec();
    assert_eq!(stamp(&path), BOOT);
    assert_eq!(shown(&View::open(&path, &BOOT).unwrap(), ROOT), tree);

    let later = *b"another boot....";
    assert_eq!(shown(&View::open(&path, &later).unwrap(), ROOT), tree);
    assert_eq!(stamp(&path), later, "it was stamped once it had been verified");

    // One bit of the content: trusted during this boot, found out after the next.
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(View::open(&path, &later).is_ok());
    let error = View::open(&path, &BOOT).err().unwrap().to_string();
    assert_eq!(error, format!("{} is damaged: its checksum differs", path.display()));
    assert_eq!(stamp(&path), later, "a damaged file is not stamped");
}

#[test]
fn files_that_are_no_views_are_damaged() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("view");
    let good = build(&dir([("a", file("text"))]), target).unwrap();
    let edited = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let cases = [
        (vec![], "it is too short"),
        (good[..HEADER_LEN - 1].to_vec(), "it is too short"),
        (good[..good.len() - 1].to_vec(), "bytes instead of"),
        ([&good[..], b"x"].concat(), "bytes instead of"),
        (edited(0, b'S'), "it is not a view"),
        (edited(8, 99), "it has version 99 instead of"),
        (edited(67, 0xff), "bytes instead of"),
    ];
    for (bytes, reason) in cases {
        std::fs::write(&path, &bytes).unwrap();
        let error = View::open(&path, &[0; 16]).err().unwrap();
        assert!(matches!(&error, Error::Damaged { reason: r, .. } if r.contains(reason)), "{error} / {reason}");
    }
    assert!(matches!(View::open(&temp.path().join("none"), &BOOT), Err(Error::Io { .. })));
}

#[test]
fn manifests_that_do_not_hang_together_are_refused() {
    let tree = dir([("a", sub([("b", file("text"))])), ("c", file("text"))]);
    let reason = |manifest: &Manifest| build_manifest(manifest, target).unwrap_err().to_string();
    let mut without_tree = Manifest::from_dir(&tree);
    without_tree.trees.truncate(1);
    assert!(reason(&without_tree).contains("of directory \"a\" is missing"));
    let mut twice = Manifest::from_dir(&tree);
    let again = twice.trees[0].entries[1].clone();
    twice.trees[0].entries.push(again);
    assert!(reason(&twice).contains("stands twice"));
    assert!(reason(&Manifest { trees: vec![] }).contains("no tree"));
}

#[test]
fn equal_directories_are_listed_wherever_they_appear() {
    let inner = || sub([("x", file("1"))]);
    let tree = dir([("a", inner()), ("b", sub([("a", inner())]))]);
    let view = View::from_bytes(build_manifest(&Manifest::from_dir(&tree), target).unwrap()).unwrap();
    let paths: BTreeMap<String, NodeId> = view.walk().collect();
    assert_eq!(paths.keys().collect::<Vec<_>>(), ["a", "a/x", "b", "b/a", "b/a/x"]);
}
