//! How a command inside a runtime finds it and asks its monitor.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use spfs_repo::Progress;

use super::dir::RuntimeDir;
use super::protocol::{self, Reply, Request};
use super::registry::{self, Found};
use crate::Spfs;
use crate::error::{Error, Result};
use crate::failure::Failure;

/// The variable that names the runtime around a process.
pub const VARIABLE: &str = "SPFS_RUNTIME";

/// The runtime around the caller.
///
/// Errors: [`Error::NoRuntime`] outside of any.
pub fn active(spfs: &Spfs) -> Result<Found> {
    let name = spfs.env.var(VARIABLE).filter(|name| !name.is_empty()).ok_or(Error::NoRuntime)?;
    match registry::find(spfs, &name.to_string_lossy()) {
        Err(Error::UnknownRuntime { .. }) => Err(Error::NoRuntime),
        other => other,
    }
}

/// Asks the monitor of the runtime in `dir`, and waits for its answer.
pub fn ask(dir: &RuntimeDir, request: &Request, progress: &dyn Progress) -> Result<Reply> {
    let path = dir.socket_path();
    let stream = connect(&dir.path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::Runtime {
            action: "reach",
            name: dir.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            reason: "its monitor has been killed; save your changes by hand and start a new one".into(),
        },
        _ => Error::io("connect to", &path)(e),
    })?;
    let namespace: OwnedFd = File::open("/proc/self/ns/mnt").map_err(Error::io("open", "/proc/self/ns/mnt"))?.into();
    protocol::send_request(&stream, request, &namespace).map_err(Error::io("write to", &path))?;
    for reply in protocol::replies(&stream) {
        match reply.map_err(Error::io("read from", &path))? {
            Reply::Expect(items, bytes) => progress.expect(items, bytes),
            Reply::Advance(items, bytes) => progress.advance(items, bytes),
            Reply::Failed(failure) => return Err(Error::Monitor(failure)),
            reply => return Ok(reply),
        }
    }
    Err(Error::Monitor(Failure::unexplained("the runtime's monitor ended before it answered")))
}

/// Socket addresses are limited to 108 bytes, paths are not: the directory is named by a descriptor.
fn connect(directory: &Path) -> io::Result<UnixStream> {
    let directory = File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/socket", directory.as_raw_fd()))
}

/// Makes the monitor's socket in a runtime's directory.
pub fn listen(dir: &RuntimeDir) -> Result<UnixListener> {
    let bind = || {
        let directory = File::open(&dir.path)?;
        UnixListener::bind(format!("/proc/self/fd/{}/socket", directory.as_raw_fd()))
    };
    bind().map_err(Error::io("make", dir.socket_path()))
}
