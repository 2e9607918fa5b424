//! `spfs tags`.

use std::io::Write;
use std::process::ExitCode;

use spfs::names::Names;
use spfs::tags;

use super::Run;
use crate::context::Context;
use crate::errors::Result;
use crate::repository::Choice;
use crate::shared::Json;

/// List all tags
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs tags --target --short")]
pub struct Args {
    /// Show also what each points to
    #[arg(long)]
    target: bool,
    /// With --target: show short digests
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let (tags, damaged) = tags::tags(&*repository)?;
        let mut out = context.out();
        if self.json.json {
            out.json(&tags)?;
        } else if self.target {
            let names = if self.short { Some(Names::load(&*repository)?) } else { None };
            for pointer in &tags {
                let target = match &names {
                    Some(names) => names.short(&pointer.target)?,
                    None => pointer.target.to_string(),
                };
                writeln!(out, "{} -> {target}", pointer.tag)?;
            }
        } else {
            for pointer in &tags {
                writeln!(out, "{}", pointer.tag)?;
            }
        }
        let ended = out.finish()?;
        // What could be read has been shown; the first failure tells the rest.
        damaged.into_iter().next().map_or(Ok(ended), |error| Err(error.into()))
    }
}
