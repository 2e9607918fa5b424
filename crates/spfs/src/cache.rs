//! The limits of the caches: what is over them goes, the longest unused first.
//!
//! Everything below the cache directory can be made again. Files that a running runtime has mapped or mounted stay
//! whole for it when their names go.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use serde::Serialize;
use spfs_mount::publish::TEMPORARY_SUFFIX;

use crate::Spfs;
use crate::error::{Error, Result};

/// A file's time is set anew when it is used, but not more often than this; and what was used within it is not removed.
const FRESH: Duration = Duration::from_secs(3600);
/// The default limit, where the disk is large enough.
const DEFAULT_LIMIT: u64 = 8 << 30;
/// The default limit is at most this part of the disk.
const DISK_PART: u64 = 10;

/// What of the caches would be removed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CachePlan {
    /// Bytes in the caches now.
    pub bytes: u64,
    /// Bytes that they may have.
    pub limit: u64,
    /// What goes, the longest unused first.
    pub remove: Vec<CacheFile>,
}

/// A cache file with all its names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CacheFile {
    /// Its names.
    #[serde(serialize_with = "crate::json_path::list::serialize")]
    pub paths: Vec<PathBuf>,
    /// Its size on disk, in bytes.
    pub bytes: u64,
    /// When it was last used, to the hour.
    pub used: Timestamp,
}

impl CachePlan {
    /// Bytes that would be freed.
    pub fn freed(&self) -> u64 {
        self.remove.iter().map(|file| file.bytes).sum()
    }
}

/// How large the caches may be: `cache.max_size`, else 8 GiB or a tenth of the disk that they are on, whichever is less.
pub fn limit(spfs: &Spfs) -> u64 {
    let disk = || {
        let stat = rustix::fs::statvfs(spfs.dirs.cache.as_ref()?).ok()?;
        Some(stat.f_blocks.saturating_mul(stat.f_frsize) / DISK_PART)
    };
    let default = || disk().map_or(DEFAULT_LIMIT, |part| part.min(DEFAULT_LIMIT));
    spfs.config.cache.max_size.unwrap_or_else(default)
}

/// What is over the limit, and what crashes left behind.
pub fn plan(spfs: &Spfs, now: Timestamp) -> Result<CachePlan> {
    let Some(cache) = &spfs.dirs.cache else { return Ok(CachePlan::default()) };
    let limit = limit(spfs);
    let mut files: Vec<CacheFile> = collect(cache)?.into_values().collect();
    files.sort_by(|a, b| (a.used, &a.paths).cmp(&(b.used, &b.paths)));
    let bytes = files.iter().map(|file| file.bytes).sum();
    let mut left: u64 = bytes;
    let old = |file: &CacheFile| now.duration_since(file.used) > FRESH.try_into().unwrap_or_default();
    let is_leftover = |file: &CacheFile| {
        file.paths.iter().all(|path| path.as_os_str().as_encoded_bytes().ends_with(TEMPORARY_SUFFIX.as_bytes()))
    };
    let (leftovers, files): (Vec<_>, Vec<_>) = files.into_iter().filter(old).partition(is_leftover);
    let mut remove = leftovers;
    left -= remove.iter().map(|file| file.bytes).sum::<u64>();
    for file in files {
        if left <= limit {
            break;
        }
        left -= file.bytes;
        remove.push(file);
    }
    Ok(CachePlan { bytes, limit, remove })
}

/// Removes what `plan` says. What cannot be removed, or is gone already, stays as it is. Returns the bytes freed.
pub fn apply(plan: &CachePlan) -> u64 {
    let removed = plan.remove.iter().filter(|file| {
        let gone = file.paths.iter().map(|path| std::fs::remove_file(path).is_ok());
        gone.fold(true, |all, one| all & one)
    });
    removed.map(|file| file.bytes).sum()
}

/// Keeps the caches within their limit, after something was added. Its failure is nobody's.
pub(crate) fn trim(spfs: &Spfs) {
    if let Ok(plan) = plan(spfs, spfs.env.now()) {
        apply(&plan);
    }
}

