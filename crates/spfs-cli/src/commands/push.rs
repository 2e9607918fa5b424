//! `spfs push`, and what it has in common with `spfs pull`.

use std::io::Write;
use std::process::ExitCode;

use spfs::repo::Repository;
use spfs::repo::reference::Reference;
use spfs::sync::{self, Options, Plan, Policy, Wanted};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::{Failure, Result, warn};
use crate::format;
use crate::shared::Json;

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
    /// Where to: a configured remote, file:PATH, or a path with a `/`; by default `origin`
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

// How things are moved.
#[derive(clap::Args)]
pub struct How {
    /// Bring tags up to date that are there already
    #[arg(long, alias = "pull")]
    sync: bool,
    /// Look at everything below what is there already too, and fill in what is missing
    #[arg(long)]
    check: bool,
    /// Read and compare what is there already too, and replace what is damaged
    #[arg(long)]
    resync: bool,
    /// Only show what would be moved
    #[arg(long)]
    dry_run: bool,
    /// How many files to move at the same time
    #[arg(long, value_name = "N", env = "SPFS_SYNC_MAX_CONCURRENT_PAYLOADS", hide_env_values = true)]
    max_concurrent_payloads: Option<usize>,
    // Manifests are read with the same threads.
    #[arg(long, hide = true, value_name = "N")]
    max_concurrent_manifests: Option<usize>,
    #[command(flatten)]
    json: Json,
}

impl How {
    /// The options of the engine, of which the policy is at least `least`.
    fn options(&self, least: Policy) -> Options {
        let policy = match (self.resync, self.check, self.sync) {
            (true, ..) => Policy::Resync,
            (_, true, _) => Policy::Check,
            (.., true) => Policy::LatestTags,
            _ => Policy::MissingOnly,
        };
        let threads = self.max_concurrent_payloads.map_or(0, |count| count.clamp(1, 64));
        Options { policy: policy.max(least), threads }
    }

    /// Moves `wanted` and says what was done.
    pub fn go(
        &self,
        context: &Context,
        (source, destination): (&dyn Repository, &dyn Repository),
        wanted: &[Wanted],
        least: Policy,
    ) -> Result<ExitCode> {
        let options = self.options(least);
        let plan = sync::plan(source, destination, wanted, &options, &context.bar("looking"))?;
        if !self.dry_run {
            sync::apply(source, destination, &plan, &options, &context.bar("moving"))?;
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
