//! The overlay of a runtime: what the view shows below, and a writable top from the start.
//!
//! One recipe for root and for everyone (`docs/mounts.md`): `userxattr`, so that nothing in it needs a privilege of
//! the initial namespace; every option that the kernel's configuration could change is set here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::link::{Announce, Link};
use crate::lower::{self, Lower, Makers};
use crate::namespace;
use crate::plan::{Plan, Strategy, Upper};
use crate::sys::mount::{self, Context};

/// What every mount at /spfs has: no set-uid programs and no devices out of a layer.
pub const SAFE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// What is said where overlayfs is missing.
const READ_ONLY: &str = "overlayfs cannot be mounted here: `spfs edit` will not work";

/// The source of an overlay that many runtimes share: each has a mount of its own below it ([`end`]), which tells whose it is.
const SHARED: &str = "spfs-shared";

/// What can be done with what shows a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has a place for changes.
    Own,
    /// It has none, and other runtimes may use it.
    Shared,
    /// It has none: overlayfs is missing, and this is the lower layer itself.
    Bare,
}

/// An overlay that is made but not attached anywhere yet.
pub struct Overlay {
    /// The detached mount.
    pub mount: OwnedFd,
    /// Its upper directory, `O_PATH`: it does not keep the overlay alive. None if it is shared.
    pub upper: Option<OwnedFd>,
    /// Hears of the overlay's end, where no metadata server does.
    pub watch: Option<OwnedFd>,
    /// A mount whose server hears of the end instead, where inotify is exhausted; goes below the overlay.
    pub marker: Option<OwnedFd>,
    /// Directories that it is made of, locked: while anybody holds them they are not cleaned.
    pub held: Vec<OwnedFd>,
    /// What it is.
    pub kind: Kind,
    /// What did not work as planned, and what was done instead.
    pub remarks: Vec<String>,
}

impl Overlay {
    /// Makes the overlay of `plan`, by the first of its strategies that works.
    ///
    /// `prepare` may fill the upper directory, given `O_PATH`, before the kernel takes it over. The caller must be in a
    /// mount namespace of its own: older kernels want every layer to be attached somewhere for a moment.
    pub fn make(plan: &Plan, makers: &Makers<'_>, prepare: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<Self> {
        let (mut prepare, mut changes, mut failed) = (Some(prepare), None, Vec::new());
        for strategy in &plan.strategies {
            let shared = plan.share.is_some() && strategy.can_be_shared();
            if !shared && changes.is_none() {
                let made = Changes::make(&plan.upper, plan.spare.as_deref(), namespace::is_privileged())?;
                prepare.take().map_or(Ok(()), |prepare| prepare(made.upper.as_fd()))?;
                if matches!(plan.upper, Upper::Memory { .. }) {
                    made.set_time();
                }
                changes = Some(made);
            }
            match Self::by(strategy, plan, makers, changes.as_ref().filter(|_| !shared)) {
                Ok(made) => {
                    let upper = changes.filter(|_| made.kind == Kind::Own).map(|changes| changes.upper);
                    let bare = (made.kind == Kind::Bare).then(|| READ_ONLY.to_owned());
                    let remarks = remark(&failed, strategy).into_iter().chain(bare).collect();
                    return Ok(Overlay { upper, remarks, ..made });
                }
                Err(error) => failed.push((strategy.name(), error)),
            }
        }
        Err(none_works(failed))
    }

    /// Hands what it is made of to the monitor: as long as that holds it, nobody removes it.
    pub fn hold(&self, link: &Link) -> Result<()> {
        self.held.iter().try_for_each(|held| link.send_hold(held.as_fd()))
    }

    /// The overlay without its upper directory's descriptor.
    fn by(strategy: &Strategy, plan: &Plan, makers: &Makers<'_>, changes: Option<&Changes>) -> Result<Overlay> {
        let lower = Lower::make(strategy, plan, makers)?;
        let mount = match (by_descriptors(plan, &lower, changes), changes) {
            (Err(Error::KernelTooOld { .. }), Some(changes)) if lower.data.is_empty() => {
                by_paths(plan, &lower, changes)?
            }
            // Without overlayfs it can still be looked at.
            (Err(Error::NoOverlay { .. }), Some(_)) if lower.data.is_empty() && !plan.editable => {
                return bare(lower, plan, makers);
            }
            (other, _) => other?,
        };
        let (watch, marker) = if changes.is_none() {
            end(&makers.announce, &plan.source).map(|(watch, marker)| (watch, Some(marker)))?
        } else if lower.served {
            (None, None)
        } else {
            match watch(&mount) {
                Some(watch) => (Some(watch), None),
                None => (None, Some(lower::marker(&makers.announce, &plan.source)?)),
            }
        };
        let lock = changes.and_then(|changes| changes.lock.as_ref()).map(OwnedFd::try_clone);
        let lock = lock.transpose().map_err(Error::io("hold", "the changes"))?;
        let held = lower.lock.into_iter().chain(lock).collect();
        let kind = if changes.is_some() { Kind::Own } else { Kind::Shared };
        Ok(Overlay { mount, upper: None, watch, marker, held, kind, remarks: Vec::new() })
    }
}

