//! The lock file beside a tag stream: upstream's name and rule (whoever creates it has it), plus an owner inside.
//!
//! Upstream's locks are empty and never expire, so a crash would block a stream for ever. Here a lock is broken when
//! its owner is certainly gone, or when it cannot be judged (another machine, an empty file) and a minute old by the
//! file system's clock. Breaking moves the lock aside and looks at what was moved, so that of two breakers one wins
//! and a fresh lock is put back. A holder makes sure that it still has its lock just before it publishes.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::claim::Claim;
use super::layout::Medium;
use super::owner::{Liveness, Owner};
use crate::error::{Error, Result};
use crate::regular::{LONGEST_NOTE, read_regular};

/// How long a lock is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The age in seconds at which a lock whose owner cannot be judged is broken.
const FOREIGN_AGE: i64 = 60;
/// The age in seconds at which a work file whose owner cannot be judged is removed.
const FORGOTTEN: i64 = 24 * 3600;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A held lock; dropping it releases it.
pub(crate) struct TagLock {
    path: PathBuf,
    owner: Owner,
}

/// What a lock file is at one moment.
struct Seen {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    text: Vec<u8>,
}

impl Seen {
    fn holder(&self) -> Option<Owner> {
        std::str::from_utf8(&self.text).ok().and_then(Owner::from_lock_text)
    }
}

/// Equal only for the very same lock.
impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        // The text of one of ours is like no other, and attributes may be those of an earlier file of that name.
        let (ours, theirs) = (self.holder(), other.holder());
        if ours.is_some() || theirs.is_some() {
            return ours == theirs;
        }
        let all = |seen: &Self| (seen.device, seen.inode, seen.modified);
        all(self) == all(other) && self.text == other.text
    }
}

