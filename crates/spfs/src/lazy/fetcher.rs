//! Fetching a payload when it is first opened: what a monitor's server does for its runtime.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::RawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spfs_mount::server::{Fetch, Wanted};
use spfs_repo::{Digest, Error as RepoError, Progress, Repository};

use crate::error::{Error, Result};
use crate::sync::{self, Options};
use crate::{Spfs, remotes};

/// A log that is longer than this begins anew.
const LONGEST_LOG: u64 = 1 << 20;

/// A remote, once it was opened.
type Connection = Mutex<Option<Arc<dyn Repository>>>;

/// Fetches payloads from remotes into the local repository, with the engine of `pull`: hashed as they arrive, and safe
/// on disk before they can be seen.
pub struct Fetcher {
    spfs: Spfs,
    /// Names or addresses, each with the connection that was made to it.
    remotes: Vec<(String, Connection)>,
    log: PathBuf,
    stopped: AtomicBool,
}

/// Where the fetching for the runtime in the directory `runtime` logs what goes wrong.
pub fn log_path(runtime: &Path) -> PathBuf {
    runtime.join("log")
}

/// What the network library keeps open for good once it was used: in a fork it looks for it under the same numbers, so
/// it must be there. These are sockets of this program's own, which none of the caller's are: those have survived an exec.
///
/// To be asked before any other socket is made.
pub fn network_descriptors() -> Vec<RawFd> {
    const CLOSED_BY_EXEC: u32 = 0o2_000_000;
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    let is_ours = |number: &RawFd| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        let is_socket = std::fs::metadata(format!("/proc/self/fd/{number}")).is_ok_and(|m| m.file_type().is_socket());
        is_socket && flags.is_some_and(|flags| flags & CLOSED_BY_EXEC != 0)
    };
    numbers.filter(is_ours).collect()
}

impl Fetcher {
    /// A fetcher for the runtime in the directory `runtime`. Nothing is opened yet.
    pub fn new(spfs: Spfs, remotes: &[String], runtime: &Path) -> Self {
        let remotes = remotes.iter().map(|name| (name.clone(), Mutex::new(None))).collect();
        Fetcher { spfs, remotes, log: log_path(runtime), stopped: AtomicBool::new(false) }
    }

    /// Fetches from one remote. A connection that was made earlier may have broken since: then it is made anew, once.
    fn fetch_from(&self, name: &str, open: &Connection, wanted: &Wanted) -> Result<()> {
        let lock = || open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().clone();
        if let Some(remote) = known {
            match self.move_from(&*remote, wanted) {
                Ok(()) => return Ok(()),
                Err(error @ Error::Repo(RepoError::Corrupt { .. } | RepoError::Interrupted)) => return Err(error),
                Err(_) => *lock() = None,
            }
        }
        let remote = remotes::open(&self.spfs, Some(name))?;
        *lock() = Some(Arc::clone(&remote));
        self.move_from(&*remote, wanted)
    }

    fn move_from(&self, remote: &dyn Repository, wanted: &Wanted) -> Result<()> {
        let (local, options) = (&self.spfs.local, Options::default());
        // One question without patience: the engine has more of it with a remote that is away than whoever opens a file.
        if !remote.missing_payloads(&[wanted.digest])?.is_empty() {
            return Err(RepoError::MissingPayload(wanted.digest).into());
        }
        let plan = sync::plan_blobs(local, &[(wanted.digest, wanted.size)])?;
        sync::apply(remote, local, &plan, &options, self)
    }

    /// Writes one line to the log.
    fn tell(&self, wanted: &Wanted, error: &Error) {
        let failure = crate::failure::Failure::of(error);
        let reason = std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": ");
        let now = self.spfs.env.now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let Wanted { digest, path, .. } = wanted;
        let line = format!("{now} could not fetch /spfs/{path} (payload {digest}): {}\n", reason.replace('\n', " "));
        let long = std::fs::metadata(&self.log).is_ok_and(|meta| meta.len() > LONGEST_LOG);
        let file = OpenOptions::new().create(true).write(true).append(!long).truncate(long).open(&self.log);
        // The caller gets an I/O error whether this can be written or not.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

impl Fetch for Fetcher {
    fn is_here(&self, digest: &Digest) -> bool {
        self.spfs.local.missing_payloads(&[*digest]).is_ok_and(|missing| missing.is_empty())
    }

    fn fetch(&self, wanted: &Wanted) -> bool {
        let mut trouble = None;
        for (name, open) in &self.remotes {
            match self.fetch_from(name, open, wanted) {
                Ok(()) => return true,
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        if let Some(error) = trouble {
            self.tell(wanted, &error);
        }
        // Whoever else fetched it meanwhile did it as well.
        self.is_here(&wanted.digest)
    }

    fn looks_ahead(&self) -> bool {
        self.spfs.config.filesystem.fetch_ahead
    }

    fn fetch_ahead(&self, wanted: &[Wanted]) {
        let mut left: Vec<(Digest, u64)> = wanted.iter().map(|wanted| (wanted.digest, wanted.size)).collect();
        for (_, open) in &self.remotes {
            // One that nothing has come from yet is not asked for what nobody waits for.
            let Some(remote) = open.lock().unwrap_or_else(PoisonError::into_inner).clone() else { continue };
            let digests: Vec<Digest> = left.iter().map(|(digest, _)| *digest).collect();
            let Ok(missing) = remote.missing_payloads(&digests) else { continue };
            let missing: HashSet<Digest> = missing.into_iter().collect();
            let (away, there): (Vec<_>, Vec<_>) = left.into_iter().partition(|(digest, _)| missing.contains(digest));
            let options = Options { threads: 1, ..Options::default() };
            // What does not come now comes when it is opened, or it is said then why not.
            let _ = sync::plan_blobs(&self.spfs.local, &there)
                .and_then(|plan| sync::apply(&*remote, &self.spfs.local, &plan, &options, self));
            left = away;
            if left.is_empty() {
                return;
            }
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Progress for Fetcher {
    fn interrupted(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