/// What shows files by itself, without an overlay: it cannot be changed.
fn bare(lower: Lower, plan: &Plan, makers: &Makers<'_>) -> Result<Overlay> {
    let (mount, watch, marker) = if lower.detached {
        (lower.files, None, None)
    } else {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(&lower.files, "", flags).map_err(Error::system("bind the render"))?;
        let read_only = SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY;
        mount::set_attributes(tree.as_fd(), c"", read_only, MountAttrFlags::empty())
            .map_err(Error::system("make the render read-only"))?;
        let (watch, marker) = end(&makers.announce, &plan.source)?;
        (tree, watch, Some(marker))
    };
    let held = lower.lock.into_iter().collect();
    Ok(Overlay { mount, upper: None, watch, marker, held, kind: Kind::Bare, remarks: Vec::new() })
}

/// A mount of the runtime's own that tells its end, where the overlay is not its own: an empty tmpfs with a watch on
/// it or, where inotify is exhausted, a FUSE mount that the monitor serves. It goes below the overlay.
pub fn end(announce: &Announce<'_>, source: &str) -> Result<(Option<OwnedFd>, OwnedFd)> {
    let context = Context::new("tmpfs")?;
    context.string("source", source)?;
    context.string("mode", "0755")?;
    context.string("size", "4k")?;
    let marker = context.mount(SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    match watch(&marker) {
        Some(watch) => Ok((Some(watch), marker)),
        None => Ok((None, lower::marker(announce, source)?)),
    }
}

/// One line on the strategies that failed before `used` worked.
fn remark(failed: &[(&str, Error)], used: &Strategy) -> Option<String> {
    (!failed.is_empty()).then(|| format!("{}; the backend `{}` is used instead", reasons(failed), used.name()))
}

fn reasons(failed: &[(&str, Error)]) -> String {
    let reasons: Vec<String> =
        failed.iter().map(|(name, error)| format!("backend `{name}`: {}", chain(error))).collect();
    reasons.join("; ")
}

/// The error where no strategy works.
fn none_works(mut failed: Vec<(&'static str, Error)>) -> Error {
    match failed.pop() {
        Some((name, error)) if failed.is_empty() => Error::Backend { name, source: Box::new(error) },
        Some((name, error)) => {
            let tried = reasons(&failed);
            Error::NoBackend { tried, name, source: Box::new(error) }
        }
        None => Error::Limit("a plan without a strategy".to_owned()),
    }
}

/// An error and all its causes, in one line.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// An overlay whose layers are given as descriptors: no length limits and no escaping, and nothing is attached.
fn by_descriptors(plan: &Plan, lower: &Lower, changes: Option<&Changes>) -> Result<OwnedFd> {
    let context = begin(plan, changes)?;
    context.fd("lowerdir+", &lower.files).map_err(too_old("no layers by descriptor (Linux 6.13)"))?;
    for data in &lower.data {
        context.fd("datadir+", data).map_err(too_old("no data-only layers (Linux 6.8)"))?;
    }
    if let Some(changes) = changes {
        context.fd("upperdir", &changes.upper).map_err(too_old("no layers by descriptor (Linux 6.13)"))?;
        context.fd("workdir", &changes.work)?;
    }
    finish(plan, &context).map_err(too_old("no unprivileged data-only layers (Linux 6.16)"))
}

/// The same for older kernels, which take paths, and want what they lead to to be attached in this mount namespace.
fn by_paths(plan: &Plan, lower: &Lower, changes: &Changes) -> Result<OwnedFd> {
    let detached = [(lower.detached, &lower.files), (changes.detached, &changes.held)];
    let mut attached = Vec::new();
    let staging = namespace::staging();
    for (_, fd) in detached.into_iter().filter(|(detached, _)| *detached) {
        mount::attach(fd.as_fd(), staging)?;
        attached.push(Attached(staging));
    }
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let context = begin(plan, Some(changes))?;
    context.string("lowerdir", &path(&lower.files))?;
    context.string("upperdir", &path(&changes.upper))?;
    context.string("workdir", &path(&changes.work))?;
    finish(plan, &context)
}

/// A mount that is attached for a moment.
struct Attached(&'static str);

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = mount::detach(self.0);
    }
}

fn begin(plan: &Plan, changes: Option<&Changes>) -> Result<Context> {
    let context = Context::new("overlay").map_err(|error| match error {
        Error::KernelTooOld { source, .. } if Errno::from_io_error(&source) == Some(Errno::NODEV) => {
            Error::NoOverlay { source }
        }
        other => other,
    })?;
    context.string("source", changes.map_or(SHARED, |_| &plan.source))?;
    if changes.is_none_or(|changes| changes.user_marks) {
        context.flag("userxattr")?;
    }
    Ok(context)
}

fn finish(plan: &Plan, context: &Context) -> Result<OwnedFd> {
    for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "on")] {
        context.string(key, value)?;
    }
    let read_only = if plan.editable { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    context.mount(SAFE | read_only).map_err(|error| match error {
        // Before Linux 5.11 it is root's alone.
        Error::System { source, .. } if Errno::from_io_error(&source) == Some(Errno::PERM) => {
            Error::NoOverlay { source }
        }
        other => other,
    })
}

/// Says that the kernel is too old where an option is not known to it.
pub(crate) fn too_old(missing: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::System { source, detail, .. }
            if matches!(Errno::from_io_error(&source), Some(Errno::INVAL | Errno::OPNOTSUPP)) =>
        {
            let detail = detail.map(|d| format!("; it says: {d}")).unwrap_or_default();
            Error::KernelTooOld { missing: format!("its overlayfs has {missing}{detail}"), source }
        }
        other => other,
    }
}

/// Watches for the end of a mount that is not attached yet; `None` if the user has no inotify instance or watch left.
fn watch(mount: &OwnedFd) -> Option<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    inotify::add_watch(&inotify, path, WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR).ok()?;
    Some(inotify)
}
