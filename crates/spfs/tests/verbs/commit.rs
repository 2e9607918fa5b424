//! Commits of directories and of references.

use std::fs;
use std::os::unix::fs::symlink;

use spfs::commit::{self, Options};
use spfs::files;
use spfs::merged::Merged;
use spfs::repo::{Digest, NoProgress, ObjectBody, Repository};
use spfs::{Config, Env, Spfs};

use crate::{Repo, author};

fn spfs(repo: &Repo) -> Spfs {
    let env = Env::bare(repo.beside("home")).with_var("SPFS_STORAGE_ROOT", repo.root());
    let config = Config::load(&env).unwrap();
    Spfs::open(env, config).unwrap()
}

fn digest(text: &str) -> Digest {
    text.parse().unwrap()
}

#[test]
fn a_directory_becomes_the_layer_that_upstream_makes_of_it() {
    let repo = Repo::new();
    let spfs = spfs(&repo);
    let tree = repo.beside("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("message.txt"), "hello, world\n").unwrap();
    let options = Options { tags: vec!["a/b".parse().unwrap(), "c".parse().unwrap()], ..Options::default() };
    let commit = |options: &Options| commit::path(&spfs, &repo.dir, &tree, options, &author(), &NoProgress);
    let made = commit(&options).unwrap();
    // Golden vector F1 of the format document.
    assert_eq!(made.digest, digest("L2LZ3UZA6YJUHCGLQVRRW34OTW55XT6TWZ5LJGYGZ5XMH52HZ3XA===="));
    assert_eq!(made.manifest, Some(digest("MIGFM6A22JC7UMNY4S5XGKQC4HICNB357XWHJD3FEVMCDQ5D3SVQ====")));
    for tag in &options.tags {
        assert_eq!(repo.history(tag).unwrap()[0].target, made.digest);
    }
    // Again, with the cache and without: the same, and no new version of the tags.
    for no_cache in [false, true] {
        assert_eq!(commit(&Options { no_cache, ..options.clone() }).unwrap(), made);
    }
    assert_eq!(repo.history(&options.tags[0]).unwrap().len(), 1);
    let merged = Merged::read(&repo.dir, &[made.digest]).unwrap();
    assert_eq!(files::list(&merged, "", false).unwrap().entries[0].size, 13);
}

#[test]
fn nothing_is_stored_of_what_cannot_be_committed() {
    let repo = Repo::new();
    let spfs = spfs(&repo);
    let tree = repo.beside("tree");
    let commit = |options: &Options| commit::path(&spfs, &repo.dir, &tree, options, &author(), &NoProgress);
    let none = Options::default();
    assert!(commit(&none).unwrap_err().to_string().contains("could not open"));
    fs::create_dir_all(&tree).unwrap();
    assert!(commit(&none).unwrap_err().to_string().contains("is empty"));
    assert!(repo.objects().unwrap().is_empty());
    fs::write(tree.join("fine"), "fine").unwrap();
    let socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    assert!(commit(&none).unwrap_err().to_string().contains("socket"));
    drop(socket);
    assert!(repo.objects().unwrap().is_empty());
    assert!(repo.payloads().unwrap().is_empty());
    fs::remove_file(tree.join("socket")).unwrap();
    symlink("fine", tree.join("link")).unwrap();
    commit(&none).unwrap();
    fs::remove_dir_all(&tree).unwrap();
    fs::write(&tree, "a file").unwrap();
    assert!(commit(&none).unwrap_err().to_string().contains("could not open"));
    fs::remove_file(&tree).unwrap();
    fs::create_dir(&tree).unwrap();
    let empty = commit(&Options { allow_empty: true, ..none }).unwrap();
    assert_eq!(empty.digest, digest("NBDZ2PLVZ6ZBYW6TDOC4LELMFJAWCIYL64AZE4LR4EG2YRSMRIMA===="));
}

#[test]
fn a_platform_is_a_stack_without_repetition() {
    let repo = Repo::new();
    let spfs = spfs(&repo);
    let (a, b) = (repo.layer(&[("a", "1")]), repo.layer(&[("b", "1")]));
    let tags = ["p".parse().unwrap()];
    let made = commit::platform_of(&spfs, &repo.dir, &[a, b, a], &tags, &author()).unwrap();
    let ObjectBody::Platform(platform) = repo.read_object(&made.digest).unwrap().body else { panic!() };
    assert_eq!(platform.stack, [b, a]);
    assert_eq!(repo.history(&tags[0]).unwrap()[0].target, made.digest);
    let empty = commit::platform_of(&spfs, &repo.dir, &[], &[], &author()).unwrap();
    assert_eq!(empty.digest, digest("YBC67LH2QKP6E3UGXZ3GEVYMDUAHH3QJGLKVNKOERBHYD5QHRX4A===="));
    let blob = repo.file(b"x");
    assert!(commit::platform_of(&spfs, &repo.dir, &[a, blob], &[], &author()).is_err());
}
