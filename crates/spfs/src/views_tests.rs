//! Hits, misses, aliases, damage, and caches that cannot be used.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use spfs_repo::{Layer, Platform};

use super::*;
use crate::testing::Home;

/// Every path of a view, with symlink targets and masks.
fn paths(view: &View) -> Vec<String> {
    let mut paths: Vec<String> = (1..view.len())
        .map(|id| {
            let kind = view.node(id).unwrap().kind;
            match (view.target(id), kind) {
                (Some(target), _) => format!("{} -> {}", view.path(id), String::from_utf8_lossy(target)),
                (_, view::NodeKind::Mask) => format!("{}!", view.path(id)),
                _ => view.path(id),
            }
        })
        .collect();
    paths.sort();
    paths
}

fn names(home: &Home) -> usize {
    fs::read_dir(home.path().join(".cache/spfs/views")).map_or(0, Iterator::count)
}

fn inode(view: &CachedView) -> u64 {
    fs::metadata(&view.path).unwrap().ino()
}

/// Takes the repository's objects away: what works afterwards reads none.
fn without_objects<T>(home: &Home, action: impl FnOnce() -> T) -> T {
    let (objects, aside) = (home.spfs.local.root().join("objects"), home.path().join("aside"));
    fs::rename(&objects, &aside).unwrap();
    fs::create_dir(&objects).unwrap();
    let result = action();
    fs::remove_dir(&objects).unwrap();
    fs::rename(&aside, &objects).unwrap();
    result
}

const BASE: &[(&str, &str)] = &[("bin/tool", "1"), ("bin/old", "2"), ("link@", "bin/tool")];
const TOP: &[(&str, &str)] = &[("bin/old!", ""), ("bin/new", "3")];

#[test]
fn layers_are_merged_and_found_again_without_reading_objects() {
    let home = Home::new();
    let (base, top) = (home.layer(BASE), home.layer(TOP));
    let first = merged(&home.spfs, &[base, top], &[]).unwrap();
    assert_eq!(paths(&first.view), ["bin", "bin/new", "bin/tool", "link -> bin/tool"]);
    assert!(first.is_cached() && first.path.exists());
    let again = without_objects(&home, || merged(&home.spfs, &[base, top], &[]).unwrap());
    assert_eq!((inode(&again), &again.key), (inode(&first), &first.key));
    assert_eq!(paths(&again.view), paths(&first.view));
    let turned = merged(&home.spfs, &[top, base], &[]).unwrap();
    assert_eq!(paths(&turned.view), ["bin", "bin/new", "bin/old", "bin/tool", "link -> bin/tool"]);
}

#[test]
fn other_names_for_the_same_stack_share_the_file() {
    let home = Home::new();
    let (base, top) = (home.layer(BASE), home.layer(TOP));
    let platform = home.object(Platform { stack: vec![base, top] });
    let plain = merged(&home.spfs, &[base, top], &[]).unwrap();
    let named = merged(&home.spfs, &[platform], &[]).unwrap();
    assert_eq!((inode(&named), &named.key), (inode(&plain), &plain.key));
    assert!(without_objects(&home, || merged(&home.spfs, &[platform], &[])).is_ok());
}

#[test]
fn a_layer_alone_is_ready_after_its_commit() {
    let home = Home::new();
    for entries in [BASE, TOP] {
        let tree = home.manifest(entries);
        let manifest = home.object(tree.clone());
        let layer = home.object(Layer { manifest: Some(manifest), annotations: Vec::new() });
        let targets = HashMap::from([(Digest::of(b"bin/tool"), b"bin/tool".to_vec())]);
        ensure_layer(&home.spfs, &layer, (&manifest, &tree), &targets).unwrap();
        let (alone, masked) = without_objects(&home, || {
            let shelf = Shelf::of(&home.spfs);
            (merged(&home.spfs, &[layer], &[]).unwrap(), tree_only(&shelf, &manifest))
        });
        assert_eq!(alone.view.mask_count(), 0);
        let visible: Vec<String> = paths(&masked).into_iter().filter(|path| !path.ends_with('!')).collect();
        assert_eq!(paths(&alone.view), visible);
    }
    assert_eq!(paths(&layer(&home.spfs, &home.layer(TOP)).unwrap()), ["bin", "bin/new", "bin/old!"]);
}

fn tree_only(shelf: &Shelf<'_>, manifest: &Digest) -> View {
    shelf.open(&key(b"tree", &[*manifest])).unwrap().view
}

#[test]
fn empty_stacks_and_layers_of_annotations_are_empty_views() {
    let home = Home::new();
    let notes = home.object(Layer { manifest: None, annotations: vec![crate::testing::note("k", "v")] });
    for stack in [&[][..], &[notes], &[home.layer(&[])]] {
        assert_eq!(merged(&home.spfs, stack, &[]).unwrap().view.len(), 1);
    }
    assert_eq!(layer(&home.spfs, &notes).unwrap().len(), 1);
}

