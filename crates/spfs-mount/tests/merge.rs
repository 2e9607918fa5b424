//! Merging against the kernel: the same layers as directories with whiteouts, under overlayfs. Needs root.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::{Tree, dir, file, own_mounts, scratch};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::MountAttrFlags;
use spfs_mount::sys::mount::{Context, attach, detach};
use spfs_mount::view::{self, NodeKind, View};
use spfs_repo::manifest::{Dir, Node};

/// What one path shows: its mode, and the size of a file or the target of a symlink.
type Shown = BTreeMap<String, (u32, String)>;

/// Writes a layer out as overlayfs keeps one: masks are character devices 0:0.
fn write_out(layer: &Dir, at: &Path) {
    for (name, node) in &layer.entries {
        let path = at.join(name);
        match node {
            Node::Mask { .. } => {
                rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
                continue;
            }
            Node::Blob { mode: 0o120_777, size, .. } => {
                symlink("t".repeat(*size as usize), &path).unwrap();
                continue;
            }
            Node::Blob { size, .. } => fs::write(&path, vec![0; *size as usize]).unwrap(),
            Node::Dir { dir, .. } => {
                fs::create_dir(&path).unwrap();
                write_out(dir, &path);
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(node.mode() & 0o7777)).unwrap();
    }
}

/// What a mount shows. Overlayfs lists the whiteouts of a directory that merges with no other; they are not there.
fn mounted(at: &Path, prefix: &str, shown: &mut Shown) {
    for entry in fs::read_dir(at).unwrap() {
        let entry = entry.unwrap();
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let content = match metadata.mode() & 0o170_000 {
            0o040_000 => {
                mounted(&entry.path(), &format!("{path}/"), shown);
                String::new()
            }
            0o120_000 => fs::read_link(entry.path()).unwrap().to_str().unwrap().to_owned(),
            _ => metadata.len().to_string(),
        };
        shown.insert(path, (metadata.mode(), content));
    }
}

/// What the merged view shows.
fn merged(layers: &[Tree]) -> Shown {
    let views: Vec<View> = layers.iter().map(Tree::view).collect();
    let merged = View::from_bytes(view::merge(&views.iter().collect::<Vec<_>>()).unwrap()).unwrap();
    let shown = |(path, id)| {
        let node = merged.node(id).unwrap();
        let content = match node.kind {
            NodeKind::Directory { .. } => String::new(),
            NodeKind::Symlink => String::from_utf8(merged.target(id).unwrap().to_vec()).unwrap(),
            _ => node.size.to_string(),
        };
        (path, (node.mode, content))
    };
    merged.walk().map(shown).collect()
}

/// What overlayfs shows of the layers, written out in a fresh tmpfs at `at`.
fn overlaid(layers: &[Tree], at: &Path) -> Shown {
    let tmpfs = Context::new("tmpfs").unwrap().mount(MountAttrFlags::empty()).unwrap();
    attach(tmpfs.as_fd(), at.to_str().unwrap()).unwrap();
    let overlay = Context::new("overlay").unwrap();
    // The topmost comes first; an empty one below makes two of a single layer.
    for number in (0..=layers.len()).rev() {
        let directory = at.join(number.to_string());
        fs::create_dir(&directory).unwrap();
        if let Some(layer) = number.checked_sub(1).and_then(|index| layers.get(index)) {
            write_out(&layer.root, &directory);
        }
        overlay.string("lowerdir+", directory.to_str().unwrap()).unwrap();
    }
    let target = at.join("merged");
    fs::create_dir(&target).unwrap();
    attach(overlay.mount(MountAttrFlags::empty()).unwrap().as_fd(), target.to_str().unwrap()).unwrap();
    let mut shown = Shown::new();
    mounted(&target, "", &mut shown);
    detach(target.to_str().unwrap()).unwrap();
    detach(at.to_str().unwrap()).unwrap();
    shown
}

/// A layer with few names, so that layers meet.
fn layer() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        3 => (0u64..6).prop_map(|size| file("x", 0o644, size)),
        1 => (1usize..4).prop_map(|size| Tree::default().link("t".repeat(size))),
        2 => Just(Node::Mask { mode: 0o020_000 }),
    ];
    let name = || prop::sample::select(vec!["a", "b", "c", ".d"]).prop_map(str::to_owned);
    let node = leaf.prop_recursive(4, 40, 4, move |inner| {
        let mode = prop::sample::select(vec![0o755, 0o700, 0o1777]);
        (mode, prop::collection::btree_map(name(), inner, 0..4)).prop_map(|(mode, entries)| dir(mode, entries))
    });
    prop::collection::btree_map(name(), node, 0..5).prop_map(|entries| {
        let mut tree = Tree::default();
        (1..4).for_each(|size| drop(tree.link("t".repeat(size)))); // so that it knows the targets
        tree.root = Dir { entries };
        tree
    })
}

#[test]
fn merging_is_what_overlayfs_does() {
    own_mounts(); // of this test's thread
    let at = scratch("merge");
    let layers = prop::collection::vec(layer(), 1..6);
    let outcome = TestRunner::default().run(&layers, |layers| {
        prop_assert_eq!(merged(&layers), overlaid(&layers, &at));
        Ok(())
    });
    fs::remove_dir_all(&at).unwrap();
    outcome.unwrap();
}
