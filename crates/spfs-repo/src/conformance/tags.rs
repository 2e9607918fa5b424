//! The cases of the suite about tags.

use jiff::Timestamp;

use super::Case;
use crate::codec;
use crate::digest::Digest;
use crate::error::Error;
use crate::repository::{Repository, TagListing};
use crate::tag::{Tag, TagName};

pub(super) const CASES: &[(&str, Case)] = &[
    ("an empty repository has no tags", empty),
    ("pushing makes a history", push),
    ("pushing the same target again writes nothing", idempotent_push),
    ("a push that is not later becomes later", push_is_newest),
    ("inserted tags take their place in time", insertion_order),
    ("equal tags are kept once", insert_is_idempotent),
    ("folders and tags of one name live side by side", listing),
    ("one record can be removed", remove_one),
    ("a stream can be removed", remove_stream),
    ("no concurrent push is lost", concurrent_pushes),
    ("many threads use many streams", concurrent_streams),
];

fn name(text: &str) -> TagName {
    text.parse().unwrap()
}

fn tag(stream: &str, target: &str, seconds: i64) -> Tag {
    Tag {
        name: name(stream),
        target: Digest::of(target.as_bytes()),
        parent: Digest::NULL,
        user: "me@host".to_owned(),
        time: Timestamp::from_second(seconds).unwrap(),
    }
}

fn targets(repository: &dyn Repository, stream: &str) -> Vec<Digest> {
    repository.history(&name(stream)).unwrap().iter().map(|tag| tag.target).collect()
}

fn digests(contents: &[&str]) -> Vec<Digest> {
    contents.iter().map(|content| Digest::of(content.as_bytes())).collect()
}

fn is_unknown(error: Error) -> bool {
    matches!(error, Error::UnknownReference { .. })
}

fn empty(repository: &dyn Repository) {
    assert_eq!(repository.history(&name("a/b")).unwrap(), []);
    assert_eq!(repository.tag_names().unwrap(), []);
    for folder in ["", "/", "a", "/a/b/"] {
        assert_eq!(repository.list_tags(folder).unwrap(), []);
    }
    assert!(is_unknown(repository.remove_tag_stream(&name("a")).unwrap_err()));
    assert!(is_unknown(repository.remove_tag(&tag("a", "x", 1)).unwrap_err()));
}

fn push(repository: &dyn Repository) {
    let first = repository.push_tag(&tag("org/sub/name", "1", 10)).unwrap();
    assert_eq!(first, tag("org/sub/name", "1", 10));
    let fine = Tag { time: Timestamp::new(20, 123_456_789).unwrap(), ..tag("org/sub/name", "2", 0) };
    let second = repository.push_tag(&fine).unwrap();
    assert_eq!(second.parent, codec::tag::digest(&first));
    assert_eq!(second.time, Timestamp::new(20, 123_456_000).unwrap(), "microseconds are kept");
    assert_eq!(repository.history(&name("org/sub/name")).unwrap(), [second, first]);
    assert_eq!(repository.tag_names().unwrap(), [name("org/sub/name")]);
}

fn idempotent_push(repository: &dyn Repository) {
    let first = repository.push_tag(&tag("t", "1", 10)).unwrap();
    assert_eq!(repository.push_tag(&tag("t", "1", 20)).unwrap(), first);
    repository.push_tag(&tag("t", "2", 30)).unwrap();
    repository.push_tag(&tag("t", "1", 40)).unwrap();
    assert_eq!(targets(repository, "t"), digests(&["1", "2", "1"]));
}

fn push_is_newest(repository: &dyn Repository) {
    repository.push_tag(&tag("t", "1", 1000)).unwrap();
    let second = repository.push_tag(&tag("t", "2", 500)).unwrap();
    let third = repository.push_tag(&tag("t", "3", 1000)).unwrap();
    assert_eq!(second.time, Timestamp::from_microsecond(1_000_000_001).unwrap());
    assert_eq!(third.time, Timestamp::from_microsecond(1_000_000_002).unwrap());
    assert_eq!(targets(repository, "t"), digests(&["3", "2", "1"]));
}

fn insertion_order(repository: &dyn Repository) {
    for (target, seconds) in [("c", 30), ("a", 10), ("d", 40), ("b", 20)] {
        repository.insert_tag(&tag("t", target, seconds)).unwrap();
    }
    assert_eq!(targets(repository, "t"), digests(&["d", "c", "b", "a"]));
    // Of the same time: by target.
    repository.insert_tag(&tag("same", "x", 10)).unwrap();
    repository.insert_tag(&tag("same", "y", 10)).unwrap();
    repository.insert_tag(&tag("same", "z", 10)).unwrap();
    let mut sorted = digests(&["x", "y", "z"]);
    sorted.sort_by(|a, b| b.cmp(a));
    assert_eq!(targets(repository, "same"), sorted);
}

