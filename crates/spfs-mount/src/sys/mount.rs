//! File system contexts with the kernel's own error text, and `mount_setattr(2)`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use crate::error::{Error, Result};

/// A file system that is being configured (`fsopen(2)`).
pub struct Context {
    fd: OwnedFd,
    kind: &'static str,
}

impl Context {
    /// Begins a file system of this kind: `tmpfs`, `overlay`, `erofs`, `fuse`.
    pub fn new(kind: &'static str) -> Result<Self> {
        let fd = mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
            Errno::NODEV | Errno::NOSYS => {
                Error::KernelTooOld { missing: format!("it has no {kind} (or no fsopen)"), source: e.into() }
            }
            _ => Error::system(format!("begin a {kind} mount"))(e),
        })?;
        Ok(Context { fd, kind })
    }

    /// Sets an option that has no value.
    pub fn flag(&self, key: &str) -> Result<()> {
        self.checked(mount::fsconfig_set_flag(&self.fd, key), || format!("set {key} for"))
    }

    /// Sets an option to a text.
    pub fn string(&self, key: &str, value: &str) -> Result<()> {
        self.checked(mount::fsconfig_set_string(&self.fd, key, value), || format!("set {key}={value} for"))
    }

    /// Sets an option to an open file.
    pub fn fd(&self, key: &str, fd: impl AsFd) -> Result<()> {
        self.checked(mount::fsconfig_set_fd(&self.fd, key, fd), || format!("set {key} for"))
    }

    /// Makes the file system and returns it as a detached mount.
    pub fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        self.checked(mount::fsconfig_create(&self.fd), || "make".to_owned())?;
        let mounted = mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        mounted.map_err(|e| self.error(e, "mount".to_owned()))
    }

    fn checked(&self, result: rustix::io::Result<()>, step: impl FnOnce() -> String) -> Result<()> {
        result.map_err(|e| self.error(e, step()))
    }

    /// The errno comes first: reading the log changes the descriptor's state but not what we hold.
    fn error(&self, errno: Errno, step: String) -> Error {
        let mut lines = Vec::new();
        let mut buffer = [0u8; 512];
        while let Ok(n) = rustix::io::read(&self.fd, &mut buffer) {
            lines.push(String::from_utf8_lossy(&buffer[..n]).trim().to_owned());
        }
        let detail = (!lines.is_empty()).then(|| lines.join("; "));
        Error::System { action: format!("{step} the {} mount", self.kind), detail, source: errno.into() }
    }
}

/// Attaches a detached mount at `to`.
pub fn attach(mounted: BorrowedFd<'_>, to: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    mount::move_mount(mounted, c"", rustix::fs::CWD, to, flags).map_err(Error::system(format!("mount at {to}")))
}

/// Attaches a detached mount at `to`, below the mount that is on top there now.
pub fn attach_beneath(mounted: BorrowedFd<'_>, to: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    mount::move_mount(mounted, c"", rustix::fs::CWD, to, flags).map_err(Error::system(format!("mount beneath {to}")))
}

/// Takes the topmost mount off `at`; what still uses it keeps it.
pub fn detach(at: &str) -> Result<()> {
    mount::unmount(at, UnmountFlags::DETACH).map_err(Error::system(format!("unmount {at}")))
}

/// `struct mount_attr` of `mount_setattr(2)` (include/uapi/linux/mount.h).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets and clears attributes of the mount that `dir` (or `path` below it) is on.
pub fn set_attributes(
    dir: BorrowedFd<'_>,
    path: &CStr,
    set: MountAttrFlags,
    clear: MountAttrFlags,
) -> Result<(), Errno> {
    let attr = MountAttr { set: set.bits().into(), clear: clear.bits().into(), propagation: 0, userns_fd: 0 };
    // SAFETY: the path is NUL-terminated, the struct lives through the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}
