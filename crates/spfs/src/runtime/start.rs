//! Starting a runtime: from a stack, or from a saved durable one, to a process that is inside.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use spfs_mount::enter;
use spfs_mount::plan::{Plan, Strategy};
use spfs_mount::sys::process::exec_as_started;
use spfs_repo::{Digest, Progress};

use super::client::{self, VARIABLE};
use super::dir::{self, AliveLock, RuntimeDir};
use super::monitor::Monitor;
use super::record::{Author, Record, RecordConfig, Status, boot_text};
use super::{durable, registry, shown, warm};
use crate::Spfs;
use crate::error::{Error, Result};
use crate::lazy;
use crate::live::LiveBind;
use crate::shell::{self, ShellRequest};
use crate::views::CachedView;

/// What to start.
#[derive(Debug)]
pub struct StartRequest {
    /// What to show.
    pub origin: Origin,
    /// Whether changes are allowed; by default if the stack is empty, or as the saved runtime had it.
    pub editable: Option<bool>,
    /// The command as given, empty for an interactive shell; for the record.
    pub command: Vec<OsString>,
    /// The clock.
    pub now: Timestamp,
}

/// What a runtime is started from.
#[derive(Debug)]
pub enum Origin {
    /// A stack.
    Stack {
        /// Layers and platforms, bottom-most first.
        stack: Vec<Digest>,
        /// Live files and directories.
        live: Vec<LiveBind>,
        /// The runtime's name, instead of a UUID.
        name: Option<String>,
        /// Keep it and its changes when its processes have ended.
        durable: bool,
        /// The remotes from which files are fetched when they are first opened, if it is here only in part.
        lazy: Vec<String>,
    },
    /// A saved durable runtime.
    Saved {
        /// Its name.
        name: String,
        /// Even if it is marked as running on another host.
        force: bool,
    },
}

/// A runtime that is recorded and planned, and not mounted yet. Dropped, it leaves nothing behind.
pub struct Prepared {
    spfs: Spfs,
    record: Record,
    plan: Plan,
    alive: AliveLock,
    durable: Option<AliveLock>,
    undo: Undo,
    /// The view. Its file, where it could not be cached, lives only as long as its descriptor.
    cached: CachedView,
}

/// The calling process, inside its runtime.
pub struct Entered {
    name: String,
    dir: RuntimeDir,
    spfs: Spfs,
    /// What did not work as planned, and what was done instead.
    pub remarks: Vec<String>,
}

/// Removes what a start that fails has made.
struct Undo {
    dir: Option<RuntimeDir>,
    durable: Option<PathBuf>,
    in_use: Option<Arc<lazy::Use>>,
}

impl Undo {
    fn disarm(&mut self) -> Option<RuntimeDir> {
        self.durable = None;
        self.in_use = None;
        self.dir.take()
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        // A monitor that was started already finds nothing left to remove.
        if let Some(dir) = &self.dir {
            let _ = dir.remove();
        }
        if let Some(home) = &self.durable {
            let _ = dir::remove(home);
        }
        if let Some(in_use) = &self.in_use {
            in_use.end();
        }
    }
}

/// Makes the record and the plan of a runtime.
pub fn prepare(spfs: Spfs, request: StartRequest) -> Result<Prepared> {
    let mut undo = Undo { dir: None, durable: None, in_use: None };
    let (record, durable) = record(&spfs, &request, &mut undo)?;
    undo.in_use = lazy::hold(&spfs, &record)?.map(Arc::new);
    let cached = shown::merged(&spfs, &record.status.base, &record.config.live_layers)?;
    let mut plan = shown::plan(&spfs, &record, &cached)?;
    if !plan.fetch && plan.strategies.first().is_some_and(Strategy::can_be_shared) {
        plan.share = warm::place(&spfs, &record, &cached, &plan);
    }
    let dir = registry::live_dir(&spfs, &record.name)?;
    let alive = make_dir(&spfs, &dir, &record)?;
    undo.dir = Some(dir);
    durable::remember(&spfs, &record, request.now)?;
    Ok(Prepared { spfs, record, plan, alive, durable, undo, cached })
}

/// The view with its file, open: another process may clean the cache at any time.
fn hold(spfs: &Spfs, record: &Record, mut cached: CachedView) -> Result<(CachedView, File)> {
    for _ in 0..10 {
        match File::open(&cached.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                cached = shown::merged(spfs, &record.status.base, &record.config.live_layers)?;
            }
            opened => {
                let file = opened.map_err(Error::io("open", &cached.path))?;
                return Ok((cached, file));
            }
        }
    }
    Err(Error::io("keep", &cached.path)(io::Error::from(ErrorKind::NotFound)))
}

/// Makes the runtime's directory; a dead one of the same name gives way.
fn make_dir(spfs: &Spfs, dir: &RuntimeDir, record: &Record) -> Result<AliveLock> {
    match dir.create(record) {
        Err(Error::Runtime { .. }) if !dir.is_alive() => {
            registry::list(spfs)?;
            dir.create(record)
        }
        other => other,
    }
}

