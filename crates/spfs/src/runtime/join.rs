//! Entering a runtime that runs already.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use spfs_mount::members::{self, Member};
use spfs_mount::namespace;

use super::record::boot_text;
use super::registry::{self, Found, State};
use crate::Spfs;
use crate::error::{Error, Result};

/// Which runtime to enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By its name.
    Name(String),
    /// By a process in it.
    Pid(i32),
}

/// What is done here, for errors.
const JOIN: &str = "join";

/// Why one runtime cannot be entered from another: the kernel lets processes of a user namespace see and enter only
/// what is below it.
const ELSEWHERE: &str =
    "this is inside another environment, from which only root can enter one that was not started in it; leave it first";

/// Moves the calling process, which must have no other thread, into a running runtime.
///
/// Errors: [`Error::UnknownRuntime`], [`Error::Runtime`] if nothing of it runs, and what the kernel refuses.
pub fn join(spfs: &Spfs, target: &Target) -> Result<Found> {
    let (found, member): (Found, Member) = match target {
        Target::Name(name) => by_name(spfs, name)?,
        Target::Pid(pid) => by_pid(spfs, *pid)?,
    };
    // Whoever is inside already has nothing to enter, and as an ordinary user may not.
    if namespace::mount_namespace_id().is_ok_and(|own| own == member.namespace) {
        return Ok(found);
    }
    match member.join() {
        Err(spfs_mount::Error::System { source, .. })
            if source.kind() == ErrorKind::PermissionDenied && namespace::is_mounted() =>
        {
            let name = found.record.name.clone();
            Err(Error::Runtime { action: JOIN, name, reason: ELSEWHERE.to_owned() })
        }
        other => other.map(|()| found).map_err(Error::from),
    }
}

fn by_name(spfs: &Spfs, name: &str) -> Result<(Found, Member)> {
    let boot = boot_text(&spfs.env.boot()?);
    let mut found = registry::find(spfs, name)?;
    // One that has just been started: its monitor is about to note where it lives.
    let deadline = Instant::now() + registry::PATIENCE;
    while found.state == State::Running && found.record.members(&boot).is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
        found = registry::find(spfs, name)?;
    }
    let refuse = |reason: &str| Error::Runtime { action: JOIN, name: name.to_owned(), reason: reason.to_owned() };
    let members = found.members(spfs, JOIN)?.ok_or_else(|| refuse("it is not running"))?;
    // Any member will do; the first process may be long gone.
    let member = members.any();
    let hidden = if namespace::is_mounted() && found.state == State::Running {
        ELSEWHERE
    } else {
        "none of its processes is left, or none that you may see"
    };
    let member = member.ok_or_else(|| refuse(hidden))?;
    Ok((found, member))
}

fn by_pid(spfs: &Spfs, pid: i32) -> Result<(Found, Member)> {
    let text = pid.to_string();
    let none = |reason: &str| Error::invalid("process", &text, reason);
    let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(|| none("a pid is a positive number"))?;
    members::namespace_of(pid).ok_or_else(|| none("there is none, or it may not be looked at"))?;
    let mut all = registry::list(spfs)?.into_iter();
    let found = all.find_map(|found| {
        let member = found.members(spfs, JOIN).ok()??.find(pid)?;
        Some((found, member))
    });
    found.ok_or_else(|| none("it is in no runtime of yours"))
}
