//! All runtimes of one user on one host: which there are, and in which state.

use std::collections::HashSet;
use std::io::ErrorKind::{NotFound, PermissionDenied};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use spfs_mount::members::{self, Members};

use super::dir::{self, RuntimeDir};
use super::record::{Record, boot_text};
use super::shown;
use crate::Spfs;
use crate::error::{Error, Result};

/// What a runtime is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its monitor lives.
    Running,
    /// Its processes live, its monitor was killed: no edit, commit or reset.
    Unmonitored,
    /// Durable, and not running.
    Saved,
    /// Nothing of it lives; the record is about to be removed.
    Dead,
}

impl State {
    /// The word that `runtime list` shows.
    pub const fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Unmonitored => "unmonitored",
            State::Saved => "saved",
            State::Dead => "stopped",
        }
    }
}

/// One runtime with what is known of it.
pub struct Found {
    /// Its record.
    pub record: Record,
    /// What it is doing.
    pub state: State,
    /// Where it lives while it runs.
    pub dir: RuntimeDir,
}

impl Found {
    /// Its processes, for who is to do something to them; `None` if it is not mounted.
    ///
    /// Errors: [`Error::Runtime`] if they cannot be told for certain: those of a program from before there were marks, once
    /// there is no monitor any more that would know of the end of their namespace.
    pub fn members(&self, spfs: &Spfs, action: &'static str) -> Result<Option<Members>> {
        if self.state == State::Unmonitored && self.record.config.mark.is_none() {
            let reason = "its monitor was killed, and as it was started by an earlier spfs, which processes are its own is not \
                          certain; end them by hand";
            return Err(Error::Runtime { action, name: self.record.name.clone(), reason: reason.to_owned() });
        }
        Ok(self.record.members(&boot_text(&spfs.env.boot()?)))
    }
}

/// Why and how a runtime may be removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removal {
    /// Also if it runs: its processes are killed.
    pub force: bool,
    /// Also if it is durable: its changes are lost.
    pub durable: bool,
}

/// The directory of the runtime `name`, whether it is there or not.
pub fn live_dir(spfs: &Spfs, name: &str) -> Result<RuntimeDir> {
    Ok(RuntimeDir { path: spfs.dirs.run()?.join("runtimes").join(name) })
}

/// Where the durable runtime `name` keeps its changes, if there is a place for durable runtimes at all.
pub fn durable_dir(spfs: &Spfs, name: &str) -> Option<PathBuf> {
    Some(spfs.dirs.durable.as_ref()?.join(name))
}

/// Finds one runtime by name.
pub fn find(spfs: &Spfs, name: &str) -> Result<Found> {
    let unknown = || -> Result<Error> {
        let names: Vec<String> = list(spfs)?.into_iter().map(|found| found.record.name).collect();
        let similar = crate::similar::near(name, names.iter().map(String::as_str));
        Ok(Error::UnknownRuntime { name: name.to_owned(), similar: similar.into_iter().map(str::to_owned).collect() })
    };
    if check_name(name).is_err() {
        return Err(unknown()?);
    }
    let dir = live_dir(spfs, name)?;
    if dir.record_path().exists() {
        match look(spfs, dir.clone(), &members::inhabited(), Instant::now() + MOMENT) {
            // It went while we looked.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            // With the repository that it was kept in, or by hand.
            Ok(found) if found.state == State::Saved && is_lost(&found.record) => {}
            found => return found,
        }
    }
    match durable_dir(spfs, name).filter(|path| path.join(dir::RECORD).exists()) {
        Some(path) => Ok(Found { record: RuntimeDir { path }.load()?, state: State::Saved, dir }),
        None => Err(unknown()?),
    }
}

/// How long who looks at runtimes waits for those that are just ending: it is a tenth of a second where the machine is
/// not busy.
const MOMENT: Duration = Duration::from_secs(2);

/// How long who cannot go on before a runtime has ended waits for that.
pub const PATIENCE: Duration = Duration::from_secs(10);

fn look(spfs: &Spfs, dir: RuntimeDir, inhabited: &HashSet<u64>, deadline: Instant) -> Result<Found> {
    let mut record = dir.load()?;
    let members = record.members(&boot_text(&spfs.env.boot()?));
    let mut alive = dir.is_alive();
    let inside = |members: &Members| inhabited.contains(&members.namespace()) && (alive || members.exist());
    let inhabited = members.as_ref().is_some_and(inside);
    // Nobody is left, and its monitor is putting it away: so would it look an instant later.
    while alive && !inhabited && (members.is_some() || !record.status.running) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
        record = dir.load()?;
        alive = dir.is_alive();
    }
    let state = match (alive, inhabited, record.config.durable) {
        (true, ..) => State::Running,
        (false, true, _) => State::Unmonitored,
        (false, false, true) => State::Saved,
        (false, false, false) => State::Dead,
    };
    Ok(Found { record, state, dir })
}

