//! `spfs clean`.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use spfs::cache::{self, CachePlan};
use spfs::clean::{self, Plan, Unneeded};
use spfs::render::{self, Unused};
use spfs::repo::{Digest, Directory};
use spfs::{Spfs, doctor, lazy, runtime};

use super::Run;
use crate::context::Context;
use crate::errors::{Result, warn};
use crate::format;
use crate::output::Output;
use crate::repository::{self, Choice};
use crate::shared::Json;

/// Remove what is left of dead runtimes, what no runtime uses any more, and caches over their limit
///
/// Renders that no runtime uses are written again when they are needed; what is known of lazy environments is fetched again. With --dry-run it only looks, and shows also which objects and payloads of the store neither a tag nor a runtime
/// needs, and how big they are. This version does not remove those.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs clean --dry-run
  spfs clean")]
pub struct Args {
    /// Only show what could be removed
    #[arg(long)]
    dry_run: bool,
    /// Ask no questions
    #[arg(short, long, hide = true)]
    yes: bool,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    caches: &'a CachePlan,
    renders: &'a Unused,
    partial: &'a lazy::Unused,
}

#[derive(Serialize)]
struct Done<'a> {
    caches: &'a CachePlan,
    freed: u64,
    renders: &'a Unused,
    partial: &'a lazy::Unused,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let repository = repository::directory(&*repository, "cleaning")?;
        let caches = cache::plan(spfs, spfs.env.now())?;
        let mut out = context.out();
        // Looking at the runtimes removes the records of those that have died.
        let mut roots = used_by_runtimes(spfs)?;
        roots.extend(spfs::tracking::roots(repository));
        roots.extend(lazy::roots(spfs, repository)?);
        super::runtime::warn_of_damaged(spfs)?;
        if self.dry_run {
            let plan = clean::plan(repository, &roots, &context.bar("looking"))?;
            let renders = renders(spfs, repository, false)?;
            let partial = lazy::clean(spfs, repository, false)?;
            if self.json.json {
                out.json(&Shown { plan: &plan, caches: &caches, renders: &renders, partial: &partial })?;
            } else {
                show(&mut out, &plan, &caches)?;
                writeln!(out, "{}", unused(&renders, "that nothing uses"))?;
                writeln!(out, "{}", in_part(&partial, "that nothing uses"))?;
            }
            return out.finish();
        }
        runtime::give_up(spfs);
        runtime::remove_left_changes(spfs)?;
        doctor::sweep(spfs);
        let renders = renders(spfs, repository, true)?;
        let partial = lazy::clean(spfs, repository, true)?;
        if partial.busy {
            warn(
                "what is here in part is left alone: a lazy environment is being started, or files there cannot be locked",
            );
        }
        let freed = cache::apply(&caches);
        if self.json.json {
            out.json(&Done { caches: &caches, freed, renders: &renders, partial: &partial })?;
        } else {
            writeln!(out, "{}", unused(&renders, "removed"))?;
            writeln!(out, "{}", in_part(&partial, "removed"))?;
            let (removed, kept) = (format::human(freed), format::human(caches.bytes.saturating_sub(freed)));
            writeln!(out, "caches: {removed} removed, {kept} kept")?;
        }
        context.remark("objects and payloads are not removed by this version; `spfs clean --dry-run` shows them");
        out.finish()
    }
}

/// The renders that no runtime uses. A monitor says that they are in use: without one nothing is known.
fn renders(spfs: &Spfs, repository: &Directory, really: bool) -> Result<Unused> {
    if runtime::list(spfs)?.iter().any(|found| found.state == runtime::State::Unmonitored) {
        warn("renders are left alone: there are runtimes whose monitors were killed (`spfs runtime list`)");
        return Ok(Unused::default());
    }
    Ok(render::clean(repository, &spfs::user::name(&spfs.env), spfs.env.now(), really)?)
}

fn unused(found: &Unused, what: &str) -> String {
    let Unused { renders, copies, bytes } = found;
    format!("renders: {renders} and {copies} files kept for them {what}, {}", format::human(*bytes))
}

fn in_part(found: &lazy::Unused, what: &str) -> String {
    let lazy::Unused { objects, bytes, kept, .. } = found;
    format!("lazy environments: {objects} objects {what}, {}; {kept} kept", format::human(*bytes))
}

/// What the stacks of all runtimes are made of.
fn used_by_runtimes(spfs: &Spfs) -> Result<Vec<Digest>> {
    let statuses = runtime::list(spfs)?.into_iter().map(|found| found.record.status);
    Ok(statuses.flat_map(|status| [status.stack, status.base, status.committed].concat()).collect())
}

fn show(out: &mut Output, plan: &Plan, caches: &CachePlan) -> Result<()> {
    for piece in &plan.unreadable {
        warn(&format!("{} cannot be read, so what it needs is not known: {}", piece.what, piece.reason));
    }
    writeln!(out, "{:>12} tags and runtimes followed", plan.roots)?;
    line(out, "objects", &plan.objects)?;
    line(out, "payloads", &plan.payloads)?;
    let freed = format::human(caches.freed());
    writeln!(out, "{:>12} of caches       [{freed:>10} to remove]", format::human(caches.bytes))?;
    if !plan.payloads.largest.is_empty() {
        writeln!(out, "The biggest payloads that nothing needs:")?;
        for piece in &plan.payloads.largest {
            writeln!(out, "{:>12} {}", format::human(piece.bytes), piece.digest)?;
        }
    }
    Ok(())
}

fn line(out: &mut Output, what: &str, found: &Unneeded) -> Result<()> {
    let (visited, count, size) = (found.visited, found.count, format::human(found.bytes));
    writeln!(out, "{visited:>12} {what:<8} visited [{count:>6} that nothing needs, {size}]")?;
    Ok(())
}
