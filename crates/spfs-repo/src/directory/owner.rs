//! Who left a lock or a work directory behind, and whether that process is certainly gone.
//!
//! A process is known by machine and boot (the kernel's boot id), process id namespace, process id and start time.
//! These say for certain that it is gone; a process of another machine, or in another namespace, cannot be judged,
//! and then only age counts.

use std::fmt;

use rustix::process::{Pid, getpid};

/// The identity of a process, and of one lock or work directory that it made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// Host name, for messages only.
    pub host: String,
    /// The kernel's boot id without dashes: names a machine and its boot.
    pub boot: String,
    /// Inode of the process id namespace; process ids mean nothing outside of theirs.
    pub pid_namespace: u64,
    /// Process id.
    pub pid: u32,
    /// Clock ticks after boot at which the process started; tells it from a later one with the same id.
    pub start: u64,
    /// Makes the identity unique.
    pub id: String,
}

/// Whether an [`Owner`] still lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Liveness {
    /// It runs.
    Alive,
    /// It certainly does not.
    Gone,
    /// Out of our sight.
    Unknown,
}

impl Owner {
    /// This process, with a new id.
    pub fn current() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let pid = getpid();
        Owner {
            host: rustix::system::uname().nodename().to_string_lossy().replace(char::is_whitespace, "_"),
            boot: boot.trim().replace('-', ""),
            pid_namespace: rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino),
            pid: pid.as_raw_nonzero().get() as u32,
            start: start_time(pid).unwrap_or(0),
            id: crate::unique().simple().to_string(),
        }
    }

    /// The same process, with a new id.
    pub fn another(&self) -> Self {
        Owner { id: crate::unique().simple().to_string(), ..self.clone() }
    }

    /// Whether this owner lives, as seen by `me`; `local` says that the file system is written by this kernel alone.
    pub fn liveness(&self, me: &Owner, local: bool) -> Liveness {
        if self.boot.is_empty() || me.boot.is_empty() {
            return Liveness::Unknown;
        }
        if self.boot != me.boot {
            return if local { Liveness::Gone } else { Liveness::Unknown };
        }
        if self.pid_namespace != me.pid_namespace || self.pid_namespace == 0 {
            return Liveness::Unknown;
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Liveness::Unknown;
        };
        match start_time(pid) {
            Some(start) if start == self.start || self.start == 0 => Liveness::Alive,
            Some(_) => Liveness::Gone,
            // /proc may hide the processes of others: then the kernel is asked.
            None => match rustix::process::test_kill_process(pid) {
                Err(rustix::io::Errno::SRCH) => Liveness::Gone,
                _ => Liveness::Alive,
            },
        }
    }

    /// The name of a work directory: `spfs-PID-START-NAMESPACE-BOOT-ID`.
    pub fn work_name(&self) -> String {
        format!("spfs-{}-{}-{}-{}-{}", self.pid, self.start, self.pid_namespace, self.boot, self.id)
    }

    /// Reads [`Owner::work_name`].
    pub fn from_work_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("spfs-")?.split('-');
        let owner = Owner {
            host: String::new(),
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
            pid_namespace: parts.next()?.parse().ok()?,
            boot: parts.next()?.to_owned(),
            id: parts.next()?.to_owned(),
        };
        (parts.next().is_none() && !owner.id.is_empty()).then_some(owner)
    }

    /// The content of a lock file: one line of `key=value` words.
    pub fn lock_text(&self) -> String {
        format!(
            "spfs-lock host={} boot={} pidns={} pid={} start={} id={}\n",
            self.host, self.boot, self.pid_namespace, self.pid, self.start, self.id
        )
    }

    /// Reads [`Owner::lock_text`].
    pub fn from_lock_text(text: &str) -> Option<Self> {
        // Without its newline the line may be cut short.
        let mut words = text.strip_suffix('\n')?.strip_prefix("spfs-lock ")?.split(' ');
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
        Some(Owner {
            host: value("host")?,
            boot: value("boot")?,
            pid_namespace: value("pidns")?.parse().ok()?,
            pid: value("pid")?.parse().ok()?,
            start: value("start")?.parse().ok()?,
            id: value("id").filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric()))?,
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// When the process started, in clock ticks after boot: field 22 of `/proc/PID/stat`. A zombie counts as gone.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The second field is the program's name in parentheses, and may itself hold any character.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return Some(u64::MAX);
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_texts_are_read_back() {
        let owner = Owner::current();
        assert_eq!(Owner::from_lock_text(&owner.lock_text()).unwrap(), owner);
        let read = Owner::from_work_name(&owner.work_name()).unwrap();
        assert_eq!(Owner { host: owner.host.clone(), ..read }, owner);
        assert_eq!(Owner::from_lock_text(""), None);
        assert_eq!(Owner::from_lock_text(owner.lock_text().trim_end()), None, "cut short");
        assert_eq!(Owner::from_work_name("1b2f0c52-3f2b-4a54-8d7e-0123456789ab"), None, "upstream's");
    }

    #[test]
    fn only_what_is_certainly_gone_is_called_gone() {
        let me = Owner::current();
        assert_ne!(me.start, 0);
        assert_eq!(me.liveness(&me, true), Liveness::Alive);
        let reused = Owner { start: me.start + 1, ..me.clone() };
        assert_eq!(reused.liveness(&me, true), Liveness::Gone, "another process with our id");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = Owner { pid: child.id(), start: 1, ..me.clone() };
        child.wait().unwrap();
        assert_eq!(dead.liveness(&me, false), Liveness::Gone);
        let rebooted = Owner { boot: "0".repeat(32), ..me.clone() };
        assert_eq!(rebooted.liveness(&me, true), Liveness::Gone, "nobody else writes to a local file system");
        assert_eq!(rebooted.liveness(&me, false), Liveness::Unknown);
        let contained = Owner { pid_namespace: me.pid_namespace + 1, ..me.clone() };
        assert_eq!(contained.liveness(&me, true), Liveness::Unknown);
    }
}
