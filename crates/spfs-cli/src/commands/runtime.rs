//! `spfs runtime`: the runtimes of this user on this machine.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use spfs::runtime::{self, BadPayload, Found, Removal, State};
use spfs::{annotation, lazy};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::{Failure, Result, USAGE, warn};
use crate::shared::Json;

/// List, show and remove runtimes
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs runtime list
  spfs runtime info work
  spfs runtime rm --remove-durable work")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Info(InfoArgs),
    #[command(visible_alias = "ls")]
    List(ListArgs),
    Prune(PruneArgs),
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
}

/// Show the record of a runtime, as JSON
///
/// Payloads in the repository that are missing, unreadable or of the wrong size are named too: programs inside get errors
/// for those files, and only for those.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs runtime info               # the one you are in
  spfs runtime info work --get owner")]
struct InfoArgs {
    /// The runtime; the one that you are in by default
    #[arg(env = "SPFS_RUNTIME", hide_env_values = true, add = complete::runtime())]
    name: String,
    /// Show only the value of this annotation; may be repeated
    #[arg(long, value_name = "KEY", alias = "annotation")]
    get: Vec<String>,
    /// Show all annotations, as JSON
    #[arg(long, alias = "all-annotations", conflicts_with = "get")]
    get_all: bool,
    // It is JSON anyway; scripts that give `--json` to every command need not know.
    #[arg(long, hide = true, conflicts_with = "get")]
    json: bool,
}

/// List the runtimes that run, and those that are kept
///
/// One line each: its name, whether it runs, the pid of its command, whether it is editable and durable, and a word:
/// running, unmonitored (its monitor was killed: no edit, commit or reset) or saved (`spfs shell --rerun NAME`).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs runtime list
  spfs runtime list -q            # names alone")]
struct ListArgs {
    /// Print only the names
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    #[command(flatten)]
    json: Json,
}

/// Remove the records of runtimes that have ended without their monitor's knowing
///
/// Every command that lists runtimes does the same; durable runtimes and those that run stay.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs runtime prune --from-before-boot")]
struct PruneArgs {
    /// Those that nothing lives of since the machine was started, or earlier
    #[arg(long)]
    from_before_boot: bool,
    #[command(flatten)]
    ignore: Ignore,
}

/// Remove runtimes
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs runtime rm --remove-durable work
  spfs runtime rm --force 3b7a4f04-8ec4-4a0a-9f52-5bd9e8b8ae4e")]
struct RemoveArgs {
    /// The runtimes
    #[arg(required = true, value_name = "NAME", add = complete::runtime())]
    names: Vec<String>,
    /// Also if they run: end their processes
    #[arg(short, long)]
    force: bool,
    /// Also if they are durable: their changes are lost
    #[arg(long)]
    remove_durable: bool,
    #[command(flatten)]
    ignore: Ignore,
}

// What existing SPFS refuses unless told not to. Runtimes of other users and hosts are never seen here in the first
// place, and no living monitor is ever passed over, so these permit what nothing forbids.
#[derive(clap::Args)]
struct Ignore {
    #[arg(long, hide = true)]
    ignore_user: bool,
    #[arg(long, hide = true)]
    ignore_host: bool,
    #[arg(long, hide = true)]
    ignore_monitor: bool,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        match self.what {
            What::Info(args) => args.run(context),
            What::List(args) => args.run(context),
            What::Prune(args) => args.run(context),
            What::Remove(args) => args.run(context),
        }
    }
}

impl Run for InfoArgs {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let found = runtime::find(spfs, &self.name)?;
        let record = found.record;
        let mut out = context.out();
        if !self.get_all && self.get.is_empty() {
            let damaged = warn_of_payloads(spfs, &record);
            let here = if record.config.lazy.is_empty() { None } else { Some(lazy::here(spfs, &record)?) };
            if here.is_some() {
                lazy::last_trouble(&found.dir.path).iter().for_each(|line| warn(line));
            }
            out.json(&Shown { record: &record, here, damaged })?;
            return out.finish();
        }
        let bottom_first: Vec<_> = record.status.stack.iter().rev().copied().collect();
        let annotations = annotation::get_all(&*spfs.shown()?, &bottom_first)?;
        if self.get_all {
            out.json(&annotations)?;
        }
        for key in &self.get {
            match annotations.get(key) {
                Some(value) => writeln!(out, "{value}")?,
                None => {
                    warn(&format!("no annotation {key:?}"));
                    writeln!(out)?;
                }
            }
        }
        out.finish()
    }
}

