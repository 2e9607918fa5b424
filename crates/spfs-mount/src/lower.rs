//! What lies below a runtime's changes: one mount or directory for each way of showing a view.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::{getegid, geteuid};

use crate::error::{Error, Result};
use crate::link::{Announce, Served};
use crate::overlay::SAFE;
use crate::plan::{Plan, Strategy};
use crate::sys::mount::Context;

/// What makes the parts of a plan that are made only when they are needed.
pub struct Makers<'a> {
    /// Where a mount that needs a server is handed over.
    pub announce: Announce<'a>,
    /// Writes the view out as plain directories, complete under this path when it returns.
    pub tree: &'a dyn Fn(&Path) -> Result<()>,
}

/// One lower layer, with the data-only layer that it needs, if it does.
pub struct Lower {
    /// Names and metadata, and data if there is no other layer: a detached mount, or a directory (`O_PATH`).
    pub files: OwnedFd,
    /// The directory that redirects start from, `O_PATH`; and below it a mount that fetches what it lacks.
    pub data: Vec<OwnedFd>,
    /// Whether it is a mount that is served: its server hears of the end.
    pub served: bool,
    /// Whether `files` is a mount that is not attached anywhere.
    pub detached: bool,
    /// The directory again, locked: whoever cleans leaves it alone.
    pub lock: Option<OwnedFd>,
}

impl Lower {
    /// Makes what `strategy` needs.
    pub fn make(strategy: &Strategy, plan: &Plan, makers: &Makers<'_>) -> Result<Lower> {
        let data = || -> Result<Vec<OwnedFd>> {
            let payloads = open_path(&plan.payloads)?;
            let fetched = if plan.fetch { Some(served(plan, makers, Data::Fetched)?) } else { None };
            Ok([payloads].into_iter().chain(fetched).collect())
        };
        let mounted = |files, data, served| Lower { files, data, served, detached: true, lock: None };
        Ok(match strategy {
            Strategy::Image(path) => mounted(image(path, &plan.name)?, data()?, false),
            Strategy::Server => mounted(served(plan, makers, Data::Elsewhere)?, data()?, true),
            Strategy::Full => mounted(served(plan, makers, Data::Served)?, Vec::new(), true),
            Strategy::Render(path) => {
                let lock = render(path, makers)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let files = rustix::fs::openat(&lock, ".", flags, Mode::empty()).map_err(Error::io("open", path))?;
                Lower { files, data: Vec::new(), served: false, detached: false, lock: Some(lock) }
            }
        })
    }
}

/// The render at `path`, locked; made if it is not there, or is just being removed.
fn render(path: &Path, makers: &Makers<'_>) -> Result<OwnedFd> {
    for _ in 0..RENDERS {
        if path.is_dir() {
            if let Some(locked) = lock(path)? {
                return Ok(locked);
            }
            std::thread::sleep(Duration::from_millis(1));
        } else {
            (makers.tree)(path)?;
        }
    }
    Err(Error::Limit(format!("{} is removed again and again", path.display())))
}

/// How often a render is looked at, a millisecond apart. Who cleans renames at once what it has locked.
const RENDERS: u32 = 1000;

/// Opens a directory and locks it against being cleaned; `None` if it is being removed.
pub fn lock(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(Error::io("open", path))?,
    };
    // Where the file system has no locks nothing is cleaned either.
    if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
        return Ok(None);
    }
    let (opened, named) = (rustix::fs::fstat(&dir).map_err(Error::io("look at", path))?, rustix::fs::stat(path));
    Ok(named.is_ok_and(|named| (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)).then_some(dir))
}

/// What a FUSE mount has of the data.
enum Data {
    /// Nothing.
    Elsewhere,
    /// All of it; what is missing is fetched if the plan says so.
    Served,
    /// Nothing else: a data-only layer that fetches what is missing.
    Fetched,
}

/// A FUSE mount of the plan's view.
fn served(plan: &Plan, makers: &Makers<'_>, data: Data) -> Result<OwnedFd> {
    let view = rustix::fs::open(&plan.view, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let view = view.map_err(Error::io("open", &plan.view))?;
    let payloads = if matches!(data, Data::Served) { Some(open_path(&plan.payloads)?) } else { None };
    let fetch = plan.fetch && !matches!(data, Data::Elsewhere);
    let what = Served { view: Some(view.as_fd()), payloads: payloads.as_ref().map(AsFd::as_fd), fetch };
    fuse(&makers.announce, &plan.source, &what)
}

/// A FUSE mount without files, whose server hears of the end where nothing else does.
pub fn marker(announce: &Announce<'_>, source: &str) -> Result<OwnedFd> {
    fuse(announce, source, &Served { view: None, payloads: None, fetch: false })
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
fn fuse(announce: &Announce<'_>, source: &str, what: &Served<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|e| Error::NoFuse { source: e.into() })?;
    let context = Context::new("fuse")?;
    context.string("source", source)?;
    context.string("subtype", "spfs")?;
    context.string("fd", &device.as_raw_fd().to_string())?;
    // Overlayfs copies the root's attributes before it asks: the permission bits must be right from the start.
    context.string("rootmode", "40755")?;
    context.string("user_id", &geteuid().as_raw().to_string())?;
    context.string("group_id", &getegid().as_raw().to_string())?;
    context.flag("default_permissions")?;
    context.flag("allow_other")?;
    let mount = context.mount(SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    announce.serve(device.as_fd(), what)?;
    Ok(mount)
}

/// Opens a directory, `O_PATH`.
pub fn open_path(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::io("open", path))
}
