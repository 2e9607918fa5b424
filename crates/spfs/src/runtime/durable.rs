//! Durable runtimes: their changes are on disk and stay when their processes have ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spfs_repo::{Digest, Object, Platform, Repository, Tag, TagName};

use super::dir::{self, AliveLock};
use super::record::Record;
use super::registry::{self, Found, State};
use crate::Spfs;
use crate::error::{Error, Result};

/// Where upstream's clean looks for the stacks of runtimes, so that it spares their objects (`docs/format.md`).
const DATA_TAGS: &str = "spfs/runtimes/data";

/// Makes the directory of a new durable runtime, empty, and names it in `record`.
///
/// Errors: [`Error::Runtime`] if the name is taken, and if no overlay can keep its changes there.
pub fn create(spfs: &Spfs, record: &mut Record) -> Result<AliveLock> {
    let Some(path) = registry::durable_dir(spfs, &record.name) else {
        let reason = "there is no directory for durable runtimes; set storage.durable_dir".to_owned();
        return Err(Error::Runtime { action: "keep", name: record.name.clone(), reason });
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    make_place(spfs, parent)?;
    check_file_system(parent, &record.name)?;
    set_changes(record, path.clone(), &path);
    record.config.durable = true;
    dir::make(&path, &record.name, |staged| {
        make_changes(staged)?;
        dir::save(staged, record, true)
    })
}

/// Makes the directory of all durable runtimes; in a shared repository every user may have some in it, and nobody may
/// touch another's.
fn make_place(spfs: &Spfs, place: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    dir::make_private(place)?;
    if spfs.local.is_shared() && place.starts_with(spfs.local.root()) {
        // It may be another's, who has done this.
        let _ = fs::set_permissions(place, fs::Permissions::from_mode(0o1777));
    }
    Ok(())
}

/// Makes empty `upper` and `work` directories below `parent`.
pub fn make_changes(parent: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for name in ["upper", "work"] {
        let path = parent.join(name);
        fs::create_dir_all(&path).map_err(Error::io("make", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::io("set the mode of", &path))?;
    }
    Ok(())
}

/// Notes in `record` that its changes are in `upper` and `work` below `changes`, and its home is `home`.
pub fn set_changes(record: &mut Record, home: PathBuf, changes: &Path) {
    record.config.durable_dir = Some(home);
    record.config.upper_dir = Some(changes.join("upper"));
    record.config.work_dir = Some(changes.join("work"));
}

/// Takes a saved runtime for another run. One whose processes have just ended gets a moment to put itself away.
///
/// Errors: [`Error::Runtime`] if it is in use, here or through another session's runtime directory.
pub fn take(spfs: &Spfs, name: &str, force: bool) -> Result<(Record, AliveLock)> {
    let deadline = Instant::now() + registry::PATIENCE;
    loop {
        let found = registry::find(spfs, name)?;
        let Some(home) = found.record.config.durable_dir.clone() else {
            let reason = "it is not durable; start it with --keep-runtime".to_owned();
            return Err(Error::Runtime { action: "rerun", name: name.to_owned(), reason });
        };
        let lock = if found.state == State::Saved { dir::try_lock(&home)? } else { None };
        if registry::has_members(spfs, &found.record)? || lock.is_none() && Instant::now() > deadline {
            return Err(in_use(name));
        }
        if let Some(lock) = lock {
            // Read again under the lock: whoever had it may have had something to add.
            return take_over(spfs, registry::find(spfs, name)?, force).map(|record| (record, lock));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Checks the marks that a record bears of another host, and removes what a killed monitor left behind.
fn take_over(spfs: &Spfs, found: Found, force: bool) -> Result<Record> {
    let Found { mut record, dir, .. } = found;
    let host = &record.config.host;
    if record.status.running && *host != spfs.env.hostname && !force {
        let reason = format!("it is marked as running on {host}; --force, if you know that it is not");
        return Err(Error::Runtime { action: "rerun", name: record.name.clone(), reason });
    }
    if dir.path.exists() {
        dir.remove()?;
    }
    // Where a killed monitor noted that it lived means nothing now, least of all in another boot.
    record.stopped();
    Ok(record)
}

fn in_use(name: &str) -> Error {
    let reason = "it is running; enter it with `spfs join`".to_owned();
    Error::Runtime { action: "rerun", name: name.to_owned(), reason }
}

/// Refuses the file systems that overlayfs takes no upper directory on.
fn check_file_system(path: &Path, name: &str) -> Result<()> {
    const NFS: i64 = 0x6969;
    const OVERLAY: i64 = 0x794c_7630;
    const CIFS: i64 = 0xff53_4d42;
    const SMB2: i64 = 0xfe53_4d42;
    const FUSE: i64 = 0x6573_5546;
    let kind = rustix::fs::statfs(path).map_err(Error::io("look at", path))?.f_type as i64;
    let kind = match kind & 0xffff_ffff {
        NFS => "NFS",
        CIFS | SMB2 => "SMB",
        OVERLAY => "overlayfs",
        FUSE => "FUSE",
        _ => return Ok(()),
    };
    let reason = format!("{} is on {kind}, which cannot hold changes; set storage.durable_dir", path.display());
    Err(Error::Runtime { action: "keep", name: name.to_owned(), reason })
}

/// Gives the stack a tag, so that upstream's clean on the same repository spares it; only for durable runtimes and in
/// shared repositories.
pub fn remember(spfs: &Spfs, record: &Record, now: jiff::Timestamp) -> Result<()> {
    if record.status.stack.is_empty() || !(record.config.durable || spfs.local.is_shared()) {
        return Ok(());
    }
    let stack: Vec<Digest> = record.status.stack.iter().rev().copied().collect();
    if !spfs.local.missing(&stack)?.is_empty() {
        // What is here only in part has nothing to be spared that could not be fetched again.
        return Ok(());
    }
    let batch = spfs.local.begin()?;
    let target = batch.add_object(&Object::new(Platform { stack }))?;
    batch.finish()?;
    let tag = Tag { name: data_tag(&record.name)?, target, parent: Digest::NULL, user: spfs.user(), time: now };
    spfs.local.push_tag(&tag)?;
    Ok(())
}

/// Removes the tag of a runtime that has ended and is not durable, where such runtimes have one.
pub fn forget_ended(spfs: &Spfs, name: &str) {
    if spfs.local.is_shared() {
        let _ = forget(spfs, name);
    }
}

/// Removes that tag.
pub fn forget(spfs: &Spfs, name: &str) -> Result<()> {
    match spfs.local.remove_tag_stream(&data_tag(name)?) {
        Err(error) if !error.is_unknown() => Err(error.into()),
        _ => Ok(()),
    }
}

fn data_tag(name: &str) -> Result<TagName> {
    Ok(format!("{DATA_TAGS}/{name}").parse()?)
}
