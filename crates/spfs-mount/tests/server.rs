//! The metadata server, as the kernel sees it. Needs root.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Barrier;

use common::{GID, Tree, UID, compare, mount_fuse, open_fuse, scratch, with_own_mounts};
use rustix::io::Errno;
use spfs_mount::server;
use spfs_mount::sys::mount::detach;

/// Serves `tree` to `work`, which is told where; the server must end well with the mount.
fn served<T: Send>(tree: &Tree, name: &str, work: impl FnOnce(&Path) -> T + Send) -> T {
    let view = tree.view();
    let at = scratch(name);
    let device = open_fuse();
    let mounted = Barrier::new(2);
    let result = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            mounted.wait(); // until then the device cannot be read
            server::serve(&view, device.as_fd(), UID, GID)
        });
        let result = with_own_mounts(|| {
            mount_fuse(&device, &at);
            mounted.wait();
            let result = work(&at);
            detach(at.to_str().unwrap()).unwrap();
            result
        });
        server.join().unwrap().unwrap();
        result
    });
    std::fs::remove_dir(&at).unwrap();
    result
}

#[test]
fn the_kernel_shows_what_the_view_says() {
    let tree = Tree::awkward();
    let expected = tree.view();
    let compared = served(&tree, "served", |at| compare(&expected, at));
    assert_eq!(compared, expected.len() as usize - 1);
}

#[test]
fn nothing_can_be_changed_and_no_data_is_invented() {
    let mut tree = Tree::default();
    tree.add("file", common::file("data", 0o666, 4));
    tree.add("empty", common::file("", 0o666, 0));
    served(&tree, "changes", |at| {
        let errno = |result: std::io::Result<()>| Errno::from_io_error(&result.unwrap_err()).unwrap();
        assert_eq!(errno(std::fs::write(at.join("new"), "x")), Errno::ROFS);
        assert_eq!(errno(std::fs::create_dir(at.join("new"))), Errno::ROFS);
        assert_eq!(errno(std::fs::remove_file(at.join("file"))), Errno::ROFS);
        assert_eq!(errno(std::fs::rename(at.join("file"), at.join("new"))), Errno::ROFS);
        assert_eq!(errno(std::os::unix::fs::symlink("x", at.join("new"))), Errno::ROFS);
        assert_eq!(errno(std::fs::read(at.join("file")).map(|_| ())), Errno::IO);
        assert_eq!(std::fs::read(at.join("empty")).unwrap(), b"");
        let space = rustix::fs::statvfs(at).unwrap();
        assert_eq!((space.f_blocks, space.f_bfree, space.f_files, space.f_namemax), (1, 0, 3, 255));
    });
}
