//! Answers as the kernel wants them.

use rustix::io::Errno;

use super::protocol::{ENTRY_OUT, OUT_HEADER};
use super::{Answer, Outcome};

/// The room in which answers are put together, one after the other.
pub struct Reply(Vec<u8>);

impl Reply {
    /// Room for answers of up to `capacity` bytes, so that none of them allocates.
    pub fn with_capacity(capacity: usize) -> Reply {
        Reply(Vec::with_capacity(capacity))
    }

    /// Begins the answer to the request `unique`.
    pub(super) fn begin(&mut self, unique: u64) {
        self.0.clear();
        self.u32(0); // length, see finish
        self.u32(0); // error, likewise
        self.u64(unique);
    }

    /// The whole answer; an error has nothing but its header.
    pub(super) fn finish(&mut self, error: Option<Errno>) -> &[u8] {
        if let Some(error) = error {
            self.0.truncate(OUT_HEADER);
            self.0[4..8].copy_from_slice(&(-error.raw_os_error()).to_ne_bytes());
        }
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        &self.0
    }

    /// How large an answer may become before memory is allocated.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Bytes behind the header so far.
    pub(super) fn len(&self) -> usize {
        self.0.len().saturating_sub(OUT_HEADER)
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    /// The next `count` bytes, to be filled by the caller.
    pub(super) fn room(&mut self, count: usize) -> &mut [u8] {
        let start = self.0.len();
        self.zeros(count);
        &mut self.0[start..]
    }

    /// An entry without a node: there is no such name, and that is certain for `valid` seconds.
    pub(super) fn missing_entry(&mut self, valid: u64) {
        self.u64(0); // nodeid
        self.u64(0); // generation
        self.u64(valid);
        self.zeros(ENTRY_OUT - 24);
    }

    /// A value that must fit into `room` bytes; if `room` is 0 only its length is wanted (`struct fuse_getxattr_out`).
    pub(super) fn sized(&mut self, room: u32, pieces: &[&[u8]]) -> Outcome {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if room == 0 {
            self.u32(length as u32);
            self.u32(0);
        } else if length > room as usize {
            return Err(Errno::RANGE);
        } else {
            pieces.iter().for_each(|piece| self.bytes(piece));
        }
        Ok(Answer::Sent)
    }
}

/// The same answer as a mere failure.
pub(super) fn failure(answer: &[u8], error: Errno) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    header.copy_from_slice(&answer[..OUT_HEADER]);
    header[0..4].copy_from_slice(&(OUT_HEADER as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&(-error.raw_os_error()).to_ne_bytes());
    header
}

/// A message to the kernel that answers nothing: `unique` is 0, and the place of the error holds the `code`.
pub(super) fn notification(code: u32) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    header[0..4].copy_from_slice(&(OUT_HEADER as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&code.to_ne_bytes());
    header
}
