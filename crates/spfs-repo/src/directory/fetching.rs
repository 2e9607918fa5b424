//! Payloads on their way here from elsewhere: who fetches which, and what has come of the large ones.
//!
//! ```text
//! payloads/work/fetch-ID        the digests that one process is fetching, 32 bytes each; locked (flock) as long as it does
//! payloads/work/part-UID-DIGEST the beginning of a payload; locked while somebody adds to it
//! ```
//!
//! * The locks are the kernel's, so that a process that is killed holds nobody up. Where there are none (some network
//!   file systems), nothing is claimed: then two processes fetch the same twice, and the first to finish wins.
//! * Claims are compared and made under the lock of the directory `work` itself.
//! * What came in part is not part of the repository: nothing looks for payloads there. It is hashed anew by whoever
//!   goes on with it, and enters the repository through a batch. What nobody went on with for a week is removed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::Directory;
use super::area::{self, DIRECTORY};
use super::batch::DirectoryBatch;
use super::layout::{Modes, Store, make_dir};
use super::scan;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::repository::Batch as _;

/// How long to wait before looking again whether others have finished.
const PAUSE: Duration = Duration::from_millis(20);
/// Beginnings of payloads that nobody has gone on with for so long are removed, in seconds.
const STALE: i64 = 7 * 24 * 3600;
/// Bytes that are moved at a time.
const PIECE: usize = 256 * 1024;

/// What this process is fetching, told to the others until it is dropped.
pub struct Claims<'a> {
    store: &'a Store,
    modes: Modes,
    name: String,
    file: Mutex<Option<File>>,
}

impl Directory {
    /// Claims of this process; none yet.
    pub fn claims(&self) -> Claims<'_> {
        let name = format!("fetch-{}", crate::unique().simple());
        Claims { store: &self.inner.payloads, modes: self.inner.modes, name, file: Mutex::new(None) }
    }

    /// Opens the place where the payload `digest` is gathered until it is complete; `None` if somebody else does that now.
    pub fn part(&self, digest: &Digest) -> Result<Option<Part<'_>>> {
        let store = &self.inner.payloads;
        let path = store.path.join("work");
        make_dir(store.fd.as_fd(), "work", self.inner.modes.directory(), &path)?;
        // One for each user: what another one may write to cannot be relied on.
        let name = format!("work/part-{}-{digest}", rustix::process::geteuid().as_raw());
        let path = store.path.join(&name);
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let fd = rustix::fs::openat(&store.fd, &name, flags, Mode::from_raw_mode(0o600));
            let file = File::from(fd.map_err(Error::io("create", &path))?);
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF | Errno::INVAL) => {}
                Err(e) => return Err(Error::io("lock", path)(e)),
            }
            // Between the two calls whoever had it may have finished, and the name be gone or another's.
            let mine = rustix::fs::fstat(&file).map_err(Error::io("look at", &path))?;
            match rustix::fs::statat(&store.fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(named) if named.st_ino == mine.st_ino && named.st_dev == mine.st_dev => {}
                _ => continue,
            }
            let part = Part { directory: self, digest: *digest, name, file, len: 0, hasher: Hasher::new() };
            return part.reread().map(Some);
        }
    }
}

