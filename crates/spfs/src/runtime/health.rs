//! Whether the files that a runtime shows are still behind it: overlayfs opens payloads by itself, so no monitor hears
//! of one that is gone or cut short.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType};
use serde::Serialize;
use spfs_mount::view::NodeKind;
use spfs_repo::Digest;

use super::record::Record;
use super::shown;
use crate::Spfs;
use crate::error::{Error, Result};

/// What is wrong with a payload that is not there.
const MISSING: &str = "it is missing";

/// What is wrong with the payload of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadPayload {
    /// The file, relative to /spfs.
    pub path: String,
    /// Its payload.
    pub digest: Digest,
    /// Why it cannot be read as it should.
    pub reason: String,
}

/// Looks at the payload of every file that lies below the changes of the runtime of `record`: whether it is there, has
/// the right size, and may be read. One `stat` for each payload; whether the *content* is right takes `spfs check`.
///
/// Returned in the order of the paths, each payload under each of its names. Errors: of reading the stack.
pub fn bad_payloads(spfs: &Spfs, record: &Record) -> Result<Vec<BadPayload>> {
    let here;
    let spfs = if spfs.local.root() == record.config.repository {
        spfs
    } else {
        // Opened only if it is there: opening makes what is missing.
        std::fs::metadata(&record.config.repository).map_err(Error::io("open", &record.config.repository))?;
        let mut config = spfs.config.clone();
        config.storage.root = Some(record.config.repository.clone());
        here = Spfs::open(spfs.env.clone(), config)?;
        &here
    };
    let view = shown::merged(spfs, &record.status.base, &record.config.live_layers)?.view;
    let lazy = !record.config.lazy.is_empty();
    let mut looked: HashMap<Digest, Option<String>> = HashMap::new();
    let mut bad = Vec::new();
    for (path, id) in view.walk() {
        let Some(node) = view.node(id).filter(|node| node.kind == NodeKind::File && node.size > 0) else { continue };
        let Some(digest) = view.digest(id) else { continue };
        let found =
            looked.entry(digest).or_insert_with(|| look(&spfs.local.payload_path(&digest), node.size, spfs.env.uid));
        // What is fetched when it is opened is not damaged because it is not here yet.
        let found = found.as_ref().filter(|reason| !lazy || *reason != MISSING);
        bad.extend(found.cloned().map(|reason| BadPayload { path, digest, reason }));
    }
    Ok(bad)
}

/// What is wrong with the payload file `path`, which should have `size` bytes, in a runtime of the user `uid`.
fn look(path: &Path, size: u64, uid: u32) -> Option<String> {
    let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Some(MISSING.to_owned()),
        Err(e) => return Some(io::Error::from(e).to_string()),
    };
    match u64::try_from(stat.st_size).unwrap_or(0) {
        _ if !FileType::from_raw_mode(stat.st_mode).is_file() => Some("it is not a file".to_owned()),
        found if found != size => Some(format!("it has {found} bytes instead of {size}")),
        // Whoever mounted it reads his own files whatever their mode, root those of others too.
        _ if stat.st_mode & 0o444 == 0o444 || stat.st_uid == uid || uid == 0 => None,
        _ => rustix::fs::access(path, Access::READ_OK).err().map(|_| "it may not be read".to_owned()),
    }
}
