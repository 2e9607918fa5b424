//! What a render did, counted; the names are those of upstream's JSON.

use std::sync::Mutex;

use serde::Serialize;

/// Counts of files and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    /// Names of every kind.
    pub entry_count: u64,
    /// Files that were there already.
    pub already_existed_count: u64,
    /// Files that were copied because copies were asked for.
    pub copy_count: u64,
    /// Files that were copied because the file system allows no more links.
    pub copy_link_limit_count: u64,
    /// Payloads that were copied because their mode is not the file's.
    pub copy_wrong_mode_count: u64,
    /// Payloads that were copied because they are another user's.
    pub copy_wrong_owner_count: u64,
    /// Files that are hard links.
    pub link_count: u64,
    /// Symbolic links.
    pub symlink_count: u64,
    /// Bytes of all files.
    pub total_bytes_rendered: u64,
    /// Bytes of files that were there already.
    pub total_bytes_already_existed: u64,
    /// Bytes copied because copies were asked for.
    pub total_bytes_copied: u64,
    /// Bytes copied for want of links.
    pub total_bytes_copied_link_limit: u64,
    /// Bytes copied for want of the right mode.
    pub total_bytes_copied_wrong_mode: u64,
    /// Bytes copied for want of the right owner.
    pub total_bytes_copied_wrong_owner: u64,
    /// Bytes of files that are hard links.
    pub total_bytes_linked: u64,
}

/// What was done for one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Did {
    Existed,
    Copied,
    CopiedForLinkLimit,
    CopiedForMode,
    CopiedForOwner,
    Linked,
}

impl Summary {
    /// Adds another summary.
    pub fn add(&mut self, other: &Summary) {
        self.entry_count += other.entry_count;
        self.already_existed_count += other.already_existed_count;
        self.copy_count += other.copy_count;
        self.copy_link_limit_count += other.copy_link_limit_count;
        self.copy_wrong_mode_count += other.copy_wrong_mode_count;
        self.copy_wrong_owner_count += other.copy_wrong_owner_count;
        self.link_count += other.link_count;
        self.symlink_count += other.symlink_count;
        self.total_bytes_rendered += other.total_bytes_rendered;
        self.total_bytes_already_existed += other.total_bytes_already_existed;
        self.total_bytes_copied += other.total_bytes_copied;
        self.total_bytes_copied_link_limit += other.total_bytes_copied_link_limit;
        self.total_bytes_copied_wrong_mode += other.total_bytes_copied_wrong_mode;
        self.total_bytes_copied_wrong_owner += other.total_bytes_copied_wrong_owner;
        self.total_bytes_linked += other.total_bytes_linked;
    }

    /// Counts one thing done with a file of `bytes`.
    pub(super) fn count(&mut self, did: Did, bytes: u64) {
        let (count, total) = match did {
            Did::Existed => (&mut self.already_existed_count, &mut self.total_bytes_already_existed),
            Did::Copied => (&mut self.copy_count, &mut self.total_bytes_copied),
            Did::CopiedForLinkLimit => (&mut self.copy_link_limit_count, &mut self.total_bytes_copied_link_limit),
            Did::CopiedForMode => (&mut self.copy_wrong_mode_count, &mut self.total_bytes_copied_wrong_mode),
            Did::CopiedForOwner => (&mut self.copy_wrong_owner_count, &mut self.total_bytes_copied_wrong_owner),
            Did::Linked => (&mut self.link_count, &mut self.total_bytes_linked),
        };
        *count += 1;
        *total += bytes;
    }
}

/// A summary that several threads add to.
#[derive(Default)]
pub(super) struct Counter(Mutex<Summary>);

impl Counter {
    pub fn get(&self) -> Summary {
        *self.lock()
    }

    /// Counts a file that is there now, and how.
    pub fn file(&self, did: Did, bytes: u64) {
        let mut summary = self.lock();
        summary.count(did, bytes);
        summary.entry_count += 1;
        summary.total_bytes_rendered += bytes;
    }

    /// Counts a proxy that had to be made; the file that it is for is counted apart.
    pub fn proxy(&self, did: Did, bytes: u64) {
        self.lock().count(did, bytes);
    }

    pub fn symlink(&self, existed: bool) {
        let mut summary = self.lock();
        summary.entry_count += 1;
        if existed {
            summary.already_existed_count += 1;
        } else {
            summary.symlink_count += 1;
        }
    }

    pub fn directory(&self) {
        self.lock().entry_count += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Summary> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
