//! Where things lie below a repository's root, with which modes, and on what kind of file system.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use data_encoding::BASE32;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::{Digest, TEXT_LEN};
use crate::error::{Error, Result};
use crate::regular::{LONGEST_NOTE, read_regular};

/// The version that is written into a new repository: the one whose formats these are (`docs/format.md`, VERSION).
pub const FORMAT_VERSION: &str = "0.44.0";
/// The major version that this program reads: there is no older one.
const MAJOR: u64 = 0;

/// The place of a digest in a store: its first two characters, `/`, and the other 54.
pub(crate) struct StoreName([u8; TEXT_LEN + 1]);

impl StoreName {
    /// The place of `digest`.
    pub fn of(digest: &Digest) -> Self {
        let mut text = [b'/'; TEXT_LEN + 1];
        let mut full = [0; TEXT_LEN];
        BASE32.encode_mut(digest.as_bytes(), &mut full);
        text[..2].copy_from_slice(&full[..2]);
        text[3..].copy_from_slice(&full[2..]);
        StoreName(text)
    }

    /// `QU/77SN…====`
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// `QU`
    pub fn shard(&self) -> &str {
        &self.as_str()[..2]
    }
}

/// Which modes new things get, whatever the umask.
///
/// Both programs read either; upstream makes everything 0777 and 0666.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modes {
    /// Whether the root is writable for group or others, so that everything below is shared.
    pub shared: bool,
}

impl Modes {
    /// Of directories.
    pub fn directory(self) -> Mode {
        Mode::from_raw_mode(if self.shared { 0o777 } else { 0o755 })
    }

    /// Of tag files and VERSION.
    pub fn file(self) -> Mode {
        Mode::from_raw_mode(if self.shared { 0o666 } else { 0o644 })
    }

    /// Of payloads and objects, which never change.
    pub const CONTENT: Mode = Mode::from_raw_mode(0o444);
}

/// One of the two hash stores of a repository: `objects` or `payloads`.
#[derive(Debug)]
pub(crate) struct Store {
    /// An open descriptor of the directory; everything in it is reached through this.
    pub fd: OwnedFd,
    /// The same directory by name.
    pub path: PathBuf,
    /// What its file system is like.
    pub medium: Medium,
}

impl Store {
    /// Opens the store `name` below `root`.
    pub fn open(root: &Path, name: &str) -> Result<Self> {
        let path = root.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(Store { medium: Medium::of(fd.as_fd()), fd, path }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::invalid(
                "repository",
                root.to_string_lossy(),
                format!("it has no directory {name:?}; a repository has \"objects\" and \"payloads\""),
            )),
            Err(e) => Err(Error::io("open", path)(e)),
        }
    }

    /// The full path of `digest` here, whether it exists or not.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.path.join(StoreName::of(digest).as_str())
    }

    /// The size in bytes and the modification time in seconds of `digest`, if it is here.
    pub fn stat(&self, digest: &Digest) -> Result<Option<(u64, i64)>> {
        match rustix::fs::statat(&self.fd, StoreName::of(digest).as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_size as u64, stat.st_mtime))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::io("look for", self.path_of(digest))(e)),
        }
    }

    /// Fails if this is not what stands at its path any more.
    pub fn check_place(&self) -> Result<()> {
        let there = rustix::fs::stat(&self.path).map_err(Error::io("find", &self.path))?;
        // Elsewhere the numbers of files may change while they are open.
        if self.medium != Medium::Local {
            return Ok(());
        }
        let opened = rustix::fs::fstat(&self.fd).map_err(Error::io("find", &self.path))?;
        if (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino) {
            return Ok(());
        }
        let reason = "another repository stands there since this one was opened";
        Err(Error::io("find", &self.path)(std::io::Error::other(reason)))
    }

    /// Removes `digest`; one that is not here is no error.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, StoreName::of(digest).as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io("remove", self.path_of(digest))(e)),
        }
    }
}

/// Makes the directory `name` in `at` with exactly `mode`, keeping an inherited set-group-id bit. Returns whether it
/// is new; one that exists is left as it is. `path` is for the error only.
pub(crate) fn make_dir(at: BorrowedFd<'_>, name: impl AsRef<Path>, mode: Mode, path: &Path) -> Result<bool> {
    let name = name.as_ref();
    match rustix::fs::mkdirat(at, name, mode) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(false),
        Err(e) => return Err(Error::io("create directory", path)(e)),
    }
    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io("create directory", path))?;
    let wanted = mode.as_raw_mode() | (stat.st_mode & 0o2000);
    if stat.st_mode & 0o7777 != wanted {
        rustix::fs::chmodat(at, name, Mode::from_raw_mode(wanted), AtFlags::empty())
            .map_err(Error::io("set the mode of", path))?;
    }
    Ok(true)
}

