//! Namespaces: one's own user and mount namespace, and a root directory that has a `/spfs`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags};
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
    // A thread that has just been joined may still count for the kernel: EINVAL then, for an instant.
    for _ in 0..200 {
        match process::unshare(UnshareFlags::NEWUSER) {
            Ok(()) => return Ok(()),
            Err(Errno::INVAL) if process::thread_count() != Some(1) => {
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            Err(Errno::INVAL) => {}
            Err(e @ (Errno::NOSPC | Errno::USERS)) if namespaces_allowed() => {
                return Err(Error::NamespaceLimit { source: e.into() });
            }
            Err(e) => return Err(Error::UserNamespaceForbidden { source: e.into() }),
        }
    }
    Err(Error::UserNamespaceForbidden { source: Errno::INVAL.into() })
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
        return new_root();
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

/// Replaces the root directory by one of recursive binds of everything in the old one, with an empty `/spfs`.
pub fn new_root() -> Result<()> {
    let directory = std::env::current_dir().ok();
    let entries = clone_root_entries()?;
    let context = mount::Context::new("tmpfs")?;
    context.string("source", "spfs-root")?;
    context.string("mode", "0755")?;
    context.string("size", "1m")?;
    let root = context.mount(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    let staging = entries.iter().find(|e| matches!(e.kind, RootEntry::Directory(_))).map_or("/proc", |e| &e.path);
    mount::attach(root.as_fd(), staging)?;
    rustix::process::fchdir(&root).map_err(Error::system("enter the new root"))?;
    for entry in &entries {
        entry.place()?;
    }
    let spfs = &SPFS[1..];
    rustix::fs::mkdir(spfs, Mode::from_raw_mode(0o755)).map_err(Error::io("make", SPFS))?;
    rustix::process::pivot_root(".", ".").map_err(Error::system("change the root directory"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(Error::system("leave the old root directory"))?;
    rustix::process::chdir("/").map_err(Error::io("enter", "/"))?;
    mount::set_attributes(CWD, c"/", MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty())
        .map_err(Error::system("make the new root read-only"))?;
    if let Some(directory) = directory {
        // A directory of the outer /spfs is not here any more; the caller finds itself in `/`.
        let _ = rustix::process::chdir(&directory);
    }
    Ok(())
}

/// One name of the old root directory, on its way into the new one.
struct OldEntry {
    path: String,
    kind: RootEntry,
}

enum RootEntry {
    Directory(OwnedFd),
    File(OwnedFd),
    Symlink(std::path::PathBuf),
}

fn clone_root_entries() -> Result<Vec<OldEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir("/").map_err(Error::io("list", "/"))? {
        let entry = entry.map_err(Error::io("list", "/"))?;
        let path = entry.path();
        if path == Path::new(SPFS) {
            continue;
        }
        let kind = entry.file_type().map_err(Error::io("look at", &path))?;
        let Some(text) = path.to_str() else { continue };
        let kind = if kind.is_symlink() {
            RootEntry::Symlink(fs::read_link(&path).map_err(Error::io("read", &path))?)
        } else {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
            let tree = rustix::mount::open_tree(CWD, text, flags).map_err(Error::io("clone the mounts of", &path))?;
            if kind.is_dir() { RootEntry::Directory(tree) } else { RootEntry::File(tree) }
        };
        entries.push(OldEntry { path: text.to_owned(), kind });
    }
    Ok(entries)
}

impl OldEntry {
    /// Makes the name in the current directory, which is the new root.
    fn place(&self) -> Result<()> {
        let name = self.path.trim_start_matches('/');
        match &self.kind {
            RootEntry::Symlink(target) => rustix::fs::symlink(target, name).map_err(Error::io("make", &self.path)),
            RootEntry::Directory(tree) => {
                rustix::fs::mkdir(name, Mode::from_raw_mode(0o755)).map_err(Error::io("make", &self.path))?;
                mount::attach(tree.as_fd(), name)
            }
            RootEntry::File(tree) => {
                fs::write(name, b"").map_err(Error::io("make", &self.path))?;
                mount::attach(tree.as_fd(), name)
            }
        }
    }
}