impl Claims<'_> {
    /// Claims those of `digests` that nobody else has claimed, and returns the others.
    pub fn take(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let Some(work) = self.lock()? else { return Ok(Vec::new()) };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.others(&work)?;
        let (busy, free): (Vec<Digest>, Vec<Digest>) = digests.iter().partition(|digest| others.contains(*digest));
        if free.is_empty() {
            return Ok(busy);
        }
        let path = || self.store.path.join("work").join(&self.name);
        if file.is_none() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&work, &self.name, flags, Mode::from_raw_mode(0o644));
            let new = File::from(fd.map_err(|e| Error::io("create", path())(e))?);
            // Without locks a claim would never be known to have ended.
            if flock(&new, FlockOperation::NonBlockingLockExclusive).is_err() {
                let _ = rustix::fs::unlinkat(&work, &self.name, AtFlags::empty());
                return Ok(Vec::new());
            }
            *file = Some(new);
        }
        let bytes: Vec<u8> = free.iter().flat_map(|digest| *digest.as_bytes()).collect();
        if let Some(file) = &mut *file {
            file.write_all(&bytes).map_err(|e| Error::io("write", path())(e))?;
        }
        Ok(busy)
    }

    /// Waits until nobody else has claimed any of `digests`, or `stop` says so.
    pub fn wait(&self, digests: &[Digest], stop: &dyn Fn() -> bool) -> Result<()> {
        while !stop() {
            let Some(work) = self.lock()? else { return Ok(()) };
            let others = self.others(&work)?;
            drop(work);
            if others.is_empty() || !digests.iter().any(|digest| others.contains(digest)) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The directory `work`, locked until it is dropped; `None` where it cannot be.
    fn lock(&self) -> Result<Option<OwnedFd>> {
        let path = self.store.path.join("work");
        make_dir(self.store.fd.as_fd(), "work", self.modes.directory(), &path)?;
        let work =
            rustix::fs::openat(&self.store.fd, "work", DIRECTORY, Mode::empty()).map_err(Error::io("open", path))?;
        loop {
            match flock(&work, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Some(work)),
                Err(Errno::INTR) => {}
                Err(_) => return Ok(None),
            }
        }
    }

    /// What others have claimed. Claims of processes that are gone are removed.
    fn others(&self, work: &OwnedFd) -> Result<HashSet<Digest>> {
        let path = self.store.path.join("work");
        let mut names = Vec::new();
        // A descriptor of its own: the position in a directory belongs to the open file.
        let listed = rustix::fs::openat(work, ".", DIRECTORY, Mode::empty()).map_err(Error::io("open", &path))?;
        scan::names(listed.as_fd(), &path, |name| {
            if name.starts_with("fetch-") && name != self.name {
                names.push(name.to_owned());
            }
        })?;
        let mut others = HashSet::new();
        for name in names {
            // Not waiting for what may be a fifo.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let Ok(fd) = rustix::fs::openat(work, &name, flags, Mode::empty()) else { continue };
            if flock(&fd, FlockOperation::NonBlockingLockShared).is_ok() {
                let _ = rustix::fs::unlinkat(work, &name, AtFlags::empty());
                continue;
            }
            let mut bytes = Vec::new();
            File::from(fd).read_to_end(&mut bytes).map_err(Error::io("read", path.join(&name)))?;
            others.extend(bytes.chunks_exact(32).filter_map(|bytes| Some(Digest::from_bytes(bytes.try_into().ok()?))));
        }
        Ok(others)
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        if self.file.get_mut().unwrap_or_else(PoisonError::into_inner).is_some() {
            let _ = rustix::fs::unlinkat(&self.store.fd, format!("work/{}", self.name), AtFlags::empty());
        }
    }
}

/// The beginning of a payload, until it is complete. Dropped, it stays for the next who wants it.
pub struct Part<'a> {
    directory: &'a Directory,
    digest: Digest,
    /// Its path in the store.
    name: String,
    file: File,
    len: u64,
    hasher: Hasher,
}

impl Part<'_> {
    /// How many bytes there are: what comes next begins there.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has come yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Throws away what has come.
    pub fn clear(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(Error::io("empty", self.path()))?;
        (self.len, self.hasher) = (0, Hasher::new());
        Ok(())
    }

    /// Throws away all of it, and its name.
    pub fn discard(self) {
        let _ = rustix::fs::unlinkat(&self.directory.inner.payloads.fd, &self.name, AtFlags::empty());
    }

    /// Adds `content` to its end. What arrived before a failure stays.
    pub fn append(&mut self, content: &mut dyn Read) -> Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let count = match content.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("read", format!("the content of payload {}", self.digest))(e)),
            };
            // Holes of sparse files stay holes.
            let written = match piece[..count].iter().all(|byte| *byte == 0) {
                true => {
                    self.file.set_len(self.len + count as u64).and_then(|()| self.file.seek(SeekFrom::End(0)).map(drop))
                }
                false => self.file.write_all(&piece[..count]),
            };
            written.map_err(Error::io("write", self.path()))?;
            self.hasher.update(&piece[..count]);
            self.len += count as u64;
        }
    }

    /// Makes it a payload of the repository, safe on disk; what is not what its digest says is removed, and an error.
    pub fn keep(self) -> Result<()> {
        let store = &self.directory.inner.payloads;
        let found = self.hasher.clone().finish();
        if found != self.digest {
            let what = format!("payload {}", self.digest);
            return Err(Error::corrupt(what, format!("the content that arrived has the digest {found}")))
                .inspect_err(|_| self.discard());
        }
        let batch = DirectoryBatch::new(self.directory);
        batch.adopt(&self.name, &self.digest, self.len)?;
        Box::new(batch).finish()?;
        let _ = rustix::fs::unlinkat(&store.fd, &self.name, AtFlags::empty());
        Ok(())
    }

    /// Hashes what is there.
    fn reread(mut self) -> Result<Self> {
        let mut piece = vec![0; PIECE];
        loop {
            let count = self.file.read(&mut piece).map_err(Error::io("read", self.path()))?;
            if count == 0 {
                return Ok(self);
            }
            self.hasher.update(&piece[..count]);
            self.len += count as u64;
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.inner.payloads.path.join(&self.name)
    }
}

