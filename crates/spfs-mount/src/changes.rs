//! Where a runtime's changes go: the upper and the work directory of its overlay.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::MTIME;
use crate::error::{Error, Result};
use crate::lower::{self, open_path};
use crate::overlay::SAFE;
use crate::plan::Upper;
use crate::sys::mount::Context;

/// The two directories, `O_PATH`, and what must be held until the kernel has taken them over: closing a detached mount
/// dissolves it.
pub struct Changes {
    /// The upper directory.
    pub upper: OwnedFd,
    /// The work directory beside it.
    pub work: OwnedFd,
    /// The detached tmpfs that they are on, or the directory that they are in.
    pub held: OwnedFd,
    /// Whether `held` is a mount that is not attached anywhere.
    pub detached: bool,
    /// The directory on disk, locked: whoever cleans leaves it alone. Only where memory was wanted.
    pub lock: Option<OwnedFd>,
    /// Whether overlayfs can keep its marks there as `user.overlay.*`, as everyone may.
    pub user_marks: bool,
}

impl Changes {
    /// Makes or opens the directories. `spare` is a directory, made if it is needed, for the changes that are wanted in
    /// memory where tmpfs cannot hold overlayfs's marks for this caller (Linux 6.6).
    pub fn make(upper: &Upper, spare: Option<&Path>, privileged: bool) -> Result<Changes> {
        match upper {
            Upper::Memory { size } => {
                let tmpfs = memory(size.as_deref())?;
                let user_marks = takes_user_attributes(&tmpfs);
                match spare {
                    Some(spare) if !user_marks && !privileged => on_disk(spare),
                    _ => {
                        for name in ["upper", "work"] {
                            make_directory(&tmpfs, name)?;
                        }
                        Changes::in_directory(tmpfs, true, user_marks)
                    }
                }
            }
            Upper::Disk { dir } => Changes::in_directory(open_path(dir)?, false, true),
        }
    }

    /// Gives /spfs the time that everything in it has, until it is changed.
    pub fn set_time(&self) {
        let time = Timespec { tv_sec: MTIME.cast_signed(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        // Linux 5.8 does it by descriptor; nothing depends on it.
        let _ = rustix::fs::utimensat(&self.upper, "", &times, AtFlags::EMPTY_PATH);
    }

    fn in_directory(held: OwnedFd, detached: bool, user_marks: bool) -> Result<Changes> {
        let (upper, work) = (open_below(&held, "upper")?, open_below(&held, "work")?);
        Ok(Changes { upper, work, held, detached, lock: None, user_marks })
    }
}

fn memory(size: Option<&str>) -> Result<OwnedFd> {
    let context = Context::new("tmpfs")?;
    context.string("source", "spfs-changes")?;
    context.string("mode", "0700")?;
    if let Some(size) = size {
        context.string("size", size)?;
    }
    context.mount(SAFE)
}

/// Whether `user.*` attributes can be set on a file system.
fn takes_user_attributes(root: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", root.as_raw_fd());
    rustix::fs::setxattr(path, "user.spfs", b"", XattrFlags::empty()).is_ok()
}

/// New directories on disk, below `spare`.
fn on_disk(spare: &Path) -> Result<Changes> {
    std::fs::create_dir_all(spare).map_err(Error::io("make", spare))?;
    let dir = open_path(spare)?;
    let lock = lower::lock(spare)?;
    // A reset makes its changes beside those that are still in use.
    for number in 0.. {
        let name = number.to_string();
        match rustix::fs::mkdirat(&dir, &*name, Mode::RWXU) {
            Ok(()) => {
                let inner = open_below(&dir, &name)?;
                for name in ["upper", "work"] {
                    make_directory(&inner, name)?;
                }
                return Ok(Changes { lock, ..Changes::in_directory(inner, false, true)? });
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io("make", spare.join(name))(e)),
        }
    }
    Err(Error::Limit("no name is left for changes".to_owned()))
}

/// Makes a directory with mode 0755, whatever the umask: the upper directory's mode is that of /spfs.
pub fn make_directory(parent: impl AsFd, name: &str) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(&parent, name, mode).map_err(Error::io("make", name))?;
    rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()).map_err(Error::io("set the mode of", name))
}

fn open_below(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::io("open", name))
}
