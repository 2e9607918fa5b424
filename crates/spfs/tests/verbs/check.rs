//! `check`: what is whole, what is damaged, and whom it belongs to.

use spfs::check::{Belongs, Options, Piece, Report, check};
use spfs::repo::{Digest, NoProgress, Progress, Repository};

use crate::Repo;

fn run(repo: &Repo, options: &Options) -> Report {
    check(&repo.dir, options, &NoProgress).unwrap()
}

/// A repository with a tagged platform of one layer, and an untagged layer. Returns the digest of `tool`.
fn sample() -> (Repo, Digest, Digest) {
    let repo = Repo::new();
    let layer = repo.layer(&[("bin/tool", "755:hello"), ("zz", "world"), ("same", "hello")]);
    let platform = repo.platform(&[layer]);
    repo.tag("p", &platform);
    repo.layer(&[("loose", "loose!")]);
    let tool = repo.file(b"hello");
    (repo, tool, layer)
}

/// Replaces a file that may be read-only.
fn overwrite(path: &std::path::Path, content: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
}

#[test]
fn a_healthy_repository() {
    let (repo, ..) = sample();
    for options in
        [Options::default(), Options { fast: true, ..Options::default() }, Options { threads: 1, ..Options::default() }]
    {
        let report = run(&repo, &options);
        assert_eq!(report.problems, []);
        assert!(report.is_clean());
        assert_eq!((report.tags.visited, report.objects.visited, report.payloads.visited), (1, 8, 3));
        assert_eq!(report.bytes, 5 + 5 + 6);
    }
}

#[test]
fn an_altered_payload_is_named_with_what_needs_it() {
    let (repo, tool, layer) = sample();
    overwrite(&repo.payload_path(&tool), b"hellO");
    let report = run(&repo, &Options::default());
    assert_eq!((report.payloads.damaged, report.payloads.missing, report.objects.damaged), (1, 0, 0));
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert_eq!(problem.piece, Piece::Payload(tool));
    assert!(!problem.missing);
    let [
        Belongs::Path(path),
        Belongs::Object("manifest", _),
        Belongs::Object("layer", found),
        Belongs::Object("platform", _),
        Belongs::Tag(tag),
    ] = &problem.belongs_to[..]
    else {
        panic!("{problem:?}")
    };
    assert_eq!((path.as_str(), *found, tag.to_string().as_str()), ("bin/tool", layer, "p"));
    assert!(run(&repo, &Options { fast: true, ..Options::default() }).is_clean(), "fast tests existence only");
}

#[test]
fn missing_things_are_found_fast_and_slow() {
    for fast in [false, true] {
        let (repo, tool, _) = sample();
        std::fs::remove_file(repo.payload_path(&tool)).unwrap();
        std::fs::remove_file(repo.object_path(&repo.file(b"world"))).unwrap();
        let report = run(&repo, &Options { fast, ..Options::default() });
        assert_eq!((report.payloads.missing, report.objects.missing), (1, 1), "{report:?}");
        let paths: Vec<_> = report.problems.iter().map(|p| (p.missing, p.belongs_to[0].clone())).collect();
        assert_eq!(paths, [(true, Belongs::Path("zz".into())), (true, Belongs::Path("bin/tool".into()))]);
    }
}

#[test]
fn a_missing_tag_target_counts() {
    let (repo, ..) = sample();
    let platform = repo.history(&"p".parse().unwrap()).unwrap()[0].target;
    std::fs::remove_file(repo.object_path(&platform)).unwrap();
    let report = run(&repo, &Options::default());
    assert_eq!((report.tags.visited, report.tags.missing, report.objects.missing), (1, 1, 1));
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].belongs_to, [Belongs::Tag("p".parse().unwrap())]);
}

#[test]
fn damaged_objects_and_tags() {
    for altered in [&b""[..], b"--SPFS--\n", b"garbage", &[0; 200]] {
        let (repo, _, layer) = sample();
        overwrite(&repo.object_path(&layer), altered);
        overwrite(&repo.root().join("tags/p.tag"), &[0, 0, 0, 0, 0, 0, 0, 9, 1]);
        let report = run(&repo, &Options::default());
        assert_eq!((report.objects.damaged, report.tags.damaged), (1, 1), "{report:?}");
        assert!(report.problems.iter().any(|p| p.piece == Piece::Tag("p".into())));
        assert!(report.problems.iter().any(|p| p.piece == Piece::Object(layer) && !p.missing));
    }
}

#[test]
fn an_object_under_the_name_of_another_is_damaged() {
    let (repo, _, layer) = sample();
    let other = repo.layer(&[("other", "1")]);
    let bytes = std::fs::read(repo.object_path(&other)).unwrap();
    overwrite(&repo.object_path(&layer), &bytes);
    let report = run(&repo, &Options::default());
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert_eq!(problem.piece, Piece::Object(layer));
}

#[test]
fn only_what_was_asked_for() {
    let (repo, tool, _) = sample();
    overwrite(&repo.payload_path(&tool), b"hellO");
    let loose = repo.layer(&[("loose", "loose!")]);
    let report = run(&repo, &Options { only: Some(vec![loose]), ..Options::default() });
    assert!(report.is_clean());
    assert_eq!((report.tags.visited, report.objects.visited, report.payloads.visited), (0, 3, 1));
    let gone = Digest::of(b"nothing");
    let report = run(&repo, &Options { only: Some(vec![gone]), ..Options::default() });
    assert_eq!(report.objects.missing, 1);
}

#[test]
fn stray_payloads_are_hashed_too() {
    let repo = Repo::new();
    let stray = repo.file(b"stray");
    std::fs::remove_file(repo.object_path(&stray)).unwrap();
    let report = run(&repo, &Options::default());
    assert!(report.is_clean());
    assert_eq!((report.objects.visited, report.payloads.visited), (0, 1));
    overwrite(&repo.payload_path(&stray), b"");
    assert_eq!(run(&repo, &Options::default()).payloads.damaged, 1);
}

#[test]
fn it_stops_when_told() {
    struct Stop;
    impl Progress for Stop {
        fn interrupted(&self) -> bool {
            true
        }
    }
    let (repo, ..) = sample();
    let error = check(&repo.dir, &Options::default(), &Stop).unwrap_err();
    assert_eq!(error.to_string(), "interrupted");
}
