//! Listing, reading and writing single files.

use spfs::files::{self, Content, FileKind};
use spfs::merged::{Merged, relative};
use spfs::repo::Repository;

use crate::{Repo, author};

fn read_all(mut content: Content) -> spfs::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 3]);
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

#[test]
fn directories_are_listed_and_files_read() {
    let repo = Repo::new();
    let layer = repo.layer(&[("bin/tool", "755:hello"), ("bin/link -> tool", ""), ("empty/", ""), ("a", "xyz")]);
    let merged = Merged::read(&repo.dir, &[layer]).unwrap();
    let listing = files::list(&merged, "", true).unwrap();
    let shown: Vec<_> = listing.entries.iter().map(|e| (e.name.as_str(), e.kind, e.mode, e.size)).collect();
    assert_eq!(
        shown,
        [
            ("a", FileKind::File, 0o100644, 3),
            ("bin", FileKind::Directory, 0o040755, 9),
            ("empty", FileKind::Directory, 0o040755, 0),
        ]
    );
    let mut paths = Vec::new();
    files::list_below(&merged, "", false, |listing| {
        paths.push((listing.path, listing.entries.len()));
        Ok(())
    })
    .unwrap();
    assert_eq!(paths, [(String::new(), 3), ("bin".into(), 2)]);
    let read = |path: &str| {
        let digest = files::payload_at(&merged, &relative(path)?)?;
        read_all(Content::open(&repo.dir, &digest)?)
    };
    assert_eq!(read("/spfs/bin/tool").unwrap(), b"hello");
    assert_eq!(read("bin/link").unwrap(), b"tool");
    for (path, message) in [
        ("/spfs", "/spfs: is a directory"),
        ("bin", "/spfs/bin: is a directory"),
        ("bin/none", "/spfs/bin/none: no such file or directory"),
        ("a/b", "/spfs/a/b: no such file or directory"),
        ("../a", "invalid path \"../a\": '..' has no meaning in a stored tree"),
    ] {
        assert_eq!(read(path).unwrap_err().to_string(), message);
    }
    assert_eq!(files::list(&merged, "a", false).unwrap_err().to_string(), "/spfs/a: is not a directory");
    assert!(files::list(&merged, "x", false).is_err());
}

#[test]
fn paths_below_spfs() {
    for (typed, path) in [
        ("/spfs", ""),
        ("/", ""),
        ("/spfs/a//b/./c/", "a/b/c"),
        ("/a", "a"),
        ("a", "a"),
        ("/spfsa", "spfsa"),
        ("/spfs/spfs/x", "spfs/x"),
    ] {
        assert_eq!(relative(typed).unwrap(), path, "{typed}");
    }
}

#[test]
fn what_is_written_is_read_back_and_what_is_altered_is_noticed() {
    let repo = Repo::new();
    let tags = ["note".parse().unwrap()];
    let written = files::write(&repo.dir, &mut &b"some text"[..], &tags, &author()).unwrap();
    assert_eq!(written.size, 9);
    assert!(files::is_blob(&repo.dir, &written.digest).unwrap());
    assert_eq!(repo.history(&tags[0]).unwrap()[0].target, written.digest);
    assert_eq!(read_all(Content::open(&repo.dir, &written.digest).unwrap()).unwrap(), b"some text");
    let path = repo.payload_path(&written.digest);
    std::fs::remove_file(&path).unwrap();
    assert!(Content::open(&repo.dir, &written.digest).err().unwrap().to_string().contains("missing payload"));
    std::fs::write(&path, "other text").unwrap();
    let error = read_all(Content::open(&repo.dir, &written.digest).unwrap()).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
}
