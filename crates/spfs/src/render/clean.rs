//! Removing what of a user's renders nothing uses, and what killed processes have left of them.
//!
//! Who uses a directory here holds a shared lock (`flock`) on it: a runtime on the render that it shows, who makes a render
//! on its work directory. Who removes one takes the lock for itself, without waiting, renames it away, and only then
//! removes what is in it: a runtime that starts at this moment finds it whole or not at all. Where the file system has no
//! locks nothing is removed.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::FlockOperation;
use rustix::process::geteuid;
use serde::Serialize;
use spfs_repo::{Digest, Directory, Repository as _};

use super::{open_dir, remove_tree, split, user_dir};
use crate::error::{Error, Result};

/// What nothing uses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Unused {
    /// Renders of environments.
    pub renders: u64,
    /// Files kept for renders that no render has any more.
    pub copies: u64,
    /// Bytes on disk of those that are no links of payloads.
    pub bytes: u64,
}

/// What the names of work directories begin with that are locked while they are in use.
const OURS: &str = ".spfs-";

/// What the names of directories begin with that are being removed.
const REMOVED: &str = ".old-";

/// How old a work directory without a lock must be: it gets its lock much sooner.
const UNLOCKED: SignedDuration = SignedDuration::from_secs(10);

/// How old one of another program must be, which takes no lock: no render takes that long.
const ABANDONED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A name for a work directory.
pub(super) fn work_name() -> String {
    format!("{OURS}{}", spfs_repo::unique())
}

/// What the names of work directories begin with that are made beside the target of a render, among other things.
const BESIDE: &str = ".spfs-render-";

/// A name for a work directory among other things.
pub(super) fn work_name_beside() -> String {
    format!("{BESIDE}{}", spfs_repo::unique())
}

/// Removes what killed renders of this user have left among other things in `parent`.
pub(super) fn sweep_beside(parent: &Path, now: Timestamp) {
    let is_left = |path: &Path| {
        let mine = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir() && m.uid() == geteuid().as_raw());
        mine && is_older(path, now, UNLOCKED) && take(path).is_some()
    };
    for path in list(parent).unwrap_or_default() {
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(BESIDE.as_bytes()) && is_left(&path) {
            remove_tree(&path);
        }
    }
}

/// Opens a directory and holds it against being cleaned.
pub(super) fn hold(path: &Path) -> Result<OwnedFd> {
    let dir = open_dir(path)?;
    let _ = rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared);
    Ok(dir)
}

/// Finds the renders of environments below `user` that no runtime uses, and the files kept for them; removes them if
/// `really`.
///
/// Renders of manifests stay: existing SPFS programs mount them too, and take no lock.
pub fn clean(repository: &Directory, user: &str, now: Timestamp, really: bool) -> Result<Unused> {
    let base = user_dir(repository, user)?;
    let mut unused = Unused::default();
    if really {
        sweep(&base, now);
    }
    for path in of_two_levels(&base)? {
        let Some(digest) = digest(&path) else { continue };
        if path != base.join(split(&digest)) || repository.missing(&[digest])?.is_empty() {
            continue;
        }
        let Some(lock) = take(&path) else { continue };
        unused.renders += 1;
        if really {
            let doomed = base.join("work").join(format!("{REMOVED}{}", spfs_repo::unique()));
            if fs::rename(&path, &doomed).is_ok() {
                drop(lock);
                remove_tree(&doomed);
            }
            let _ = path.parent().map(fs::remove_dir);
        }
    }
    let copies = base.join("proxy");
    for path in of_two_levels(&copies)? {
        clean_copies(repository, &path, &mut unused, really)?;
    }
    Ok(unused)
}

/// The files for one payload, one for each mode. One that vanishes while a render is made is made again.
fn clean_copies(repository: &Directory, path: &Path, unused: &mut Unused, really: bool) -> Result<()> {
    let Some(digest) = digest(path) else { return Ok(()) };
    let payload = fs::symlink_metadata(repository.payload_path(&digest)).ok();
    for file in list(path)? {
        let Ok(stat) = fs::symlink_metadata(&file) else { continue };
        let is_payload = payload.as_ref().is_some_and(|p| (p.dev(), p.ino()) == (stat.dev(), stat.ino()));
        // Its own name here, that of the payload if it is one, and one for each render.
        if !stat.is_file() || stat.nlink() > 1 + u64::from(is_payload) {
            continue;
        }
        if !really || fs::remove_file(&file).is_ok() {
            unused.copies += 1;
            unused.bytes += if is_payload { 0 } else { stat.blocks() * 512 };
        }
    }
    if really && fs::remove_dir(path).is_ok() {
        let _ = path.parent().map(fs::remove_dir);
    }
    Ok(())
}

/// Removes what killed renders, and a clean that was killed, have left in the work directories below `base`.
pub(super) fn sweep(base: &Path, now: Timestamp) {
    let places = [base.join("work"), base.join("proxy/work")];
    for path in places.iter().flat_map(|place| list(place).unwrap_or_default()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let limit = if name.starts_with(OURS) { UNLOCKED } else { ABANDONED };
        let is_left = name.starts_with(REMOVED) || is_older(&path, now, limit) && take(&path).is_some();
        if is_left {
            remove_tree(&path);
        }
    }
}

fn is_older(path: &Path, now: Timestamp, limit: SignedDuration) -> bool {
    let time = fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok();
    let time = time.and_then(|time| Timestamp::try_from(time).ok());
    time.is_some_and(|time| now.duration_since(time) > limit)
}

/// Takes the lock of a directory that nobody uses.
fn take(path: &Path) -> Option<OwnedFd> {
    let dir = open_dir(path).ok()?;
    rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(dir)
}

/// The digest that a path spells with its last two names.
fn digest(path: &Path) -> Option<Digest> {
    let (first, rest) = (path.parent()?.file_name()?.to_str()?, path.file_name()?.to_str()?);
    format!("{first}{rest}").parse().ok()
}

/// What is in the directories in `base`, but for those that are no part of a digest.
fn of_two_levels(base: &Path) -> Result<Vec<PathBuf>> {
    let is_part = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 2);
    let mut found = Vec::new();
    for dir in list(base)?.iter().filter(|path| is_part(path)) {
        found.extend(list(dir)?);
    }
    Ok(found)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(e) => Err(Error::io("list", dir)(e)),
    }
}
