//! Requests as the kernel sends them; nothing in them is believed.

use std::ffi::CStr;

use rustix::io::Errno;

use super::protocol::{IN_HEADER, Opcode};

/// One request: its header's fields, and what follows the header.
pub(super) struct Request<'a> {
    pub opcode: Opcode,
    /// Links the answer to the request; the highest bit says that it was sent before, and goes back with it.
    pub unique: u64,
    /// The file or directory that it is about, from 1.
    pub node: u64,
    /// Whether it is as long as it says.
    pub whole: bool,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The request with these bytes; `None` if even the header is cut short, so that no answer could be addressed.
    pub fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        let (header, body) = bytes.split_at_checked(IN_HEADER)?;
        Some(Request {
            opcode: Opcode(u32_at(header, 4)?),
            unique: u64_at(header, 8)?,
            node: u64_at(header, 16)?,
            whole: u32_at(header, 0)? as usize == bytes.len(),
            body,
        })
    }

    /// The number at `at` in the body.
    pub fn u32(&self, at: usize) -> Result<u32, Errno> {
        u32_at(self.body, at).ok_or(Errno::INVAL)
    }

    /// The number at `at` in the body.
    pub fn u64(&self, at: usize) -> Result<u64, Errno> {
        u64_at(self.body, at).ok_or(Errno::INVAL)
    }

    /// The text that begins at `at` in the body and ends with a NUL.
    pub fn text(&self, at: usize) -> Result<&'a [u8], Errno> {
        let bytes = self.body.get(at..).ok_or(Errno::INVAL)?;
        CStr::from_bytes_until_nul(bytes).map(CStr::to_bytes).map_err(|_| Errno::INVAL)
    }
}

/// The process that a request with these bytes comes from, as this process sees it; 0 if it does not.
pub(super) fn process(bytes: &[u8]) -> u32 {
    u32_at(bytes, 32).unwrap_or(0)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes)
}
