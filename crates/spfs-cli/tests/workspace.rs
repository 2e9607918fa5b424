//! Rules of the whole workspace that no compiler checks: the arrows between crates, where `unsafe` may be, the size and
//! first line of every file, and that ARCHITECTURE.md speaks of what exists.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file that is not generated, in lines.
const LONGEST: usize = 600;

/// Crates in the order of the arrows: each may use those before it.
const ORDER: [&str; 5] = ["spfs-repo", "spfs-net", "spfs-mount", "spfs", "spfs-cli"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file of the project with one of these extensions, by its path from the root; nothing that is built or ignored.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                let hidden = name.starts_with('.') && name != ".ci";
                if !hidden && name != "target" {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| *wanted == extension)) {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no file {extensions:?} was found: this test looks in the wrong place");
    found
}

fn sources() -> Vec<(String, String)> {
    let sources = files(&["rs"]);
    assert!(sources.iter().any(|(path, _)| path == "crates/spfs-cli/tests/workspace.rs"));
    sources
}

/// Written by flatc: checked by `tools/generate-flatbuffers --check`, not by these rules.
fn generated(path: &str) -> bool {
    path.contains("generated")
}

/// Fails with everything that is wrong, not only the first.
#[track_caller]
fn none(wrong: Vec<String>, rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

/// What cargo knows of the workspace, with or without everything that it is built from.
fn metadata(depth: &[&str]) -> serde_json::Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"])
        .args(depth)
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// What each package of the workspace depends on, other than for its own tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap().iter();
            let used = all.filter(|dependency| dependency["kind"] != "dev").map(|dependency| text(&dependency["name"]));
            (text(&package["name"]), used.collect())
        })
        .collect()
}

#[test]
fn arrows_between_crates_point_down_only() {
    let dependencies = dependencies();
    for name in ORDER {
        assert!(dependencies.contains_key(name), "there is no crate {name}");
    }
    let mut wrong = Vec::new();
    for (at, name) in ORDER.iter().enumerate() {
        let upward = ORDER[at..].iter().filter(|other| dependencies[*name].contains(**other));
        wrong.extend(upward.map(|other| format!("{name} -> {other}")));
    }
    none(wrong, "crates may only use those below them (see ARCHITECTURE.md)");
}

#[test]
fn the_async_runtime_stays_behind_one_door() {
    let mut wrong = Vec::new();
    for (name, used) in dependencies().into_iter().filter(|(name, _)| name != "spfs-net") {
        let bad = used.into_iter().filter(|used| ["tokio", "async-std", "smol", "futures"].contains(&used.as_str()));
        wrong.extend(bad.map(|used| format!("{name} -> {used}")));
    }
    none(wrong, "only spfs-net is async, and nobody sees it");
}

/// The same as `cargo deny check licenses bans`, without a program that takes minutes to build.
#[test]
fn every_dependency_has_a_permissive_licence() {
    let rules: String = fs::read_to_string(root().join("deny.toml")).unwrap();
    let list = rules.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    let allowed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let metadata = metadata(&[]);
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 20);
    let mut wrong = Vec::new();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none").replace('/', " OR ");
        let good = licence
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|one| allowed.contains(&one.trim_matches(['(', ')', ' ']))));
        if !good {
            wrong.push(format!("{}: {licence}", package["name"]));
        }
        if ["openssl-sys", "aws-lc-sys", "async-std"].iter().any(|banned| package["name"] == *banned) {
            wrong.push(format!("{} is banned by deny.toml", package["name"]));
        }
    }
    none(wrong, "licences that deny.toml does not allow");
}

#[test]
fn unsafe_is_only_where_the_system_calls_are() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if path.starts_with("crates/spfs-mount/src/sys") || generated(&path) {
            continue;
        }
        // Not in prose, and not in the lint's own name.
        let code = |line: &&str| {
            let line = line.trim_start();
            !line.starts_with("//")
                && (line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"))
        };
        let this_line = path == "crates/spfs-cli/tests/workspace.rs";
        wrong.extend(text.lines().filter(code).filter(|_| !this_line).map(|line| format!("{path}: {}", line.trim())));
        if !this_line
            && text.contains("allow(unsafe_code)")
            && !path.ends_with("spfs-mount/src/lib.rs")
            && !path.ends_with("codec/mod.rs")
        {
            wrong.push(format!("{path}: allows unsafe code"));
        }
    }
    none(wrong, "`unsafe` belongs into spfs-mount/src/sys");
}

#[test]
fn every_source_file_is_short_and_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !generated(path)) {
        let lines = text.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{path}: {lines} lines, {LONGEST} are allowed"));
        }
        let first = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        if !first.starts_with("//! ") {
            wrong.push(format!("{path}: does not open with `//! ` and a sentence"));
        }
    }
    none(wrong, "every file has one job, and says which");
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    // Put together here, so that this file does not find itself.
    let words = ["todo", "unimplemented"].map(|word| format!("{word}!("));
    let ignored = format!("#[{}", "ignore");
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !generated(path)) {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) || line.trim_start().starts_with(&ignored) {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(wrong, "no stubs and no tests that do not run");
}

#[test]
fn the_libraries_are_silent() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let library = ["crates/spfs-repo/src/", "crates/spfs-mount/src/", "crates/spfs-net/src/", "crates/spfs/src/"]
            .iter()
            .any(|at| path.starts_with(at));
        // The conformance suite is a test, only kept in the library.
        if !library || generated(&path) || path.ends_with("/conformance.rs") {
            continue;
        }
        // Test modules come last in a file and may print.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let prints = ["println!(", "eprintln!(", "print!(", "eprint!("].iter().any(|word| line.contains(word));
            if prints && !line.trim_start().starts_with("//") {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(wrong, "only spfs-cli prints");
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let free = ["crates/spfs-repo/src/", "crates/spfs-mount/src/"].iter().any(|at| path.starts_with(at));
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if free
            && !generated(&path)
            && (code.contains("env::var") || code.contains("SystemTime::now") || code.contains("Timestamp::now"))
        {
            wrong.push(path);
        }
    }
    none(wrong, "spfs-repo and spfs-mount are told the time, the home and the settings");
}

#[test]
fn every_path_in_the_documents_exists() {
    let root = root();
    let mut wrong = Vec::new();
    for (document, text) in files(&["md"]) {
        let directory = root.join(&document).parent().unwrap().to_owned();
        // [text](path) with a relative path.
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") && !directory.join(path).exists() {
                wrong.push(format!("{document}: ({link})"));
            }
        }
    }
    // `path/like/this` and `file.rs` in the map of the code: from the root, or from a crate named before.
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let named = map.split('`').skip(1).step_by(2).filter(|word| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        let inside =
            ["crates/", "docs/", "benches/", "tools/", "fuzz/", ".ci/"].iter().any(|start| word.starts_with(start));
        plain && inside
    });
    wrong.extend(named.filter(|path| !root.join(path).exists()).map(|path| format!("ARCHITECTURE.md: `{path}`")));
    none(wrong, "documents may only speak of what is there");
}
