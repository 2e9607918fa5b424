//! What a monitor keeps for other runtimes of its view, and for how long after its own has ended.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use spfs_mount::plan::{Plan, Strategy};
use spfs_mount::share::{self, Keeper, Use};

use super::record::Record;
use crate::Spfs;
use crate::config::{Backend, Env};
use crate::views::CachedView;

/// How many views one user keeps warm.
const LIMIT: usize = 8;

/// Where the runtimes of a user find the overlays of others.
const DIRECTORY: &str = "shared";

/// Where the runtime of `record` may share its overlay: one that is not to be changed.
pub fn place(spfs: &Spfs, record: &Record, cached: &CachedView, plan: &Plan) -> Option<PathBuf> {
    let is_shell = is_shell(&record.status.command);
    if !spfs.config.filesystem.share || record.status.editable || record.config.durable || is_shell {
        return None;
    }
    // The same payloads, even if their path means something else by now, and the same /proc.
    let payloads = std::fs::metadata(spfs.local.payload_dir()).ok()?;
    let processes = std::fs::metadata("/proc/self/ns/pid").ok()?;
    // An image that had to be made again is not the one that is mounted.
    let metadata = match plan.strategies.first()? {
        Strategy::Image(path) => format!("image{:x}", std::fs::metadata(path).ok()?.ino()),
        other => other.name().to_owned(),
    };
    let auto = if spfs.config.filesystem.backend == Backend::Auto { "auto-" } else { "" };
    let (dev, ino, uid, gid) = (payloads.dev(), payloads.ino(), spfs.env.uid, spfs.env.gid);
    let name = format!("{}-{auto}{metadata}-{dev:x}-{ino:x}-{:x}-{uid}-{gid}", cached.key, processes.ino());
    Some(spfs.dirs.run_sub(DIRECTORY).ok()?.join(name))
}

/// Shells that people sit in.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "tcsh", "csh"];

/// Whether the command is an interactive shell: none was given, or a shell without a script. It has an overlay of its own
/// from the start, so that `spfs edit` finds it sitting on something that can become editable.
fn is_shell(command: &[String]) -> bool {
    let Some((program, rest)) = command.split_first().filter(|(program, _)| !program.is_empty()) else { return true };
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_mere_option = |word: &String| word.starts_with("--") || word.starts_with('-') && !word.contains('c');
    SHELLS.contains(&name) && rest.iter().all(is_mere_option)
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
        let mut state = self.keeper.state();
        while state == Use::Unwanted {
            self.unwanted = true;
            state = self.keeper.state();
        }
        let used = state == Use::Used;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_without_a_script_is_interactive() {
        let interactive = ["", "bash", "/bin/zsh -i", "bash --norc -i", "tcsh -l", "sh"];
        let others = ["bash -c true", "sh -ec true", "bash script", "make", "/bin/bash -l script", "python"];
        for (lines, expected) in [(&interactive, true), (&others, false)] {
            for line in lines {
                let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                assert_eq!(is_shell(&words), expected, "{line}");
            }
        }
        assert!(is_shell(&[]));
    }
}