fn insert_is_idempotent(repository: &dyn Repository) {
    let record = Tag { parent: Digest::of(b"parent"), ..tag("t", "1", 10) };
    repository.insert_tag(&record).unwrap();
    repository.insert_tag(&record).unwrap();
    let history = repository.history(&name("t")).unwrap();
    assert_eq!(history, std::slice::from_ref(&record), "the parent is kept as given");
    repository.insert_tag(&Tag { user: "you@host".to_owned(), ..record }).unwrap();
    assert_eq!(repository.history(&name("t")).unwrap().len(), 2);
}

fn listing(repository: &dyn Repository) {
    for stream in ["a", "a/b", "a/b/c", "a.tag.lock", "z", "a.b"] {
        repository.push_tag(&tag(stream, "1", 10)).unwrap();
    }
    let (folder, tag) = (|n: &str| TagListing::Folder(n.to_owned()), |n: &str| TagListing::Tag(n.to_owned()));
    let top = vec![folder("a"), tag("a"), tag("a.b"), tag("a.tag.lock"), tag("z")];
    for text in ["", "/"] {
        assert_eq!(repository.list_tags(text).unwrap(), top);
    }
    for text in ["a", "/a", "a/", "/a/"] {
        assert_eq!(repository.list_tags(text).unwrap(), [folder("b"), tag("b")]);
    }
    assert_eq!(repository.list_tags("a/b").unwrap(), [tag("c")]);
    assert_eq!(repository.list_tags("z").unwrap(), []);
    assert!(matches!(repository.list_tags("../a"), Err(Error::Invalid { .. })));
    let names: Vec<String> = repository.tag_names().unwrap().iter().map(|name| name.to_string()).collect();
    assert_eq!(names, ["a", "a.b", "a.tag.lock", "a/b", "a/b/c", "z"]);
}

fn remove_one(repository: &dyn Repository) {
    let tags: Vec<Tag> =
        ["1", "2", "3"].iter().map(|target| repository.push_tag(&tag("o/t", target, 10)).unwrap()).collect();
    repository.remove_tag(&tags[1]).unwrap();
    assert_eq!(targets(repository, "o/t"), digests(&["3", "1"]));
    assert!(is_unknown(repository.remove_tag(&tags[1]).unwrap_err()));
    repository.remove_tag(&tags[0]).unwrap();
    repository.remove_tag(&tags[2]).unwrap();
    assert_eq!(repository.tag_names().unwrap(), []);
    assert_eq!(repository.list_tags("").unwrap(), [], "empty folders go");
    repository.push_tag(&tag("o/t", "4", 10)).unwrap();
    assert_eq!(targets(repository, "o/t"), digests(&["4"]));
}

fn remove_stream(repository: &dyn Repository) {
    for stream in ["o/p/t", "o/u"] {
        repository.push_tag(&tag(stream, "1", 10)).unwrap();
        repository.push_tag(&tag(stream, "2", 20)).unwrap();
    }
    repository.remove_tag_stream(&name("o/p/t")).unwrap();
    assert!(is_unknown(repository.remove_tag_stream(&name("o/p/t")).unwrap_err()));
    assert_eq!(repository.tag_names().unwrap(), [name("o/u")]);
    assert_eq!(repository.list_tags("o").unwrap(), [TagListing::Tag("u".to_owned())]);
}

fn concurrent_pushes(repository: &dyn Repository) {
    let (threads, pushes) = (4, 10);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for n in 0..pushes {
                    repository.push_tag(&tag("shared", &format!("{thread} {n}"), n)).unwrap();
                }
            });
        }
    });
    let history = repository.history(&name("shared")).unwrap();
    assert_eq!(history.len(), threads * pushes as usize);
    for pair in history.windows(2) {
        assert_eq!(pair[0].parent, codec::tag::digest(&pair[1]), "each is the child of the one before");
        assert!(pair[0].time > pair[1].time);
    }
}

fn concurrent_streams(repository: &dyn Repository) {
    // Every removal takes the folder away that another thread is about to use.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..10 {
                    let stream = format!("folder/deep/{thread}");
                    repository.push_tag(&tag(&stream, &n.to_string(), 10)).unwrap();
                    if n < 9 {
                        repository.remove_tag_stream(&name(&stream)).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(repository.tag_names().unwrap().len(), 4);
}
