//! Namespaces: one's own user and mount namespace, and a root directory that has a `/spfs`.

use std::fs::{self, FileType};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::SPFS;
use crate::error::{Error, Result};
use crate::sys::{mount, process};

/// What the caller's process may do, and what it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Whether it may mount without a user namespace of its own: it is root with CAP_SYS_ADMIN.
    pub privileged: bool,
    /// Whether something is mounted at `/spfs` already: it is inside a runtime.
    pub nested: bool,
    /// Whether the directory `/spfs` exists, or has just been made.
    pub present: bool,
}

impl Situation {
    /// Looks, and makes the directory `/spfs` where that is allowed.
    pub fn find() -> Self {
        let privileged = is_privileged();
        let mut present = Path::new(SPFS).is_dir();
        if !present && privileged {
            present = fs::create_dir(SPFS).is_ok() || Path::new(SPFS).is_dir();
        }
        Situation { privileged, nested: is_mounted(), present }
    }
}

/// Whether this process may mount without a user namespace of its own: it is root with CAP_SYS_ADMIN.
pub fn is_privileged() -> bool {
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    geteuid().is_root() && effective.is_ok_and(|set| set.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether this process is root of the machine and not only of a user namespace: some file systems can be mounted by
/// nobody else.
pub fn is_root_of_machine() -> bool {
    /// `PROC_USER_INIT_INO` (include/linux/proc_ns.h): the number of the first user namespace.
    const FIRST: u64 = 0xEFFF_FFFD;
    is_privileged() && rustix::fs::stat("/proc/self/ns/user").is_ok_and(|stat| stat.st_ino == FIRST)
}

/// Whether something is mounted at `/spfs`.
pub fn is_mounted() -> bool {
    let found = rustix::fs::statx(CWD, SPFS, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
    found.is_ok_and(|x| x.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The number that identifies this process's mount namespace.
pub fn mount_namespace_id() -> Result<u64> {
    let path = "/proc/self/ns/mnt";
    Ok(rustix::fs::stat(path).map_err(Error::io("look at", path))?.st_ino)
}

/// Moves into a user namespace in which the caller stays itself and may mount.
///
/// Errors: [`Error::UserNamespaceForbidden`], [`Error::NamespaceLimit`].
pub fn unshare_user() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare_user_alone()?;
    // Where a security module forbids the namespace only later, this is where it shows.
    let write = |path: &str, text: String| {
        fs::write(path, text).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::UserNamespaceForbidden { source },
            _ => Error::Io { action: "write", path: path.into(), source },
        })
    };
    match write("/proc/self/setgroups", "deny".into()) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    write("/proc/self/uid_map", format!("{0} {0} 1", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("{0} {0} 1", gid.as_raw()))
}

fn unshare_user_alone() -> Result<()> {
    let unshare = || process::unshare(UnshareFlags::NEWUSER);
    // A thread that has just been joined may still count for the kernel.
    let unshared = match unshare() {
        Err(Errno::INVAL) if process::is_alone() => unshare(),
        other => other,
    };
    unshared.map_err(|e| match e {
        Errno::NOSPC | Errno::USERS if namespaces_allowed() => Error::NamespaceLimit { source: e.into() },
        _ => Error::UserNamespaceForbidden { source: e.into() },
    })
}

/// Whether the administrator's limit on user namespaces leaves room for any at all.
fn namespaces_allowed() -> bool {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    limit.trim() != "0"
}

/// Moves into a mount namespace of one's own; mounts made on the host later still appear in it.
pub fn unshare_mounts() -> Result<()> {
    process::unshare(UnshareFlags::NEWNS).map_err(|e| match e {
        Errno::NOSPC => Error::NamespaceLimit { source: e.into() },
        Errno::PERM => Error::UserNamespaceForbidden { source: e.into() },
        _ => Error::system("make a mount namespace")(e),
    })?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(
        |e| match e {
            Errno::ACCESS | Errno::PERM => Error::UserNamespaceForbidden { source: e.into() },
            _ => Error::system("separate the mounts from the host's")(e),
        },
    )
}

/// Frees this mount namespace from the mounts of an outer runtime, which it would otherwise keep alive.
pub fn drop_outer(situation: Situation) -> Result<()> {
    if !situation.privileged {
        // Inherited mounts are locked: only a root without them gets rid of them.
        return new_root(Old::Gone);
    }
    while is_mounted() {
        mount::detach(SPFS)?;
    }
    Ok(())
}

/// A directory that can be covered for a moment in a mount namespace of one's own: there is always one of these.
pub fn staging() -> &'static str {
    let places = ["/mnt", "/srv", "/opt", "/media", "/tmp"];
    places.into_iter().find(|place| Path::new(place).is_dir()).unwrap_or("/sys")
}

/// What becomes of the old root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// It stays beneath the new one, out of reach of every path: to take it away makes the kernel wait for all CPUs.
    Hidden,
    /// It goes, and with it what it kept alive.
    Gone,
}

/// Replaces the root directory by one of recursive binds of everything in the old one, with an empty `/spfs`.
pub fn new_root(old: Old) -> Result<()> {
    let directory = std::env::current_dir().ok();
    let entries = root_entries()?;
    let context = mount::Context::new("tmpfs")?;
    context.string("source", "spfs-root")?;
    context.string("mode", "0755")?;
    context.string("size", "1m")?;
    let root = context.mount(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    // On top of the old one: until the root directory of this process changes, absolute paths lead to the old one.
    mount::attach(root.as_fd(), "/")?;
    rustix::process::fchdir(&root).map_err(Error::system("enter the new root"))?;
    entries.iter().try_for_each(OldEntry::place)?;
    let spfs = &SPFS[1..];
    rustix::fs::mkdir(spfs, Mode::from_raw_mode(0o755)).map_err(Error::io("make", SPFS))?;
    change_root(old)?;
    rustix::process::chdir("/").map_err(Error::io("enter", "/"))?;
    mount::set_attributes(CWD, c"/", MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty())
        .map_err(Error::system("make the new root read-only"))?;
    if let Some(directory) = directory {
        // A directory of the outer /spfs is not here any more; the caller finds itself in `/`.
        let _ = rustix::process::chdir(&directory);
    }
    Ok(())
}

/// Makes the current directory, the root of what is mounted on top of `/`, the root directory.
fn change_root(old: Old) -> Result<()> {
    // This is no chroot to the kernel, which looks at the topmost mount of the namespace's root: it is how every system
    // leaves its initramfs. A container may have taken the privilege for it.
    if old == Old::Hidden && rustix::process::chroot(".").is_ok() {
        return Ok(());
    }
    rustix::process::pivot_root(".", ".").map_err(Error::system("change the root directory"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(Error::system("leave the old root directory"))
}

/// One name of the old root directory.
struct OldEntry {
    path: PathBuf,
    kind: FileType,
}

fn root_entries() -> Result<Vec<OldEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir("/").map_err(Error::io("list", "/"))? {
        let entry = entry.map_err(Error::io("list", "/"))?;
        let path = entry.path();
        if path != Path::new(SPFS) {
            let kind = entry.file_type().map_err(Error::io("look at", &path))?;
            entries.push(OldEntry { path, kind });
        }
    }
    Ok(entries)
}

impl OldEntry {
    /// Makes the name in the current directory, which will be the new root.
    fn place(&self) -> Result<()> {
        let Some(name) = self.path.file_name() else { return Ok(()) };
        let made = if self.kind.is_symlink() {
            let target = fs::read_link(&self.path).map_err(Error::io("read", &self.path))?;
            return rustix::fs::symlink(target, name).map_err(Error::io("make", &self.path));
        } else if self.kind.is_dir() {
            rustix::fs::mkdir(name, Mode::from_raw_mode(0o755))
        } else {
            rustix::fs::mknodat(CWD, name, rustix::fs::FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
        };
        made.map_err(Error::io("make", &self.path))?;
        // One call where a clone of the mounts and its move are three.
        rustix::mount::mount_bind_recursive(&self.path, name).map_err(Error::io("bind", &self.path))
    }
}
