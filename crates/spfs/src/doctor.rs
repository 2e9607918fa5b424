//! `doctor`: whether runtimes work on this machine, in which way, and what is missing; found out by trying.
//!
//! Nothing is believed that was not tried: each backend shows a tiny environment of its own in namespaces that end at
//! once ([`spfs_mount::probe`]). The caller's process must have one thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::Resource;
use serde::Serialize;
use spfs_mount::plan::Strategy;
use spfs_mount::probe::{self, Facility, Refusal, Trial};
use spfs_mount::{SPFS, namespace};

use crate::config::{Config, Env};
use crate::dirs::Dirs;
use crate::error::Result;
use crate::{Error, Spfs};

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// The caller.
    pub uid: u32,
    /// Whether the caller may mount without a user namespace.
    pub privileged: bool,
    /// Whether this process is inside a runtime.
    pub inside: bool,
    /// Whether `spfs run` works.
    pub works: bool,
    /// Whether what it shows can be changed, too.
    pub editable: bool,
    /// The backend that `auto` uses, if any works.
    pub backend: Option<&'static str>,
    /// Every backend, the best first.
    pub backends: Vec<Finding>,
    /// What the kernel was asked for.
    pub kernel_facilities: Vec<Finding>,
    /// Directories, and limits.
    pub places: Vec<Finding>,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How it went.
    pub status: Status,
    /// What was found, or what the kernel said; may be empty.
    pub detail: String,
    /// The error number, if the kernel refused.
    pub errno: Option<i32>,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is there.
    Ok,
    /// It is not needed by this caller, or is not for them.
    Unused,
    /// It is missing, and something is less good for it.
    Missing,
    /// It is missing, and runtimes cannot work without it.
    Fatal,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Finding { name, status: Status::Ok, detail: detail.into(), errno: None }
    }

    fn refused(name: &'static str, status: Status, refusal: Refusal) -> Self {
        Finding { name, status, detail: refusal.message, errno: refusal.errno }
    }

    fn error(name: &'static str, status: Status, error: &Error) -> Self {
        let mut detail = error.to_string();
        let mut errno = None;
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            let message = error.to_string();
            if !detail.ends_with(&message) {
                detail.push_str(&format!(": {message}"));
            }
            errno = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error).or(errno);
            cause = error.source();
        }
        Finding { name, status, detail, errno }
    }
}

/// What is said of a backend that needs no overlay for being read.
const READ_ONLY: &str = "read-only: there is no overlayfs";

/// The names of the facilities in reports.
pub fn name(facility: Facility) -> &'static str {
    match facility {
        Facility::UserNamespace => "user namespaces",
        Facility::MountNamespace => "mount namespaces",
        Facility::NewRoot => "private root",
        Facility::FuseDevice => "/dev/fuse",
        Facility::FuseMount => "FUSE mounts",
        Facility::FuseResend => "FUSE resend",
        Facility::Overlay => "overlayfs",
        Facility::DataLayers => "data-only layers",
        Facility::Beneath => "mount beneath",
        Facility::Inotify => "inotify",
    }
}

/// Tries everything. Makes the directories that a first `spfs run` would make, and leaves nothing else behind.
pub fn examine(env: &Env, config: &Config) -> Report {
    let privileged = namespace::is_privileged();
    let inside = namespace::is_mounted();
    let present = Path::new(SPFS).is_dir();
    let dirs = Dirs::new(env, config);
    let mut places = vec![spfs_directory(privileged, inside, present), records(&dirs)];
    let (storage, opened) = storage(env, config);
    places.push(storage);
    places.push(cache(&dirs));
    let backends = opened.as_ref().map_or_else(Vec::new, backends);
    if let Some(spfs) = &opened {
        places.push(durable(spfs));
    }
    places.extend([changes(config), processes(), user_namespace_limit(privileged)]);
    let needed = |facility| match facility {
        Facility::UserNamespace => !privileged,
        Facility::NewRoot => !privileged && (inside || !present),
        _ => true,
    };
    let tried = Facility::ALL.into_iter().map(|facility| {
        if !needed(facility) {
            return Finding { status: Status::Unused, ..Finding::ok(name(facility), "not needed here") };
        }
        match probe::facility(facility) {
            Ok(()) if facility == Facility::Inotify => Finding::ok(name(facility), inotify_limits()),
            Ok(()) => Finding::ok(name(facility), ""),
            Err(refusal) => Finding::refused(name(facility), weight(facility), refusal),
        }
    });
    let kernel_facilities: Vec<Finding> = tried.collect();
    let used = backends.iter().find(|backend| backend.status == Status::Ok);
    let (backend, editable) = (used.map(|used| used.name), used.is_some_and(|used| used.detail != READ_ONLY));
    let fatal = places.iter().any(|place| place.status == Status::Fatal);
    Report {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        uid: env.uid,
        privileged,
        inside,
        works: backend.is_some() && !fatal,
        editable: editable && !fatal,
        backend,
        backends,
        kernel_facilities,
        places,
    }
}

