//! `spfs push`, and what it has in common with `spfs pull`.

use std::io::Write;
use std::process::ExitCode;

use spfs::repo::Repository;
use spfs::repo::reference::Reference;
use spfs::sync::{self, Plan, Policy, Wanted};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::{Failure, Result, warn};
use crate::format;
use crate::progress::Bar;
use crate::shared::Json;
use crate::transfer::Transfer;

/// Send layers, platforms and tags to a remote, with all that they need
///
/// What the remote has already is not sent again. Tags go last, so that nobody ever sees one that leads nowhere.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs push my-platform
  spfs push -r file:/net/spfs my-layer my-platform")]
pub struct Args {
    /// What to send: tags or digests, or several joined by `+`
    #[arg(required = true, value_name = "REF", add = complete::env_spec())]
    references: Vec<String>,
    /// Where to: a configured remote, an address, or a path with a `/`; by default `origin`
    #[arg(short, long, value_name = "NAME_OR_ADDRESS")]
    remote: Option<String>,
    /// Where from, instead of the local repository
    #[arg(long, value_name = "NAME_OR_ADDRESS")]
    from: Option<String>,
    /// The same as --remote
    #[arg(long, value_name = "NAME_OR_ADDRESS", conflicts_with = "remote")]
    to: Option<String>,
    #[command(flatten)]
    how: How,
}

// How things are moved, and what is printed of it.
#[derive(clap::Args)]
pub struct How {
    #[command(flatten)]
    transfer: Transfer,
    /// Only show what would be moved
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    json: Json,
}

impl How {
    /// Moves `wanted` and says what was done.
    pub fn go(
        &self,
        context: &Context,
        (source, destination): (&dyn Repository, &dyn Repository),
        wanted: &[Wanted],
        least: Policy,
    ) -> Result<ExitCode> {
        let options = self.transfer.options(least);
        let bar = |what| Bar::new(what, self.transfer.progress);
        let plan = sync::plan(source, destination, wanted, &options, &bar("looking"))?;
        if !self.dry_run {
            sync::apply(source, destination, &plan, &options, &bar("moving"))?;
        }
        for tag in plan.tags.iter().filter(|tag| tag.behind) {
            let (name, address) = (&tag.tag, destination.address());
            warn(&format!(
                "{address} has a younger version of {name}, which goes on meaning that; see `spfs log {name}`"
            ));
        }
        for name in &plan.tags_skipped {
            context.detail(format!("the tag {name} stays as it is in {}", destination.address()));
        }
        let mut out = context.out();
        match self.json.json {
            true => out.json(&plan)?,
            false => writeln!(out, "{}", summary(&plan, if self.dry_run { "would sync" } else { "synced" }))?,
        }
        out.finish()
    }
}

/// The text of existing SPFS.
fn summary(plan: &Plan, word: &str) -> String {
    let size = format::human(plan.bytes);
    format!(
        "{word}:\n\t{} tags ({} skipped)\n\t{} objects ({} skipped)\n\t{} payloads ({} skipped) ({size})",
        plan.tags.len(),
        plan.tags_skipped.len(),
        plan.objects,
        plan.objects_skipped,
        plan.payloads,
        plan.payloads_skipped,
    )
}

/// The references in what was typed, `+` taken apart. A file names nothing that could be moved.
pub fn references(words: &[String]) -> Result<Vec<Reference>> {
    let mut all = Vec::new();
    for word in words {
        for item in word.parse::<spfs::EnvSpec>()?.items {
            if matches!(item, Reference::Path(_)) {
                return Err(Failure::new(format!("{item} is a file of this machine, not something in a repository")));
            }
            all.push(item);
        }
    }
    Ok(all)
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let to = self.to.as_deref().or(self.remote.as_deref()).unwrap_or("origin");
        let source = spfs::remotes::open(spfs, self.from.as_deref())?;
        let destination = spfs::remotes::open(spfs, Some(to))?;
        let wanted = references(&self.references)?
            .iter()
            .map(|reference| Ok(sync::want(&*source, reference)?))
            .collect::<Result<Vec<Wanted>>>()?;
        self.how.go(context, (&*source, &*destination), &wanted, Policy::LatestTags)
    }
}