fn record(spfs: &Spfs, request: &StartRequest, undo: &mut Undo) -> Result<(Record, Option<AliveLock>)> {
    let (mut record, mut lock, keep) = match &request.origin {
        Origin::Saved { name, force } => {
            let (record, lock) = durable::take(spfs, name, *force)?;
            (record, Some(lock), false)
        }
        Origin::Stack { stack, live, name, durable, lazy } => {
            let mut record = new_record(spfs, request, stack, live, name)?;
            record.config.lazy.clone_from(lazy);
            (record, None, *durable)
        }
    };
    record.status.running = true;
    record.status.owner = i32::try_from(std::process::id()).ok();
    record.status.command = request.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if record.status.command.is_empty() {
        record.status.command.push(String::new());
    }
    record.config.host.clone_from(&spfs.env.hostname);
    record.config.boot_id = boot_text(&spfs.env.boot()?);
    record.config.mark = Some(Record::new_mark());
    if let Some(editable) = request.editable {
        record.status.editable = editable;
    }
    if keep {
        lock = Some(durable::create(spfs, &mut record)?);
        undo.durable = record.config.durable_dir.clone();
    }
    Ok((record, lock))
}

fn new_record(
    spfs: &Spfs,
    request: &StartRequest,
    stack: &[Digest],
    live: &[LiveBind],
    name: &Option<String>,
) -> Result<Record> {
    let name = match name {
        Some(name) => {
            registry::check_name(name)?;
            name.clone()
        }
        None => spfs_repo::unique().to_string(),
    };
    let top_down: Vec<Digest> = stack.iter().rev().copied().collect();
    Ok(Record {
        name,
        author: Author::new(&crate::user::name(&spfs.env), &spfs.env.hostname, request.now),
        status: Status {
            stack: top_down.clone(),
            base: top_down,
            editable: stack.is_empty() && live.is_empty(),
            ..Status::default()
        },
        config: RecordConfig {
            tmpfs_size: spfs.config.filesystem.tmpfs_size.clone(),
            uid: spfs.env.uid,
            repository: spfs.local.root().to_owned(),
            live_layers: live.to_vec(),
            ..RecordConfig::default()
        },
    })
}

impl Prepared {
    /// The runtime's name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// What will be mounted.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Moves the calling process, which must have no other thread, into the runtime. `progress` hears of the files that
    /// are written if the environment is shown by a render that is not there yet.
    pub fn enter(self, progress: &dyn Progress) -> Result<Entered> {
        let Prepared { spfs, record, mut plan, alive, durable, mut undo, cached } = self;
        let (cached, view) = hold(&spfs, &record, cached)?;
        plan.view = format!("/proc/self/fd/{}", view.as_raw_fd()).into();
        let dir = registry::live_dir(&spfs, &record.name)?;
        let network = if plan.fetch { lazy::network_descriptors() } else { Vec::new() };
        let listener = client::listen(&dir)?;
        let (env, config) = (spfs.env.clone(), spfs.config.clone());
        let monitor = Monitor {
            dir: dir.clone(),
            alive,
            durable,
            listener,
            share: plan.share.clone(),
            payloads: plan.payloads.clone(),
            lazy: record.config.lazy.clone(),
            in_use: undo.in_use.clone(),
            network,
            env,
            config,
        };
        let descriptors = monitor.descriptors();
        let entered =
            enter::enter(&plan, &shown::tree(&spfs, &cached, progress), &descriptors, |links| monitor.run(links))?;
        undo.disarm();
        Ok(Entered { name: record.name, dir, spfs, remarks: entered.remarks })
    }
}

impl Entered {
    /// The runtime's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Becomes the command. Returns only if that fails.
    pub fn exec(self, command: &[OsString]) -> Error {
        exec(&self.spfs, &self.name, &self.dir, command)
    }
}

/// Becomes `command`, or an interactive shell if it is empty, with the start-up files of /spfs.
pub fn exec(spfs: &Spfs, name: &str, dir: &RuntimeDir, command: &[OsString]) -> Error {
    let request = ShellRequest { env: &spfs.env, runtime: name, command, scratch: &dir.path };
    let planned = shell::plan(&request, Path::new(shell::STARTUP_DIR));
    let plan = match planned.and_then(|plan| plan.write_files().map(|()| plan)) {
        Ok(plan) => plan,
        Err(error) => return error,
    };
    let mut process = Command::new(&plan.program);
    process.args(&plan.arguments).env(VARIABLE, name);
    for (key, value) in &plan.environment {
        match value {
            Some(value) => process.env(key, value),
            None => process.env_remove(key),
        };
    }
    Error::Exec { program: plan.program.clone().into(), source: exec_as_started(&mut process) }
}
