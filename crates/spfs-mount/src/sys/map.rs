//! A file mapped into memory, to be read.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The bytes of a file, mapped read-only.
///
/// Only for files that are never changed or cut short under their final name, as all files of the caches are: a
/// process that reads mapped pages which are no longer in the file is killed by SIGBUS. The one exception is the boot
/// stamp of a view, which is read once, when it is opened.
pub struct Map {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages are read-only and owned by this value alone; nothing in it is tied to a thread.
unsafe impl Send for Map {}
// SAFETY: as above; shared reads of read-only memory do not interfere.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the whole of `file`, which may be closed afterwards. An empty file is an error (`InvalidInput`).
    pub fn of(file: &File) -> io::Result<Map> {
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Map { start, len })
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is the beginning of a mapping of `len` readable bytes that lives as long as `self`. Files
        // mapped here are not modified by anybody (see the type's documentation).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `of`; no slice of it outlives `self`.
        // A failure could only leave the pages mapped, and nobody could do better.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
