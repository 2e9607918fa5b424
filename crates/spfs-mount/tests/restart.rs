//! The server's worker is killed again and again while somebody walks the tree: nobody notices. Needs root, `find`.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{GID, Tree, UID, dir, file, mount_fuse, open_fuse, own_mounts, scratch};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use spfs_mount::server;
use spfs_mount::sys::mount::detach;
use spfs_mount::sys::process::{Fork, exit_now, fork};
use spfs_mount::view::View;

/// How often the worker must have died in the middle of the walk.
const DEATHS: usize = 5;

fn main() {
    let mut tree = Tree::default();
    for top in 0..100 {
        let files = (0..500).map(|i| (format!("file {i}"), file(&i.to_string(), 0o644, i)));
        tree.add(&format!("directory {top}"), dir(0o755, files));
    }
    let view = tree.view();
    own_mounts();
    let at = scratch("restart");
    let device = open_fuse();
    mount_fuse(&device, &at);
    let results = scratch("restart-results");
    let into = |name: &str| std::fs::File::create(results.join(name)).unwrap();
    let mut find = Command::new("find");
    find.arg(&at).args(["-printf", "%s %m %P\\n"]).stdout(into("listing")).stderr(into("errors"));
    let mut find = find.spawn().expect("find is needed");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut deaths = 0;
    let mut worker = start_worker(&view, &device);
    while find.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the walk hangs, after {deaths} deaths");
        std::thread::sleep(Duration::from_millis(4));
        kill_process(worker, Signal::KILL).unwrap();
        waitpid(Some(worker), WaitOptions::empty()).unwrap();
        worker = start_worker(&view, &device);
        server::resend(device.as_fd()).unwrap();
        deaths += 1;
    }
    assert!(find.wait().unwrap().success());
    assert!(deaths >= DEATHS, "the walk was over after {deaths} deaths");
    assert_eq!(std::fs::read_to_string(results.join("errors")).unwrap(), "");
    let line = |(path, id)| {
        let node = view.node(id).unwrap();
        format!("{} {:o} {path}", node.size, node.mode & 0o7777)
    };
    let mut expected: Vec<String> = view.walk().map(line).chain(["0 755 ".to_owned()]).collect();
    let listing = std::fs::read_to_string(results.join("listing")).unwrap();
    let mut listing: Vec<&str> = listing.lines().collect();
    listing.sort_unstable();
    expected.sort_unstable();
    assert!(listing == expected, "{} lines instead of {}", listing.len(), expected.len());

    detach(at.to_str().unwrap()).unwrap();
    let (_, status) = waitpid(Some(worker), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the last worker ends well, with the mount");
    std::fs::remove_dir(&at).unwrap();
    std::fs::remove_dir_all(&results).unwrap();
    println!("walked {} files through {deaths} deaths of the server", expected.len());
}

/// A process that serves `view`.
fn start_worker(view: &View, device: &OwnedFd) -> Pid {
    match fork().unwrap() {
        Fork::Parent(worker) => worker,
        Fork::Child => exit_now(i32::from(server::serve(view, device.as_fd(), UID, GID).is_err())),
    }
}
