//! What is done to a runtime that is already mounted: by a process that moves into its namespaces.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use rustix::thread::LinkNameSpaceType;

use crate::SPFS;
use crate::error::{Error, Result};
use crate::link::{Announce, Link};
use crate::lower::Makers;
use crate::namespace;
use crate::overlay::{Overlay, SAFE};
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