/// A record with what is wrong behind it.
#[derive(serde::Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    record: &'a runtime::Record,
    /// How much of a lazy one is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<lazy::Here>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<BadPayload>,
}

/// How many damaged files are named one by one; the JSON names all.
const NAMED: usize = 5;

/// Says which files of a runtime cannot be read as they should.
fn warn_of_payloads(spfs: &spfs::Spfs, record: &runtime::Record) -> Vec<BadPayload> {
    let damaged = match runtime::bad_payloads(spfs, record) {
        Ok(damaged) => damaged,
        Err(error) => {
            warn(&format!("the payloads behind it could not be looked at: {error}"));
            return Vec::new();
        }
    };
    for bad in damaged.iter().take(NAMED) {
        warn(&format!("/spfs/{} is damaged: its payload {}: {}", bad.path, bad.digest, bad.reason));
    }
    if damaged.len() > NAMED {
        warn(&format!("and {} more files", damaged.len() - NAMED));
    }
    damaged
}

impl Run for ListArgs {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let all = runtime::list(spfs)?;
        warn_of_damaged(spfs)?;
        let mut out = context.out();
        if self.json.json {
            let all: Vec<_> =
                all.iter().map(|found| Listed { status: found.state.word(), record: &found.record }).collect();
            out.json(&all)?;
            return out.finish();
        }
        for found in &all {
            match self.quiet {
                true => writeln!(out, "{}", found.record.name)?,
                false => writeln!(out, "{}", line(found))?,
            }
        }
        out.finish()
    }
}

/// Says which durable runtimes are missing from a list of all.
pub fn warn_of_damaged(spfs: &spfs::Spfs) -> Result<()> {
    runtime::damaged(spfs)?.into_iter().for_each(|(name, error)| warn(&format!("runtime {name} is left out: {error}")));
    Ok(())
}

#[derive(serde::Serialize)]
struct Listed<'a> {
    status: &'static str,
    record: &'a runtime::Record,
}

/// As existing SPFS prints it.
fn line(found: &Found) -> String {
    let status = &found.record.status;
    let running = matches!(found.state, State::Running | State::Unmonitored);
    let pid = status.owner.map(|pid| pid.to_string()).unwrap_or_default();
    format!(
        "{:<37}\trunning={running}\tpid={pid}\teditable={}\tdurable={}\tstatus={}",
        found.record.name,
        status.editable,
        found.record.config.durable,
        found.state.word()
    )
}

impl Run for PruneArgs {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let Ignore { .. } = self.ignore;
        if !self.from_before_boot {
            return Err(Failure::new("no pruning strategy selected").hint("spfs runtime prune --from-before-boot"));
        }
        runtime::list(context.spfs()?)?;
        runtime::give_up(context.spfs()?);
        Ok(ExitCode::SUCCESS)
    }
}

impl Run for RemoveArgs {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let removal = Removal { force: self.force, durable: self.remove_durable };
        for name in &self.names {
            let durable = match runtime::find(spfs, name) {
                Ok(found) => found.record.config.durable,
                // One that cannot be read can be removed all the same.
                Err(spfs::Error::SpecFile { .. }) if self.remove_durable => true,
                Err(error) => return Err(error.into()),
            };
            match runtime::remove(spfs, name, removal) {
                Ok(()) => context.remark(format_args!("removed runtime {name}")),
                Err(error) if durable && !self.remove_durable => {
                    return Err(Failure::from(error).hint("--remove-durable removes it with its changes").code(USAGE));
                }
                Err(error) if !self.force => {
                    return Err(Failure::from(error).hint("--force ends its processes first"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
