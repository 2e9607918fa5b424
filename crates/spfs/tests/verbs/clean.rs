//! `clean`: what the plan lists, and what it spares.

use spfs::clean::plan;
use spfs::repo::NoProgress;

use crate::{Repo, author};

#[test]
fn what_nothing_needs_is_counted_and_nothing_is_touched() {
    let repo = Repo::new();
    let kept = repo.layer(&[("kept", "kept")]);
    repo.tag("t", &kept);
    let in_namespace = repo.layer(&[("spaced", "spaced")]);
    let namespace = repo.dir.clone().with_namespace(Some("ns")).unwrap();
    spfs::tags::tag(&namespace, &in_namespace, &["x".parse().unwrap()], &author()).unwrap();
    let running = repo.layer(&[("running", "running")]);
    repo.layer(&[("loose", "loose content"), ("kept", "kept")]);
    let stray = repo.file(b"stray, and longer than the other");
    std::fs::remove_file(repo.object_path(&stray)).unwrap();
    // The same whichever namespace the repository is opened with.
    for repository in [&repo.dir, &namespace] {
        let found = plan(repository, &[running], &NoProgress).unwrap();
        assert_eq!((found.roots, found.unreadable.len()), (3, 0));
        assert_eq!((found.objects.visited, found.objects.count), (12, 3), "{found:?}");
        assert_eq!((found.payloads.visited, found.payloads.count), (5, 2));
        assert_eq!(found.payloads.bytes, 13 + 32);
        assert_eq!((found.payloads.largest[0].digest, found.payloads.largest[0].bytes), (stray, 32));
    }
    assert_eq!(plan(&repo.dir, &[], &NoProgress).unwrap().payloads.count, 3);
    assert!(repo.payload_path(&stray).exists());
}

#[test]
fn what_cannot_be_read_is_said() {
    let repo = Repo::new();
    let layer = repo.layer(&[("a", "1")]);
    repo.tag("t", &layer);
    std::fs::remove_file(repo.object_path(&layer)).unwrap();
    assert_eq!(plan(&repo.dir, &[], &NoProgress).unwrap().unreadable, [], "missing is not unreadable");
    std::fs::write(repo.object_path(&layer), "garbage").unwrap();
    std::fs::create_dir_all(repo.root().join("tags/outer#ns/inner#ns")).unwrap();
    std::fs::write(repo.root().join("tags/broken.tag"), [0, 0, 0, 0, 0, 0, 0, 9, 1]).unwrap();
    let found = plan(&repo.dir, &[], &NoProgress).unwrap();
    let what: Vec<&str> = found.unreadable.iter().map(|u| u.what.as_str()).collect();
    assert_eq!(what, ["broken", "tag namespace outer/inner", &layer.to_string()]);
}
