//! Replacing a runtime's mounts: reset, a new stack, and making a runtime durable.
//!
//! A live upper directory cannot be edited. So all three make a fresh overlay over what is committed, put the changes
//! that are to stay into its upper directory, and exchange it for the old one in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use spfs_mount::inside::{self, Place};
use spfs_mount::view::{S_IFDIR, S_IFMT};
use spfs_repo::{Digest, Directory, Repository};

use super::changes::{Item, Scan};
use super::commit::Sides;
use super::jobs::Job;
use super::protocol::ResetRequest;
use super::record::Record;
use super::{durable, files, jobs, shown};
use crate::error::{Error, Result};
use crate::lazy;

/// Resets changes, or the whole stack. The result is what the caller should be told.
pub fn reset(job: &Job<'_>, request: &ResetRequest) -> Result<Vec<String>> {
    let mut record = job.dir.load()?;
    let patterns = patterns(&request.patterns)?;
    if let Some(stack) = &request.stack {
        record.status.stack = stack.iter().rev().copied().collect();
    }
    if let Some(editable) = request.editable {
        record.status.editable = editable;
    }
    let keep: &dyn Fn(&str, bool) -> bool = match (request.keep_changes, &patterns) {
        (true, _) => &|_, _| true,
        (false, None) => &|_, _| false,
        (false, Some(patterns)) => &|path, is_dir| !patterns.matched_path_or_any_parents(path, is_dir).is_ignore(),
    };
    replace(job, record, keep)
}

/// Gives a runtime that shares its overlay an editable one of its own.
pub fn unshare(job: &Job<'_>) -> Result<Vec<String>> {
    let mut record = job.dir.load()?;
    record.status.editable = true;
    let mut remarks = replace(job, record, &|_, _| true)?;
    remarks.push("/spfs is mounted anew: what sits in it must `cd` to its directory again".to_owned());
    Ok(remarks)
}

/// Makes the runtime durable, with all its changes.
pub fn keep_runtime(job: &Job<'_>) -> Result<Vec<String>> {
    let mut record = job.dir.load()?;
    if record.config.durable {
        return Ok(vec!["the runtime is durable already".to_owned()]);
    }
    // The lock goes with this process; the running runtime's own lock and its members speak for it until it ends.
    let _lock = durable::create(&job.spfs, &mut record)?;
    let home = record.config.durable_dir.clone();
    let replaced = replace(job, record, &|_, _| true);
    if let (Err(_), Some(home)) = (&replaced, home) {
        let _ = super::dir::remove(&home);
    }
    replaced
}

fn patterns(patterns: &[String]) -> Result<Option<Gitignore>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        let line = match pattern.strip_prefix("/spfs") {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => pattern,
        };
        let invalid = |e: ignore::Error| Error::invalid("pattern", pattern, e.to_string());
        builder.add_line(None, line).map_err(invalid)?;
    }
    builder.build().map(Some).map_err(|e| Error::invalid("pattern", patterns.join(" "), e.to_string()))
}

/// Exchanges the overlay for one over `record`'s stack, with the changes that `keep` says (path, is a directory).
fn replace(job: &Job<'_>, mut record: Record, keep: &dyn Fn(&str, bool) -> bool) -> Result<Vec<String>> {
    let old = job.dir.load()?;
    let scan = Sides::open(job, &old, false)?.scan(job)?;
    // Nothing may change between what is copied and what is shown; where that cannot be had, files win that are open.
    let frozen = old.status.editable && job.set_editable(false).is_ok();
    let result = exchange(job, &mut record, &scan, keep);
    match result {
        Ok(remarks) => {
            record.status.base = record.status.stack.clone();
            record.status.committed.clear();
            job.dir.save(&record)?;
            Ok(remarks)
        }
        Err(error) => {
            if frozen {
                job.set_editable(true)?;
            }
            Err(error)
        }
    }
}

fn exchange(job: &Job<'_>, record: &mut Record, scan: &Scan, keep: &dyn Fn(&str, bool) -> bool) -> Result<Vec<String>> {
    fresh_changes(record)?;
    let cached = shown::merged(&job.spfs, &record.status.stack, &record.config.live_layers)?;
    let plan = shown::plan(&job.spfs, record, &cached)?;
    let old = open_upper(job.upper.as_fd())?;
    lazy::bring_payloads(&job.spfs, &record.config.lazy, &scan.base_payloads(), &job.progress)?;
    jobs::apart(|| {
        let fill = |upper: BorrowedFd<'_>| {
            let copier = Copier { old: &old, repository: &job.spfs.local, scan, keep };
            copier.copy(upper).map_err(shown::as_mount_error("keep the changes"))
        };
        let place = Place { namespace: job.namespace.as_fd(), id: job.mounts.namespace, link: job.link };
        Ok(inside::replace(&plan, &place, &shown::tree(&job.spfs, &cached, &job.progress), fill)?)
    })
}

