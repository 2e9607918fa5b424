//! The floor of a start: a program that unshares the namespaces that spfs needs, makes one mount, and becomes a command.
//! Nothing that shows a tree to one process can do less.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use crate::bench::Result;

/// `floor PROGRAM ARG…`
pub fn run(words: &[String]) -> Result<()> {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let privileged = uid.is_root();
    unshare(if privileged { UnshareFlags::NEWNS } else { UnshareFlags::NEWNS | UnshareFlags::NEWUSER })?;
    if !privileged {
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("{uid} {uid} 1", uid = uid.as_raw()))?;
        write("/proc/self/gid_map", &format!("{gid} {gid} 1", gid = gid.as_raw()))?;
    }
    make_slave()?;
    mount_bind("/tmp", "/mnt").map_err(|err| format!("binding /tmp on /mnt: {err}"))?;
    let [program, arguments @ ..] = words else { return Err("floor: no program".into()) };
    Err(format!("{program}: {}", Command::new(program).args(arguments).exec()))
}

/// Enters a mount namespace of its own, as root.
pub fn unshare_mounts() -> Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    make_slave()
}

fn make_slave() -> Result<()> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(|err| format!("making / a slave: {err}"))
}

// Sound here: this process has one thread and unshares no descriptor table.
#[allow(deprecated)]
fn unshare(flags: UnshareFlags) -> Result<()> {
    rustix::thread::unshare(flags).map_err(|err| format!("unshare: {err}"))
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|err| format!("{path}: {err}"))
}
