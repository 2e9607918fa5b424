//! One read-only overlay for all runtimes of a view: who keeps it publishes it in a directory, others take a clone.
//!
//! The directory holds a fifo, `users`, and a link, `mount`, to the keeper's descriptor below `/proc`. A runtime opens
//! the fifo for writing and keeps it open as long as it lives: that fails if nobody reads, so a keeper that was killed
//! is never believed, and when the last writer has gone the kernel tells the keeper. Nobody is woken by a start.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

/// What the names of directories that are being made or removed begin with.
const HIDDEN: char = '.';

/// An overlay that another runtime's monitor keeps.
pub struct Shared {
    mount: OwnedFd,
    user: OwnedFd,
}

impl Shared {
    /// What is published at `place`. To be called before any namespace is entered: the kernel lets only those look at
    /// the keeper's descriptors who may look at the keeper.
    pub fn find(place: &Path) -> Option<Shared> {
        let user = join(place)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mount = rustix::fs::open(place.join("mount"), flags, Mode::empty()).ok()?;
        Some(Shared { mount, user })
    }

    /// A detached clone of it, for the mount namespace of the caller; `None` if it has gone, or before Linux 6.15.
    pub fn mount(&self) -> Option<OwnedFd> {
        clone(self.mount.as_fd())
    }

    /// Says that there is a user of it, as long as it is open anywhere.
    pub fn user(&self) -> BorrowedFd<'_> {
        self.user.as_fd()
    }
}

/// A detached clone of a mount that is attached nowhere yet.
pub fn clone(mount: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(mount, c"", flags).ok()
}

fn join(place: &Path) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(place.join("users"), flags, Mode::empty()).ok()
}

/// An overlay that this process keeps for others.
pub struct Keeper {
    place: PathBuf,
    users: OwnedFd,
    _mount: OwnedFd,
}

/// Who uses what a keeper keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Somebody does.
    Used,
    /// Nobody does.
    Unused,
    /// It is to go as soon as nobody does.
    Unwanted,
}

impl Keeper {
    /// Publishes `mount` at `place`; `None` if somebody else does already, or nothing can be made there.
    pub fn publish(place: &Path, mount: OwnedFd) -> Option<Keeper> {
        let parent = place.parent()?;
        let staged = parent.join(format!("{HIDDEN}new-{}", spfs_repo::unique()));
        fs::create_dir(&staged).ok()?;
        let made = || -> Option<OwnedFd> {
            let fifo = staged.join("users");
            rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).ok()?;
            let users = listen(&fifo)?;
            let link = format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd());
            rustix::fs::symlink(link, staged.join("mount")).ok()?;
            place_it(&staged, place).then_some(users)
        };
        match made() {
            Some(users) => Some(Keeper { place: place.to_owned(), users, _mount: mount }),
            None => {
                let _ = fs::remove_dir_all(&staged);
                None
            }
        }
    }

    /// Whether anybody uses it now.
    pub fn state(&self) -> Use {
        let mut said = [0u8; 16];
        match rustix::io::read(&self.users, &mut said) {
            Err(Errno::AGAIN | Errno::INTR) => Use::Used,
            Ok(1..) => Use::Unwanted,
            Ok(0) | Err(_) => Use::Unused,
        }
    }

    /// Forgets that users have gone, so that the next one's end is told again.
    pub fn renew(&mut self) {
        // The new one is open before the old one is closed: there is a reader at every moment.
        if let Some(users) = listen(&self.place.join("users")) {
            self.users = users;
        }
    }

    /// Whether it can still be found: its directory may have been removed.
    pub fn is_published(&self) -> bool {
        self.place.join("users").exists()
    }

    /// Lets nobody else find it.
    pub fn withdraw(self) {
        take_away(&self.place);
    }
}

impl AsFd for Keeper {
    /// Hangs up when the last user has gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.users.as_fd()
    }
}

fn listen(fifo: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(fifo, flags, Mode::empty()).ok()
}

/// Gives the directory its name; one whose keeper is dead gives way.
fn place_it(staged: &Path, place: &Path) -> bool {
    for _ in 0..2 {
        match rustix::fs::renameat_with(CWD, staged, CWD, place, RenameFlags::NOREPLACE) {
            Ok(()) => return true,
            Err(Errno::EXIST | Errno::NOTEMPTY) if join(place).is_none() => take_away(place),
            Err(_) => return false,
        }
    }
    false
}

fn take_away(place: &Path) {
    let Some(parent) = place.parent() else { return };
    let doomed = parent.join(format!("{HIDDEN}old-{}", spfs_repo::unique()));
    if fs::rename(place, &doomed).is_ok() {
        let _ = fs::remove_dir_all(&doomed);
    }
}

/// Asks the keepers in `directory` to go once they have no user, all but the `spared` youngest; what dead ones have
/// left is removed.
pub fn ask_to_go(directory: &Path, spared: usize) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with(HIDDEN));
    let mut places: Vec<_> =
        named.map(|entry| (entry.metadata().and_then(|meta| meta.modified()).ok(), entry.path())).collect();
    places.sort();
    let old = places.len().saturating_sub(spared);
    for (_, place) in &places[..old] {
        match join(place) {
            Some(keeper) => drop(rustix::io::write(&keeper, b"q")),
            None => take_away(place),
        }
    }
}
