//! A reader of the fixed forms that hashed bodies and tag records are made of: numbers, digests, C strings.

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Bytes that are read from front to back.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`; errors name them as `what`.
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes, what }
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// An error about what is read.
    pub(super) fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(self.what, reason)
    }

    /// The next `n` bytes.
    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(n) else {
            return Err(self.corrupt(format!("it ends {} bytes early", n - self.rest.len())));
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// A number of eight bytes, big-endian.
    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A number of items that follow, each at least `item` bytes long, so that no more room is made than can be used.
    pub(super) fn count(&mut self, item: usize) -> Result<usize> {
        let count = self.u64()?;
        let room = self.rest.len() / item;
        match usize::try_from(count) {
            Ok(n) if n <= room => Ok(n),
            _ => Err(self.corrupt(format!("it claims {count} items where {room} at most have room"))),
        }
    }

    /// The 32 bytes of a digest.
    pub(super) fn digest(&mut self) -> Result<Digest> {
        Ok(Digest::from_bytes(self.array()?))
    }

    /// UTF-8 up to the next NUL, which is skipped.
    pub(super) fn cstr(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|b| *b == 0).ok_or_else(|| self.corrupt("a text has no end"))?;
        let bytes = self.bytes(end + 1)?;
        std::str::from_utf8(&bytes[..end]).map_err(|_| self.corrupt("a text is not UTF-8"))
    }

    /// Fails unless everything was read.
    pub(super) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.corrupt(format!("{} bytes follow its end", self.rest.len())))
    }
}
