//! Trying again what is worth it: a connection that broke, not a disk that is full.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use spfs_repo::{Digest, Error, PayloadReader, Repository, Result};

/// How often something is tried, and how long the first wait is; each further one is twice as long.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Runs `work`, and again with growing pauses where the failure may pass.
pub(super) fn again<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    let mut tries = 1;
    loop {
        match work() {
            Err(Error::Io { source, .. }) if tries < TRIES && passes(source.kind()) => wait(tries),
            result => return result,
        }
        tries += 1;
    }
}

fn wait(tries: u32) {
    std::thread::sleep(FIRST_WAIT * 2u32.pow(tries - 1));
}

/// Whether the same may work a moment later.
fn passes(kind: ErrorKind) -> bool {
    use ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NetworkDown, NetworkUnreachable,
        ResourceBusy, StaleNetworkFileHandle, TimedOut, UnexpectedEof, WouldBlock,
    };
    matches!(
        kind,
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

/// A payload whose connection may break: it is then opened again, and goes on where it was.
pub(super) struct Content<'a> {
    source: &'a dyn Repository,
    digest: Digest,
    reader: PayloadReader,
    offset: u64,
    tries: u32,
    advance: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Content<'a> {
    /// Opens the payload; `advance` hears of every byte.
    pub fn open(source: &'a dyn Repository, digest: Digest, advance: &'a (dyn Fn(u64) + Sync)) -> Result<Self> {
        let reader = again(|| source.open_payload(&digest))?;
        Ok(Content { source, digest, reader, offset: 0, tries: 1, advance })
    }

    fn reopen(&mut self) -> io::Result<()> {
        let mut reader = again(|| self.source.open_payload(&self.digest)).map_err(io::Error::other)?;
        let skipped = io::copy(&mut (&mut reader).take(self.offset), &mut io::sink())?;
        if skipped < self.offset {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.reader = reader;
        Ok(())
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    self.tries = 1;
                    (self.advance)(count as u64);
                    return Ok(count);
                }
                Err(error) if passes(error.kind()) && self.tries < TRIES => {
                    wait(self.tries);
                    self.tries += 1;
                    self.reopen()?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
