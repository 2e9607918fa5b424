//! Proxies: files of a user's own in the repository, one for each payload and mode, that renders are links of.
//!
//! A new copy is kept under a temporary name until it is safe on disk, and only then gets the name that later renders
//! find it by: after a power cut no name stands for an empty file.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use spfs_repo::{Digest, Directory, Entry, Error as RepoError};

use super::engine::{copy_new, missing};
use super::summary::{Counter, Did};
use super::{Options, REMADE, Strategy, clean, in_its_directory, make_dirs, split, user_dir};
use crate::error::{Error, Result};

/// The proxies of one user.
pub(super) struct Proxies<'a> {
    repository: &'a Directory,
    /// `renders/<user>/proxy`.
    base: PathBuf,
    /// `renders/<user>/proxy/work/<uuid>`, removed when dropped.
    work: PathBuf,
    /// Who cleans leaves `work` alone while this is open.
    _hold: OwnedFd,
    share_payloads: bool,
    /// Copies that still have their temporary names.
    staged: Mutex<HashMap<(Digest, u32), PathBuf>>,
}

impl<'a> Proxies<'a> {
    /// The proxies that `options` ask for, if they do.
    pub fn new(repository: &'a Directory, options: &Options<'_>) -> Result<Option<Proxies<'a>>> {
        if options.strategy != Strategy::HardLink {
            return Ok(None);
        }
        let base = user_dir(repository, options.user)?.join("proxy");
        let work = base.join("work").join(clean::work_name());
        make_dirs(repository, &work)?;
        let (share_payloads, staged) = (options.share_payloads, Mutex::default());
        Ok(Some(Proxies { repository, base, _hold: clean::hold(&work)?, work, share_payloads, staged }))
    }

    /// Hands the proxy of `entry` to `link`, as often as it takes: one that vanishes at that moment is made again.
    pub fn with<T>(
        &self,
        entry: &Entry,
        counter: &Counter,
        mut link: impl FnMut(&Path) -> Result<T, Errno>,
    ) -> Result<Result<T, Errno>> {
        let path = self.base.join(split(&entry.object)).join(entry.mode.to_string());
        let key = (entry.object, entry.mode);
        for _ in 0..REMADE {
            let staged = self.staged().get(&key).cloned();
            let found = link(staged.as_deref().unwrap_or(&path));
            match found {
                Err(Errno::NOENT) => match self.make(entry, &path, counter)? {
                    Some(temporary) => drop(self.staged().insert(key, temporary)),
                    None => continue,
                },
                other => return Ok(other),
            }
        }
        let staged = self.staged().get(&key).cloned();
        Ok(link(staged.as_deref().unwrap_or(&path)))
    }

    /// Makes the proxy of `entry`: a link of the payload where that has the right mode and owner, under its name;
    /// else a copy, whose temporary name is returned.
    fn make(&self, entry: &Entry, path: &Path, counter: &Counter) -> Result<Option<PathBuf>> {
        let payload = self.repository.payload_path(&entry.object);
        let stat = fs::symlink_metadata(&payload).map_err(missing(&entry.object, &payload))?;
        // Before it gets a name here, which it would keep when the payload is mended.
        if stat.len() != entry.size {
            let reason = format!("it has {} bytes instead of {}", stat.len(), entry.size);
            return Err(RepoError::corrupt(format!("payload {}", entry.object), reason).into());
        }
        let right_mode = stat.mode() == entry.mode;
        let mine = stat.uid() == rustix::process::geteuid().as_raw();
        let right_owner = mine || (self.share_payloads && stat.mode() & 0o004 != 0);
        let mut why = if right_mode { Did::CopiedForOwner } else { Did::CopiedForMode };
        if right_mode && right_owner {
            let link = || rustix::fs::linkat(CWD, &payload, CWD, path, AtFlags::empty());
            match in_its_directory(path, link)? {
                // Not there: cleaned away just now, again and again.
                Ok(()) | Err(Errno::EXIST | Errno::NOENT) => return Ok(None),
                Err(Errno::MLINK) => why = Did::CopiedForLinkLimit,
                // The kernel lets nobody link another's file (`fs.protected_hardlinks`).
                Err(Errno::PERM) => why = Did::CopiedForOwner,
                Err(error) => return Err(Error::io("link to", path)(error)),
            }
        }
        let temporary = self.work.join(spfs_repo::unique().to_string());
        copy_new(CWD, &temporary, &temporary, &payload, entry)?;
        counter.proxy(why, entry.size);
        Ok(Some(temporary))
    }

    /// Gives the copies their names. They must be on disk by now.
    pub fn publish(&self) -> Result<()> {
        for ((digest, mode), temporary) in std::mem::take(&mut *self.staged()) {
            let path = self.base.join(split(&digest)).join(mode.to_string());
            // A link and not a rename: one that somebody else made meanwhile stays.
            let link = || rustix::fs::linkat(CWD, &temporary, CWD, &path, AtFlags::empty());
            match in_its_directory(&path, link)? {
                Ok(()) | Err(Errno::EXIST | Errno::MLINK | Errno::NOENT) => {}
                Err(error) => return Err(Error::io("link to", path)(error)),
            }
            fs::remove_file(&temporary).map_err(Error::io("remove", &temporary))?;
        }
        Ok(())
    }

    fn staged(&self) -> std::sync::MutexGuard<'_, HashMap<(Digest, u32), PathBuf>> {
        self.staged.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Proxies<'_> {
    fn drop(&mut self) {
        // What is left in it failed to get its name; nothing depends on it.
        let _ = fs::remove_dir_all(&self.work);
    }
}
