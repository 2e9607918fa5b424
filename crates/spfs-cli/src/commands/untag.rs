//! `spfs untag`.

use std::io::Write;
use std::process::ExitCode;

use spfs::repo::TagSpec;
use spfs::tags::{self, Untag};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::{Failure, Result, USAGE};
use crate::repository::Choice;
use crate::shared::{Json, Quiet};

/// Remove a tag, or one version of it
///
/// What it pointed to stays in the repository.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs untag my-layer~1         # forget what it meant before
  spfs untag my-layer --latest  # go back to what it meant before
  spfs untag my-layer --all     # forget the name")]
pub struct Args {
    /// The tag, with ~N for one version of it
    #[arg(add = complete::reference())]
    tag: String,
    /// Remove only the newest version
    #[arg(long, conflicts_with = "all")]
    latest: bool,
    /// Remove every version
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    quiet: Quiet,
    #[command(flatten)]
    json: Json,
}

impl Args {
    fn what(&self, spec: &TagSpec) -> Result<Untag> {
        match (self.all, self.latest, self.tag.contains('~')) {
            (true, _, false) => Ok(Untag::All),
            (false, true, false) => Ok(Untag::Version(0)),
            (false, false, true) => Ok(Untag::Version(spec.version)),
            (_, _, true) => {
                Err(Failure::new("a version and --all or --latest were given; they exclude each other").code(USAGE))
            }
            (false, false, false) => Err(Failure::new(format!("which versions of {spec} should be removed?"))
                .hint(format!("add --latest, or --all, or name one version: {spec}~1"))),
        }
    }
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spec: TagSpec = self.tag.parse()?;
        let what = self.what(&spec)?;
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let removed = tags::untag(&*repository, &spec.name, what)?;
        let mut out = context.out();
        if self.json.json {
            out.json(&removed)?;
        } else if self.quiet.quiet {
            for version in &removed {
                writeln!(out, "{}", version.target)?;
            }
        } else {
            writeln!(out, "removed tag={spec}")?;
        }
        out.finish()
    }
}
