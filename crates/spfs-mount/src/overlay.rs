//! The overlay of a runtime: metadata below, payloads as a data-only layer, a writable top from the start.
//!
//! One recipe for root and for everyone (`docs/mounts.md`): `userxattr`, so that nothing in it needs a privilege of
//! the initial namespace; every option that the kernel's configuration could change is set here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::{getegid, geteuid};

use crate::error::{Error, Result};
use crate::link::Announce;
use crate::plan::{Plan, Strategy, Upper};
use crate::sys::mount::Context;

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
    /// What did not work as planned, and what was done instead.
    pub remarks: Vec<String>,
}

impl Overlay {
    /// Makes the overlay of `plan`; a metadata mount that needs a server is handed over through `announce`.
    ///
    /// `prepare` may fill the upper directory, given `O_PATH`, before the kernel takes it over.
    pub fn make(
        plan: &Plan,
        announce: &Announce<'_>,
        prepare: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Self> {
        let mut remarks = Vec::new();
        let (metadata, served) = metadata(plan, announce, &mut remarks)?;
        let context = Context::new("overlay")?;
        let shared = plan.share.is_some();
        context.string("source", &if shared { SHARED.to_owned() } else { source(&plan.name) })?;
        context.flag("userxattr")?;
        context.fd("lowerdir+", &metadata).map_err(too_old("no layers by descriptor (Linux 6.13)"))?;
        let payloads = open_path(&plan.payloads)?;
        context.fd("datadir+", &payloads).map_err(too_old("no data-only layers (Linux 6.8)"))?;
        let (mut top, mut _held) = (None, None);
        if !shared {
            let (upper, work, held) = upper(&plan.upper)?;
            prepare(upper.as_fd())?;
            context.fd("upperdir", &upper)?;
            context.fd("workdir", &work)?;
            (top, _held) = (Some(upper), Some(held));
        }
        for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "on")] {
            context.string(key, value)?;
        }
        let read_only = if plan.editable { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        let mount =
            context.mount(SAFE | read_only).map_err(too_old("no unprivileged data-only layers (Linux 6.16)"))?;
        if shared {
            let (watch, marker) = end(announce, &plan.name)?;
            return Ok(Overlay { mount, upper: None, watch, marker: Some(marker), remarks });
        }
        let watch = if served { None } else { watch(&mount) };
        let marker = if served || watch.is_some() { None } else { Some(fuse(announce, &plan.name, None)?) };
        Ok(Overlay { mount, upper: top, watch, marker, remarks })
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
        // The server that waits, if one does, is for the metadata.
        None => Ok((None, fuse(&Announce { monitor: announce.monitor, server: None }, name, None)?)),
    }
}

/// Says that the kernel is too old where an option is not known to it.
fn too_old(missing: &'static str) -> impl FnOnce(Error) -> Error {
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

/// The metadata mount, and whether it is one that is served: of the plan's strategies the first that can be mounted.
fn metadata(plan: &Plan, announce: &Announce<'_>, remarks: &mut Vec<String>) -> Result<(OwnedFd, bool)> {
    let mut strategies = plan.strategies.iter().peekable();
    while let Some(strategy) = strategies.next() {
        let made = match strategy {
            Strategy::Image(path) => image(path, &plan.name).map(|mount| (mount, false)),
            Strategy::Server => server(plan, announce).map(|mount| (mount, true)),
        };
        match (made, strategies.peek()) {
            (Ok(made), _) => return Ok(made),
            (Err(error), Some(next)) => {
                remarks.push(format!("{}; the backend `{}` is used instead", chain(&error), next.name()))
            }
            (Err(error), None) if plan.strategies.len() == 1 => {
                return Err(Error::Backend { name: strategy.name(), source: Box::new(error) });
            }
            (Err(error), None) => return Err(error),
        }
    }
    Err(Error::Limit("a plan without a strategy".to_owned()))
}

/// An error and all its causes, in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn server(plan: &Plan, announce: &Announce<'_>) -> Result<OwnedFd> {
    let view = rustix::fs::open(&plan.view, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let view = view.map_err(Error::io("open", &plan.view))?;
    fuse(announce, &plan.name, Some(view.as_fd()))
}

/// Mounts an EROFS image straight from its file (Linux 6.12), after checking that only root could have written it.
fn image(path: &Path, name: &str) -> Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", path))?;
    let stat = rustix::fs::fstat(&file).map_err(Error::io("look at", path))?;
    if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 || stat.st_mode & 0o170_000 != 0o100_000 {
        let reason = "root mounts only images that root alone can write".to_owned();
        return Err(Error::Damaged { path: path.to_owned(), reason });
    }
    let context = Context::new("erofs")?;
    context.flag("ro")?;
    // The descriptor that was checked, not the name, which could mean another file by now.
    context.string("source", &format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mounted = context.mount(SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY);
    mounted.map_err(|error| match error {
        Error::System { source, detail, .. } => {
            Error::System { action: format!("mount the metadata image of {name}"), detail, source }
        }
        other => other,
    })
}

/// Mounts a FUSE file system that the monitor serves. Opened here because the kernel compares the user namespaces of
/// the opener and of the mount.
fn fuse(announce: &Announce<'_>, name: &str, view: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|e| Error::NoFuse { source: e.into() })?;
    let context = Context::new("fuse")?;
    context.string("source", &format!("spfs:{name}"))?;
    context.string("subtype", "spfs")?;
    context.string("fd", &device.as_raw_fd().to_string())?;
    // Overlayfs copies the root's attributes before it asks: the permission bits must be right from the start.
    context.string("rootmode", "40755")?;
    context.string("user_id", &geteuid().as_raw().to_string())?;
    context.string("group_id", &getegid().as_raw().to_string())?;
    context.flag("default_permissions")?;
    context.flag("allow_other")?;
    let mount = context.mount(SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    announce.serve(device.as_fd(), view)?;
    Ok(mount)
}

/// The upper and the work directory, and what must be held until the kernel has taken them over: closing a detached
/// mount dissolves it.
fn upper(upper: &Upper) -> Result<(OwnedFd, OwnedFd, OwnedFd)> {
    match upper {
        Upper::Memory { size } => {
            let context = Context::new("tmpfs")?;
            context.string("source", "spfs-changes")?;
            context.string("mode", "0700")?;
            if let Some(size) = size {
                context.string("size", size)?;
            }
            let tmpfs = context.mount(SAFE)?;
            for name in ["upper", "work"] {
                make_directory(&tmpfs, name)?;
            }
            Ok((open_below(&tmpfs, "upper")?, open_below(&tmpfs, "work")?, tmpfs))
        }
        Upper::Disk { dir } => {
            let dir = open_path(dir)?;
            Ok((open_below(&dir, "upper")?, open_below(&dir, "work")?, dir))
        }
    }
}

/// Makes a directory with mode 0755, whatever the umask: the upper directory's mode is that of /spfs.
pub fn make_directory(parent: impl AsFd, name: &str) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(&parent, name, mode).map_err(Error::io("make", name))?;
    rustix::fs::chmodat(&parent, name, mode, rustix::fs::AtFlags::empty()).map_err(Error::io("set the mode of", name))
}

fn open_path(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::io("open", path))
}

fn open_below(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::io("open", name))
}

/// Watches for the end of a mount that is not attached yet; `None` if the user has no inotify instance or watch left.
fn watch(mount: &OwnedFd) -> Option<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    inotify::add_watch(&inotify, path, WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR).ok()?;
    Some(inotify)
}
