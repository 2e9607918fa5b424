//! `spfs check`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use spfs::check::{self, Belongs, Count, Options, Piece, Problem, Report};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::Result;
use crate::output::Output;
use crate::repository::Choice;
use crate::shared::Json;

/// Check that everything in the store is there and unaltered
///
/// Reads every object and every payload, and says of each that is missing or damaged what it belongs to.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs check
  spfs check --fast my-platform")]
pub struct Args {
    /// Check only these and what they refer to; without any: everything, the tags too
    #[arg(value_name = "REF", add = complete::env_spec())]
    references: Vec<String>,
    /// Test only that things exist, without reading files
    #[arg(long)]
    fast: bool,
    /// How many things to read at the same time; by default as many as there are processors
    #[arg(long, value_name = "N")]
    max_object_concurrency: Option<usize>,
    // Tags are read one after the other, which is within any limit.
    #[arg(long, hide = true, value_name = "N")]
    max_tag_stream_concurrency: Option<usize>,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let started = Instant::now();
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let only = match self.references.is_empty() {
            true => None,
            false => {
                let mut digests = Vec::new();
                for reference in &self.references {
                    digests.extend(self.repository.stack(spfs, &*repository, reference)?);
                }
                Some(digests)
            }
        };
        let threads = match self.max_object_concurrency {
            Some(limit) => limit.clamp(1, std::thread::available_parallelism().map_or(1, usize::from)),
            None => 0,
        };
        let options = Options { only, fast: self.fast, threads };
        let report = check::check(&*repository, &options, &context.bar("checking"))?;
        let mut out = context.out();
        if self.json.json {
            out.json(&report)?;
        } else {
            for problem in &report.problems {
                print(&mut out, problem)?;
            }
            let taken = started.elapsed();
            match taken.as_secs() {
                0..10 => writeln!(out, "Finished after {}ms:", taken.as_millis())?,
                seconds => writeln!(out, "Finished after {seconds}s:")?,
            }
            summary(&mut out, &report)?;
        }
        out.finish()?;
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// One problem: what, what it belongs to, and what is wrong.
fn print(out: &mut Output, problem: &Problem) -> Result<()> {
    let word = if problem.missing { "Missing" } else { "Damaged" };
    match &problem.piece {
        Piece::Tag(name) => writeln!(out, "{word}: tag {name}")?,
        Piece::Object(digest) => writeln!(out, "{word}: {digest} (object)")?,
        Piece::Payload(digest) => writeln!(out, "{word}: {digest} (payload)")?,
    }
    if !problem.missing {
        let reason = out.name(&problem.reason).into_owned();
        writeln!(out, "  {reason}")?;
    }
    let owners: Vec<String> = problem.belongs_to.iter().map(|owner| owned_by(out, owner)).collect();
    if !owners.is_empty() {
        writeln!(out, "  belongs to {}", owners.join(" in "))?;
    }
    Ok(())
}

fn owned_by(out: &Output, owner: &Belongs) -> String {
    match owner {
        Belongs::Path(path) => format!("/spfs/{}", out.name(path)),
        Belongs::Object(kind, digest) => format!("{kind} {}", digest.short(8)),
        Belongs::Tag(tag) => format!("tag {tag}"),
    }
}

fn summary(out: &mut Output, report: &Report) -> Result<()> {
    let state = |count: &Count, repaired: &str| {
        let damaged = if count.damaged > 0 { format!(", {} damaged", count.damaged) } else { String::new() };
        format!("({} missing{repaired}{damaged})", count.missing)
    };
    let (tags, objects, payloads) = (&report.tags, &report.objects, &report.payloads);
    writeln!(out, "{:>12} tags visited     {}", tags.visited, state(tags, ""))?;
    writeln!(out, "{:>12} objects visited  {}", objects.visited, state(objects, ", 0 repaired"))?;
    writeln!(out, "{:>12} payloads visited {}", payloads.visited, state(payloads, ", 0 repaired"))?;
    writeln!(out, "{:>12} total payload footprint", format!("{} bytes", report.bytes))?;
    match report.problems.len() {
        0 => writeln!(out, "No issues found")?,
        1 => writeln!(out, "1 issue found")?,
        number => writeln!(out, "{number} issues found")?,
    }
    Ok(())
}