#[test]
fn damaged_and_stale_views_are_made_again() {
    let home = Home::new();
    let layer = home.layer(BASE);
    let good = merged(&home.spfs, &[layer], &[]).unwrap();
    let (path, expected, key) = (good.path.clone(), paths(&good.view), good.key.clone());
    drop(good);
    for damage in [&b""[..], b"short", &[0xff; 4096]] {
        // As a torn write would: all files of the cache, not only this one.
        for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
            fs::write(entry.unwrap().path(), damage).unwrap();
        }
        let again = merged(&home.spfs, &[layer], &[]).unwrap();
        assert_eq!((paths(&again.view), &again.key, again.is_cached()), (expected.clone(), &key, true));
    }
    let mut later = Home::new().spfs;
    later.env.boot_id = Some([9; 16]);
    let rebooted = Spfs { dirs: home.spfs.dirs.clone(), local: home.spfs.local.clone(), ..later };
    let again = without_objects(&home, || merged(&rebooted, &[layer], &[]).unwrap());
    assert_eq!(paths(&again.view), expected);
}

#[test]
fn a_cache_that_cannot_be_used_is_gone_around() {
    let mut home = Home::new();
    let layer = home.layer(BASE);
    fs::create_dir_all(home.path().join(".cache")).unwrap();
    // A file where the directory should be: this also stops root, whom a mode would not.
    fs::write(home.path().join(".cache/spfs"), "").unwrap();
    for cache in [home.spfs.dirs.cache.clone(), None, Some("/proc/nowhere".into())] {
        home.spfs.dirs.cache = cache;
        let view = merged(&home.spfs, &[layer], &[]).unwrap();
        assert!(!view.is_cached());
        assert_eq!(paths(&view.view), ["bin", "bin/old", "bin/tool", "link -> bin/tool"]);
        assert_eq!(View::open(&view.path, &home.spfs.env.boot().unwrap()).unwrap().len(), view.view.len());
        ensure(&home.spfs, &[layer]).unwrap();
    }
}

#[test]
fn a_full_cache_is_gone_around() {
    let home = Home::new();
    let layer = home.layer(BASE);
    let views = home.spfs.dirs.cache_sub("views").unwrap();
    // No name can be made in a directory that is gone, as on a full disk.
    fs::remove_dir(&views).unwrap();
    let shelf = Shelf { spfs: &home.spfs, dir: Some(views) };
    assert!(!merge_stack(&home.spfs, &shelf, &key(b"stack", &[layer]), &[layer]).unwrap().is_cached());
}

#[test]
fn mount_points_are_added_where_they_are_missing() {
    let home = Home::new();
    let layer = home.layer(BASE);
    let src = home.path().join("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("file"), "").unwrap();
    let bind = |source: &str, dest: &str| LiveBind { src: src.join(source), dest: dest.into() };
    let base = merged(&home.spfs, &[layer], &[]).unwrap();
    for (live, added) in [
        (vec![bind("", "bin")], vec![]),
        (vec![bind("file", "bin/tool")], vec![]),
        (vec![bind("", "a/b")], vec!["a", "a/b"]),
        (vec![bind("file", "bin/x"), bind("", "c")], vec!["bin/x", "c"]),
        (vec![bind("", "c"), bind("file", "c/file")], vec!["c"]),
    ] {
        let with = merged(&home.spfs, &[layer], &live).unwrap();
        let mut expected = paths(&base.view);
        expected.extend(added.iter().map(|path| (*path).to_owned()));
        expected.sort();
        assert_eq!(paths(&with.view), expected, "{live:?}");
        assert_eq!(with.key == base.key, added.is_empty());
        let again = without_objects(&home, || merged(&home.spfs, &[layer], &live).unwrap());
        assert_eq!(again.key, with.key);
    }
    let over = merged(&home.spfs, &[layer], &[bind("file", "link"), bind("", "bin/tool")]).unwrap();
    assert_eq!(paths(&over.view), ["bin", "bin/old", "bin/tool", "link"]);
    assert!(over.view.node(over.view.resolve("bin/tool").unwrap()).unwrap().is_directory());
    assert!(merged(&home.spfs, &[layer], &[bind("gone", "x")]).is_err());
}

#[test]
fn mount_points_keep_the_modes_of_directories() {
    let home = Home::new();
    let mut root = spfs_repo::manifest::Dir::default();
    let private = spfs_repo::manifest::Node::Dir { mode: 0o40700, dir: Default::default() };
    root.entries.insert("d".to_owned(), private);
    let manifest = home.object(Manifest::from_dir(&root));
    let view = merged(&home.spfs, &[manifest], &[LiveBind { src: "/etc".into(), dest: "d/e".into() }]).unwrap().view;
    let mode = |path: &str| view.node(view.resolve(path).unwrap()).unwrap().mode;
    assert_eq!((mode("d"), mode("d/e")), (0o40700, 0o40755));
}

#[test]
fn wrong_objects_are_errors_and_nothing_is_kept() {
    let home = Home::new();
    let blob = home.blob("x");
    for stack in [[blob], [Digest::from_bytes([3; 32])]] {
        assert!(merged(&home.spfs, &stack, &[]).is_err());
        assert!(layer(&home.spfs, &stack[0]).is_err());
    }
    let link = home.layer(&[("link@", "target")]);
    fs::remove_file(home.spfs.local.payload_path(&Digest::of(b"target"))).unwrap();
    let error = merged(&home.spfs, &[link], &[]).err().unwrap().to_string();
    assert!(error.contains("missing payload"), "{error}");
    assert_eq!(names(&home), 0);
    let mode = fs::metadata(home.path().join(".cache/spfs/views")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}
