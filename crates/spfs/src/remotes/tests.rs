//! Names, addresses and chains, opened for real.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use spfs_repo::{Directory, Repository};

use super::open;
use crate::config::{Config, Env};
use crate::error::Warning;
use crate::spfs::Spfs;

/// An spfs whose configuration is `toml`, with `HOME` for its home directory.
fn spfs(toml: &str) -> (tempfile::TempDir, Spfs) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/spfs.toml"), toml.replace("HOME", root.to_str().unwrap())).unwrap();
    let env = Env::bare(&root);
    let config = Config::load(&env).unwrap();
    let spfs = Spfs::open(env, config).unwrap();
    (home, spfs)
}

#[test]
fn chains_of_any_depth_and_parts_that_are_away() {
    let toml = "[remote.a]\naddress = 'file:HOME/a?create=true'\n[remote.b]\naddress = 'file:HOME/away'\n\
                [remote.inner]\nscheme = 'proxy'\nprimary = 'a'\nsecondary = ['b']\n\
                [remote.outer]\naddress = 'proxy:?primary=inner&secondary[0]=file:HOME/c%3Ftag_namespace=n'\n";
    let (home, spfs) = spfs(toml);
    let outer = open(&spfs, Some("outer")).unwrap();
    let digest = spfs_repo::Digest::of(b"x");
    // What might be in a repository that is away is not simply missing.
    assert!(outer.missing(&[digest]).unwrap_err().to_string().contains("away"));
    for name in ["away", "c"] {
        Directory::create(home.path().join(name)).unwrap();
    }
    assert_eq!(outer.missing(&[digest]).unwrap(), [digest]);
    let root = home.path().canonicalize().unwrap();
    let address = outer.address();
    assert!(
        address.contains(&format!("file://{}/away/", root.display())) && address.contains("tag_namespace"),
        "{address}"
    );
    // The address of a chain opens it again.
    assert_eq!(
        open(&spfs, Some(&address)).unwrap().address(),
        "proxy:?primary=".to_owned() + &address["proxy:?primary=".len()..]
    );
}

#[test]
fn what_contains_itself_is_refused() {
    let toml = "[remote.a]\naddress = 'proxy:?primary=b'\n[remote.b]\naddress = 'fallback:?primary=a'\n\
                [remote.self]\nscheme = 'proxy'\nprimary = '/tmp'\nsecondary = ['self']\n";
    let (_home, spfs) = spfs(toml);
    let error = |name: &str| open(&spfs, Some(name)).err().unwrap().to_string();
    assert!(error("a").contains("it contains itself: a -> b -> a"), "{}", error("a"));
    let deep = "proxy:?primary=".repeat(40) + "/tmp";
    assert!(error(&deep).contains("nested more than"), "{}", error(&deep));
    assert!(error("sel").contains("did you mean self?"));
}

#[test]
fn times_and_namespaces() {
    let (home, spfs) =
        spfs("[remote.origin]\nscheme = 'fs'\npath = '~/o'\ncreate = true\nwhen = '@2020-06-15T00:00:00Z'\n");
    let origin = open(&spfs, Some("origin")).unwrap();
    assert!(origin.address().ends_with("when=@2020-06-15T00:00:00Z"), "{}", origin.address());
    assert_eq!(open(&spfs, Some(&origin.address())).unwrap().address(), origin.address());
    let path = home.path().join("o").display().to_string();
    let spaced = open(&spfs, Some(&format!("proxy:?primary={path}&tag_namespace=n"))).unwrap();
    assert!(spaced.address().contains("tag_namespace%3Dn"), "{}", spaced.address());
    let error = open(&spfs, Some(&format!("file:{path}?when=tomorrow"))).err().unwrap().to_string();
    assert!(error.contains("invalid time \"tomorrow\""), "{error}");
}

#[test]
fn repairs_are_told() {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let (home, mut spfs) = spfs("");
    spfs.warn = |warning: &Warning| TOLD.lock().unwrap().push(warning.to_string());
    let [a, b] = ["a", "b"].map(|name| home.path().join(name));
    let digest = {
        let b = Directory::create(&b).unwrap();
        let batch = b.begin().unwrap();
        let (digest, _) = batch.add_payload(&mut &b"hello"[..], None).unwrap();
        batch.finish().unwrap();
        digest
    };
    let address = format!("fallback:?primary=file:{}%3Fcreate=true&secondary[0]={}", a.display(), b.display());
    drop(open(&spfs, Some(&address)).unwrap().open_payload(&digest).unwrap());
    assert_eq!(Directory::open(&a).unwrap().payloads().unwrap(), [digest]);
    assert!(TOLD.lock().unwrap()[0].starts_with(&format!("repaired a missing payload: {digest} came from")));
    let error = open(&spfs, Some("fallback:?primary=tar:/x/y.tar")).err();
    assert!(error.is_some());
}
