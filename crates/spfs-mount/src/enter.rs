//! From a plan to a mounted `/spfs` around the calling process, with a monitor that outlives it.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions};

use crate::SPFS;
use crate::error::{Error, Result};
use crate::inside;
use crate::link::{Announce, Link, Message};
use crate::lower::Makers;
use crate::namespace::{self, Situation};
use crate::overlay::{self, Overlay};
use crate::plan::{Plan, Strategy};
use crate::share::{self, Shared};
use crate::sys::{mount, process};

/// What [`enter`] did.
#[derive(Debug)]
pub struct Entered {
    /// What the process stood on.
    pub situation: Situation,
    /// What did not work as planned, and what was done instead.
    pub remarks: Vec<String>,
}

/// What a monitor hears from.
pub struct MonitorLinks {
    /// The launcher.
    pub launcher: Link,
    /// The launcher again, for a server to be forked at once: the kernel waits for its answers while it mounts.
    pub server: Option<Link>,
}

/// The launcher's side of a forked monitor.
struct Forked {
    link: Link,
    server: Option<Link>,
    intermediate: Option<Pid>,
}

/// Moves the calling process, which must be single-threaded, into namespaces in which `plan` is mounted at `/spfs`.
///
/// `monitor` runs in a process of its own: outside the new mount namespace (which it would keep alive) but inside the
/// new user namespace, if there is one, whose capabilities it keeps. It is given its ends of the links, and must hold no
/// descriptor but those, the standard ones (`/dev/null`) and `keep`. Its result is its exit status.
///
/// `tree` writes the view out as plain directories under a path, if it comes to that.
///
/// The caller then execs the command, which loses all capabilities that came with the user namespace.
pub fn enter(
    plan: &Plan,
    tree: &dyn Fn(&Path) -> Result<()>,
    keep: &[RawFd],
    monitor: impl FnOnce(MonitorLinks) -> i32,
) -> Result<Entered> {
    let situation = Situation::find();
    let directory = std::env::current_dir().ok();
    let shared = plan.share.as_deref().and_then(Shared::find);
    if !situation.privileged {
        namespace::unshare_user()?;
    }
    if situation.nested {
        // The monitor must not stay in the outer runtime's namespace either.
        namespace::unshare_mounts()?;
        namespace::drop_outer(situation)?;
    }
    // The monitor says with its life that what is shared is used.
    let keep: Vec<RawFd> = keep.iter().copied().chain(shared.as_ref().map(|s| s.user().as_raw_fd())).collect();
    let served = matches!(plan.strategies.first(), Some(Strategy::Server | Strategy::Full));
    let Forked { link, server, intermediate } = fork_monitor(&keep, served && shared.is_none(), monitor)?;
    namespace::unshare_mounts()?;
    if !situation.nested && !situation.present {
        namespace::new_root()?;
    }
    let makers = Makers { announce: Announce { monitor: &link, server: Cell::new(server.as_ref()) }, tree };
    let overlay = match shared.as_ref().and_then(Shared::mount) {
        Some(mount) => {
            let (watch, marker) = overlay::end(&makers.announce, &plan.name)?;
            Overlay { mount, upper: None, watch, marker: Some(marker), tree: None, remarks: Vec::new() }
        }
        None => make(plan, &makers, shared.is_none())?,
    };
    drop((server, shared));
    overlay.hold(&link)?;
    if let Some(marker) = &overlay.marker {
        mount::attach(marker.as_fd(), SPFS)?;
    }
    mount::attach(overlay.mount.as_fd(), SPFS)?;
    inside::attach_binds(plan)?;
    let watch = overlay.watch.as_ref().map(AsFd::as_fd);
    link.send_mounted(namespace::mount_namespace_id()?, overlay.upper.as_ref().map(AsFd::as_fd), watch)?;
    // Long gone by now; the command must not meet it.
    if let Some(intermediate) = intermediate {
        let _ = rustix::process::waitpid(Some(intermediate), WaitOptions::empty());
    }
    match link.receive()? {
        Message::Ready => {}
        _ => return Err(Error::MonitorGone),
    }
    // What was /spfs or below it is something else now.
    if let Some(directory) = directory.filter(|d| d.starts_with(SPFS)) {
        let _ = rustix::process::chdir(&directory).or_else(|_| rustix::process::chdir(SPFS));
    }
    Ok(Entered { situation, remarks: overlay.remarks })
}

/// Makes the overlay; where it may be shared, the monitor gets a clone of it to `keep` for others.
fn make(plan: &Plan, makers: &Makers<'_>, keep: bool) -> Result<Overlay> {
    let overlay = Overlay::make(plan, makers, |_| Ok(()))?;
    if keep
        && overlay.is_shared()
        && let Some(clone) = share::clone(overlay.mount.as_fd())
    {
        makers.announce.monitor.send_keep(clone.as_fd())?;
    }
    Ok(overlay)
}

/// Forks the monitor so that the command, which takes this process's place, never notices it. The pid is that of a
/// process in between, which is to be waited for.
fn fork_monitor(keep: &[RawFd], server: bool, monitor: impl FnOnce(MonitorLinks) -> i32) -> Result<Forked> {
    let (ours, theirs) = Link::pair()?;
    let (our_server, their_server) = if server { Link::pair().map(|(a, b)| (Some(a), Some(b)))? } else { (None, None) };
    // An orphan goes to the nearest reaper of orphans. If that is this process, the command would meet it in wait().
    let adopts_orphans =
        rustix::process::getpid().is_init() || rustix::process::child_subreaper().is_ok_and(|reaper| reaper.is_some());
    let forked = if adopts_orphans { process::fork_unseen() } else { process::fork() };
    match forked.map_err(Error::system("fork the monitor"))? {
        process::Fork::Parent(child) => {
            Ok(Forked { link: ours, server: our_server, intermediate: (!adopts_orphans).then_some(child) })
        }
        process::Fork::Child => {
            drop((ours, our_server));
            let _ = rustix::process::setsid();
            if !adopts_orphans && !matches!(process::fork(), Ok(process::Fork::Child)) {
                process::exit_now(0);
            }
            let mut keep = keep.to_vec();
            keep.extend([&theirs].into_iter().chain(&their_server).map(|link| link.as_fd().as_raw_fd()));
            leave_caller_behind(&keep);
            process::exit_now(monitor(MonitorLinks { launcher: theirs, server: their_server }))
        }
    }
}

/// Gives up all that was the caller's: directory, descriptors, signal dispositions.
fn leave_caller_behind(keep: &[RawFd]) {
    process::reset_signals();
    process::ignore_signal(libc::SIGPIPE);
    process::ignore_signal(libc::SIGHUP);
    let _ = rustix::process::chdir("/");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    process::close_descriptors_except(keep);
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
        if null.as_raw_fd() < 3 {
            std::mem::forget(null);
        }
    }
}
