//! What is done to a runtime that is already mounted: by a process that moves into its namespaces.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use crate::SPFS;
use crate::error::{Error, Result};
use crate::link::{Announce, Link};
use crate::lower::Makers;
use crate::namespace;
use crate::overlay::{self, Overlay, SAFE};
use crate::plan::Plan;
use crate::sys::mount;

/// Moves this single-threaded process, which has the capabilities of the runtime's user namespace, into the mount
/// namespace `namespace`, which must be the one numbered `id`.
pub fn enter_mounts(namespace: BorrowedFd<'_>, id: u64) -> Result<()> {
    let stat = rustix::fs::fstat(namespace).map_err(Error::system("look at the caller's namespace"))?;
    if stat.st_ino != id {
        return Err(Error::NotInside);
    }
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))
        .map_err(Error::system("enter the runtime's mount namespace"))
}

/// Allows or forbids changes, in place: open files and working directories stay as they are.
///
/// Errors: [`Error::Busy`] while a file is open for writing and changes are to be forbidden.
pub fn set_editable(editable: bool) -> Result<()> {
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let none = MountAttrFlags::empty();
    let (set, clear) = if editable { (none, read_only) } else { (read_only, none) };
    mount::set_attributes(CWD, c"/spfs", set, clear).map_err(|e| match e {
        Errno::BUSY => Error::Busy,
        e => Error::system(if editable { "make /spfs editable" } else { "make /spfs read-only" })(e),
    })
}

/// Where a plan is to be mounted instead of what is there.
pub struct Place<'a> {
    /// The runtime's mount namespace, as the caller has it.
    pub namespace: BorrowedFd<'a>,
    /// Its number.
    pub id: u64,
    /// The monitor.
    pub link: &'a Link,
}

/// Replaces what is mounted at `/spfs` by `plan`, without an instant in which nothing is there. Processes that sit in
/// the old one keep it. The new upper directory and what tells its end go through the place's link.
///
/// The overlay is made here, in a mount namespace of this process's own, and then carried over.
pub fn replace(
    plan: &Plan,
    place: &Place<'_>,
    tree: &dyn Fn(&Path) -> Result<()>,
    prepare: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<Vec<String>> {
    namespace::unshare_mounts()?;
    let announce = Announce { monitor: place.link, server: Cell::new(None) };
    let overlay = Overlay::make(plan, &Makers { announce, tree }, prepare)?;
    overlay.hold(place.link)?;
    enter_mounts(place.namespace, place.id)?;
    let beneath = attach_instead(&overlay)?;
    if beneath {
        mount::detach(SPFS)?;
    }
    attach_binds(plan)?;
    let watch = overlay.watch.as_ref().map(AsFd::as_fd);
    let upper = overlay.upper.as_ref().map(AsFd::as_fd);
    place.link.send_mounted(namespace::mount_namespace_id()?, upper, watch)?;
    Ok(overlay.remarks)
}

/// Attaches an overlay beneath the one that is visible. Before Linux 6.5 it can only go on top, where the old one stays
/// beneath it for as long as the runtime lives; then this is false.
fn attach_instead(overlay: &Overlay) -> Result<bool> {
    let mounts: Vec<_> = overlay.marker.iter().chain([&overlay.mount]).map(AsFd::as_fd).collect();
    for mounted in &mounts {
        match mount::attach_beneath(*mounted, SPFS) {
            Err(Error::System { source, .. }) if Errno::from_io_error(&source) == Some(Errno::INVAL) => {
                mounts.iter().try_for_each(|mounted| mount::attach(*mounted, SPFS))?;
                return Ok(false);
            }
            other => other?,
        }
    }
    Ok(true)
}

/// Mounts the live files and directories over the view.
pub fn attach_binds(plan: &Plan) -> Result<()> {
    for bind in &plan.binds {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = rustix::mount::open_tree(CWD, &bind.source, flags).map_err(Error::io("bind", &bind.source))?;
        mount::set_attributes(tree.as_fd(), c"", SAFE, MountAttrFlags::empty())
            .map_err(Error::io("bind", &bind.source))?;
        let target = Path::new(SPFS).join(&bind.target);
        let text = target.to_str().ok_or_else(|| Error::Limit(format!("{} is not UTF-8", target.display())))?;
        mount::attach(tree.as_fd(), text)?;
    }
    Ok(())
}

/// The processes in the mount namespace numbered `id` of the runtime `name`, as far as this process may see them.
///
/// The kernel gives the number of a namespace that has ended to the next one, so the mount at `/spfs` is looked at too.
pub fn members(id: u64, name: &str) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32| fs::metadata(format!("/proc/{pid}/ns/mnt")).is_ok_and(|m| m.ino() == id);
    let found: Vec<i32> = pids.filter(inside).collect();
    // One is enough: some may have changed their root directory.
    let source = format!(" {} ", overlay::source(name));
    let shows = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|m| m.contains(&source));
    if !found.iter().any(shows) {
        return Vec::new();
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

/// The numbers of all mount namespaces that have a process which this process may see.
pub fn inhabited() -> HashSet<u64> {
    let Ok(processes) = fs::read_dir("/proc") else { return HashSet::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(Pid::from_raw).filter_map(namespace_of).collect()
}

/// The number of the mount namespace of a process, if it may be looked at.
pub fn namespace_of(process: Pid) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{}/ns/mnt", process.as_raw_nonzero())).ok()?.ino())
}

/// Moves this single-threaded process into the namespaces of `member`, keeping its directory where it exists there.
pub fn join(member: Pid) -> Result<()> {
    let directory = std::env::current_dir().ok();
    let action = || format!("join process {}", member.as_raw_nonzero());
    let process: OwnedFd =
        rustix::process::pidfd_open(member, PidfdFlags::empty()).map_err(|e| Error::system(action())(e))?;
    let same_user = same_namespace(member, "user");
    let kinds =
        if same_user { ThreadNameSpaceType::MOUNT } else { ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::USER };
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), kinds).map_err(|e| Error::system(action())(e))?;
    if let Some(directory) = directory {
        let _ = rustix::process::chdir(&directory).or_else(|_| rustix::process::chdir("/"));
    }
    Ok(())
}

fn same_namespace(member: Pid, kind: &str) -> bool {
    let id = |of: &str| fs::metadata(format!("/proc/{of}/ns/{kind}")).map(|m| (m.dev(), m.ino())).ok();
    let theirs = id(&member.as_raw_nonzero().to_string());
    theirs.is_some() && theirs == id("self")
}
