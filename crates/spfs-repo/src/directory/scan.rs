//! Listing the hash stores: which digests are here.

use std::collections::{BTreeMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::layout::{Medium, Store, StoreName};
use super::spread::{WAITING, spread};
use crate::digest::{Digest, DigestPrefix};
use crate::error::{Error, Result};

/// From this many digests on it is considered to list directories instead of asking for each one.
const LIST_FROM: usize = 2048;
/// A directory is listed if it has at most this many bytes (of directory) for each name that is looked for.
const BYTES_FOR_EACH: u64 = 2048;

/// Calls `each` with every name in the open directory `fd`, except `.` and `..`. Names that are not UTF-8 are skipped.
pub(super) fn names(fd: BorrowedFd<'_>, path: &Path, mut each: impl FnMut(&str)) -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(Error::io("list", path))?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => each(name),
        }
    }
    Ok(())
}

/// The digests in `store` that begin with `prefix`, sorted.
///
/// As upstream does, whatever is not a digest in its place is passed over: `work`, `proxy`, `.completed` and the like.
pub(super) fn find(store: &Store, prefix: &DigestPrefix) -> Result<Vec<Digest>> {
    let prefix = prefix.as_str();
    let mut shards = Vec::new();
    if prefix.len() >= 2 {
        shards.push(prefix[..2].to_owned());
    } else {
        // A descriptor of our own: the position in a directory belongs to the open file.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&store.fd, ".", flags, Mode::empty()).map_err(Error::io("open", &store.path))?;
        names(fd.as_fd(), &store.path, |name| {
            if is_shard(name) && name.starts_with(prefix) {
                shards.push(name.to_owned());
            }
        })?;
    }
    let mut found = Vec::new();
    for shard in &shards {
        list_shard(store, shard, |digest, text| {
            if text.starts_with(prefix) {
                found.push(digest);
            }
        })?;
    }
    found.sort_unstable();
    Ok(found)
}

/// Those of `digests` that are not in `store`, in the given order.
pub(super) fn missing(store: &Store, digests: &[Digest]) -> Result<Vec<Digest>> {
    // Over a network many questions are on their way at once, and listing takes more of them.
    let (threads, list_from) = if store.medium == Medium::Local { (1, LIST_FROM) } else { (WAITING, 4 * LIST_FROM) };
    let mut listed: HashSet<Digest> = HashSet::new();
    let mut listed_shards = HashSet::new();
    if digests.len() >= list_from {
        let mut wanted = BTreeMap::<[u8; 2], u64>::new();
        for digest in digests {
            *wanted.entry(shard_of(digest)).or_default() += 1;
        }
        let wanted: Vec<([u8; 2], u64)> = wanted.into_iter().collect();
        let lists = spread(&wanted, threads, |wanted| {
            wanted.iter().map(|(shard, count)| list(store, *shard, *count)).collect()
        })?;
        for (shard, found) in lists.into_iter().flatten() {
            listed_shards.insert(shard);
            listed.extend(found);
        }
    }
    let asked: Vec<Digest> =
        digests.iter().filter(|digest| !listed_shards.contains(&shard_of(digest))).copied().collect();
    let here = spread(&asked, threads, |asked| asked.iter().map(|digest| Ok(store.stat(digest)?.is_some())).collect())?;
    let mut here = here.into_iter();
    let is_missing = |digest: &&Digest| match listed_shards.contains(&shard_of(digest)) {
        true => !listed.contains(*digest),
        false => here.next() == Some(false),
    };
    Ok(digests.iter().filter(is_missing).copied().collect())
}

/// What the two-character directory `shard` has, if it is small enough to be listed for `count` names.
fn list(store: &Store, shard: [u8; 2], count: u64) -> Result<Option<([u8; 2], Vec<Digest>)>> {
    let name = std::str::from_utf8(&shard).unwrap_or_default();
    let size = match rustix::fs::statat(&store.fd, name, AtFlags::empty()) {
        Ok(stat) => stat.st_size as u64,
        Err(Errno::NOENT) => return Ok(Some((shard, Vec::new()))),
        Err(e) => return Err(Error::io("look for", store.path.join(name))(e)),
    };
    if size > count.saturating_mul(BYTES_FOR_EACH) {
        return Ok(None);
    }
    let mut found = Vec::new();
    list_shard(store, name, |digest, _| found.push(digest))?;
    Ok(Some((shard, found)))
}

/// Calls `each` with every digest in one two-character directory, and its text. A missing directory is empty.
fn list_shard(store: &Store, shard: &str, mut each: impl FnMut(Digest, &str)) -> Result<()> {
    let path = store.path.join(shard);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(&store.fd, shard, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(Error::io("open", path)(e)),
    };
    let mut text = String::with_capacity(crate::digest::TEXT_LEN);
    names(fd.as_fd(), &path, |name| {
        text.clear();
        text.push_str(shard);
        text.push_str(name);
        if let Ok(digest) = text.parse() {
            each(digest, &text);
        }
    })
}

/// The two characters of `digest`'s directory.
fn shard_of(digest: &Digest) -> [u8; 2] {
    let name = StoreName::of(digest);
    let shard = name.shard().as_bytes();
    [shard[0], shard[1]]
}

/// Whether `name` can be a directory of digests.
fn is_shard(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b))
}
