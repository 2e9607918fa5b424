//! What files contained when they were last read, so that an unchanged file need not be opened.
//!
//! A file is known by device, inode, size, modification and change time (in nanoseconds). The kernel sets the change
//! time at every write, and nobody else can. What was changed so shortly before it was read that a later change could
//! bear the same time is not kept (git's "racy" rule). Nor is what was changed at a whole second: no clock of a kernel
//! says that. It is a time that somebody made up, as for all files in /spfs, in images and in many file systems of FUSE,
//! and the numbers of a device that is unmounted go to the next: two such trees can differ in nothing but content.
//!
//! ```text
//! file: "SPFSSTAT" | u32 version | u64 count | 32 bytes SHA-256 of the records | count records, sorted
//! record, little endian: u64 device | u64 inode | u64 size | i64 mtime ns | i64 ctime ns | 32 bytes digest
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::Stat;

use crate::digest::Digest;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"SPFSSTAT";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 8 + 32;
const RECORD: usize = 5 * 8 + 32;
/// How much older than the reading a change must be, in nanoseconds: two seconds, the coarsest clock of a file system.
const RACY: i64 = 2_000_000_000;

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub modified: i64,
    /// Change time in nanoseconds since 1970.
    pub changed: i64,
}

impl Stamp {
    /// The stamp of a file with this `stat`.
    #[allow(clippy::unnecessary_cast)] // the fields' types differ between machines
    pub fn of(stat: &Stat) -> Self {
        let nanoseconds = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
        Stamp {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as u64,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// Whether its change time is one that the kernel has set.
    fn is_telling(&self) -> bool {
        self.changed % 1_000_000_000 != 0
    }
}

/// The digests of files that were read before. One file for each directory that is committed.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    /// Sorted.
    old: Vec<(Stamp, Digest)>,
    seen: Mutex<Vec<(Stamp, Digest)>>,
    /// Times from here on are racy.
    racy: i64,
}

impl StatCache {
    /// Reads the cache file `path`. One that is missing, damaged or of another version is an empty cache. `now` is
    /// the time before the first file is read.
    pub fn load(path: impl Into<PathBuf>, now: Timestamp) -> Self {
        let path = path.into();
        let old = std::fs::read(&path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        let now = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        StatCache { path, old, seen: Mutex::default(), racy: now.saturating_sub(RACY) }
    }

    /// Whether it knows of no file at all, so that asking it is no use.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty()
    }

    /// The digest of the file with this stamp, if it has not changed. What is asked for and known is kept.
    pub fn lookup(&self, stamp: &Stamp) -> Option<Digest> {
        // One that is not telling may have been kept by an earlier version.
        let at = self.old.binary_search_by(|(old, _)| old.cmp(stamp)).ok().filter(|_| stamp.is_telling())?;
        let known = self.old[at];
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(known);
        Some(known.1)
    }

    /// Remembers a file that was read completely, and bore `stamp` before and after.
    pub fn insert(&self, stamp: Stamp, digest: Digest) {
        if stamp.modified < self.racy && stamp.changed < self.racy && stamp.is_telling() {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((stamp, digest));
        }
    }

    /// Replaces the cache file by what was asked for and found, and what was inserted. Makes its directory (0700).
    ///
    /// Not durable: a cache file that a power cut spoils is ignored.
    pub fn save(self) -> Result<()> {
        let mut seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        seen.sort_unstable();
        seen.dedup_by_key(|(stamp, _)| *stamp);
        if seen == self.old {
            return Ok(());
        }
        if let Some(directory) = self.path.parent() {
            make_private(directory)?;
        }
        let temporary = self.path.with_extension(format!("{}.tmp", crate::unique().simple()));
        let written = std::fs::write(&temporary, encode(&seen)).and_then(|()| std::fs::rename(&temporary, &self.path));
        written.map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            Error::io("write", &self.path)(e)
        })
    }
}

fn make_private(directory: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(Error::io("create directory", directory))
}

