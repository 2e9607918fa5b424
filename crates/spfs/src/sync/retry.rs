//! Trying again what is worth it: a connection that broke, not a disk that is full.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use spfs_repo::{Digest, Error, PayloadReader, Repository, Result};

/// How often something is tried, and how long the first wait is; each further one is twice as long. Together they last
/// a little longer than a server needs to be started again.
const TRIES: u32 = 7;
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// How often it is tried to reach a remote in the first place: whoever is offline need not wait to hear of it.
const FIRST_TRIES: u32 = 2;

/// Runs `work`, and again with growing pauses where the failure may pass.
pub(crate) fn again<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    tried(TRIES, work)
}

/// As [`again`], and sooner tired of it: for the first question to a remote.
pub(super) fn first<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    tried(FIRST_TRIES, work)
}

fn tried<T>(tries: u32, work: impl Fn() -> Result<T>) -> Result<T> {
    let mut patience = Patience { left: tries - 1, tries };
    loop {
        match work() {
            Err(error) if patience.wait(&error) => {}
            result => return result,
        }
    }
}

/// How much longer something is tried.
pub(super) struct Patience {
    left: u32,
    tries: u32,
}

impl Patience {
    /// All of it.
    pub fn new() -> Self {
        Patience { left: TRIES - 1, tries: TRIES }
    }

    /// Something went well: from now on all of it again.
    pub fn renew(&mut self) {
        self.left = self.tries - 1;
    }

    /// Waits, if it is worth trying again after `error`; says whether it is.
    pub fn wait(&mut self, error: &Error) -> bool {
        if self.left == 0 || !passes(error) {
            return false;
        }
        std::thread::sleep(FIRST_WAIT * 2u32.pow(self.tries - 1 - self.left));
        self.left -= 1;
        true
    }
}

/// Whether the same may work a moment later.
fn passes(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => io_passes(source),
        other => other.is_passing(),
    }
}

fn io_passes(error: &io::Error) -> bool {
    use ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NetworkDown, NetworkUnreachable,
        ResourceBusy, StaleNetworkFileHandle, TimedOut, UnexpectedEof, WouldBlock,
    };
    // A remote's own error may travel inside of one of reading.
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return passes(inner);
    }
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | NetworkDown
            | NetworkUnreachable
            | ResourceBusy
            | StaleNetworkFileHandle
            | TimedOut
            | UnexpectedEof
            | WouldBlock
    )
}

/// A payload whose connection may break: it is then opened again where it was.
pub(super) struct Content<'a> {
    source: &'a dyn Repository,
    digest: Digest,
    reader: PayloadReader,
    offset: u64,
    patience: Patience,
    advance: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Content<'a> {
    /// Opens the payload at `offset`; `advance` hears of every byte from there on.
    pub fn open(
        source: &'a dyn Repository,
        digest: Digest,
        offset: u64,
        advance: &'a (dyn Fn(u64) + Sync),
    ) -> Result<Self> {
        let reader = again(|| open_at(source, &digest, offset))?;
        Ok(Content { source, digest, reader, offset, patience: Patience::new(), advance })
    }
}

fn open_at(source: &dyn Repository, digest: &Digest, offset: u64) -> Result<PayloadReader> {
    if offset == 0 { source.open_payload(digest) } else { source.open_payload_at(digest, offset) }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let error = match self.reader.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    self.patience.renew();
                    (self.advance)(count as u64);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let error = Error::io("read", format!("payload {}", self.digest))(error);
            if !self.patience.wait(&error) {
                return Err(io::Error::other(error));
            }
            self.reader = again(|| open_at(self.source, &self.digest, self.offset)).map_err(io::Error::other)?;
        }
    }
}