/// Makes the directory `path` and those above it that are missing, with exactly `mode`. Returns the new ones' parents,
/// which the caller must make durable.
pub(crate) fn make_dirs(path: &Path, mode: Mode) -> Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.is_dir() {
        missing.push(at);
        match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => at = parent,
            _ => break,
        }
    }
    let mut parents = Vec::new();
    for directory in missing.into_iter().rev() {
        if make_dir(rustix::fs::CWD, directory, mode, directory)? {
            parents.extend(directory.parent().map(Path::to_owned));
        }
    }
    Ok(parents)
}

/// Makes the names in the directory `path` durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
    sync_fd(fd.as_fd(), path)
}

/// `fsync`, except that a file system which cannot sync a directory is taken at its word.
pub(crate) fn sync_fd(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    match rustix::fs::fsync(fd) {
        Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        Err(e) => Err(Error::io("sync", path)(e)),
    }
}

/// What a file system is like: who else writes to it, and what is known of that here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Medium {
    /// This kernel's alone: `syncfs` reaches the disk, and no process that is not on this machine is at work in it.
    Local,
    /// Other machines write to it, and a file that is opened is as they left it (NFS).
    Network,
    /// Other machines may write to it, and what was once known of a name may be believed for a while (FUSE, SMB, all
    /// that is not known here). Only a name that is new is certainly looked up.
    Loose,
}

impl Medium {
    /// That of the file system of `fd`.
    pub fn of(fd: BorrowedFd<'_>) -> Self {
        // ext2-4, xfs, btrfs, tmpfs, overlayfs, zfs, f2fs, bcachefs, ramfs, jfs, reiserfs, nilfs2 (linux/magic.h)
        const LOCAL: [u32; 12] = [
            0xEF53,
            0x5846_5342,
            0x9123_683E,
            0x0102_1994,
            0x794C_7630,
            0x2FC1_2FC1,
            0xF2F5_2010,
            0xCA45_1A4E,
            0x8584_58F6,
            0x3153_464A,
            0x5265_4973,
            0x3434,
        ];
        // NFS, Ceph, Lustre, GPFS
        const NETWORK: [u32; 4] = [0x6969, 0x00C3_6400, 0x0BD0_0BD0, 0x4750_4653];
        match rustix::fs::fstatfs(fd).map(|fs| fs.f_type as u32) {
            Ok(kind) if LOCAL.contains(&kind) => Medium::Local,
            Ok(kind) if NETWORK.contains(&kind) => Medium::Network,
            _ => Medium::Loose,
        }
    }
}

/// Refuses a repository of a newer major version. Returns whether VERSION is there and not empty.
pub(crate) fn check_version(root: &Path) -> Result<bool> {
    let path = root.join("VERSION");
    match read_regular(&path, LONGEST_NOTE) {
        Ok(bytes) => check_version_text(&bytes, &format!("repository {}", root.display()), &path.display().to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// Refuses the content of a VERSION `file` of a newer major version. Returns whether it is not empty. Errors speak of
/// `repository`, or of `file` if that is damaged.
pub(crate) fn check_version_text(bytes: &[u8], repository: &str, file: &str) -> Result<bool> {
    let text = String::from_utf8_lossy(bytes).trim().to_owned();
    if text.is_empty() {
        return Ok(false);
    }
    let major = text.split('.').next().and_then(|major| major.parse::<u64>().ok());
    match major {
        Some(MAJOR) => Ok(true),
        Some(_) => Err(Error::Unsupported {
            what: repository.to_owned(),
            reason: format!("it is of version {text}, and this program reads versions {MAJOR}.x"),
        }),
        None => Err(Error::corrupt(file, format!("{text:?} is not a version"))),
    }
}

/// Writes VERSION of a new repository. Two creators write the same.
pub(crate) fn write_version(root: &Path, modes: Modes) -> Result<()> {
    let path = root.join("VERSION");
    let temporary = root.join(format!(".VERSION.{}", crate::unique().simple()));
    let written = write_file(&temporary, FORMAT_VERSION.as_bytes(), modes.file())
        .and_then(|()| std::fs::rename(&temporary, &path).map_err(Error::io("create", &path)));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    sync_dir(root)
}

/// Writes a new file with exactly `mode`, durably; one that exists is an error. A failure leaves nothing.
pub(crate) fn write_file(path: &Path, bytes: &[u8], mode: Mode) -> Result<()> {
    use std::io::Write as _;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, mode).map_err(Error::io("create", path))?;
    let mut file = std::fs::File::from(fd);
    let written = rustix::fs::fchmod(&file, mode)
        .map_err(std::io::Error::from)
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all());
    written.map_err(|e| {
        let _ = std::fs::remove_file(path);
        Error::io("write", path)(e)
    })
}