/// A trial takes seconds; what is older than this was left by one that was killed.
const LEFT: Duration = Duration::from_secs(3600);

/// Removes what killed trials have left.
pub fn sweep(spfs: &Spfs) {
    let caches = ["views", "images"].into_iter().filter_map(|name| spfs.dirs.cache_sub(name));
    let places = [spfs.dirs.run.clone(), spfs.local.root().to_owned()].into_iter().chain(caches);
    for place in places.chain(spfs.dirs.durable.clone()) {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let is_scratch = entry.file_name().as_encoded_bytes().starts_with(SCRATCH.as_bytes());
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            if is_scratch && age.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > LEFT) {
                drop(Scratch(entry.path()));
            }
        }
    }
}

/// How bad it is to lack it.
fn weight(facility: Facility) -> Status {
    match facility {
        Facility::UserNamespace | Facility::MountNamespace | Facility::NewRoot => Status::Fatal,
        _ => Status::Missing,
    }
}

/// Each backend with a tiny environment of its own.
fn backends(spfs: &Spfs) -> Vec<Finding> {
    let all = ["image", "server", "render", "fuse"];
    let made = Scratch::make_or_among_records(spfs, spfs.local.root()).and_then(|payloads| {
        let cache = spfs.dirs.cache_sub("images");
        let cache = Scratch::make_or_among_records(spfs, cache.as_deref().unwrap_or(spfs.local.root()))?;
        let trial = Trial::make(&payloads.0.0, &cache.0.0, &spfs.env.boot()?)?;
        Ok((payloads, cache, trial))
    });
    let ((_payloads, no_storage), (_cache, no_cache), trial) = match &made {
        Ok(made) => made,
        Err(error) => return all.map(|name| Finding::error(name, Status::Missing, error)).into(),
    };
    let no_overlay = probe::facility(Facility::Overlay).is_err();
    let image = Strategy::Image(trial.image().to_owned());
    let render = Strategy::Render(trial.tree());
    let strategies = [image, Strategy::Server, render, Strategy::Full].into_iter().map(|strategy| {
        let name = strategy.name();
        if name == "image" && !namespace::is_root_of_machine() {
            return Finding {
                status: Status::Unused,
                ..Finding::ok(name, "only root of the machine may mount an image")
            };
        }
        // Images are kept in the cache, and renders in the store.
        let homeless = match name {
            "image" => no_cache.as_ref(),
            "render" => no_storage.as_ref(),
            _ => None,
        };
        if let Some(error) = homeless {
            return Finding::error(name, Status::Missing, error);
        }
        match trial.strategy(strategy.clone(), true) {
            Ok(()) => Finding::ok(name, ""),
            // Its tree is there by now.
            Err(_) if no_overlay && trial.strategy(strategy, false).is_ok() => Finding::ok(name, READ_ONLY),
            Err(refusal) => Finding::refused(name, Status::Missing, refusal),
        }
    });
    strategies.collect()
}

fn spfs_directory(privileged: bool, inside: bool, present: bool) -> Finding {
    let detail = match (inside, present, privileged) {
        (true, ..) => "something is mounted there: this is inside an environment",
        (_, true, _) => "is there",
        (_, _, true) => "is missing; spfs makes it as root, or a private root directory",
        _ => "is missing; each start makes a private root directory that has it",
    };
    Finding::ok("/spfs", detail)
}

fn records(dirs: &Dirs) -> Finding {
    match dirs.run().and_then(|path| Scratch::make(path).map(|_| path)) {
        Ok(path) => Finding::ok("records", path.display().to_string()),
        Err(error) => Finding::error("records", Status::Fatal, &error),
    }
}

/// The repository, and what its file system can do.
fn storage(env: &Env, config: &Config) -> (Finding, Option<Spfs>) {
    let spfs = match Spfs::open(env.clone(), config.clone()) {
        Ok(spfs) => spfs,
        Err(error) => return (Finding::error("storage", Status::Fatal, &error), None),
    };
    let root = spfs.local.root();
    let scratch = match Scratch::make(root) {
        Ok(scratch) => scratch,
        // What is there can be run; nothing can be committed.
        Err(error) => return (Finding::error("storage", Status::Missing, &error), Some(spfs)),
    };
    let mut detail = format!("{}: {}", root.display(), free(root));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    if rustix::fs::open(&scratch.0, flags, Mode::RUSR | Mode::WUSR).is_err() {
        detail.push_str(", no O_TMPFILE");
    }
    let (one, two) = (scratch.0.join("one"), scratch.0.join("two"));
    if fs::write(&one, "").and_then(|()| fs::hard_link(&one, &two)).is_err() {
        detail.push_str(", no hard links");
    }
    (Finding::ok("storage", detail), Some(spfs))
}

