//! Images without a kernel: what is refused, and what an image says about itself. See also `tests/image.rs`.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use spfs_repo::Digest;
use spfs_repo::manifest::{Dir, Node as Entry};

use super::*;
use crate::view::build;

const BOOT: BootId = *b"this boot, now..";

fn view(name: &str, node: Entry) -> View {
    let root = Dir { entries: [(name.to_owned(), node)].into() };
    View::from_bytes(build(&root, |_| Ok(b"target".to_vec())).unwrap()).unwrap()
}

fn file(size: u64) -> Entry {
    Entry::Blob { digest: Digest::of(b"x"), mode: 0o100_644, size }
}

#[test]
fn what_no_image_can_show_is_refused() {
    let refusal = |view: &View| write(view, &mut Vec::new(), 0, 0, &BOOT).unwrap_err().to_string();
    assert!(refusal(&view("gone", Entry::Mask { mode: 0o020_000 })).contains("\"gone\" is a mask"));
    assert!(refusal(&view("big", file((1 << 43) + 1))).contains("\"big\" is too large"));
}

#[test]
fn an_image_says_when_it_was_made() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("image");
    create(&path, &view("file", file(1)), 1, 2, &BOOT).unwrap();
    assert_eq!(stamp(&File::open(&path).unwrap()).unwrap(), BOOT);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "no temporary file is left");
    let mut other = tempfile::tempfile().unwrap();
    assert_eq!(stamp(&other).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    other.write_all(&[0; 8192]).unwrap();
    assert_eq!(stamp(&other).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_failed_write_names_the_path_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("no such directory/image");
    let error = create(&path, &view("file", file(1)), 1, 2, &BOOT).unwrap_err();
    assert!(error.to_string().contains("no such directory"), "{error}");
    assert!(create(&temp.path().join("image"), &view("gone", Entry::Mask { mode: 0 }), 1, 2, &BOOT).is_err());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn images_are_whole_blocks_and_the_same_every_time() {
    let view = view("file", file(1));
    let image = || {
        let mut bytes = Vec::new();
        write(&view, &mut bytes, 1, 2, &BOOT).unwrap();
        bytes
    };
    assert_eq!(image().len(), 8192);
    assert!(image() == image());
}
