//! Images, as the kernel and the tools of EROFS see them. Needs root and erofs-utils.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use common::{BOOT, GID, Tree, UID, compare, scratch, with_own_mounts};
use rustix::mount::MountAttrFlags;
use spfs_mount::image;
use spfs_mount::sys::mount::{Context, attach};
use spfs_mount::view::View;

/// Mounts the image of `view` in a namespace of its own and compares the two.
fn check(view: &View, name: &str) -> usize {
    let scratch = scratch(name);
    let path = scratch.join("image");
    let file = image::create(&path, view, UID, GID, &BOOT).unwrap();
    assert_eq!(image::stamp(&file).unwrap(), BOOT);
    run(Command::new("fsck.erofs").arg(&path));
    let compared = with_own_mounts(|| {
        let context = Context::new("erofs").unwrap();
        context.flag("ro").unwrap();
        context.string("source", path.to_str().unwrap()).unwrap();
        let mounted = context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap();
        let at = scratch.join("mounted");
        std::fs::create_dir(&at).unwrap();
        attach(mounted.as_fd(), at.to_str().unwrap()).unwrap();
        compare(view, &at)
    });
    std::fs::remove_dir_all(&scratch).unwrap();
    compared
}

/// Runs a tool that must succeed.
fn run(command: &mut Command) {
    let output = command.output().expect("erofs-utils is needed: run `./test setup`");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn the_kernel_shows_what_the_view_says() {
    let view = Tree::awkward().view();
    assert_eq!(check(&view, "awkward"), view.len() as usize - 1);
}

#[test]
fn an_empty_view_is_an_empty_directory() {
    assert_eq!(check(&Tree::default().view(), "empty"), 0);
}

#[test]
fn the_tools_know_the_superblock() {
    let scratch = scratch("superblock");
    let path = scratch.join("image");
    image::create(&path, &Tree::default().view(), UID, GID, &BOOT).unwrap();
    let output = Command::new("dump.erofs").arg("-s").arg(&path).output().expect("erofs-utils is needed");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("30313233-3435-3637-3839-616263646566"), "the boot id is the UUID: {text}");
    assert!(text.contains("Filesystem root nid:                          128"), "{text}");
    std::fs::remove_dir_all(Path::new(&scratch)).unwrap();
}
