//! A host without `/spfs`: the root directory is one of binds of everything in the old one, and nobody may write to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root};

use crate::bench::Result;
use crate::floor;

/// Where the new root is put together; covered by itself afterwards.
const PLACE: &str = "/mnt";

/// `without-spfs PROGRAM ARG…`, as root: becomes the program, on such a host.
pub fn run(words: &[String]) -> Result<()> {
    floor::unshare_mounts()?;
    let names = root_entries()?;
    mount("spfs-bench-root", PLACE, c"tmpfs", MountFlags::empty(), c"mode=755,size=1m").map_err(of("mount", PLACE))?;
    for name in names {
        place(&name)?;
    }
    chdir(PLACE).map_err(of("enter", PLACE))?;
    pivot_root(".", ".").map_err(of("change", "the root directory"))?;
    unmount(".", UnmountFlags::DETACH).map_err(of("leave", "the old root directory"))?;
    chdir("/").map_err(of("enter", "/"))?;
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"").map_err(of("make read-only", "/"))?;
    // As systemd has them.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared).map_err(of("share", "/"))?;
    let [program, arguments @ ..] = words else { return Err("without-spfs: no program".into()) };
    Err(format!("{program}: {}", Command::new(program).args(arguments).exec()))
}

fn root_entries() -> Result<Vec<String>> {
    let entries = fs::read_dir("/").map_err(|err| format!("/: {err}"))?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name != "spfs").collect())
}

/// Puts one name of the old root directory into the new one.
fn place(name: &str) -> Result<()> {
    let (old, new) = (Path::new("/").join(name), Path::new(PLACE).join(name));
    // What is mounted over cannot be seen through its own name any more.
    if old == Path::new(PLACE) {
        return fs::create_dir(&new).map_err(|err| format!("{}: {err}", new.display()));
    }
    let shown = new.display().to_string();
    let kind = fs::symlink_metadata(&old).map_err(|err| format!("{}: {err}", old.display()))?;
    let made = if kind.is_symlink() {
        return fs::read_link(&old).and_then(|to| symlink(to, &new)).map_err(|err| format!("{shown}: {err}"));
    } else if kind.is_dir() {
        fs::create_dir(&new)
    } else {
        fs::write(&new, b"")
    };
    made.map_err(|err| format!("{shown}: {err}"))?;
    mount_bind_recursive(&old, &new).map_err(of("bind", &shown))
}

fn of(action: &str, what: &str) -> impl FnOnce(rustix::io::Errno) -> String {
    let text = format!("{action} {what}");
    move |err| format!("{text}: {err}")
}
