//! `info` about references of every kind.

use spfs::info::{self, ObjectContent};
use spfs::names::Names;
use spfs::repo::{Annotation, AnnotationValue, Layer, Object};

use crate::Repo;

#[test]
fn a_platform_is_described_top_down_with_tags() {
    let repo = Repo::new();
    let (bottom, top) = (repo.layer(&[("a", "1")]), repo.layer(&[("b", "1")]));
    let platform = repo.platform(&[bottom, top]);
    repo.tag("my-layer", &bottom);
    repo.tag("my-platform", &platform);
    let names = Names::load(&repo.dir).unwrap();
    let description = info::describe(&names, &platform, 10).unwrap();
    assert_eq!(description.names.tags[0].to_string(), "my-platform");
    let ObjectContent::Platform { stack } = &description.content else { panic!("{description:?}") };
    let stack: Vec<_> = stack.iter().map(|item| (item.digest, item.tags.len())).collect();
    assert_eq!(stack, [(top, 0), (bottom, 1)]);
    let below = info::describe_below(&names, &platform, 10).unwrap();
    assert_eq!(below.len(), 5);
    assert_eq!(below[1].names.digest, top);
    assert!(matches!(&below[2].content, ObjectContent::Manifest { entries, total: 1, size: 1 } if entries.len() == 1));
}

#[test]
fn layers_manifests_and_blobs_are_described() {
    let repo = Repo::new();
    let long = repo.file(b"a long value");
    let manifest = repo.manifest(&repo.tree(&[("d/f", "xy"), ("!gone", ""), ("z", "1")]));
    let annotations = vec![
        Annotation { key: "k".into(), value: AnnotationValue::Text("v".into()) },
        Annotation { key: "long".into(), value: AnnotationValue::Blob(long) },
    ];
    let layer = repo.add(Object::new(Layer { manifest: Some(manifest), annotations }));
    let names = Names::load(&repo.dir).unwrap();
    let ObjectContent::Layer { manifest: found, annotations } = info::describe(&names, &layer, 9).unwrap().content
    else {
        panic!()
    };
    assert_eq!(found.unwrap().digest, manifest);
    assert_eq!(annotations[0].value.as_deref(), Some("v"));
    assert_eq!(annotations[1].blob.as_ref().unwrap().digest, long);
    let ObjectContent::Manifest { entries, total, size } = info::describe(&names, &manifest, 3).unwrap().content else {
        panic!()
    };
    assert_eq!((total, size), (4, 3));
    let shown: Vec<_> = entries.iter().map(|e| (e.path.as_str(), e.kind)).collect();
    assert_eq!(shown, [("d", "tree"), ("d/f", "file"), ("gone", "mask")]);
    assert_eq!(info::describe(&names, &long, 0).unwrap().content, ObjectContent::Blob { size: 12 });
}

#[test]
fn the_topmost_annotation_wins_in_either_way_of_asking() {
    let repo = Repo::new();
    let stack = [repo.note("k", "old"), repo.note("other", "1"), repo.note("k", "new")];
    let found = info::annotations(&repo.dir, &stack).unwrap();
    assert_eq!(found, [("k".into(), "new".into()), ("other".into(), "1".into())]);
}

#[test]
fn the_layers_of_a_file_topmost_first() {
    let repo = Repo::new();
    let bottom = repo.layer(&[("d/f", "1"), ("only", "1")]);
    let middle = repo.layer(&[("!d/f", "")]);
    let top = repo.layer(&[("d/f", "22")]);
    let platform = repo.platform(&[bottom, middle]);
    let names = Names::load(&repo.dir).unwrap();
    let found = info::sources(&names, &[top, platform], "d/f").unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|s| (s.layer.digest, s.platform.as_ref().map(|p| p.digest), s.entry.kind, s.entry.size))
        .collect();
    assert_eq!(
        shown,
        [(top, None, "file", 2), (middle, Some(platform), "mask", 0), (bottom, Some(platform), "file", 1)]
    );
    assert_eq!(info::sources(&names, &[top, platform], "none").unwrap(), []);
    assert_eq!(info::sources(&names, &[top, platform], "d/f/below").unwrap(), []);
}