/// Whether durable runtimes can keep their changes there.
fn durable(spfs: &Spfs) -> Finding {
    let Some(dir) = &spfs.dirs.durable else {
        return Finding { status: Status::Missing, ..Finding::ok("durable changes", "there is no place for them") };
    };
    let above = dir.ancestors().find(|above| above.is_dir()).unwrap_or(dir);
    match Scratch::make(above) {
        Err(error) => Finding::error("durable changes", Status::Missing, &error),
        Ok(scratch) => match probe::can_hold_changes(&scratch.0) {
            Ok(()) => Finding::ok("durable changes", dir.display().to_string()),
            Err(refusal) => Finding::refused("durable changes", Status::Missing, refusal),
        },
    }
}

fn cache(dirs: &Dirs) -> Finding {
    match (dirs.cache_sub("views"), &dirs.cache) {
        (Some(path), _) => match Scratch::make(&path) {
            Ok(_) => Finding::ok("cache", path.parent().unwrap_or(&path).display().to_string()),
            Err(error) => Finding::error("cache", Status::Missing, &error),
        },
        (None, Some(path)) => Finding {
            status: Status::Missing,
            ..Finding::ok("cache", format!("{} is not a directory of yours alone", path.display()))
        },
        (None, None) => Finding { status: Status::Missing, ..Finding::ok("cache", "there is no home directory") },
    }
}

/// The memory that changes may take.
fn changes(config: &Config) -> Finding {
    if let Some(size) = &config.filesystem.tmpfs_size {
        return Finding::ok("changes in memory", format!("at most {size}"));
    }
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let detail =
        total.map_or_else(|| "half of the memory".to_owned(), |kib: u64| format!("at most {}", size(kib * 512)));
    Finding::ok("changes in memory", detail)
}

fn processes() -> Finding {
    let limit = rustix::process::getrlimit(Resource::Nproc).current;
    Finding::ok("processes", limit.map_or_else(|| "no limit".to_owned(), |most| format!("at most {most}")))
}

fn user_namespace_limit(privileged: bool) -> Finding {
    let limit = number("/proc/sys/user/max_user_namespaces");
    match limit {
        Some(0) if !privileged => Finding { status: Status::Fatal, ..Finding::ok("namespaces", "at most 0") },
        Some(most) => Finding::ok("namespaces", format!("at most {most}")),
        None => Finding::ok("namespaces", "the limit cannot be read"),
    }
}

/// How many inotify instances the user has, and may have.
fn inotify_limits() -> String {
    let Some(most) = number("/proc/sys/fs/inotify/max_user_instances") else { return String::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let descriptors = processes.flat_map(|process| fs::read_dir(process.path().join("fd")).into_iter().flatten());
    let is_inotify = |target: PathBuf| target.to_str() == Some("anon_inode:inotify");
    let used = descriptors.flatten().filter(|fd| fs::read_link(fd.path()).is_ok_and(is_inotify)).count();
    format!("{used} of {most} instances in use")
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The free space of the file system that `path` is on.
fn free(path: &Path) -> String {
    match rustix::fs::statvfs(path) {
        Ok(found) => format!("{} free", size(found.f_bavail * found.f_frsize)),
        Err(error) => format!("free space unknown ({error})"),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

/// What the names of our directories begin with.
const SCRATCH: &str = "doctor-";

/// What a trial writes at most, in bytes: where there is no room for it there is none for anything.
const ROOM: usize = 64 << 10;

/// An empty directory that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn make(below: &Path) -> Result<Scratch> {
        let path = below.join(format!("{SCRATCH}{}", spfs_repo::unique()));
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let scratch = Scratch(path);
        let file = scratch.0.join("room");
        let written = fs::write(&file, [0; ROOM]).and_then(|()| fs::remove_file(&file));
        written.map_err(Error::io("write", &file))?;
        Ok(scratch)
    }

    /// The same, or where nothing can be written among the records, with the reason: what is in a store that is full or
    /// read-only can be shown all the same.
    fn make_or_among_records(spfs: &Spfs, below: &Path) -> Result<(Scratch, Option<Error>)> {
        match Scratch::make(below) {
            Ok(scratch) => Ok((scratch, None)),
            Err(error) => Ok((Scratch::make(spfs.dirs.run()?)?, Some(error))),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The work directory of an overlay holds one that nobody may enter.
        let inner = self.0.join("work/work");
        let _ = fs::remove_dir(inner);
        let _ = fs::remove_dir_all(&self.0);
    }
}
