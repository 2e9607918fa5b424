//! The overlay of a runtime: what the view shows below, and a writable top from the start.
//!
//! One recipe for root and for everyone (`docs/mounts.md`): `userxattr`, so that nothing in it needs a privilege of
//! the initial namespace; every option that the kernel's configuration could change is set here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::link::{Announce, Link};
use crate::lower::{self, Lower, Makers};
use crate::namespace;
use crate::plan::{Plan, Strategy};
use crate::sys::mount::{self, Context};

/// What every mount at /spfs has: no set-uid programs and no devices out of a layer.
pub const SAFE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// The source that the mount table shows for the overlay of the runtime `name`.
pub fn source(name: &str) -> String {
    format!("spfs:{name}")
}

/// The same for an overlay that many runtimes share.
const SHARED: &str = "spfs-shared";

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
    /// The directory that it shows, to be kept from being cleaned while it does.
    pub tree: Option<OwnedFd>,
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
                changes = Some(made);
            }
            match Self::by(strategy, plan, makers, changes.as_ref().filter(|_| !shared)) {
                Ok(made) => {
                    let upper = if shared { None } else { changes.map(|changes| changes.upper) };
                    return Ok(Overlay { upper, remarks: remark(&failed, strategy).into_iter().collect(), ..made });
                }
                Err(error) => failed.push((strategy.name(), error)),
            }
        }
        Err(none_works(failed))
    }

    /// Whether other runtimes may use it: it has no place for changes.
    pub fn is_shared(&self) -> bool {
        self.upper.is_none()
    }

    /// Hands what it shows to the monitor, locked: a directory that is in use is not cleaned.
    pub fn hold(&self, link: &Link) -> Result<()> {
        let Some(tree) = &self.tree else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree = rustix::fs::openat(tree, ".", flags, Mode::empty()).map_err(Error::system("open the render"))?;
        // Where the file system has no locks its age alone speaks for it.
        let _ = rustix::fs::flock(&tree, FlockOperation::NonBlockingLockShared);
        link.send_hold(tree.as_fd())
    }

    /// The overlay without its upper directory's descriptor.
    fn by(strategy: &Strategy, plan: &Plan, makers: &Makers<'_>, changes: Option<&Changes>) -> Result<Overlay> {
        let lower = Lower::make(strategy, plan, makers)?;
        let mount = match (by_descriptors(plan, &lower, changes), changes) {
            (Err(Error::KernelTooOld { .. }), Some(changes)) if lower.data.is_empty() => {
                by_paths(plan, &lower, changes)?
            }
            (other, _) => other?,
        };
        let (watch, marker) = if changes.is_none() {
            end(&makers.announce, &plan.name).map(|(watch, marker)| (watch, Some(marker)))?
        } else if lower.served {
            (None, None)
        } else {
            match watch(&mount) {
                Some(watch) => (Some(watch), None),
                None => (None, Some(lower::marker(&makers.announce, &plan.name)?)),
            }
        };
        let tree = (!lower.detached).then_some(lower.files);
        Ok(Overlay { mount, upper: None, watch, marker, tree, remarks: Vec::new() })
    }
}

/// A mount of the runtime's own that tells its end, where the overlay is not its own: an empty tmpfs with a watch on
/// it or, where inotify is exhausted, a FUSE mount that the monitor serves. It goes below the overlay.
pub fn end(announce: &Announce<'_>, name: &str) -> Result<(Option<OwnedFd>, OwnedFd)> {
    let context = Context::new("tmpfs")?;
    context.string("source", &source(name))?;
    context.string("mode", "0755")?;
    context.string("size", "4k")?;
    let marker = context.mount(SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    match watch(&marker) {
        Some(watch) => Ok((Some(watch), marker)),
        None => Ok((None, lower::marker(announce, name)?)),
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
    let context = Context::new("overlay")?;
    context.string("source", &changes.map_or_else(|| SHARED.to_owned(), |_| source(&plan.name)))?;
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
    context.mount(SAFE | read_only)
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
