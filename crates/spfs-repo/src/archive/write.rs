//! Replacing an archive: the members that stay and those that come, written beside it, made durable, renamed over it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::index::{BLOCK, Index, Member};
use super::{Archive, Snapshot, VERSION, parent};
use crate::directory::layout::{Medium, make_dirs, sync_dir};
use crate::directory::lock::{NewName, PATIENCE, TagLock};
use crate::error::{Error, Result};

/// How often a rewrite starts again because its lock was broken meanwhile.
const ATTEMPTS: usize = 8;
/// Bytes that are copied before the lock is looked at.
const PIECE: u64 = 64 << 20;
/// How often the lock is shown to be in use.
const REFRESH: Duration = Duration::from_secs(10);

/// What becomes of an archive.
#[derive(Default)]
pub(super) struct Edit<'a> {
    /// Members that go.
    pub drop: Vec<Member>,
    /// What comes: whole members, headers and padding included.
    pub add: Vec<Source<'a>>,
}

/// Where whole members come from.
pub(super) enum Source<'a> {
    Bytes(Vec<u8>),
    /// `len` bytes at `at`.
    File {
        file: &'a File,
        at: u64,
        len: u64,
    },
}

impl Archive {
    /// Replaces the archive by what `decide` makes of the one that is there, under the lock. No edit writes nothing.
    /// `decide` may run several times.
    pub(super) fn rewrite<'a, T>(
        &self,
        mut decide: impl FnMut(&Snapshot) -> Result<(Option<Edit<'a>>, T)>,
    ) -> Result<T> {
        let path = &self.inner.path;
        for _ in 0..ATTEMPTS {
            let mut lock = lock(path)?;
            // Dropped, and the new name removed, after the snapshot.
            let aside = match self.inner.medium {
                Medium::Loose => NewName::give(path, lock.other_path())?,
                _ => None,
            };
            let snapshot = match &aside {
                Some(aside) => Arc::new(Snapshot::read(aside.path(), path)?),
                None => self.snapshot()?,
            };
            let (edit, result) = decide(&snapshot)?;
            let Some(edit) = edit else { return Ok(result) };
            let mode = snapshot.file.metadata().map_err(Error::io("read", path))?.permissions().mode() & 0o777;
            let mut writer = Writer::new(lock.work_path(), mode)?;
            writer.write(&mut lock, &snapshot, path, edit)?;
            if writer.publish(&lock, path)? {
                return Ok(result);
            }
        }
        Err(Error::Locked { path: path.clone(), owner: "others, who broke our lock again and again".to_owned() })
    }

    /// Removes one member, if `find` finds it.
    pub(super) fn remove(&self, find: impl Fn(&Index) -> Option<Member>) -> Result<()> {
        if find(&self.snapshot()?.index).is_none() {
            return Ok(());
        }
        self.rewrite(|snapshot| {
            let edit = find(&snapshot.index).map(|member| Edit { drop: vec![member], add: Vec::new() });
            Ok((edit, ()))
        })
    }
}

/// Makes an empty archive at `path`, unless there is one.
pub(super) fn create(path: &Path) -> Result<()> {
    let path = std::path::absolute(path).map_err(Error::io("create", path))?;
    for parent in make_dirs(parent(&path), Mode::from_raw_mode(0o755))? {
        sync_dir(&parent)?;
    }
    let lock = lock(&path)?;
    if path.exists() {
        return Ok(());
    }
    let mut writer = Writer::new(lock.work_path(), 0o644)?;
    let now = writer.file.metadata().map_err(Error::io("create", &path))?;
    let time = std::os::unix::fs::MetadataExt::mtime(&now);
    let mut bytes = Vec::new();
    for name in ["./", "./objects/", "./payloads/", "./tags/"] {
        bytes.extend(header(name, tar::EntryType::Directory, 0, 0o755, time));
    }
    bytes.extend(member("./VERSION", VERSION.as_bytes(), 0o644, time));
    writer.append(&bytes)?;
    writer.append(&[0; 2 * BLOCK as usize])?;
    writer.publish(&lock, &path).map(|_| ())
}

fn lock(archive: &Path) -> Result<TagLock> {
    let mut path = archive.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let directory = File::open(parent(archive)).map_err(Error::io("create lock", &path))?;
    TagLock::acquire(&path, PATIENCE, Medium::of(directory.as_fd()))?
        .ok_or_else(|| Error::io("create lock", path)(io::Error::from(io::ErrorKind::NotFound)))
}