/// A durable runtime gets new directories: those in use stay as they are until it has ended.
fn fresh_changes(record: &mut Record) -> Result<()> {
    let Some(home) = record.config.durable_dir.clone() else { return Ok(()) };
    let used = record.config.upper_dir.as_ref().is_some_and(|upper| {
        std::fs::read_dir(upper).is_ok_and(|mut entries| entries.next().is_some())
            || record.config.mount_namespace.is_some()
    });
    if used {
        let changes = home.join(format!("changes-{}", spfs_repo::unique()));
        durable::make_changes(&changes)?;
        durable::set_changes(record, home, &changes);
    }
    Ok(())
}

fn open_upper(upper: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(upper, ".", flags, Mode::empty()).map_err(Error::io("open", "the upper directory"))
}

/// Copies changes into a new upper directory, in the form that overlayfs gives them.
struct Copier<'a> {
    old: &'a OwnedFd,
    repository: &'a Directory,
    scan: &'a Scan,
    keep: &'a dyn Fn(&str, bool) -> bool,
}

impl Copier<'_> {
    fn copy(&self, upper: BorrowedFd<'_>) -> Result<()> {
        self.directory(&open_upper(upper)?, "", &self.scan.root)
    }

    fn directory(&self, to: &OwnedFd, path: &str, items: &BTreeMap<String, Item>) -> Result<()> {
        for (name, item) in items {
            let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            self.item(to, name, &below, item)?;
        }
        Ok(())
    }

    fn item(&self, to: &OwnedFd, name: &str, path: &str, item: &Item) -> Result<()> {
        let is_directory = matches!(item, Item::Directory { .. });
        let keep = (self.keep)(path, is_directory);
        match item {
            Item::Directory { mode, before, entries } => {
                self.subdirectory(to, name, path, (*mode, keep), *before, entries)
            }
            _ if !keep => Ok(()),
            Item::File(index) => {
                let file = &self.scan.files[*index];
                let mut from = files::open(self.old.as_fd(), &file.path)?;
                self.file(to, name, path, file.mode, &mut from)
            }
            Item::Symlink { target, .. } => symlink(to, name, path, target),
            Item::Base { digest, mode, .. } => self.payload(to, name, path, *mode, digest),
            Item::Gone(_) => {
                let whiteout = rustix::fs::mknodat(to, name, FileType::CharacterDevice, Mode::empty(), 0);
                whiteout.map_err(Error::io("mark as deleted", path))
            }
        }
    }

    fn subdirectory(
        &self,
        to: &OwnedFd,
        name: &str,
        path: &str,
        (mode, keep): (u32, bool),
        before: Option<super::changes::Before>,
        entries: &BTreeMap<String, Item>,
    ) -> Result<()> {
        let existed = before.is_some_and(|before| before.mode & S_IFMT == S_IFDIR);
        if !keep && !existed {
            // A new directory that is given up takes with it what is in it.
            return Ok(());
        }
        let mode = if keep { mode } else { before.map_or(mode, |before| before.mode) };
        rustix::fs::mkdirat(to, name, Mode::RWXU).map_err(Error::io("make", path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = rustix::fs::openat(to, name, flags, Mode::empty()).map_err(Error::io("open", path))?;
        self.directory(&inner, path, entries)?;
        rustix::fs::fchmod(&inner, Mode::from_raw_mode(mode & 0o7777)).map_err(Error::io("set the mode of", path))
    }

    fn file(&self, to: &OwnedFd, name: &str, path: &str, mode: u32, from: &mut dyn Read) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(Error::io("make", path))?;
        let mut file = File::from(file);
        io::copy(from, &mut file).map_err(Error::io("copy", Path::new(path)))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).map_err(Error::io("set the mode of", path))
    }

    fn payload(&self, to: &OwnedFd, name: &str, path: &str, mode: u32, digest: &Digest) -> Result<()> {
        let mut payload = self.repository.open_payload(digest)?;
        if mode & S_IFMT != spfs_mount::view::S_IFLNK {
            return self.file(to, name, path, mode, &mut payload);
        }
        let mut target = Vec::new();
        payload.read_to_end(&mut target).map_err(Error::io("read", path))?;
        symlink(to, name, path, &target)
    }
}

fn symlink(to: &OwnedFd, name: &str, path: &str, target: &[u8]) -> Result<()> {
    let _ = rustix::fs::unlinkat(to, name, AtFlags::empty());
    rustix::fs::symlinkat(target, to, name).map_err(Error::io("make", path))
}

fn leftovers(home: &Path, record: &Record) -> Vec<std::path::PathBuf> {
    let used = record.config.upper_dir.as_deref().and_then(Path::parent);
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_old = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Some(path.as_path()) != used && name.starts_with("changes-")
    };
    entries.filter(is_old).collect()
}

/// Removes what resets have left behind in a durable runtime that has ended.
pub fn tidy(record: &Record) {
    if let Some(home) = &record.config.durable_dir {
        for path in leftovers(home, record) {
            let _ = super::dir::remove_tree(&path);
        }
    }
}