/// Whether what its monitor still lives for is only to put it away.
fn is_ending(spfs: &Spfs, record: &Record) -> Result<bool> {
    let was_mounted = record.members(&boot_text(&spfs.env.boot()?)).is_some();
    Ok((was_mounted || !record.status.running) && !has_members(spfs, record)?)
}

/// Whether any process is left in the runtime's namespace.
pub fn has_members(spfs: &Spfs, record: &Record) -> Result<bool> {
    Ok(record.members(&boot_text(&spfs.env.boot()?)).is_some_and(|members| members.exist()))
}

/// All runtimes, by name. What nothing lives of any more is removed on the way.
pub fn list(spfs: &Spfs) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    let (inhabited, deadline) = (members::inhabited(), Instant::now() + MOMENT);
    let live = spfs.dirs.run()?.join("runtimes");
    dir::sweep(&live);
    for name in names(&live)? {
        let dir = live_dir(spfs, &name)?;
        let found = match look(spfs, dir.clone(), &inhabited, deadline) {
            Ok(found) => found,
            // Nobody can use it any more, and if it was durable its own record is elsewhere.
            Err(Error::SpecFile { .. }) => {
                bury(spfs, &dir)?;
                continue;
            }
            Err(_) => continue,
        };
        match found.state {
            State::Dead => {
                super::durable::forget_ended(spfs, &name);
                bury(spfs, &found.dir)?;
            }
            State::Saved if is_lost(&found.record) => bury(spfs, &found.dir)?,
            State::Saved => all.push(settle(found)?),
            State::Running | State::Unmonitored => all.push(found),
        }
    }
    if let Some(durable) = &spfs.dirs.durable {
        dir::sweep(durable);
        for name in durable_names(durable)? {
            if all.iter().any(|found| found.record.name == name) {
                continue;
            }
            let Ok(record) = (RuntimeDir { path: durable.join(&name) }).load() else { continue };
            all.push(Found { record, state: State::Saved, dir: live_dir(spfs, &name)? });
        }
    }
    all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
    Ok(all)
}

/// The durable runtimes whose records cannot be read: their names, and why not.
pub fn damaged(spfs: &Spfs) -> Result<Vec<(String, Error)>> {
    let Some(durable) = &spfs.dirs.durable else { return Ok(Vec::new()) };
    let mut damaged: Vec<(String, Error)> = durable_names(durable)?
        .into_iter()
        .filter_map(|name| match (RuntimeDir { path: durable.join(&name) }).load() {
            // Without a record it is no runtime, or another user's.
            Err(Error::Io { source, .. }) if matches!(source.kind(), NotFound | PermissionDenied) => None,
            Err(error) => Some((name, error)),
            Ok(_) => None,
        })
        .collect();
    damaged.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(damaged)
}