impl TagLock {
    /// Takes the lock file `path`, waiting for it as long as `patience`. Its directory must exist: if it does not,
    /// that is [`None`], so that the caller can make it and come again. `medium` is what its file system is like.
    pub fn acquire(path: &Path, patience: Duration, medium: Medium) -> Result<Option<TagLock>> {
        let owner = Owner::current();
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(500);
        let mut claim = Claim::new(path, &owner, medium);
        loop {
            match claim.take() {
                Ok(()) => {
                    // Its work file has the name of the holder's own.
                    drop(claim);
                    // Over a network listing is dear, so only now and then: the id is random.
                    if medium == Medium::Local || owner.id.ends_with('0') {
                        sweep(path, &owner, medium);
                    }
                    return Ok(Some(TagLock { path: path.to_owned(), owner }));
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(e) => return Err(Error::io("create lock", path)(e)),
            }
            let seen = look(path)?;
            let holder = seen.as_ref().and_then(|(seen, _)| seen.holder());
            if let Some((seen, file)) = &seen
                && is_stale(seen, holder.as_ref(), &owner, path, medium, claim.now())?
            {
                break_lock(path, seen, file.as_fd(), holder.as_ref(), &owner)?;
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

    /// A name for another such file.
    pub fn other_path(&self) -> PathBuf {
        work_path(&self.path, &self.owner.another())
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
        read_regular(&self.path, LONGEST_NOTE).is_ok_and(|text| text == self.owner.lock_text().as_bytes())
    }
}

impl Drop for TagLock {
    fn drop(&mut self) {
        if self.is_held() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The name of a work file of `owner` beside `lock`.
pub(crate) fn work_path(lock: &Path, owner: &Owner) -> PathBuf {
    lock.with_file_name(format!(".{}.work", owner.work_name()))
}

/// A second name of a file, under which nothing is remembered of earlier files; removed when it is dropped.
pub(crate) struct NewName(PathBuf);

impl NewName {
    /// Gives the file `path` the name `aside`. [`None`]: there is none, or the file system has no hard links.
    pub fn give(path: &Path, aside: PathBuf) -> Result<Option<Self>> {
        match rustix::fs::link(path, &aside) {
            Ok(()) => Ok(Some(NewName(aside))),
            Err(Errno::NOENT | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::MLINK) => Ok(None),
            Err(e) => Err(Error::io("link", path)(e)),
        }
    }

    /// The new name.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for NewName {
    fn drop(&mut self) {
        let _ = rustix::fs::unlink(&self.0);
    }
}

/// Removes what killed processes have left beside `lock`: locks of other streams, which nobody may want again, and work
/// files without a lock that would tell of them. Failures do not matter: the next one comes here again.
fn sweep(lock: &Path, me: &Owner, medium: Medium) {
    let directory = lock.parent().unwrap_or(Path::new("."));
    // The lock is new, so this is the time by the file system's clock.
    let Ok(now) = rustix::fs::lstat(lock).map(|stat| stat.st_mtime) else { return };
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        let worker = name.strip_prefix('.').and_then(|name| name.strip_suffix(".work")).and_then(Owner::from_work_name);
        if let Some(worker) = worker {
            let old = || rustix::fs::lstat(&path).is_ok_and(|stat| now.saturating_sub(stat.st_mtime) > FORGOTTEN);
            let gone = match worker.liveness(me, medium == Medium::Local) {
                Liveness::Alive => false,
                Liveness::Gone => true,
                Liveness::Unknown => old(),
            };
            if gone {
                let _ = std::fs::remove_file(&path);
            }
        } else if name.ends_with(".tag.lock") && path != lock {
            let _ = break_dead(&path, me, medium);
        }
    }
}

/// Breaks the lock file `path` if its owner is certainly gone.
fn break_dead(path: &Path, me: &Owner, medium: Medium) -> Result<()> {
    let Some((seen, file)) = look(path)? else { return Ok(()) };
    let holder = seen.holder();
    match &holder {
        Some(owner) if owner.liveness(me, medium == Medium::Local) == Liveness::Gone => {
            break_lock(path, &seen, file.as_fd(), holder.as_ref(), me)
        }
        _ => Ok(()),
    }
}

/// Reads the lock file, if it is still there.
fn look(path: &Path) -> Result<Option<(Seen, std::fs::File)>> {
    use std::io::Read as _;
    let fd = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(Error::io("open lock", path)(e)),
    };
    let mut file = std::fs::File::from(fd);
    let mut text = Vec::new();
    let read = (&mut file).take(4096).read_to_end(&mut text).and_then(|_| Ok(rustix::fs::fstat(&file)?));
    let stat = match read {
        Ok(stat) => stat,
        // Removed since it was opened, over a network.
        Err(e) if [Errno::NOENT, Errno::STALE].map(|e| Some(e.raw_os_error())).contains(&e.raw_os_error()) => {
            return Ok(None);
        }
        Err(e) => return Err(Error::io("read lock", path)(e)),
    };
    let modified = (stat.st_mtime, stat.st_mtime_nsec as i64);
    Ok(Some((Seen { device: stat.st_dev, inode: stat.st_ino, modified, text }, file)))
}

/// Whether the lock may be broken. `now` is the time by the file system's clock, if it is known.
fn is_stale(
    seen: &Seen,
    holder: Option<&Owner>,
    me: &Owner,
    path: &Path,
    medium: Medium,
    now: Option<i64>,
) -> Result<bool> {
    match holder.map_or(Liveness::Unknown, |holder| holder.liveness(me, medium == Medium::Local)) {
        Liveness::Alive => Ok(false),
        Liveness::Gone => Ok(true),
        Liveness::Unknown => {
            let now = now.map_or_else(|| file_system_time(path, me), Ok)?;
            let is_old = |modified: i64| now.saturating_sub(modified) > FOREIGN_AGE;
            if !is_old(seen.modified.0) || medium != Medium::Loose {
                return Ok(is_old(seen.modified.0));
            }
            // It may be the time of an earlier lock. Under a new name it is certainly this one's.
            let aside = NewName::give(path, work_path(path, &me.another()))?;
            let stat = aside.map(|aside| rustix::fs::lstat(aside.path()));
            Ok(stat.is_some_and(|stat| stat.is_ok_and(|stat| is_old(stat.st_mtime))))
        }
    }
}

/// The time in seconds by the clock of the file system that `path` is on: that of a file made now.
fn file_system_time(path: &Path, me: &Owner) -> Result<i64> {
    let probe = work_path(path, &me.another());
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
    let aside = work_path(path, &me.another());
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
        drop(TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap());
        assert_eq!((dead.exists(), living.exists(), path.exists()), (false, true, false));
        assert_eq!((other.exists(), held.exists()), (false, true));
    }

    #[test]
    fn a_held_lock_is_respected_and_its_owner_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let held = TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap();
        set_age(&path, 3600);
        let error = TagLock::acquire(&path, SHORT, Medium::Local).err().unwrap();
        assert!(error.to_string().contains(&format!("process {} on", std::process::id())), "{error}");
        assert!(held.is_held());
        drop(held);
        assert!(!path.exists());
        TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap();
    }

    #[test]
    fn a_lock_of_a_dead_process_is_broken_at_once_and_its_work_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let dead = gone();
        std::fs::write(&path, dead.lock_text()).unwrap();
        std::fs::write(work_path(&path, &dead), "half").unwrap();
        let held = TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap();
        assert!(held.is_held());
        drop(held);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_empty_lock_is_broken_only_when_it_is_old() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        std::fs::write(&path, "").unwrap();
        assert!(matches!(TagLock::acquire(&path, SHORT, Medium::Local), Err(Error::Locked { .. })));
        assert!(path.exists());
        set_age(&path, 59);
        assert!(matches!(TagLock::acquire(&path, SHORT, Medium::Local), Err(Error::Locked { .. })));
        set_age(&path, 62);
        TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap();
    }

    #[test]
    fn a_fresh_lock_is_put_back_by_a_late_breaker() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        std::fs::write(&path, gone().lock_text()).unwrap();
        let (stale, file) = look(&path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        let held = TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap();
        break_lock(&path, &stale, file.as_fd(), None, &Owner::current()).unwrap();
        assert!(held.is_held());
    }

    #[test]
    fn a_holder_notices_that_its_lock_was_broken_and_leaves_the_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let slow = TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        let next = TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap();
        assert!(!slow.is_held());
        drop(slow);
        assert!(next.is_held());
    }

    #[test]
    fn work_files_out_of_sight_are_removed_when_they_are_a_day_old() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let contained = |namespace: u64| Owner { pid_namespace: namespace, ..Owner::current() };
        let (young, old) = (work_path(&path, &contained(1)), work_path(&path, &contained(2)));
        for (path, hours) in [(&young, 23), (&old, 25)] {
            std::fs::write(path, "").unwrap();
            set_age(path, hours * 3600);
        }
        drop(TagLock::acquire(&path, SHORT, Medium::Local).unwrap().unwrap());
        assert_eq!((young.exists(), old.exists()), (true, false));
    }

    #[test]
    fn many_breakers_of_one_stale_lock_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_in(&directory);
        let inside = std::sync::atomic::AtomicU32::new(0);
        for _ in 0..30 {
            std::fs::write(&path, gone().lock_text()).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let held = TagLock::acquire(&path, PATIENCE, Medium::Local).unwrap().unwrap();
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
