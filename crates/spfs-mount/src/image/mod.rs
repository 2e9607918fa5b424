//! A view as an EROFS image that holds names and metadata only; the data stays with the payloads.
//!
//! Root mounts the image from its file (Linux 6.12) and lays an overlay over it, in which the payload directory is a
//! data-only layer. A regular file has one hole instead of data and the extended attributes of `redirect.rs`; an
//! empty one has neither. An image takes 192 bytes for each file, 233 MB for a million. It is written front to back
//! with little memory: four bytes a node to know where each goes, and a buffer.
//!
//! Sources of the format: the kernel's `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h`.

mod format;
mod layout;
mod write;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::BootId;
use crate::error::{Error, Result};
use crate::publish::publish;
use crate::view::View;

pub use write::write;

/// Version of what [`write()`] makes of a view. It belongs into the key of every cached image.
pub const VERSION: u32 = 1;

/// Publishes the image of `view` at `path`, owned by `uid` and `gid` inside, trusted until the next boot.
pub fn create(path: &Path, view: &View, uid: u32, gid: u32, boot: &BootId) -> Result<File> {
    publish(path, |file| {
        write(view, file, uid, gid, boot).map_err(|error| match error {
            Error::Io { action, source, .. } => Error::Io { action, path: path.to_owned(), source },
            other => other,
        })
    })
}

/// The id of the boot during which the image in `file` was made.
///
/// An image of an earlier boot may have been torn by a power cut: make it again. Fails for what is no image, or not
/// all of one.
pub fn stamp(file: &File) -> io::Result<BootId> {
    let mut block = [0; format::SUPERBLOCK_LEN];
    file.read_exact_at(&mut block, format::SUPERBLOCK_AT)?;
    let damaged = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
    let (boot, length) = format::stamp(&block).ok_or_else(|| damaged("it is not an EROFS image"))?;
    if file.metadata()?.len() != length {
        return Err(damaged("it is cut short, or has grown"));
    }
    Ok(boot)
}
