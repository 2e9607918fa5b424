//! What a monitor does for the members of its runtime: edit, commit, reset. Each in a child of the monitor.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::WaitOptions;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spfs_mount::inside;
use spfs_mount::link::Link;
use spfs_mount::sys::process::{self, Fork};

use super::dir::RuntimeDir;
use super::protocol::{self, Reply, Request};
use super::teller::Teller;
use super::{commit, reset};
use crate::Spfs;
use crate::config::{Config, Env};
use crate::error::{Error, Result};
use crate::failure::Failure;

/// What a monitor knows of the mounts.
pub struct Mounts {
    /// The number of the mount namespace.
    pub namespace: u64,
    /// The upper directory, `O_PATH`; nothing while the overlay is shared and cannot be changed.
    pub upper: Option<OwnedFd>,
}

/// One request being carried out.
pub struct Job<'a> {
    /// Configuration and repository.
    pub spfs: Spfs,
    /// The runtime.
    pub dir: &'a RuntimeDir,
    /// Its mounts.
    pub mounts: &'a Mounts,
    /// Its upper directory, `O_PATH`; an empty one while the overlay is shared.
    pub upper: OwnedFd,
    /// The mount namespace of whoever asked.
    pub namespace: OwnedFd,
    /// Where new mounts are announced.
    pub link: &'a Link,
    /// Tells whoever asked how far it has come, and hears when nobody listens any more.
    pub progress: Teller<'a>,
}

/// Reads one request, carries it out and answers. The result is the exit status.
pub fn serve(stream: &UnixStream, dir: &RuntimeDir, env: &Env, config: &Config, mounts: &Mounts, link: &Link) -> i32 {
    let Ok((request, namespace)) = protocol::receive_request(stream) else { return 1 };
    let answer = || -> Result<Reply> {
        let spfs = Spfs::open(env.clone(), config.clone())?;
        let upper = upper(mounts, dir)?;
        Job { spfs, dir, mounts, upper, namespace, link, progress: Teller::new(stream) }.run(request)
    };
    let reply = answer().unwrap_or_else(|error| Reply::Failed(Failure::of(&error)));
    i32::from(protocol::send_reply(stream, &reply).is_err())
}

/// The upper directory, or an empty one where there is none: nothing can have been changed then.
fn upper(mounts: &Mounts, dir: &RuntimeDir) -> Result<OwnedFd> {
    if let Some(upper) = &mounts.upper {
        return upper.try_clone().map_err(Error::io("copy the descriptor of", "the upper directory"));
    }
    let empty = dir.path.join("no-changes");
    super::dir::make_private(&empty)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&empty, flags, Mode::empty()).map_err(Error::io("open", &empty))
}

impl Job<'_> {
    fn run(&self, request: Request) -> Result<Reply> {
        let _lock = match request {
            Request::Changes => None,
            _ => Some(self.dir.lock_changes()?),
        };
        match request {
            Request::Edit { editable } => self.edit(editable),
            Request::Changes => Ok(Reply::Changes(commit::changes(self)?)),
            Request::Commit(request) => Ok(Reply::Committed(commit::commit(self, &request)?)),
            Request::Reset(request) => Ok(Reply::Replaced(reset::reset(self, &request)?)),
            Request::KeepRuntime => Ok(Reply::Replaced(reset::keep_runtime(self)?)),
        }
    }

    fn edit(&self, editable: bool) -> Result<Reply> {
        match self.mounts.upper {
            Some(_) => self.set_editable(editable)?,
            None if editable => return Ok(Reply::Replaced(reset::unshare(self)?)),
            // It cannot be changed anyway.
            None => {}
        }
        let mut record = self.dir.load()?;
        record.status.editable = editable;
        self.dir.save(&record)?;
        Ok(Reply::Done)
    }

    /// Flips the mount between read-only and editable; the record is the caller's to change.
    pub fn set_editable(&self, editable: bool) -> Result<()> {
        self.inside(|| Ok(inside::set_editable(editable)?))
    }

    /// Runs `work` in a child that has moved into the runtime's mount namespace.
    ///
    /// Only what must be done there is: here, every path still means what it meant to the monitor.
    pub fn inside<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        apart(|| {
            inside::enter_mounts(self.namespace.as_fd(), self.mounts.namespace)?;
            work()
        })
    }
}

/// The work of a child, as it tells its parent.
#[derive(Serialize, Deserialize)]
enum Outcome<T> {
    Done(T),
    Failed(Failure),
}

/// Runs `work` in a forked child of this single-threaded process and brings back its result.
pub fn apart<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let system = |action: &'static str| move |e: rustix::io::Errno| Error::io(action, "a helper process")(e);
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe to"))?;
    match process::fork().map_err(Error::io("fork", "a helper process"))? {
        Fork::Child => {
            drop(reader);
            let outcome = match work() {
                Ok(done) => Outcome::Done(done),
                Err(error) => Outcome::Failed(Failure::of(&error)),
            };
            let sent = serde_json::to_writer(std::fs::File::from(writer), &outcome);
            process::exit_now(i32::from(sent.is_err()))
        }
        Fork::Parent(pid) => {
            drop(writer);
            let mut text = Vec::new();
            let read = std::fs::File::from(reader).read_to_end(&mut text);
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            read.map_err(Error::io("hear from", "a helper process"))?;
            match serde_json::from_slice(&text) {
                Ok(Outcome::Done(done)) => Ok(done),
                Ok(Outcome::Failed(failure)) => Err(Error::Monitor(failure)),
                Err(_) => Err(Error::Monitor(Failure::unexplained("a helper process ended without a result"))),
            }
        }
    }
}
