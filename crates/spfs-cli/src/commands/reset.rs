//! `spfs reset`.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use spfs::repo::{Digest, NoProgress};
use spfs::resolve::{Fetch, resolve_with};
use spfs::runtime::{self, Found, Reply, Request, ResetRequest};
use spfs::sync::Policy;
use spfs::{EnvSpec, Spfs};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::{Failure, Result, USAGE, warn};
use crate::progress::Bar;
use crate::transfer::Transfer;

/// Throw away active changes, or change what the environment is made of
///
/// Without PATHS all changes that are not committed are thrown away; with PATHS those that match. With --ref the
/// environment is made of something else, and the changes are thrown away too, unless --keep-changes is given.
///
/// /spfs is mounted afresh: programs that have files or their working directory in the old one keep it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs reset
  spfs reset '*.o' /spfs/build/
  spfs reset --ref base+my-layer --edit")]
pub struct Args {
    /// Changes to throw away: patterns as in .gitignore, a leading /spfs is understood
    #[arg(value_name = "PATHS", conflicts_with_all = ["reference", "keep_changes"])]
    paths: Vec<String>,
    /// What the environment is to be made of: references joined by `+`, `-` for nothing
    #[arg(short, long = "ref", value_name = "REF", add = complete::env_spec())]
    reference: Option<String>,
    /// Allow changes afterwards
    #[arg(short, long)]
    edit: bool,
    /// With --ref: keep the active changes, on top of the new environment
    #[arg(long, requires = "reference")]
    keep_changes: bool,
    /// Do not ask whether changes may be thrown away
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    transfer: Transfer,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let found = runtime::active(spfs)?;
        let stack =
            self.reference.as_deref().map(|reference| stack(context, spfs, reference, &self.transfer)).transpose()?;
        if stack.is_some() && !self.keep_changes && !self.yes {
            confirm(&found)?;
        }
        // An empty environment is there to be filled.
        let empty = stack.as_ref().is_some_and(Vec::is_empty);
        let editable = (self.edit || empty).then_some(true);
        let request = ResetRequest { stack, patterns: self.paths, keep_changes: self.keep_changes, editable };
        let reply = runtime::ask(&found.dir, &Request::Reset(request), &context.bar("resetting"))?;
        if let Reply::Replaced(remarks) = reply {
            for remark in remarks {
                context.remark(remark);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What `reference` means; what is not here comes from the remotes.
fn stack(context: &Context, spfs: &Spfs, reference: &str, transfer: &Transfer) -> Result<Vec<Digest>> {
    let bar = Bar::new("pulling", transfer.progress);
    let fetch = Fetch { from: None, options: transfer.options(Policy::MissingOnly), lazy: false, progress: &bar };
    let stack = resolve_with(spfs, &reference.parse::<EnvSpec>()?, Some(&fetch))?;
    drop(bar);
    stack.remarks.iter().for_each(|remark| context.remark(remark));
    for warning in &stack.warnings {
        warn(&warning.to_string());
    }
    if !stack.live.is_empty() {
        return Err(Failure::new("cannot reset to a live layer: its files are mounted only at the start of a runtime")
            .hint(format!("leave this environment, then: spfs shell {reference}")));
    }
    Ok(stack.digests)
}

/// Asks, if there is somebody to ask, whether the active changes may go.
fn confirm(found: &Found) -> Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    let Reply::Changes(changes) = runtime::ask(&found.dir, &Request::Changes, &NoProgress)? else { return Ok(()) };
    if changes.is_empty() {
        return Ok(());
    }
    let mut stderr = anstream::stderr();
    let count =
        if changes.len() == 1 { "1 active change".to_owned() } else { format!("{} active changes", changes.len()) };
    write!(stderr, "{count} will be lost. Go on? (y/N) ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::new("nothing was reset").hint("--keep-changes keeps them, --yes does not ask").code(USAGE))
}
