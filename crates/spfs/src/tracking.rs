//! What tags of remotes meant when they were last run: so that they run again when the remote is away.
//!
//! One small JSON file for each tag and remote in `<repository>/tracking/`, named by the SHA-256 of both. They are no
//! tags: nothing lists them. What they point to is not cleaned away for [`MOST_AGE`] after the last use.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use spfs_repo::reference::{Reference, Resolved};
use spfs_repo::{Digest, Directory, Repository, TagSpec, read_regular};

use crate::Spfs;
use crate::error::{Error, Result};
use crate::fetch::{self, Brought};
use crate::lazy;
use crate::render::make_dirs;
use crate::resolve::Fetch;

/// How long a record protects what it points to, after its last use.
pub const MOST_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// The longest record; others may write to the directory.
const LONGEST: u64 = 64 << 10;

/// What a tag of a remote meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The remote's name or address.
    pub remote: String,
    /// The tag, with its version.
    pub tag: String,
    /// What it pointed to.
    pub target: Digest,
}

fn directory(repository: &Directory) -> PathBuf {
    repository.root().join("tracking")
}

fn path(spfs: &Spfs, remote: &str, tag: &str) -> PathBuf {
    directory(&spfs.local).join(format!("{}.json", Digest::of(format!("{remote}\0{tag}").as_bytes()).short(32)))
}

/// Notes what `tag` of `remote` means now.
pub(crate) fn remember(spfs: &Spfs, remote: &str, tag: &TagSpec, target: Digest) -> Result<()> {
    let record = Record { remote: remote.to_owned(), tag: tag.to_string(), target };
    let (directory, path) = (directory(&spfs.local), path(spfs, remote, &record.tag));
    make_dirs(&spfs.local, &directory)?;
    let text = serde_json::to_vec(&record).unwrap_or_default();
    let temporary = directory.join(format!(".{}", spfs_repo::unique()));
    // Every user of a shared repository reads it, whatever the umask.
    let readable = || std::fs::set_permissions(&temporary, Permissions::from_mode(0o644));
    let written =
        std::fs::write(&temporary, text).and_then(|()| readable()).and_then(|()| std::fs::rename(&temporary, &path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        Error::io("write", &path)(error)
    })
}

/// What `reference` meant the last time, if it can still be shown, with a remark that says so.
pub(crate) fn recall(spfs: &Spfs, reference: &Reference, fetch: &Fetch<'_>) -> Option<Brought> {
    let tag = reference.to_string();
    let names = fetch.from.map_or_else(|| fetch::order(spfs), |name| vec![name.to_owned()]);
    let (record, lazy) = names.iter().find_map(|name| {
        let text = read_regular(&path(spfs, name, &tag), LONGEST).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        if spfs.local.missing(&[record.target]).ok()?.is_empty() {
            return Some((record, Vec::new()));
        }
        let partial = fetch.lazy && lazy::is_here(spfs, &record.target);
        partial.then(|| (record, vec![name.clone()]))
    })?;
    let remark = format!("{} cannot be asked; {tag} is what it meant there the last time", record.remote);
    let found = Resolved { digest: record.target, tag: tag.parse().ok(), shadowed: Vec::new() };
    Some(Brought { found, remark, lazy })
}

/// What the records in `repository` point to that are not too old: roots for cleaning.
pub fn roots(repository: &Directory) -> Vec<Digest> {
    let Ok(entries) = std::fs::read_dir(directory(repository)) else { return Vec::new() };
    let young = |path: &PathBuf| {
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| SystemTime::now().duration_since(time).unwrap_or_default() < MOST_AGE)
    };
    let paths = entries.flatten().map(|entry| entry.path()).filter(young);
    let records = paths.filter_map(|path| serde_json::from_slice::<Record>(&read_regular(&path, LONGEST).ok()?).ok());
    records.map(|record| record.target).collect()
}
