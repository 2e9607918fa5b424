//! `diff` between two environments.

use spfs::diff::diff;
use spfs::merged::Merged;
use spfs::repo::Digest;
use spfs::stack::expand;

use crate::Repo;

fn lines(repo: &Repo, from: &[Digest], to: &[Digest]) -> Vec<String> {
    let read = |stack: &[Digest]| Merged::read(&repo.dir, &expand(&repo.dir, stack).unwrap()).unwrap();
    diff(&read(from), &read(to)).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn every_kind_of_change_in_path_order() {
    let repo = Repo::new();
    let old = repo.layer(&[
        ("same", "x"),
        ("zdir/deep/file", "1"),
        ("content", "aa"),
        ("longer", "aa"),
        ("mode", "644:x"),
        ("file-to-dir", "x"),
        ("gone/a/b", "x"),
        ("dir-mode/", "755"),
        ("link -> target", ""),
    ]);
    let new = repo.layer(&[
        ("same", "x"),
        ("zdir/deep/file", "1"),
        ("zdir/new", "x"),
        ("content", "bb"),
        ("longer", "aaaa"),
        ("mode", "755:x"),
        ("file-to-dir/inside", "x"),
        ("dir-mode/", "700"),
        ("link -> other", ""),
    ]);
    assert_eq!(
        lines(&repo, &[old], &[new]),
        [
            "~/spfs/dir-mode [mode {040755=>040700}]",
            "~/spfs/file-to-dir [mode {100644=>040755}, content]",
            "+/spfs/file-to-dir/inside",
            "-/spfs/gone",
            "-/spfs/gone/a",
            "-/spfs/gone/a/b",
            "+/spfs/zdir/new",
            "~/spfs/content [content]",
            "~/spfs/link [content, size {6=>5}]",
            "~/spfs/longer [content, size {2=>4}]",
            "~/spfs/mode [mode {100644=>100755}]",
        ]
    );
    assert_eq!(lines(&repo, &[old], &[old]), [] as [&str; 0]);
    assert_eq!(lines(&repo, &[], &[]), [] as [&str; 0]);
}

#[test]
fn a_mask_removes_once_and_is_no_difference_afterwards() {
    let repo = Repo::new();
    let base = repo.layer(&[("keep", "x"), ("dir/gone", "x")]);
    let mask = repo.layer(&[("!dir/gone", "")]);
    assert_eq!(lines(&repo, &[base], &[base, mask]), ["-/spfs/dir/gone"]);
    let without = repo.layer(&[("keep", "x"), ("dir/", "")]);
    assert_eq!(lines(&repo, &[base, mask], &[without]), [] as [&str; 0]);
}

#[test]
fn stacks_merge_as_overlayfs_does() {
    let repo = Repo::new();
    let bottom = repo.layer(&[("x/b", "1"), ("d/low", "1"), ("d/both", "1")]);
    let middle = repo.layer(&[("x", "file"), ("d/both", "2")]);
    let top = repo.layer(&[("x/a", "1"), ("d/top", "1")]);
    // The file in the middle hides the bottom's directory even where the top has a directory again.
    let merged = Merged::read(&repo.dir, &[bottom, middle, top]).unwrap();
    let mut paths = Vec::new();
    merged
        .walk(|path, item| -> spfs::Result<()> {
            paths.push((path.to_owned(), item.entry.size, item.source));
            Ok(())
        })
        .unwrap();
    assert_eq!(
        paths,
        [
            ("d".into(), 0, top),
            ("d/both".into(), 1, middle),
            ("d/low".into(), 1, bottom),
            ("d/top".into(), 1, top),
            ("x".into(), 0, top),
            ("x/a".into(), 1, top),
        ]
    );
    assert!(merged.lookup("x/b").unwrap().is_none());
    assert!(merged.lookup("d/low/below").unwrap().is_none());
    assert!(merged.lookup("").unwrap().is_none());
}

#[test]
fn expanding_keeps_the_bottom_most_and_ends_whatever_the_nesting() {
    let repo = Repo::new();
    let (a, b) = (repo.layer(&[("a", "1")]), repo.layer(&[("b", "1")]));
    let mut nested = repo.platform(&[a, b]);
    assert_eq!(expand(&repo.dir, &[nested, a]).unwrap(), [a, b]);
    assert_eq!(expand(&repo.dir, &[b, nested]).unwrap(), [b, a]);
    // Each of 60 platforms has the one before, and another that has it too: 2^60 ways to the same two layers.
    for round in 0..60 {
        let note = repo.note("round", &round.to_string());
        let other = repo.platform(&[nested, note]);
        nested = repo.platform(&[nested, other]);
    }
    assert_eq!(expand(&repo.dir, &[nested]).unwrap().len(), 62);
    let blob = repo.file(b"x");
    assert!(expand(&repo.dir, &[blob]).unwrap_err().to_string().contains("is a blob, not a layer"));
}

#[test]
fn a_tree_deeper_than_any_thread_stack() {
    let repo = Repo::new();
    let path = "d/".repeat(900);
    let (one, two) = (repo.layer(&[(&format!("{path}f"), "1")]), repo.layer(&[(&format!("{path}f"), "22")]));
    let found = lines(&repo, &[one], &[two]);
    assert_eq!(found, [format!("~/spfs/{path}f [content, size {{1=>2}}]")]);
    assert_eq!(lines(&repo, &[], &[two]).len(), 901);
}

#[test]
fn a_tree_of_endlessly_many_paths_is_refused() {
    use spfs::repo::{Entry, EntryKind, Manifest, Tree};
    let repo = Repo::new();
    // Each of 60 trees names the next one twice: 2^60 paths in a few kilobytes.
    let mut trees = vec![Tree::default()];
    for _ in 0..60 {
        let object = trees.last().unwrap().digest();
        let entry = |name: &str| Entry { kind: EntryKind::Tree, object, mode: 0o040755, size: 0, name: name.into() };
        trees.push(Tree { entries: vec![entry("a"), entry("b")] });
    }
    trees.reverse();
    let bomb = Merged::single(Manifest { trees }, Digest::NULL);
    let empty = Merged::read(&repo.dir, &[]).unwrap();
    let error = spfs::diff::each(&empty, &bomb, |_| {}).unwrap_err();
    assert!(error.to_string().contains("it has more than"), "{error}");
    assert_eq!(spfs::files::list(&bomb, "a/b/a/b", false).unwrap().entries.len(), 2);
}
