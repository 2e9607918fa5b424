//! Which processes belong to a runtime: those in its mount namespace.
//!
//! The number of the namespace does not tell it: the kernel gives that of one that has ended to the next, and the
//! runtime's name may be another's as well. So each start of a runtime has a mark of its own in the [`source`] of its
//! mounts, and a namespace is the runtime's only if one of the processes in it sees a mount with that source. While it is
//! held open its number means no other. Processes are looked at and killed through descriptors, which never come to mean
//! another process either.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::ThreadNameSpaceType;

use crate::error::{Error, Result};

/// The source that the mount table shows for a mount of the runtime `name`: `spfs:NAME/MARK`. Programs of before there
/// were marks left them out.
pub fn source(name: &str, mark: Option<&str>) -> String {
    match mark {
        Some(mark) => format!("spfs:{name}/{mark}"),
        None => format!("spfs:{name}"),
    }
}

/// The members of one runtime, as far as this process may see them.
#[derive(Debug)]
pub struct Members {
    namespace: u64,
    source: String,
}

/// A process that is one. It may have ended meanwhile; another that has its number is not meant.
#[derive(Debug)]
pub struct Member {
    pid: Pid,
    process: OwnedFd,
    /// The number of the runtime's mount namespace.
    pub namespace: u64,
}

impl Members {
    /// Those of the runtime whose mounts have this [`source`], in the mount namespace of this number.
    pub fn new(namespace: u64, source: String) -> Self {
        Members { namespace, source }
    }

    /// The number of the mount namespace.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// Whether there is any.
    pub fn exist(&self) -> bool {
        self.hold().is_some()
    }

    /// Any one of them.
    pub fn any(&self) -> Option<Member> {
        let _held = self.hold()?;
        processes().find_map(|pid| self.member(pid))
    }

    /// The process `pid`, if it is one of them.
    pub fn find(&self, pid: Pid) -> Option<Member> {
        // Asked first: it is in none of most runtimes.
        let _held = if self.is_in(pid) { self.hold()? } else { return None };
        self.member(pid)
    }

    /// Kills all of them; false if there were none. Their namespace ends later than this returns.
    pub fn kill(&self) -> bool {
        let Some(_held) = self.hold() else { return false };
        for member in processes().filter_map(|pid| self.member(pid)) {
            let _ = rustix::process::pidfd_send_signal(&member.process, Signal::KILL);
        }
        true
    }

    /// The namespace, held open, if it is the runtime's.
    fn hold(&self) -> Option<OwnedFd> {
        // One process that sees the mount is enough: others may have changed their root directory.
        processes().filter(|pid| self.is_in(*pid)).find_map(|pid| self.proof(pid))
    }

    /// The same by what `pid` sees.
    fn proof(&self, pid: Pid) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = rustix::fs::openat(CWD, directory(pid), flags, Mode::empty()).ok()?;
        let open = |name| rustix::fs::openat(&process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        let namespace = open("ns/mnt")?;
        let mut mounts = String::new();
        File::from(open("mountinfo")?).read_to_string(&mut mounts).ok()?;
        let is_ours = rustix::fs::fstat(&namespace).is_ok_and(|stat| stat.st_ino == self.namespace)
            && mounts.contains(&format!(" {} ", self.source));
        is_ours.then_some(namespace)
    }

    /// `pid`, if it is in a namespace of this number: who wants to be sure that it is the runtime's [holds](Self::hold) it.
    fn member(&self, pid: Pid) -> Option<Member> {
        let open = |pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        let process = if self.is_in(pid) { open(pid)? } else { return None };
        // Once more: between the two the process may have ended, and another got its number.
        self.is_in(pid).then_some(Member { pid, process, namespace: self.namespace })
    }

    fn is_in(&self, pid: Pid) -> bool {
        namespace_of(pid) == Some(self.namespace)
    }
}

impl Member {
    /// Moves this single-threaded process into the namespaces of the member, keeping its directory where it exists there.
    pub fn join(&self) -> Result<()> {
        let directory = std::env::current_dir().ok();
        let kinds = match self.has_same_user_namespace() {
            true => ThreadNameSpaceType::MOUNT,
            false => ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::USER,
        };
        let action = || format!("join process {}", self.pid.as_raw_nonzero());
        rustix::thread::move_into_thread_name_spaces(self.process.as_fd(), kinds)
            .map_err(|e| Error::system(action())(e))?;
        if let Some(directory) = directory {
            let _ = rustix::process::chdir(&directory).or_else(|_| rustix::process::chdir("/"));
        }
        Ok(())
    }

    fn has_same_user_namespace(&self) -> bool {
        let id = |of: &str| fs::metadata(format!("/proc/{of}/ns/user")).map(|m| (m.dev(), m.ino())).ok();
        let theirs = id(&self.pid.as_raw_nonzero().to_string());
        theirs.is_some() && theirs == id("self")
    }
}

/// The numbers of all mount namespaces that have a process which this process may see.
pub fn inhabited() -> HashSet<u64> {
    processes().filter_map(namespace_of).collect()
}

/// The number of the mount namespace of a process, if it may be looked at.
pub fn namespace_of(process: Pid) -> Option<u64> {
    Some(fs::metadata(directory(process) + "/ns/mnt").ok()?.ino())
}

fn directory(process: Pid) -> String {
    format!("/proc/{}", process.as_raw_nonzero())
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}
