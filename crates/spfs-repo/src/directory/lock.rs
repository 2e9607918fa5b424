//! The lock file beside a tag stream: upstream's name and rule (whoever creates it has it), plus an owner inside.
//!
//! Upstream's locks are empty and never expire, so a crash would block a stream for ever. Here a lock is broken when
//! its owner is certainly gone, or when it cannot be judged (another machine, an empty file) and a minute old by the
//! file system's clock. Breaking moves the lock aside and looks at what was moved, so that of two breakers one wins
//! and a fresh lock is put back. A holder makes sure that it still has its lock just before it publishes.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::layout::is_local;
use super::owner::{Liveness, Owner};
use crate::error::{Error, Result};

/// How long a lock is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The age in seconds at which a lock whose owner cannot be judged is broken.
const FOREIGN_AGE: i64 = 60;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A held lock; dropping it releases it.
pub(crate) struct TagLock {
    path: PathBuf,
    owner: Owner,
}

/// What a lock file is at one moment; equal only for the very same lock.
#[derive(PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    text: Vec<u8>,
}

impl TagLock {
    /// Takes the lock file `path`, waiting for it as long as `patience`. Its directory must exist: if it does not,
    /// that is [`None`], so that the caller can make it and come again.
    pub fn acquire(path: &Path, patience: Duration) -> Result<Option<TagLock>> {
        let owner = Owner::current();
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(500);
        loop {
            match create(path, &owner) {
                Ok(()) => {
                    sweep(path, &owner);
                    return Ok(Some(TagLock { path: path.to_owned(), owner }));
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(e) => return Err(Error::io("create lock", path)(e)),
            }
            let Some((seen, file)) = look(path)? else { continue };
            let holder = std::str::from_utf8(&seen.text).ok().and_then(Owner::from_lock_text);
            if is_stale(&seen, holder.as_ref(), &owner, path, file.as_fd())? {
                break_lock(path, &seen, file.as_fd(), holder.as_ref(), &owner)?;
                continue;
            }
            if Instant::now() >= deadline {
                let owner = holder.map_or_else(
                    || "a program that left no name (it is broken when it is a minute old)".to_owned(),
                    |holder| holder.to_string(),
                );
                return Err(Error::Locked { path: path.to_owned(), owner });
            }
            std::thread::sleep(pause);
            // Uneven steps, so that many who wait do not come back together.
            pause = (pause * 3 / 2 + Duration::from_micros(u64::from(owner.id.as_bytes()[0]))).min(LONGEST_PAUSE);
        }
    }

    /// A name for a temporary file of this holder, in the same directory. Whoever breaks the lock removes it.
    pub fn work_path(&self) -> PathBuf {
        work_path(&self.path, &self.owner)
    }

    /// Shows that the lock is in use, to those who cannot see its owner.
    pub fn refresh(&mut self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        if self.is_held() {
            // What is wrong with it shows when it is broken.
            let _ = rustix::fs::utimensat(CWD, &self.path, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
    }

    /// Whether nobody has broken the lock.
    pub fn is_held(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|text| text == self.owner.lock_text().as_bytes())
    }
}

impl Drop for TagLock {
    fn drop(&mut self) {
        if self.is_held() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn work_path(lock: &Path, owner: &Owner) -> PathBuf {
    lock.with_file_name(format!(".{}.work", owner.work_name()))
}

/// Removes what killed processes have left beside `lock`: locks of other streams, which nobody may want again, and work
/// files without a lock that would tell of them. Failures do not matter: the next one comes here again.
fn sweep(lock: &Path, me: &Owner) {
    let directory = lock.parent().unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        let worker = name.strip_prefix('.').and_then(|name| name.strip_suffix(".work")).and_then(Owner::from_work_name);
        if worker.is_some_and(|owner| owner.liveness(me, false) == Liveness::Gone) {
            let _ = std::fs::remove_file(&path);
        } else if name.ends_with(".tag.lock") && path != lock {
            let _ = break_dead(&path, me);
        }
    }
}

/// Breaks the lock file `path` if its owner is certainly gone.
fn break_dead(path: &Path, me: &Owner) -> Result<()> {
    let Some((seen, file)) = look(path)? else { return Ok(()) };
    let holder = std::str::from_utf8(&seen.text).ok().and_then(Owner::from_lock_text);
    match &holder {
        Some(owner) if owner.liveness(me, is_local(file.as_fd())) == Liveness::Gone => {
            break_lock(path, &seen, file.as_fd(), holder.as_ref(), me)
        }
        _ => Ok(()),
    }
}

/// Creates the lock file with its owner inside, both at once where the file system has unnamed files: a process that is
/// killed in between would leave a lock without an owner, which blocks for a minute.
fn create(path: &Path, owner: &Owner) -> Result<(), Errno> {
    let text = owner.lock_text();
    match create_at_once(path, &text) {
        Err(Errno::EXIST) => return Err(Errno::EXIST),
        Ok(()) => return Ok(()),
        // NFS and others; whatever else is wrong is met again.
        Err(_) => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    // Readable for everyone, so that others can name the owner and judge it.
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
    match rustix::io::write(&fd, text.as_bytes()) {
        Ok(n) if n == text.len() => Ok(()),
        result => {
            let _ = rustix::fs::unlink(path);
            Err(result.err().unwrap_or(Errno::NOSPC))
        }
    }
}

/// Writes `text` into an unnamed file, and names it `path` unless that exists.
fn create_at_once(path: &Path, text: &str) -> Result<(), Errno> {
    // Only looked at to spare the work; naming the file is what decides.
    if rustix::fs::lstat(path).is_ok() {
        return Err(Errno::EXIST);
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::from_raw_mode(0o644))?;
    if rustix::io::write(&fd, text.as_bytes())? != text.len() {
        return Err(Errno::NOSPC);
    }
    let unnamed = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

/// Reads the lock file, if it is still there.
fn look(path: &Path) -> Result<Option<(Seen, std::fs::File)>> {
    use std::io::Read as _;
    let fd = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(Error::io("open lock", path)(e)),
    };
    let mut file = std::fs::File::from(fd);
    let mut text = Vec::new();
    (&mut file).take(4096).read_to_end(&mut text).map_err(Error::io("read lock", path))?;
    let stat = rustix::fs::fstat(&file).map_err(Error::io("read lock", path))?;
    let modified = (stat.st_mtime, stat.st_mtime_nsec as i64);
    Ok(Some((Seen { device: stat.st_dev, inode: stat.st_ino, modified, text }, file)))
}

/// Whether the lock may be broken.
fn is_stale(
    seen: &Seen,
    holder: Option<&Owner>,
    me: &Owner,
    path: &Path,
    file: std::os::fd::BorrowedFd<'_>,
) -> Result<bool> {
    match holder.map_or(Liveness::Unknown, |holder| holder.liveness(me, is_local(file))) {
        Liveness::Alive => Ok(false),
        Liveness::Gone => Ok(true),
        Liveness::Unknown => Ok(file_system_time(path, me)?.saturating_sub(seen.modified.0) > FOREIGN_AGE),
    }
}

/// The time in seconds by the clock of the file system that `path` is on: that of a file made now.
fn file_system_time(path: &Path, me: &Owner) -> Result<i64> {
    let probe = work_path(path, me);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let fail = |e: Errno| Error::io("create", &probe)(e);
    let fd = rustix::fs::open(&probe, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
    let stat = rustix::fs::fstat(&fd);
    let _ = rustix::fs::unlink(&probe);
    Ok(stat.map_err(fail)?.st_mtime)
}

/// Removes the lock that was `seen`, if it is still the same one. `file` is the open lock file.
fn break_lock(
    path: &Path,
    seen: &Seen,
    file: std::os::fd::BorrowedFd<'_>,
    holder: Option<&Owner>,
    me: &Owner,
) -> Result<()> {
    // One breaker at a time: a second one could move away the lock that the first has taken in the meantime. Where flock
    // is missing, a holder whose lock was moved away notices that before it publishes.
    if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return Ok(());
    }
    match look(path)? {
        Some((now, _)) if now == *seen => {}
        _ => return Ok(()),
    }
    let aside = work_path(path, me);
    match rustix::fs::rename(path, &aside) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(Error::io("break lock", path)(e)),
    }
    let moved = look(&aside)?;
    if moved.is_some_and(|(moved, _)| moved == *seen) {
        if let Some(holder) = holder {
            let _ = std::fs::remove_file(work_path(path, holder));
        }
    } else {
        // Somebody broke it first, and what was moved is a new lock: it goes back, unless there is a newer one.
        let _ = rustix::fs::link(&aside, path);
    }
    let _ = std::fs::remove_file(&aside);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHORT: Duration = Duration::from_millis(60);

    fn lock_in(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("name.tag.lock")
    }

    fn gone() -> Owner {
        let me = Owner::current();
        Owner { start: me.start + 1, ..me }
    }

    fn set_age(path: &Path, seconds: u64) {
        let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
        std::fs::File::open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn what_a_killed_breaker_left_goes_with_the_next_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let (dead, living) = (work_path(&path, &gone()), work_path(&path, &Owner::current()));
        std::fs::write(&dead, "").unwrap();
        std::fs::write(&living, "").unwrap();
        let (other, held) = (path.with_file_name("other.tag.lock"), path.with_file_name("held.tag.lock"));
        std::fs::write(&other, gone().lock_text()).unwrap();
        std::fs::write(&held, Owner::current().lock_text()).unwrap();
        drop(TagLock::acquire(&path, SHORT).unwrap().unwrap());
        assert_eq!((dead.exists(), living.exists(), path.exists()), (false, true, false));
        assert_eq!((other.exists(), held.exists()), (false, true));
    }

    #[test]
    fn a_held_lock_is_respected_and_its_owner_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let held = TagLock::acquire(&path, SHORT).unwrap().unwrap();
        set_age(&path, 3600);
        let error = TagLock::acquire(&path, SHORT).err().unwrap();
        assert!(error.to_string().contains(&format!("process {} on", std::process::id())), "{error}");
        assert!(held.is_held());
        drop(held);
        assert!(!path.exists());
        TagLock::acquire(&path, SHORT).unwrap().unwrap();
    }

    #[test]
    fn a_lock_of_a_dead_process_is_broken_at_once_and_its_work_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let dead = gone();
        std::fs::write(&path, dead.lock_text()).unwrap();
        std::fs::write(work_path(&path, &dead), "half").unwrap();
        let held = TagLock::acquire(&path, SHORT).unwrap().unwrap();
        assert!(held.is_held());
        drop(held);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_empty_lock_is_broken_only_when_it_is_old() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        std::fs::write(&path, "").unwrap();
        assert!(matches!(TagLock::acquire(&path, SHORT), Err(Error::Locked { .. })));
        assert!(path.exists());
        set_age(&path, 59);
        assert!(matches!(TagLock::acquire(&path, SHORT), Err(Error::Locked { .. })));
        set_age(&path, 62);
        TagLock::acquire(&path, SHORT).unwrap().unwrap();
    }

    #[test]
    fn a_fresh_lock_is_put_back_by_a_late_breaker() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        std::fs::write(&path, gone().lock_text()).unwrap();
        let (stale, file) = look(&path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        let held = TagLock::acquire(&path, SHORT).unwrap().unwrap();
        break_lock(&path, &stale, file.as_fd(), None, &Owner::current()).unwrap();
        assert!(held.is_held());
    }

    #[test]
    fn a_holder_notices_that_its_lock_was_broken_and_leaves_the_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let slow = TagLock::acquire(&path, SHORT).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        let next = TagLock::acquire(&path, SHORT).unwrap().unwrap();
        assert!(!slow.is_held());
        drop(slow);
        assert!(next.is_held());
    }

    #[test]
    fn many_breakers_of_one_stale_lock_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let inside = std::sync::atomic::AtomicU32::new(0);
        for _ in 0..100 {
            std::fs::write(&path, gone().lock_text()).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let held = TagLock::acquire(&path, PATIENCE).unwrap().unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        std::thread::sleep(Duration::from_millis(1));
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(held);
                    });
                }
            });
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
