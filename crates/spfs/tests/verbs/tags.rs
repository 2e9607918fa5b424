//! Tags: making, removing, listing, history, search.

use spfs::repo::{Repository, TagName, TagSpec};
use spfs::tags::{self, Author, Untag};

use crate::{Repo, author};

fn name(text: &str) -> TagName {
    text.parse().unwrap()
}

fn later(seconds: i64) -> Author {
    Author { time: author().time + jiff::SignedDuration::from_secs(seconds), ..author() }
}

#[test]
fn a_tag_has_versions_and_loses_them_one_by_one() {
    let repo = Repo::new();
    let layers = [repo.layer(&[("a", "1")]), repo.layer(&[("a", "2")]), repo.layer(&[("a", "3")])];
    for (round, layer) in layers.iter().enumerate() {
        tags::tag(&repo.dir, layer, &[name("vfx/x")], &later(round as i64)).unwrap();
        // The same again adds nothing.
        tags::tag(&repo.dir, layer, &[name("vfx/x")], &later(100 + round as i64)).unwrap();
    }
    let log = tags::log(&repo.dir, &name("vfx/x")).unwrap();
    let shown: Vec<_> = log.iter().map(|v| (v.tag.to_string(), v.target, v.user.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("vfx/x".into(), layers[2], "me@host"),
            ("vfx/x~1".into(), layers[1], "me@host"),
            ("vfx/x~2".into(), layers[0], "me@host"),
        ]
    );
    let removed = tags::untag(&repo.dir, &name("vfx/x"), Untag::Version(1)).unwrap();
    assert_eq!((removed.len(), removed[0].target), (1, layers[1]));
    assert!(tags::untag(&repo.dir, &name("vfx/x"), Untag::Version(2)).is_err());
    tags::untag(&repo.dir, &name("vfx/x"), Untag::Version(0)).unwrap();
    assert_eq!(tags::tags(&repo.dir).unwrap().0[0].target, layers[0]);
    assert_eq!(tags::untag(&repo.dir, &name("vfx/x"), Untag::All).unwrap().len(), 1);
    assert!(tags::log(&repo.dir, &name("vfx/x")).unwrap_err().to_string().contains("unknown reference"));
    assert!(tags::untag(&repo.dir, &name("vfx/x"), Untag::All).is_err());
    assert_eq!(tags::tags(&repo.dir).unwrap().0, []);
}

#[test]
fn listing_and_searching() {
    let repo = Repo::new();
    let layer = repo.layer(&[("a", "1")]);
    for tag in ["b", "a", "vfx/maya/2026", "vfx/nuke", "vfx"] {
        repo.tag(tag, &layer);
    }
    let hidden = repo.dir.clone().with_namespace(Some("ns")).unwrap();
    tags::tag(&hidden, &layer, &[name("secret")], &author()).unwrap();
    assert_eq!(tags::list(&repo.dir, "/", false).unwrap(), ["a", "b", "vfx", "vfx/"]);
    assert_eq!(tags::list(&repo.dir, "vfx/", false).unwrap(), ["maya/", "nuke"]);
    assert_eq!(tags::list(&repo.dir, "/vfx", true).unwrap(), ["maya/2026", "nuke"]);
    assert_eq!(tags::list(&repo.dir, "/", true).unwrap(), ["a", "b", "vfx", "vfx/maya/2026", "vfx/nuke"]);
    assert_eq!(tags::list(&repo.dir, "nothing", false).unwrap(), [] as [&str; 0]);
    assert_eq!(tags::search(&repo.dir, "may").unwrap(), [name("vfx/maya/2026")]);
    assert_eq!(tags::search(&repo.dir, "secret").unwrap(), []);
    assert_eq!(tags::search(&hidden, "").unwrap(), [name("secret")]);
}

#[test]
fn names_of_objects() {
    let repo = Repo::new();
    let (one, two) = (repo.layer(&[("a", "1")]), repo.layer(&[("a", "2")]));
    for (tag, target) in [("x", &one), ("x", &two), ("y", &one), ("x", &one), ("x", &two)] {
        repo.tag(tag, target);
    }
    let names = spfs::names::Names::load(&repo.dir).unwrap();
    let specs = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<TagSpec>>();
    // At most one of each stream, the newest.
    assert_eq!(names.tags(&one), specs(&["x~1", "y"]));
    assert_eq!(names.tags(&two), specs(&["x"]));
    let named = names.name(&one).unwrap();
    assert_eq!((named.short.as_str(), named.short.len()), (&one.to_string()[..8], 8));
    assert_eq!(repo.find(&named.short.parse().unwrap()).unwrap(), [one]);
}

#[test]
fn short_digests_grow_until_they_are_unique() {
    use spfs::names::{short, short_among};
    use spfs::repo::{Blob, Digest, Object, codec};
    let repo = Repo::new();
    // Blobs that share five bytes, and two of them ten.
    let mut digests = Vec::new();
    for (last, nth) in [(1u8, 9), (2, 9), (3, 6)] {
        let mut bytes = [7u8; 32];
        bytes[nth + 1] = last;
        let payload = Digest::from_bytes(bytes);
        let path = repo.object_path(&payload);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, codec::encode(&Object::new(Blob { payload, size: 0 })).unwrap()).unwrap();
        digests.push(payload);
    }
    digests.sort();
    for digest in &digests {
        let text = short(&repo.dir, digest).unwrap();
        assert_eq!(text, short_among(&digests, digest));
        assert_eq!(repo.find(&text.parse().unwrap()).unwrap(), [*digest]);
    }
    let lengths: Vec<usize> = digests.iter().map(|d| short_among(&digests, d).len()).collect();
    assert_eq!(lengths.iter().filter(|l| **l == 24).count(), 2, "{lengths:?}");
    assert_eq!(lengths.iter().filter(|l| **l == 16).count(), 1, "{lengths:?}");
    assert_eq!(short_among(&[], &digests[0]).len(), 8);
}
