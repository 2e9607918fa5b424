//! How cache files appear: written under a temporary name, then renamed, so that nobody ever sees half of one.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};

/// The end of the names of files that are still being written; what a crash leaves behind may be deleted.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Makes the file at `path` (mode 0600) with what `write` puts into it, replacing an older one in one step.
///
/// Nothing is synced to the disk: cache files carry a boot stamp instead ([`crate::BootId`]). Returns the open file.
pub fn publish(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<File> {
    let (temporary, mut file) = create_beside(path)?;
    let written = write(&mut file).and_then(|()| std::fs::rename(&temporary, path).map_err(Error::io("write", path)));
    if let Err(error) = written {
        // The first error is the one to tell; a leftover is harmless.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(file)
}

/// A new file in the directory of `path`, with a name that no other process uses.
fn create_beside(path: &Path) -> Result<(PathBuf, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    loop {
        let mut name = path.as_os_str().to_owned();
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}-{count}{TEMPORARY_SUFFIX}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&name) {
            Ok(file) => return Ok((PathBuf::from(name), file)),
            // A process of the same id in another pid namespace, or a leftover of an earlier boot.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", name)(error)),
        }
    }
}