/// A new archive that is being written; dropped before it is published, it is removed.
struct Writer {
    file: File,
    path: PathBuf,
    end: u64,
    published: bool,
    refreshed: Instant,
}

impl Writer {
    fn new(path: PathBuf, mode: u32) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(Error::io("create", &path))?;
        let writer = Writer { file: File::from(fd), path, end: 0, published: false, refreshed: Instant::now() };
        rustix::fs::fchmod(&writer.file, Mode::from_raw_mode(mode))
            .map_err(Error::io("set the mode of", &writer.path))?;
        Ok(writer)
    }

    /// Writes all members of the old archive but those that go, then those that come, then the end mark.
    fn write(&mut self, lock: &mut TagLock, old: &Snapshot, path: &Path, edit: Edit<'_>) -> Result<()> {
        let mut gone = edit.drop;
        gone.sort_by_key(|member| member.start);
        let mut at = 0;
        for member in gone {
            self.copy(lock, &old.file, path, at, member.start)?;
            at = member.end;
        }
        self.copy(lock, &old.file, path, at, old.index.end)?;
        let has_version = old.index.has_version();
        if !has_version {
            self.append(&member("./VERSION", VERSION.as_bytes(), 0o644, 0))?;
        }
        for source in edit.add {
            match source {
                Source::Bytes(bytes) => self.append(&bytes)?,
                Source::File { file, at, len } => self.copy(lock, file, path, at, at + len)?,
            }
        }
        self.append(&[0; 2 * BLOCK as usize])
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.end).map_err(Error::io("write", &self.path))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Copies what is in `from` between `at` and `to`; within the kernel, where that is possible.
    fn copy(&mut self, lock: &mut TagLock, from: &File, name: &Path, mut at: u64, to: u64) -> Result<()> {
        let mut by_hand = Vec::new();
        while at < to {
            if self.refreshed.elapsed() > REFRESH {
                lock.refresh();
                self.refreshed = Instant::now();
            }
            let wanted = (to - at).min(PIECE);
            if by_hand.is_empty() {
                let (mut from_at, mut to_at) = (at, self.end);
                match rustix::fs::copy_file_range(
                    from,
                    Some(&mut from_at),
                    &self.file,
                    Some(&mut to_at),
                    wanted as usize,
                ) {
                    Ok(n) if n > 0 => {
                        at += n as u64;
                        self.end += n as u64;
                        continue;
                    }
                    Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => {
                        return Err(Error::io("write", &self.path)(e));
                    }
                    // Not between these two, or not at all.
                    _ => by_hand.resize(1 << 20, 0),
                }
            }
            let piece = wanted.min(by_hand.len() as u64) as usize;
            from.read_exact_at(&mut by_hand[..piece], at).map_err(Error::io("read", name))?;
            self.file.write_all_at(&by_hand[..piece], self.end).map_err(Error::io("write", &self.path))?;
            at += piece as u64;
            self.end += piece as u64;
        }
        Ok(())
    }

    /// Makes it durable and gives it its name, unless the lock was broken meanwhile; returns whether it was not.
    fn publish(&mut self, lock: &TagLock, path: &Path) -> Result<bool> {
        self.file.sync_all().map_err(Error::io("sync", &self.path))?;
        if !lock.is_held() {
            return Ok(false);
        }
        std::fs::rename(&self.path, path).map_err(Error::io("replace", path))?;
        self.published = true;
        sync_dir(parent(path))?;
        Ok(true)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.published {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A whole member: header, content, padding.
pub(super) fn member(name: &str, content: &[u8], mode: u32, time: i64) -> Vec<u8> {
    let mut bytes = header(name, tar::EntryType::Regular, content.len() as u64, mode, time);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    bytes
}

/// The header of a member of `size` bytes; one with a long name has another member before it that holds it.
pub(super) fn header(name: &str, kind: tar::EntryType, size: u64, mode: u32, time: i64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let mut bytes = Vec::with_capacity(BLOCK as usize);
    let field = &mut header.as_old_mut().name;
    match name.as_bytes() {
        short if short.len() <= field.len() => field[..short.len()].copy_from_slice(short),
        long => {
            let len = field.len();
            field.copy_from_slice(&long[..len]);
            bytes = self::header("././@LongLink", tar::EntryType::GNULongName, long.len() as u64 + 1, 0o644, 0);
            bytes.extend_from_slice(long);
            bytes.resize((bytes.len() + 1).next_multiple_of(BLOCK as usize), 0);
        }
    }
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time.max(0) as u64);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}