/// Removes beginnings of payloads that nobody goes on with any more.
pub(super) fn sweep(store: &Store) {
    sweep_older(store, STALE);
}

fn sweep_older(store: &Store, age: i64) {
    let Ok(work) = rustix::fs::openat(&store.fd, "work", DIRECTORY, Mode::empty()) else { return };
    let mut names = Vec::new();
    let _ = scan::names(work.as_fd(), &store.path, |name| {
        if name.starts_with("part-") {
            names.push(name.to_owned());
        }
    });
    for name in names {
        // What somebody is at is locked, whatever its age says.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(fd) = rustix::fs::openat(&work, &name, flags, Mode::empty()) else { continue };
        if flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()
            && area::is_older(&work, &name, age) == Some(true)
        {
            let _ = rustix::fs::unlinkat(&work, &name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::repository::Repository as _;

    fn directory() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::create(place.path()).unwrap();
        std::fs::create_dir(place.path().join("payloads/work")).unwrap();
        (place, directory)
    }

    fn left(place: &tempfile::TempDir) -> usize {
        std::fs::read_dir(place.path().join("payloads/work")).unwrap().count()
    }

    #[test]
    fn of_two_who_want_the_same_one_waits() {
        let (place, directory) = directory();
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        let (first, second) = (directory.claims(), directory.claims());
        assert_eq!(first.take(&[a, b]).unwrap(), []);
        assert_eq!(second.take(&[b, c, a]).unwrap(), [b, a]);
        assert_eq!(first.take(&[c]).unwrap(), [c]);
        second.wait(&[c], &|| false).unwrap();
        second.wait(&[a], &|| true).unwrap();
        let waited = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| second.wait(&[a], &|| false));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            drop(first);
            waiting.join().unwrap()
        });
        waited.unwrap();
        assert_eq!(second.take(&[a]).unwrap(), []);
        drop(second);
        assert_eq!(left(&place), 0);
    }

    #[test]
    fn what_a_dead_process_claimed_is_free() {
        let (place, directory) = directory();
        let digest = Digest::of(b"a");
        std::fs::write(place.path().join("payloads/work/fetch-dead"), digest.as_bytes()).unwrap();
        assert_eq!(directory.claims().take(&[digest]).unwrap(), []);
        assert_eq!(left(&place), 0);
    }

    #[test]
    fn a_payload_comes_in_parts() {
        let (place, directory) = directory();
        let content: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
        let digest = Digest::of(&content);
        let mut part = directory.part(&digest).unwrap().unwrap();
        assert!(directory.part(&digest).unwrap().is_none(), "somebody is at it");
        part.append(&mut &content[..700_000]).unwrap();
        drop(part);
        assert_eq!(directory.payloads().unwrap(), []);
        let mut part = directory.part(&digest).unwrap().unwrap();
        assert_eq!(part.len(), 700_000);
        part.append(&mut &content[700_000..]).unwrap();
        part.keep().unwrap();
        assert_eq!(directory.payloads().unwrap(), [digest]);
        assert_eq!(std::fs::read(directory.payload_path(&digest)).unwrap(), content);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(directory.payload_path(&digest)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(left(&place), 0);
        let mut wrong = directory.part(&Digest::of(b"other")).unwrap().unwrap();
        wrong.append(&mut &content[..]).unwrap();
        assert!(wrong.keep().unwrap_err().to_string().contains("has the digest"));
        assert_eq!(left(&place), 0);
    }

    #[test]
    fn what_is_old_is_swept() {
        let (place, directory) = directory();
        drop(directory.part(&Digest::of(b"x")).unwrap());
        let store = &directory.inner.payloads;
        sweep(store);
        assert_eq!(left(&place), 1);
        let held = directory.part(&Digest::of(b"x")).unwrap();
        sweep_older(store, -10);
        assert_eq!(left(&place), 1, "somebody is at it");
        drop(held);
        sweep_older(store, -10);
        assert_eq!(left(&place), 0);
    }
}
