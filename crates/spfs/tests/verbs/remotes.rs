//! Remotes that are configured, and those that cannot be had.

use spfs::repo::Repository;
use spfs::{Config, Env, Spfs, remotes};

use crate::Repo;

fn spfs(repo: &Repo, config: &str) -> Spfs {
    let home = repo.beside("home");
    std::fs::create_dir_all(home.join(".config/spfs")).unwrap();
    std::fs::write(home.join(".config/spfs/spfs.toml"), config).unwrap();
    let env = Env::bare(&home);
    let config = Config::load(&env).unwrap();
    Spfs::open(env, config).unwrap()
}

#[test]
fn names_and_addresses_of_directories() {
    let repo = Repo::new();
    let root = repo.root().display().to_string();
    let spfs =
        spfs(&repo, &format!("[remote.origin]\naddress = \"file:{root}\"\n[remote.away]\naddress = \"http://h\"\n"));
    let address = repo.address();
    for name in ["origin", &root, &format!("file:{root}"), &format!("file://{root}"), &format!("file:{root}?lazy=true")]
    {
        assert_eq!(remotes::open(&spfs, Some(name)).unwrap().address(), address, "{name}");
    }
    assert_eq!(remotes::open(&spfs, None).unwrap().address(), spfs.local.address());
    let spaced = remotes::open(&spfs, Some(&format!("{root}?tag_namespace=ns"))).unwrap();
    assert_eq!(spaced.as_directory().unwrap().namespace(), Some("ns"));
    let new = repo.beside("new");
    remotes::open(&spfs, Some(&format!("file:{}?create=true", new.display()))).unwrap();
    assert!(new.join("objects").is_dir());
    for (name, message) in [
        ("orgin", "did you mean origin?"),
        ("nothing", "no remote of this name"),
        ("away", "grpc://HOST:PORT"),
        ("grpc:host", "write grpc://HOST:PORT"),
        ("file://host/path", "has no host"),
        ("file:", "it has no path"),
        ("/no/such/place", "could not open repository /no/such/place"),
        (&format!("file:{root}?when=1d"), "invalid time"),
    ] {
        let error = remotes::open(&spfs, Some(name)).err().unwrap().to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
}

#[test]
fn unknown_references_know_near_tags() {
    let repo = Repo::new();
    let layer = repo.layer(&[("a", "1")]);
    repo.tag("my-layer", &layer);
    for text in ["my-layr", "my-layer~7", "my-layr~2"] {
        let error = remotes::resolve(&repo.dir, &text.parse().unwrap()).unwrap_err();
        let spfs::Error::Repo(spfs::repo::Error::UnknownReference { similar, .. }) = error else { panic!("{error}") };
        assert_eq!(similar, ["my-layer"], "{text}");
    }
}
