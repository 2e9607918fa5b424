//! From a plan to a mounted `/spfs` around the calling process, with a monitor that outlives it.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::WaitOptions;

use crate::SPFS;
use crate::error::{Error, Result};
use crate::inside;
use crate::link::{Announce, Link, Message};
use crate::lower::Makers;
use crate::namespace::{self, Old, Situation};
use crate::overlay::{self, Kind, Overlay};
use crate::plan::{Plan, Strategy, Upper};
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
    let Forked { link, server } = fork_monitor(&keep, served && shared.is_none(), monitor)?;
    namespace::unshare_mounts()?;
    if !situation.nested && !situation.present {
        namespace::new_root(Old::Hidden)?;
    }
    let makers = Makers { announce: Announce { monitor: &link, server: Cell::new(server.as_ref()) }, tree };
    let overlay = match shared.as_ref().and_then(Shared::mount) {
        Some(mount) => {
            let (watch, marker) = overlay::end(&makers.announce, &plan.source)?;
            Overlay {
                mount,
                upper: None,
                watch,
                marker: Some(marker),
                held: Vec::new(),
                kind: Kind::Shared,
                remarks: Vec::new(),
            }
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
    // The monitor finds in its own time what was sent. Not where the changes are on disk: they must be known to be in use.
    if matches!(plan.upper, Upper::Disk { .. }) && !matches!(link.receive()?, Message::Ready) {
        return Err(Error::MonitorGone);
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
        && overlay.kind == Kind::Shared
        && let Some(clone) = share::clone(overlay.mount.as_fd())
    {
        makers.announce.monitor.send_keep(clone.as_fd())?;
    }
    Ok(overlay)
}

/// Forks the monitor so that the command, which takes this process's place, never notices it.
fn fork_monitor(keep: &[RawFd], server: bool, monitor: impl FnOnce(MonitorLinks) -> i32) -> Result<Forked> {
    let (ours, theirs) = Link::pair()?;
    let (our_server, their_server) = if server { Link::pair().map(|(a, b)| (Some(a), Some(b)))? } else { (None, None) };
    // An orphan goes to the nearest reaper of orphans. If that is this process, the command would meet it in wait().
    let adopts_orphans =
        rustix::process::getpid().is_init() || rustix::process::child_subreaper().is_ok_and(|reaper| reaper.is_some());
    let forked = if adopts_orphans { process::fork_unseen() } else { process::fork_orphan() };
    match forked.map_err(Error::system("fork the monitor"))? {
        process::Fork::Parent(child) => {
            // What was its parent has ended; the command must not meet it.
            let status = if adopts_orphans {
                None
            } else {
                rustix::process::waitpid(Some(child), WaitOptions::empty()).ok().flatten()
            };
            match status.map(|(_, status)| status.exit_status()) {
                None | Some(Some(0)) => Ok(Forked { link: ours, server: our_server }),
                Some(_) => Err(Error::MonitorGone),
            }
        }
        process::Fork::Child => {
            let _ = rustix::process::setsid();
            drop((ours, our_server));
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
