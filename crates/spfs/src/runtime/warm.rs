//! What a monitor keeps for other runtimes of its view, and for how long after its own has ended.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use spfs_mount::share::{self, Keeper, Use};

use super::record::Record;
use crate::Spfs;
use crate::config::Env;
use crate::views::CachedView;

/// How many views one user keeps warm.
const LIMIT: usize = 8;

/// Where the runtimes of a user find the overlays of others.
const DIRECTORY: &str = "shared";

/// Where the runtime of `record` may share its overlay: one that is not to be changed. An interactive shell has its
/// own from the start, so that `spfs edit` finds it sitting on something that can become editable.
pub fn place(spfs: &Spfs, record: &Record, cached: &CachedView) -> Option<PathBuf> {
    let is_shell = record.status.command.iter().all(String::is_empty);
    if !spfs.config.filesystem.share || record.status.editable || record.config.durable || is_shell {
        return None;
    }
    // The same payloads, even if their path means something else by now, and the same /proc.
    let payloads = std::fs::metadata(spfs.local.payload_dir()).ok()?;
    let processes = std::fs::metadata("/proc/self/ns/pid").ok()?;
    let backend = format!("{:?}", spfs.config.filesystem.backend).to_lowercase();
    let (dev, ino, uid, gid) = (payloads.dev(), payloads.ino(), spfs.env.uid, spfs.env.gid);
    let name = format!("{}-{backend}-{dev:x}-{ino:x}-{:x}-{uid}-{gid}", cached.key, processes.ino());
    Some(spfs.dirs.run_sub(DIRECTORY).ok()?.join(name))
}

/// Asks all that is kept warm for this user to be given up.
pub fn give_up(spfs: &Spfs) {
    share::ask_to_go(&spfs.dirs.run.join(DIRECTORY), 0);
}

/// How long to keep what lies over `payloads`: not where its file system could be meant to be unmounted, which is
/// where it is neither that of `/` nor, unless that is mounted by itself, that of the home directory.
pub fn patience(env: &Env, seconds: u64, payloads: &Path) -> Duration {
    let device = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
    let place = device(payloads);
    let home = env.home.as_deref().filter(|home| !is_mounted(home)).and_then(device);
    let stays = place.is_some() && (place == device(Path::new("/")) || place == home);
    Duration::from_secs(if stays { seconds } else { 0 })
}

fn is_mounted(path: &Path) -> bool {
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// What is waited for while nothing but sharing is left to do.
pub struct Warm {
    keeper: Keeper,
    patience: Duration,
    idle_since: Instant,
    unwanted: bool,
    pressure: Option<OwnedFd>,
}

impl Warm {
    /// Begins when the keeper's own runtime has ended.
    pub fn new(keeper: Keeper, patience: Duration, place: &Path) -> Self {
        let _ = rustix::thread::set_name(c"spfs-warm");
        if let Some(directory) = place.parent() {
            share::ask_to_go(directory, LIMIT);
        }
        Warm { keeper, patience, idle_since: Instant::now(), unwanted: false, pressure: pressure() }
    }

    /// Sleeps until something happens to the users, to the memory, or to one of the `others`. `None`: it is time to go.
    pub fn wait(&mut self, others: &[&OwnedFd]) -> Option<Vec<usize>> {
        let state = self.keeper.state();
        self.unwanted |= state == Use::Unwanted;
        let used = self.keeper.state() == Use::Used;
        let left = self.patience.saturating_sub(self.idle_since.elapsed());
        if !used && (self.unwanted || left.is_zero()) || !self.keeper.is_published() {
            return None;
        }
        if !used {
            self.keeper.renew();
        }
        let mut fds = vec![PollFd::new(&self.keeper, PollFlags::IN)];
        fds.extend(others.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)));
        if let Some(pressure) = &self.pressure {
            fds.push(PollFd::new(pressure, PollFlags::PRI));
        }
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let _ = rustix::event::poll(&mut fds, if used { None } else { Some(&limit) });
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            // Somebody came, or the last one has gone.
            self.idle_since = Instant::now();
        }
        if self.pressure.is_some() && ready[ready.len() - 1] {
            self.unwanted = true;
            self.pressure = None;
        }
        Some((0..others.len()).filter(|at| ready[at + 1]).collect())
    }

    /// Lets nobody else find it, and gives it up.
    pub fn end(self) {
        self.keeper.withdraw();
    }
}

/// Tells when tasks have waited for memory for 150 ms of 2 s (Linux 6.5 for ordinary users; where it cannot be had,
/// the patience is all there is).
fn pressure() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open("/proc/pressure/memory", flags, Mode::empty()).ok()?;
    rustix::io::write(file.as_fd(), b"some 150000 2000000\0").ok()?;
    Some(file)
}