/// Notes that a cache file is in use.
pub fn touch(path: &Path, now: Timestamp) {
    let Ok(stat) = rustix::fs::stat(path) else { return };
    if now.as_second().saturating_sub(stat.st_mtime) > FRESH.as_secs() as i64 {
        let time = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: time, last_modification: time };
        let _ = rustix::fs::utimensat(CWD, path, &times, AtFlags::empty());
    }
}

/// Every file in the directories of the cache, by inode.
fn collect(cache: &Path) -> Result<BTreeMap<(u64, u64), CacheFile>> {
    let mut files: BTreeMap<(u64, u64), CacheFile> = BTreeMap::new();
    for kind in entries(cache)? {
        if !kind.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        for entry in entries(&kind.path())? {
            // Gone since it was listed: another process cleans too.
            let Ok(stat) = entry.metadata() else { continue };
            if !stat.is_file() {
                continue;
            }
            let used = Timestamp::from_second(stat.mtime()).unwrap_or_default();
            let new = CacheFile { paths: Vec::new(), bytes: stat.blocks() * 512, used };
            files.entry((stat.dev(), stat.ino())).or_insert(new).paths.push(entry.path());
        }
    }
    files.values_mut().for_each(|file| file.paths.sort());
    Ok(files)
}

fn entries(dir: &Path) -> Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.collect::<std::io::Result<_>>().map_err(Error::io("read", dir)),
        // What is in the way of a cache is no cache either.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(e) => Err(Error::io("read", dir)(e)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::testing::Home;

    /// A cache with files of 4096 bytes, used so many hours ago.
    fn cache(max: Option<u64>, files: &[(&str, u64)]) -> (Home, PathBuf) {
        let mut home = Home::new();
        home.spfs.config.cache.max_size = max;
        let views = home.spfs.dirs.cache_sub("views").unwrap();
        for (name, hours) in files {
            let file = fs::File::create(views.join(name)).unwrap();
            std::io::Write::write_all(&mut &file, &[1; 4096]).unwrap();
            file.sync_all().unwrap();
            file.set_modified(std::time::SystemTime::now() - FRESH * (*hours as u32)).unwrap();
        }
        (home, views)
    }

    fn names(plan: &CachePlan) -> Vec<&str> {
        let paths = plan.remove.iter().flat_map(|file| &file.paths);
        paths.map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn the_longest_unused_goes_first_and_links_count_once() {
        let (home, views) = cache(Some(2 * 4096), &[("a", 5), ("b", 9), ("c", 3), ("d", 0)]);
        fs::hard_link(views.join("b"), views.join("b2")).unwrap();
        let now = home.spfs.env.now();
        let found = plan(&home.spfs, now).unwrap();
        assert_eq!((found.bytes, found.limit, found.freed()), (4 * 4096, 2 * 4096, 2 * 4096));
        assert_eq!(names(&found), ["b", "b2", "a"]);
        assert_eq!(apply(&found), 2 * 4096);
        assert_eq!(plan(&home.spfs, now).unwrap().remove, []);
    }

    #[test]
    fn what_was_used_just_now_stays_whatever_the_limit() {
        let (home, views) = cache(Some(0), &[("a", 0), ("b", 2)]);
        touch(&views.join("b"), home.spfs.env.now());
        assert_eq!(names(&plan(&home.spfs, home.spfs.env.now()).unwrap()), [""; 0]);
    }

    #[test]
    fn leftovers_go_whatever_the_limit() {
        let (home, _) = cache(None, &[("old.tmp", 2), ("new.tmp", 0), ("view", 100)]);
        assert_eq!(names(&plan(&home.spfs, home.spfs.env.now()).unwrap()), ["old.tmp"]);
    }

    #[test]
    fn no_cache_is_nothing_to_do() {
        let mut home = Home::new();
        assert_eq!(plan(&home.spfs, home.spfs.env.now()).unwrap().bytes, 0);
        home.spfs.dirs.cache = None;
        assert_eq!(plan(&home.spfs, home.spfs.env.now()).unwrap(), CachePlan::default());
    }
}