fn encode(records: &[(Stamp, Digest)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.reserve_exact(records.len() * RECORD);
    for (stamp, digest) in records {
        for number in [stamp.device, stamp.inode, stamp.size, stamp.modified as u64, stamp.changed as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(digest.as_bytes());
    }
    let checksum = Digest::of(&bytes[HEADER..]);
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&(records.len() as u64).to_le_bytes());
    bytes[20..HEADER].copy_from_slice(checksum.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<(Stamp, Digest)>> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let count = u64::from_le_bytes(header[12..20].try_into().ok()?);
    let good = &header[..8] == MAGIC
        && header[8..12] == VERSION.to_le_bytes()
        && count.checked_mul(RECORD as u64) == Some(body.len() as u64)
        && header[20..] == *Digest::of(body).as_bytes();
    if !good {
        return None;
    }
    let number = |record: &[u8], at: usize| record[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(0);
    let records = body.chunks_exact(RECORD).map(|record| {
        let stamp = Stamp {
            device: number(record, 0),
            inode: number(record, 8),
            size: number(record, 16),
            modified: number(record, 24) as i64,
            changed: number(record, 32) as i64,
        };
        Some((stamp, Digest::from_bytes(record[40..].try_into().ok()?)))
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stamp(inode: u64, seconds: i64) -> Stamp {
        let time = seconds * 1_000_000_000;
        Stamp { device: 1, inode, size: 3, modified: time, changed: time + 1 }
    }

    #[test]
    fn what_was_saved_is_found_and_only_that() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/cache");
        let now = Timestamp::from_second(1000).unwrap();
        let cache = StatCache::load(&path, now);
        assert!(cache.is_empty());
        for inode in [7, 3, 5, 3] {
            cache.insert(stamp(inode, 900), Digest::of(&[inode as u8]));
        }
        cache.insert(stamp(9, 999), Digest::of(b"racy"));
        cache.save().unwrap();

        let cache = StatCache::load(&path, now);
        assert_eq!(cache.lookup(&stamp(5, 900)), Some(Digest::of(&[5])));
        assert_eq!(cache.lookup(&stamp(7, 900)), Some(Digest::of(&[7])));
        for other in [stamp(5, 901), Stamp { size: 4, ..stamp(5, 900) }, stamp(9, 999), stamp(4, 900)] {
            assert_eq!(cache.lookup(&other), None, "{other:?}");
        }
        cache.save().unwrap();
        let cache = StatCache::load(&path, now);
        assert_eq!(cache.lookup(&stamp(3, 900)), None, "what was not asked for is forgotten");
        assert_eq!(cache.lookup(&stamp(5, 900)), Some(Digest::of(&[5])));
    }

    /// The content of /spfs, of an image, of a file system that has no change times: its device number was another's.
    #[test]
    fn a_change_time_that_no_kernel_set_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let made_up = Stamp { changed: 315_532_800_000_000_000, ..stamp(2, 315_532_800) };
        let cache = StatCache::load(&path, Timestamp::from_second(1_000_000_000).unwrap());
        cache.insert(made_up, Digest::of(b"one"));
        cache.insert(stamp(3, 900), Digest::of(b"two"));
        cache.save().unwrap();
        assert_eq!(decode(&std::fs::read(&path).unwrap()).unwrap(), [(stamp(3, 900), Digest::of(b"two"))]);
        std::fs::write(&path, encode(&[(made_up, Digest::of(b"one"))])).unwrap();
        assert_eq!(StatCache::load(&path, Timestamp::UNIX_EPOCH).lookup(&made_up), None, "kept by an earlier version");
    }

    #[test]
    fn a_damaged_file_is_an_empty_cache() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let good = encode(&[(stamp(1, 1), Digest::of(b"1")), (stamp(2, 1), Digest::of(b"2"))]);
        assert_eq!(decode(&good).unwrap().len(), 2);
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]), None, "cut to {length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
        }
        std::fs::write(&path, &good[..60]).unwrap();
        assert!(StatCache::load(&path, Timestamp::UNIX_EPOCH).is_empty());
    }
}