/// Removes the record of a runtime whose monitor was killed and whose processes are gone.
fn bury(spfs: &Spfs, dir: &RuntimeDir) -> Result<()> {
    // The lock is taken so that two that look at once do not remove a new runtime of the same name.
    match dir::try_lock(&dir.path) {
        Ok(Some(_lock)) => {
            let name = dir.path.file_name().and_then(|name| name.to_str());
            if let Some(spare) = name.and_then(|name| shown::spare(&spfs.dirs, name)).filter(|spare| spare.exists()) {
                let _ = dir::remove_tree(&spare);
            }
            dir.remove()
        }
        Ok(None) => Ok(()),
        // Its monitor, or another that looked, was quicker.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The same for a durable one: its changes stay.
fn settle(mut found: Found) -> Result<Found> {
    let lock = match dir::try_lock(&found.dir.path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        locked => locked?,
    };
    if let Some(_lock) = lock {
        found.record.stopped();
        // Where it is kept may be full or read-only now: that is no reason not to list it, and all the others.
        if found.dir.save(&found.record).is_ok() {
            found.dir.remove()?;
        }
    }
    Ok(found)
}

/// Whether the changes of a durable runtime are gone, with all that there was beside them.
fn is_lost(record: &Record) -> bool {
    record.config.durable_dir.as_ref().is_some_and(|home| matches!(home.try_exists(), Ok(false)))
}

/// The names in the directory of all durable runtimes, some of which may be other users'. One that is closed has none of
/// ours.
fn durable_names(directory: &std::path::Path) -> Result<Vec<String>> {
    match names(directory) {
        Err(Error::Io { source, .. }) if source.kind() == PermissionDenied => Ok(Vec::new()),
        names => names,
    }
}

fn names(directory: &std::path::Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", directory)(e)),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| !dir::is_hidden(name)).collect())
}

/// Removes a runtime: its record, and the changes of a durable one.
pub fn remove(spfs: &Spfs, name: &str, removal: Removal) -> Result<()> {
    let refuse =
        |reason: &str| Err(Error::Runtime { action: "remove", name: name.to_owned(), reason: reason.to_owned() });
    let found = match (find(spfs, name), durable_dir(spfs, name)) {
        (Ok(found), _) => found,
        // Nobody can enter one whose record is damaged, but its changes need not stay for ever.
        (Err(Error::SpecFile { .. }), Some(durable)) if removal.durable => {
            let Some(_lock) = dir::try_lock(&durable)? else { return refuse("it is running") };
            super::durable::forget(spfs, name)?;
            return dir::remove(&durable);
        }
        (Err(error), _) => return Err(error),
    };
    if found.record.config.durable && !removal.durable {
        return refuse("it is durable, and its changes would be lost");
    }
    if matches!(found.state, State::Running | State::Unmonitored) {
        if !removal.force && !is_ending(spfs, &found.record)? {
            return refuse("it is running");
        }
        end(spfs, &found)?;
    }
    if let Some(durable) = &found.record.config.durable_dir {
        super::durable::forget(spfs, name)?;
        dir::remove(durable)?;
    }
    // Not one that has been started under this name meanwhile.
    bury(spfs, &found.dir)
}

/// Kills everything in a runtime and waits until its monitor has seen the end.
fn end(spfs: &Spfs, found: &Found) -> Result<()> {
    let (members, deadline) = (found.members(spfs, "end")?, Instant::now() + PATIENCE);
    loop {
        let killed = members.as_ref().is_some_and(Members::kill);
        if !killed && !found.dir.is_alive() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let reason = "some of its processes do not end".to_owned();
            return Err(Error::Runtime { action: "end", name: found.record.name.clone(), reason });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How old changes on disk without a lock must be to be left over: they get their lock much sooner.
const UNLOCKED: Duration = Duration::from_secs(10);

/// Removes the changes on disk of runtimes of which nothing else is left. A record keeps those of its runtime.
pub fn remove_left_changes(spfs: &Spfs) -> Result<()> {
    let Some(changes) = shown::spare(&spfs.dirs, "").filter(|changes| changes.is_dir()) else { return Ok(()) };
    for name in names(&changes)? {
        let path = changes.join(&name);
        let age = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        let is_old = age.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > UNLOCKED);
        if is_old && !live_dir(spfs, &name)?.path.exists() && is_free(&path) {
            dir::remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Whether nobody holds the lock that those who use a directory have on it.
fn is_free(path: &std::path::Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty());
    dir.is_ok_and(|dir| rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// How many records a start looks at on behalf of the dead: starting must not get slower with the runtimes there are.
const GLANCE: usize = 64;

/// Whether there seem to be records that nothing lives of, beside `own`: those whose lock is free.
pub fn has_dead(own: &RuntimeDir) -> bool {
    let Some(directory) = own.path.parent() else { return false };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().take(GLANCE);
    let named = entries.filter(|entry| !dir::is_hidden(&entry.file_name().to_string_lossy()));
    named.map(|entry| RuntimeDir { path: entry.path() }).any(|dir| dir != *own && !dir.is_alive())
}

/// Whether `name` can name a runtime: a tag name without `/`, of at most 128 bytes, that begins with no dot.
pub fn check_name(name: &str) -> Result<()> {
    let invalid = |reason: &str| Err(Error::invalid("runtime name", name, reason));
    if let Err(spfs_repo::Error::Invalid { reason, .. }) = name.parse::<spfs_repo::TagName>() {
        return invalid(&reason);
    }
    match name {
        _ if name.contains('/') => invalid("it contains '/'"),
        _ if name.starts_with('.') => invalid("it begins with '.'"),
        _ if name.len() > 128 => invalid("it is longer than 128 bytes"),
        _ => Ok(()),
    }
}
