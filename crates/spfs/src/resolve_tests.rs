//! References, spec files and run specs, found in a repository of the test's own.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use spfs_repo::Platform;

use super::*;
use crate::live::LiveBind;
use crate::testing::Home;

fn try_resolve(home: &Home, text: &str) -> Result<Stack> {
    resolve(&home.spfs, &text.parse()?)
}

fn digests(home: &Home, text: &str) -> Vec<Digest> {
    try_resolve(home, text).unwrap().digests
}

fn failure(home: &Home, text: &str) -> String {
    let error = try_resolve(home, text).unwrap_err();
    crate::testing::chain(&error)
}

fn write(home: &Home, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::canonicalize(path).unwrap().display().to_string()
}

#[test]
fn tags_digests_and_prefixes_make_a_stack() {
    let home = Home::new();
    let (a, b) = (home.layer(&[("a", "1")]), home.layer(&[("b", "2")]));
    let platform = home.object(Platform { stack: vec![a, b] });
    home.tag("one", a);
    home.tag("vfx/two", a);
    home.tag("vfx/two", b);
    assert_eq!(digests(&home, "-"), []);
    assert_eq!(digests(&home, "one+vfx/two"), [a, b]);
    assert_eq!(digests(&home, "vfx/two~1"), [a]);
    assert_eq!(digests(&home, "one+vfx/two+one"), [b, a]);
    assert_eq!(digests(&home, &format!("{platform}+{}", b.short(12))), [platform, b]);
}

#[test]
fn a_tag_hides_a_digest_and_says_so() {
    let home = Home::new();
    let (a, b) = (home.layer(&[("a", "1")]), home.layer(&[("b", "2")]));
    home.tag(&a.short(8), b);
    let stack = try_resolve(&home, &a.short(8)).unwrap();
    assert_eq!(stack.digests, [b]);
    assert_eq!(stack.warnings, [Warning::ShadowedDigests { name: a.short(8), digests: vec![a] }]);
}

#[test]
fn unknown_references_suggest_tags_and_say_where_they_were_looked_for() {
    let home = Home::new();
    let layer = home.layer(&[]);
    for name in ["my-layer", "vfx/maya"] {
        home.tag(name, layer);
    }
    for (text, near) in [("my-layr", "my-layer"), ("maya", "vfx/maya"), ("my-layer~7", "my-layer")] {
        match try_resolve(&home, text).unwrap_err() {
            Error::Repo(RepoError::UnknownReference { reference, searched, similar }) => {
                assert_eq!((reference.as_str(), similar), (text, vec![near.to_owned()]));
                assert_eq!(searched, [home.spfs.local.address()]);
            }
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn blobs_and_dangling_tags_are_errors() {
    let home = Home::new();
    let blob = home.blob("x");
    home.tag("file", blob);
    assert!(failure(&home, "file").contains("is a blob, not a layer"));
    home.tag("gone", Digest::from_bytes([7; 32]));
    assert!(failure(&home, "gone").contains("unknown object"));
}

#[test]
fn spec_files_are_found_by_path() {
    let home = Home::new();
    let text = "api: v0/layer\ncontents:\n  - {bind: src, dest: /spfs/x}\n";
    fs::create_dir_all(home.path().join("dir/src")).unwrap();
    write(&home, "dir/layer.spfs.yaml", text);
    let file = write(&home, "dir/other.spfs.yaml", text);
    let src = fs::canonicalize(home.path().join("dir/src")).unwrap();
    let expected = [LiveBind { src, dest: "x".into() }];
    for path in [file.as_str(), "./dir", "./dir/", "./dir/other.spfs.yaml", "./dir/../dir"] {
        let stack = try_resolve(&home, path).unwrap();
        assert_eq!((stack.live.as_slice(), stack.digests.len()), (&expected[..], 0), "{path}");
    }
    assert_eq!(try_resolve(&home, "./dir+./dir/other.spfs.yaml").unwrap().live.len(), 2);
}

#[test]
fn wrong_spec_files_say_what_is_wrong() {
    let home = Home::new();
    fs::create_dir(home.path().join("empty")).unwrap();
    write(&home, "plain.yaml", "api: v0/layer\n");
    write(&home, "noapi.spfs.yaml", "contents: []\n");
    write(&home, "other.spfs.yaml", "# c\napi: spfs/v9/x\n");
    write(&home, "bare.spfs.yaml", "api: spfs/v0/livelayer\n");
    for (path, reason) in [
        ("./missing.spfs.yaml", "No such file"),
        ("./empty", "layer.spfs.yaml: No such file"),
        ("./plain.yaml", "ends in .spfs.yaml"),
        ("./noapi.spfs.yaml", "it has no 'api'"),
        ("./other.spfs.yaml", "other.spfs.yaml:2:6: unknown api \"spfs/v9/x\""),
        ("./bare.spfs.yaml", "contents"),
    ] {
        let error = failure(&home, path);
        assert!(error.contains(reason), "{path}: {error}");
    }
}

#[test]
fn run_specs_are_flattened_in_place() {
    let home = Home::new();
    let layers: Vec<Digest> = ["1", "2", "3", "4"].iter().map(|content| home.layer(&[("f", content)])).collect();
    for (name, layer) in ["a", "b", "c", "d"].iter().zip(&layers) {
        home.tag(name, *layer);
    }
    write(&home, "sub/inner.spfs.yaml", "api: spfs/v0/runspec\nlayers: [b, c]\n");
    write(&home, "outer.spfs.yaml", "api: spfs/v0/runspec\nlayers: [a, ./sub/inner.spfs.yaml, d]\n");
    assert_eq!(digests(&home, "./outer.spfs.yaml"), layers);
    assert_eq!(digests(&home, "d+./sub/inner.spfs.yaml+./sub/inner.spfs.yaml"), [layers[3], layers[1], layers[2]]);
}

#[test]
fn an_unknown_reference_in_a_run_spec_names_its_place() {
    let home = Home::new();
    let inner = write(&home, "inner.spfs.yaml", "api: spfs/v0/runspec\nlayers:\n  - nope\n");
    write(&home, "outer.spfs.yaml", "api: spfs/v0/runspec\nlayers: [./inner.spfs.yaml]\n");
    let error = try_resolve(&home, "./outer.spfs.yaml").unwrap_err();
    assert!(matches!(error.innermost(), Error::Repo(RepoError::UnknownReference { .. })));
    assert_eq!(crate::testing::chain(&error), format!("in {inner}:3:5: unknown reference \"nope\""));
}

#[test]
fn a_run_spec_may_not_contain_itself() {
    let home = Home::new();
    let a = write(&home, "a.spfs.yaml", "api: spfs/v0/runspec\nlayers: [./b.spfs.yaml]\n");
    let b = write(&home, "b.spfs.yaml", "api: spfs/v0/runspec\nlayers: [./a.spfs.yaml]\n");
    let error = failure(&home, "./a.spfs.yaml");
    assert!(error.contains(&format!("it contains itself: {a} -> {b} -> {a}")), "{error}");
    // Each lists the next one ten times: no cycle, and ten to the sixth references.
    for n in 0..6 {
        let next = vec![format!("./bomb{}.spfs.yaml", n + 1); 10].join(", ");
        write(&home, &format!("bomb{n}.spfs.yaml"), &format!("api: spfs/v0/runspec\nlayers: [{next}]\n"));
    }
    write(&home, "bomb6.spfs.yaml", "api: spfs/v0/runspec\nlayers: []\n");
    assert!(failure(&home, "./bomb0.spfs.yaml").contains("more than 10000 items"));
    assert!(Path::new(&a).is_absolute());
}
